// Package openapi has a test that docs/openapi.yaml describes the endpoints as they are.
//
// The test sends requests to real servers, so that every endpoint gives each of its
// responses, and compares each response with the document. It fails if a response is not
// in the document, or if the document has one that no server gave. Another test validates
// each example in the document against its schema. With AUTH_OPENAPI=1, a third one
// generates a client from the document with oapi-codegen, and uses it:
//
//	AUTH_OPENAPI=1 go test -run TestGeneratedClient -v ./examples/internal/openapi
package openapi
