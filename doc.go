// Package auth
package auth
