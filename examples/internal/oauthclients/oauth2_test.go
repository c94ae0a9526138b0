package oauthclients

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/oauth"
)

// A program that uses golang.org/x/oauth2 needs nothing but the address of the token
// endpoint. The clock of the server moves by the lifetime of an access token ten
// times. Package oauth2 refreshes tokens 10 seconds before they expire, so it takes
// all of them, which live for 10 seconds, as expired.
func TestOAuth2_TokenSourceLivesThroughTenExpiries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		server oauth.Config
		config oauth2.Config
		style  oauth2.AuthStyle
	}{
		"a client without an ID":         {oauth.Config{}, oauth2.Config{}, oauth2.AuthStyleAutoDetect},
		"a public client":                {oauth.Config{}, oauth2.Config{ClientID: "app"}, oauth2.AuthStyleAutoDetect},
		"a public client next to others": {oauth.Config{Clients: secretClients(), PublicClients: true}, oauth2.Config{ClientID: "app"}, oauth2.AuthStyleInParams},
		"client_secret_basic":            {oauth.Config{Clients: secretClients()}, oauth2.Config{ClientID: clientID, ClientSecret: clientSecret}, oauth2.AuthStyleInHeader},
		"client_secret_post":             {oauth.Config{Clients: secretClients()}, oauth2.Config{ClientID: clientID, ClientSecret: clientSecret}, oauth2.AuthStyleInParams},
		"either":                         {oauth.Config{Clients: secretClients()}, oauth2.Config{ClientID: clientID, ClientSecret: clientSecret}, oauth2.AuthStyleAutoDetect},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, "", c.server, func(c *auth.Config) { c.AccessTTL, c.Leeway, c.RetryWindow = 10*time.Second, -1, time.Second })
			login := s.login(t)
			c.config.Endpoint = oauth2.Endpoint{TokenURL: s.URL + "/oauth/token", AuthStyle: c.style}
			source := c.config.TokenSource(context.Background(), &oauth2.Token{AccessToken: login.Access, RefreshToken: login.Refresh, Expiry: login.AccessExpiresAt})
			client := oauth2.NewClient(context.Background(), source)
			get := func(client *http.Client, access string) (status int, tokenID string) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api", nil)
				require.NoError(t, err)
				if access != "" {
					r.Header.Set("Authorization", "Bearer "+access)
				}
				resp, err := client.Do(r)
				require.NoError(t, err)
				defer func() { _ = resp.Body.Close() }()
				text, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				return resp.StatusCode, string(text)
			}
			seen := map[string]bool{}
			last := login.Access
			for range 10 {
				s.Clock.Advance(10 * time.Second)
				status, _ := get(http.DefaultClient, last)
				require.Equal(t, 401, status, "the access token has expired")
				status, id := get(client, "")
				require.Equal(t, 200, status)
				require.False(t, seen[id], "another access token")
				seen[id] = true
				token, err := source.Token()
				require.NoError(t, err)
				last = token.AccessToken
				require.Equal(t, "read", token.Extra("scope"))
			}
			sessions, err := s.Sessions(t.Context(), "u1")
			require.NoError(t, err)
			require.Equal(t, int64(11), sessions[0].Generation, "ten rotations")
			requests := s.taken()
			t.Logf("%s: %d requests; the first ones: %q", name, len(requests), requests[:5])
			require.NotContains(t, requests, "POST /oauth/token 401")
			require.Equal(t, 10, count(requests, "GET /api 200 Bearer"))
			require.Equal(t, 10, count(requests, "GET /api 401 Bearer"))

			require.NoError(t, s.Revoke(t.Context(), "u1", login.SessionID))
			_, err = source.Token()
			var refused *oauth2.RetrieveError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, "invalid_grant", refused.ErrorCode)
			require.Equal(t, "the session has ended", refused.ErrorDescription)
			require.Equal(t, 400, refused.Response.StatusCode)
		})
	}
}

func count(list []string, s string) (n int) {
	for _, v := range list {
		if v == s {
			n++
		}
	}
	return n
}

func TestOAuth2_AWrongSecretIsInvalidClient(t *testing.T) {
	t.Parallel()
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		s := newServer(t, "", oauth.Config{Clients: secretClients()}, nil)
		config := oauth2.Config{ClientID: clientID, ClientSecret: "x", Endpoint: oauth2.Endpoint{TokenURL: s.URL + "/oauth/token", AuthStyle: style}}
		source := config.TokenSource(context.Background(), &oauth2.Token{RefreshToken: s.login(t).Refresh})
		var codes []string
		for range 6 {
			_, err := source.Token()
			var refused *oauth2.RetrieveError
			require.ErrorAs(t, err, &refused)
			codes = append(codes, refused.ErrorCode)
		}
		require.Equal(t, append(slices.Repeat([]string{"invalid_client"}, 5), "too_many_attempts"), codes)
	}
}
