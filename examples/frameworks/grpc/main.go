// Command grpc serves RPCs by grpc-go to users who sign in at HTTP endpoints on
// another port:
//
//	go run ./grpc
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

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/examples/frameworks/internal/greet"
	"github.com/ratchet-go/auth/password"
)

// newServer returns the gRPC server. Every method requires a user who is signed
// in, and the listed ones more than that.
func newServer(a *auth.Authenticator) *grpc.Server {
	i := interceptor{a, map[string][]auth.Guard{
		greet.Greeter_Admin_FullMethodName: {auth.Role("admin")},
	}}
	s := grpc.NewServer(grpc.UnaryInterceptor(i.unary), grpc.StreamInterceptor(i.stream))
	greet.RegisterGreeterServer(s, greeter{})
	return s
}

// interceptor passes the claims of callers to the methods, and refuses others.
type interceptor struct {
	a      *auth.Authenticator
	guards map[string][]auth.Guard // by method
}

// claims returns the claims of a caller who may call a method.
func (i interceptor) claims(ctx context.Context, method string) (*auth.Claims, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	scheme, token, _ := strings.Cut(strings.Join(values, ","), " ") // two tokens are an invalid one
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, statusError(auth.ErrNoToken)
	}
	claims, err := i.a.Verify(ctx, token)
	if err != nil {
		return nil, statusError(err)
	}
	for _, guard := range i.guards[method] {
		if err := guard(ctx, claims); err != nil {
			return nil, statusError(err)
		}
	}
	return claims, nil
}

func (i interceptor) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	claims, err := i.claims(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return next(auth.NewContext(ctx, claims), request)
}

// stream ends a stream when the session of its caller ends.
func (i interceptor) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	claims, err := i.claims(s.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ctx, cancel := i.a.SessionContext(auth.NewContext(s.Context(), claims), claims)
	defer cancel()
	err = next(srv, serverStream{s, ctx})
	if cause := context.Cause(ctx); cause != nil && s.Context().Err() == nil {
		return statusError(cause)
	}
	return err
}

// serverStream is a stream with another context.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s serverStream) Context() context.Context { return s.ctx }

// statusError returns the status for an error of package auth. Its detail says
// whether the client should refresh its tokens or sign in.
func statusError(err error) error {
	e := auth.ResponseFor(err)
	code := codes.Internal
	switch e.Status {
	case http.StatusUnauthorized:
		code = codes.Unauthenticated
	case http.StatusForbidden:
		code = codes.PermissionDenied
	case http.StatusServiceUnavailable:
		code = codes.Unavailable // an outage: the client keeps its tokens
	}
	info := &errdetails.ErrorInfo{Reason: e.Code, Metadata: map[string]string{"action": e.Action}}
	s, err := status.New(code, e.Description).WithDetails(info)
	if err != nil {
		return status.Error(code, e.Description)
	}
	return s.Err()
}

// greeter implements the methods.
type greeter struct {
	greet.UnimplementedGreeterServer
}

func (g greeter) Hello(ctx context.Context, _ *greet.HelloRequest) (*greet.HelloReply, error) {
	claims, _ := auth.FromContext(ctx)
	return &greet.HelloReply{Text: "hello " + claims.Username}, nil
}

func (g greeter) Admin(ctx context.Context, r *greet.HelloRequest) (*greet.HelloReply, error) {
	return g.Hello(ctx, r)
}

// Events streams until the session ends or the client disconnects.
func (g greeter) Events(r *greet.HelloRequest, stream grpc.ServerStreamingServer[greet.HelloReply]) error {
	reply, err := g.Hello(stream.Context(), r)
	if err != nil {
		return err
	}
	if err := stream.Send(reply); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
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
		OnEvent: auth.LogEvents(slog.Default()),
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:9090", "`address` of the gRPC server")
	login := flag.String("login", "127.0.0.1:8080", "`address` of the HTTP server, at which users sign in")
	flag.Parse()
	a, err := auth.New(config())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	endpoints, err := net.Listen("tcp", *login)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s/auth/login and, for gRPC, on %s\n", endpoints.Addr(), listener.Addr())
	go func() { log.Fatal(newServer(a).Serve(listener)) }()
	log.Fatal(loginServer(a).Serve(endpoints))
}

func loginServer(a *auth.Authenticator) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	return &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
}
