// Package greet has the messages and the service of the programs connect and
// grpc. Everything but this file is generated from greet.proto by buf 1.75.0 with
// protoc-gen-go 1.36.12, protoc-gen-go-grpc 1.6.2 and protoc-gen-connect-go 2.0.2.
package greet

//go:generate buf generate
