// Command connect serves RPCs by connect-go to users who sign in at HTTP endpoints
// of the same server:
//
//	go run ./connect
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
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/examples/frameworks/internal/greet"
	"github.com/ratchet-go/auth/examples/frameworks/internal/greet/greetconnect"
	"github.com/ratchet-go/auth/password"
)

// service is the path of the procedures.
const service = "/" + greetconnect.GreeterName + "/"

// routes returns the handler of the application. Every procedure requires a user
// who is signed in, and the listed ones more than that.
func routes(a *auth.Authenticator) http.Handler {
	rpc := connect.NewServer()
	greetconnect.RegisterGreeterHandler(rpc, greeter{a})
	procedures := http.NewServeMux()
	connecthttp.Mount(procedures, rpc)

	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle(service, a.Require()(procedures))
	mux.Handle(greetconnect.GreeterAdminProcedure, a.Require(auth.Role("admin"))(procedures))
	return mux
}

// onError responds to a refused RPC in its protocol, which may be that of gRPC.
func onError(w http.ResponseWriter, r *http.Request, err error) {
	if !strings.HasPrefix(r.URL.Path, service) {
		auth.DefaultOnError(w, r, err)
		return
	}
	auth.ResponseFor(err).SetHeaders(w.Header())
	_ = connecthttp.NewErrorWriter().Write(w, r, rpcError(err)) // fails only if the client has gone
}

// rpcError returns the error of an RPC for an error of package auth. Its detail
// says whether the client should refresh its tokens or sign in.
func rpcError(err error) *connect.Error {
	e := auth.ResponseFor(err)
	code := connect.CodeInternal
	switch e.Status {
	case http.StatusBadRequest:
		code = connect.CodeInvalidArgument
	case http.StatusUnauthorized:
		code = connect.CodeUnauthenticated
	case http.StatusForbidden:
		code = connect.CodePermissionDenied
	case http.StatusServiceUnavailable:
		code = connect.CodeUnavailable // an outage: the client keeps its tokens
	}
	info := &errdetails.ErrorInfo{Reason: e.Code, Metadata: map[string]string{"action": e.Action}}
	detail, err := connectproto.NewErrorDetail(info)
	if err != nil {
		return connect.NewError(code, e.Description).WithCause(err)
	}
	return connect.NewError(code, e.Description).WithDetail(detail)
}

// greeter implements the procedures.
type greeter struct{ a *auth.Authenticator }

func (g greeter) Hello(ctx context.Context, _ *greet.HelloRequest) (*greet.HelloReply, error) {
	claims, _ := auth.FromContext(ctx)
	return &greet.HelloReply{Text: "hello " + claims.Username}, nil
}

func (g greeter) Admin(ctx context.Context, r *greet.HelloRequest) (*greet.HelloReply, error) {
	return g.Hello(ctx, r)
}

// Events streams until the session ends or the client disconnects.
func (g greeter) Events(ctx context.Context, _ *greet.HelloRequest, stream greetconnect.GreeterEventsServerStream) error {
	claims, _ := auth.FromContext(ctx)
	ctx, cancel := g.a.SessionContext(ctx, claims)
	defer cancel()
	if err := stream.Send(&greet.HelloReply{Text: "hello " + claims.Username}); err != nil {
		return err
	}
	<-ctx.Done()
	return rpcError(context.Cause(ctx))
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

func config() auth.Config {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	return auth.Config{
		Issuer: "http://localhost:8080", Audience: []string{"http://localhost:8080"},
		Secrets: [][]byte{[]byte(rand.Text() + rand.Text())}, // read it from your configuration
		Users:   users{auth.User{ID: "u1", Username: "ada", Roles: []string{"admin"}, PasswordHash: hash}},
		Cookies: &auth.Cookies{AllowBody: true, InsecureHTTP: true}, // InsecureHTTP is for development without TLS
		OnEvent: auth.LogEvents(slog.Default()),
		OnError: onError,
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	flag.Parse()
	a, err := auth.New(config())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(server(a).Serve(listener))
}

func server(a *auth.Authenticator) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // for clients that use the gRPC protocol without TLS
	// A ReadTimeout would also end streams that a client sends, and a WriteTimeout
	// those that the server sends.
	return &http.Server{Handler: routes(a), Protocols: protocols, ReadTimeout: 10 * time.Second}
}
