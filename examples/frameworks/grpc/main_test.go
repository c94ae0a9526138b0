package main

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/examples/frameworks/internal/frameworktest"
	"github.com/ratchet-go/auth/examples/frameworks/internal/greet"
)

func TestGRPC_RefusesStreamsAndRefreshes(t *testing.T) {
	t.Parallel()
	frameworktest.PlayRPC(t, config(), func(t *testing.T, a *auth.Authenticator) (frameworktest.Client, string) {
		s := newServer(a)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() { _ = s.Serve(listener) }() // returns after Stop
		t.Cleanup(s.Stop)
		conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		url := frameworktest.Start(t, a, func(a *auth.Authenticator, listener net.Listener) error {
			return loginServer(a).Serve(listener)
		})
		return client(greet.NewGreeterClient(conn)), url
	})
}

// client adapts the generated client.
func client(c greet.GreeterClient) frameworktest.Client {
	withHeader := func(ctx context.Context, header http.Header) context.Context {
		for name, values := range header {
			for _, value := range values {
				ctx = metadata.AppendToOutgoingContext(ctx, name, value)
			}
		}
		return ctx
	}
	return frameworktest.Client{
		Hello: func(ctx context.Context, header http.Header) (string, error) {
			reply, err := c.Hello(withHeader(ctx, header), &greet.HelloRequest{})
			return reply.GetText(), err
		},
		Admin: func(ctx context.Context, header http.Header) (string, error) {
			reply, err := c.Admin(withHeader(ctx, header), &greet.HelloRequest{})
			return reply.GetText(), err
		},
		Events: func(ctx context.Context, header http.Header) (func() (string, error), error) {
			stream, err := c.Events(withHeader(ctx, header), &greet.HelloRequest{})
			return func() (string, error) {
				reply, err := stream.Recv()
				return reply.GetText(), err
			}, err
		},
		Code: func(err error) uint32 { return uint32(status.Code(err)) },
		Action: func(err error) string {
			for _, detail := range status.Convert(err).Details() {
				if info, ok := detail.(*errdetails.ErrorInfo); ok {
					return info.Metadata["action"]
				}
			}
			return ""
		},
	}
}
