// Command mcp serves an MCP server whose users sign in:
//
//	go run ./mcp
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	mcpauth "github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/oauth"
	"github.com/ratchet-go/auth/password"
)

// metadataPath is the path of the metadata of the resource /mcp (RFC 9728 section 3.1).
const metadataPath = "/.well-known/oauth-protected-resource/mcp"

// routes returns the handler of the application at an address such as
// https://example.com, which is the issuer of a.
func routes(a *auth.Authenticator, base string) (http.Handler, error) {
	server, err := oauth.Handler(a, oauth.Config{URL: base + "/oauth"})
	if err != nil {
		return nil, err
	}
	resource, err := oauth.ResourceHandler(a.Verifier, oauth.Resource{
		URL: base + "/mcp", AuthorizationServers: []string{a.Issuer()}, Scopes: []string{"tools"},
	})
	if err != nil {
		return nil, err
	}
	protect := mcpauth.RequireBearerToken(verifier(a.Verifier), &mcpauth.RequireBearerTokenOptions{
		ResourceMetadataURL: base + metadataPath, Scopes: []string{"tools"},
	})
	tools := newTools()
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("/oauth/", http.StripPrefix("/oauth", server))
	mux.Handle("/.well-known/oauth-authorization-server", server)
	mux.Handle(metadataPath, resource)
	mux.Handle("/mcp", protect(endWithSession(a.Verifier, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, nil))))
	return mux, nil
}

// verifier returns a TokenVerifier of the SDK. An error that is not ErrInvalidToken,
// such as an outage, is status 500, so that no client drops its tokens.
func verifier(v *auth.Verifier) mcpauth.TokenVerifier {
	return func(ctx context.Context, token string, _ *http.Request) (*mcpauth.TokenInfo, error) {
		claims, err := v.Verify(ctx, token)
		if err != nil {
			response := auth.ResponseFor(err) // its description may be sent to the client
			if response.Status == http.StatusUnauthorized {
				return nil, fmt.Errorf("%w: %s", mcpauth.ErrInvalidToken, response.Description)
			}
			return nil, fmt.Errorf("%s: %s", response.Code, response.Description)
		}
		return &mcpauth.TokenInfo{
			Scopes: claims.Scopes, Expiration: claims.ExpiresAt, UserID: claims.Subject, Extra: map[string]any{"claims": claims},
		}, nil
	}
}

// endWithSession ends the streams of next when the session of their user ends.
func endWithSession(v *auth.Verifier, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := mcpauth.TokenInfoFromContext(r.Context()).Extra["claims"].(*auth.Claims)
		ctx, cancel := v.SessionContext(r.Context(), claims)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func newTools() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "mcp", Version: "1.0.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "whoami", Description: "says who is signed in"},
		func(_ context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
			claims, _ := r.Extra.TokenInfo.Extra["claims"].(*auth.Claims)
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: claims.Username}}}, nil, nil
		})
	return server
}

// users is your own lookup. This one has a single user.
type users struct{ ada auth.User }

func (u users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u users) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func config(base string) auth.Config {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	return auth.Config{
		Issuer: base, Audience: []string{base + "/mcp"},
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())}, // read it from your configuration
		Users:   users{auth.User{ID: "u1", Username: "ada", Scopes: []string{"tools"}, PasswordHash: hash}},
		OnEvent: auth.LogEvents(slog.Default()),
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	flag.Parse()
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	base := "http://" + listener.Addr().String() // https, except on a loopback address
	a, err := auth.New(config(base))
	if err != nil {
		log.Fatal(err)
	}
	handler, err := routes(a, base)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", base)
	server := &http.Server{Handler: handler, ReadTimeout: 10 * time.Second} // a WriteTimeout would end streams
	log.Fatal(server.Serve(listener))
}
