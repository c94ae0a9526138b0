package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/frameworks/internal/frameworktest"
	"github.com/ratchet-go/auth/examples/frameworks/internal/greet"
	"github.com/ratchet-go/auth/examples/frameworks/internal/greet/greetconnect"
)

func serve(a *auth.Authenticator, listener net.Listener) error { return server(a).Serve(listener) }

func TestConnect_RefusesStreamsAndRefreshesInEveryProtocol(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]connecthttp.Option{
		"connect":      nil,
		"connect json": {connecthttp.WithProtoJSON()},
		"grpc":         {connecthttp.WithGRPC()},
		"grpc-web":     {connecthttp.WithGRPCWeb()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			frameworktest.PlayRPC(t, config(), func(t *testing.T, a *auth.Authenticator) (frameworktest.Client, string) {
				url := frameworktest.Start(t, a, serve)
				transport := &http.Transport{Protocols: new(http.Protocols)}
				transport.Protocols.SetUnencryptedHTTP2(true)
				t.Cleanup(transport.CloseIdleConnections)
				return client(greetconnect.NewGreeterClient(connect.NewClient(
					connecthttp.NewTransport(&http.Client{Transport: transport}, url, options...)))), url
			})
		})
	}
}

// client adapts the generated client.
func client(c greetconnect.GreeterClient) frameworktest.Client {
	withHeader := func(ctx context.Context, header http.Header) context.Context {
		ctx, info := connect.NewClientContext(ctx)
		for name, values := range header {
			for _, value := range values {
				info.RequestHeader().Add(name, value)
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
				reply, err := stream.Receive()
				return reply.GetText(), err
			}, err
		},
		Code: func(err error) uint32 {
			if err == nil {
				return 0
			}
			return uint32(connect.CodeOf(err))
		},
		Action: func(err error) string {
			var rpc *connect.Error
			if !errors.As(err, &rpc) {
				return ""
			}
			for _, detail := range rpc.Details() {
				if message, err := connectproto.UnmarshalErrorDetail(detail); err == nil {
					if info, ok := message.(*errdetails.ErrorInfo); ok {
						return info.Metadata["action"]
					}
				}
			}
			return ""
		},
	}
}

// A browser calls procedures with cookies and JSON.
func TestConnect_ChecksTheOriginOfRequestsByCookie(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, config())
	url := frameworktest.Start(t, a.Authenticator, serve)
	for _, test := range []struct {
		procedure, site string
		want            int
	}{
		{greetconnect.GreeterHelloProcedure, "same-origin", http.StatusOK},
		{greetconnect.GreeterHelloProcedure, "cross-site", http.StatusForbidden},
		{greetconnect.GreeterAdminProcedure, "same-origin", http.StatusForbidden},
		{"/greet.v1.Greeter/%41dmin", "same-origin", http.StatusForbidden},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+test.procedure, strings.NewReader("{}"))
		require.NoError(t, err)
		authtest.As(t, a, r, auth.User{ID: "u2", Username: "bob"})
		r.Header.Set("Sec-Fetch-Site", test.site)
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		_ = resp.Body.Close()
		require.Equal(t, test.want, resp.StatusCode, test)
		require.Equal(t, test.procedure != greetconnect.GreeterHelloProcedure, strings.Contains(resp.Header.Get("WWW-Authenticate"), "insufficient_scope"), test)
		require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		require.Equal(t, "Authorization, Cookie", resp.Header.Get("Vary"))
	}
}
