package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ginjwt "github.com/appleboy/gin-jwt/v3"
	"github.com/gin-gonic/gin"
	"github.com/go-oauth2/oauth2/v4/generates"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
	oauth2store "github.com/go-oauth2/oauth2/v4/store"
	"github.com/golang-jwt/jwt/v5"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"
	"github.com/ratchet-go/auth"
	"github.com/tidwall/buntdb"
)

// refresher is a way to refresh tokens.
type refresher struct {
	name    string
	handler http.Handler
	login   func(i int) string // starts a session of subject(i) and returns its refresh token
	form    bool               // whether it takes a form (OAuth 2.0) rather than JSON
	advance func()             // ends the cooldown of every session
	records func() int         // returns the number of records in the store
	store   auth.Store         // nil if the peer is not Ratchet
}

func nothing() {}

// clock is the real clock plus an offset.
type clock struct{ ahead atomic.Int64 }

// stride is longer than the cooldown, which is three retry windows of 30
// seconds.
const stride = 91 * time.Second

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance()       { c.ahead.Add(int64(stride)) }

// decade is a session lifetime of three million strides.
const decade = 10 * 365 * 24 * time.Hour

// refreshRatchet refreshes with Ratchet and a store, or a MemoryStore if store is
// nil. Its clock advances past the cooldown before each refresh, so that every
// refresh rotates.
func refreshRatchet(store auth.Store) *refresher {
	if store == nil {
		store = auth.NewMemoryStore()
	}
	c := new(clock)
	a := algorithms()[0].ratchet(0, func(config *auth.Config) {
		config.Store, config.Now = store, c.now
		config.IdleTTL, config.SessionTTL = decade, decade
	})
	last := 0
	return &refresher{
		name: "ratchet", handler: a.RefreshHandler(), advance: c.advance, store: store,
		login: func(i int) string {
			t, err := a.StartSession(context.Background(), subject(i), auth.SessionOptions{})
			must(err)
			last = i
			return t.Refresh
		},
		records: func() int { // of the user with the newest session
			list, err := store.List(context.Background(), subject(last))
			must(err)
			return len(list)
		},
	}
}

// cooldown is refreshRatchet without the advances of the clock. After its first
// refresh a session is in the cooldown, in which a refresh does not write.
func cooldown() *refresher {
	x := refreshRatchet(nil)
	x.name, x.advance = "ratchet-cooldown", nothing
	return x
}

// ginUser is the user data that gin-jwt stores.
type ginUser struct {
	ID       string   `json:"id"`
	Username string   `json:"username"`
	Roles    []string `json:"roles"`
}

// refreshGinJWT refreshes with gin-jwt and the Redis server at the address redis,
// or its memory store if redis is empty.
func refreshGinJWT(tb testing.TB, redis string) *refresher {
	tb.Helper()
	gin.SetMode(gin.ReleaseMode)
	mw := &ginjwt.GinJWTMiddleware{
		Realm: "bench", SigningAlgorithm: "HS256", Key: algorithms()[0].secret(), IdentityKey: "sub", Timeout: 15 * time.Minute,
		Authenticator: func(*gin.Context) (any, error) { return nil, ginjwt.ErrFailedAuthentication },
		PayloadFunc: func(data any) jwt.MapClaims {
			claims := jwt.MapClaims{"iss": issuer, "aud": audience, "iat": time.Now().Unix(), "jti": randomID()}
			switch u := data.(type) {
			case *ginUser:
				claims["sub"], claims["username"], claims["roles"] = u.ID, u.Username, u.Roles
			case map[string]any: // as decoded from Redis
				claims["sub"], claims["username"], claims["roles"] = u["id"], u["username"], u["roles"]
			}
			return claims
		},
	}
	if redis != "" {
		mw.EnableRedisStore(ginjwt.WithRedisAddr(redis))
	}
	mw, err := ginjwt.New(mw)
	must(err)
	if c, ok := mw.RefreshTokenStore.(io.Closer); ok {
		tb.Cleanup(func() { _ = c.Close() })
	} else if redis != "" {
		tb.Fatal("gin-jwt cannot connect to Redis and uses its memory store")
	}
	g := gin.New()
	g.POST("/refresh", mw.RefreshHandler)
	return &refresher{
		name: "gin-jwt", handler: g, advance: nothing,
		login: func(i int) string {
			t, err := mw.TokenGenerator(context.Background(), &ginUser{subject(i), username, []string{role}})
			must(err)
			return t.RefreshToken
		},
		records: func() int {
			n, err := mw.RefreshTokenStore.Count(context.Background())
			must(err)
			return n
		},
	}
}

// The client at the OAuth 2.0 servers.
const (
	clientID     = "bench"
	clientSecret = "clientsecret"
)

// asForm signs in with a password at an OAuth 2.0 server and returns the refresh
// token.
func asForm(h http.Handler, i int) string {
	w := new(recorder)
	w.reset()
	r := post("grant_type=password&scope=offline&client_id="+clientID+"&client_secret="+clientSecret+"&username="+subject(i)+"&password=pw", true)
	h.ServeHTTP(w, r)
	token := w.refreshToken()
	if token == nil {
		panic(fmt.Sprintf("no refresh token in the response: %d %s", w.status, w.body))
	}
	return string(token)
}

// newFosite returns fosite's token endpoint and its memory store.
func newFosite() (http.Handler, *storage.MemoryStore) {
	secret := make([]byte, 32)
	copy(secret, refreshSecret())
	config := &fosite.Config{GlobalSecret: secret, AccessTokenLifespan: 15 * time.Minute}
	memory := storage.NewMemoryStore()
	memory.Clients[clientID] = &fosite.DefaultClient{
		ID: clientID, Public: true, // a client secret would cost a bcrypt hash in every request
		GrantTypes: fosite.Arguments{"password", "refresh_token"}, Scopes: fosite.Arguments{"offline"},
	}
	provider := compose.Compose(config, anyPassword{memory}, compose.NewOAuth2HMACStrategy(config),
		compose.OAuth2RefreshTokenGrantFactory,
		compose.OAuth2ResourceOwnerPasswordCredentialsFactory) //nolint:staticcheck // the password grant needs the least setup
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		request, err := provider.NewAccessRequest(ctx, r, new(fosite.DefaultSession))
		if err != nil {
			provider.WriteAccessError(ctx, w, request, err)
			return
		}
		if request.GetGrantTypes().ExactOne("password") {
			request.GrantScope("offline")
		}
		response, err := provider.NewAccessResponse(ctx, request)
		if err != nil {
			provider.WriteAccessError(ctx, w, request, err)
			return
		}
		provider.WriteAccessResponse(ctx, w, request, response)
	}), memory
}

// anyPassword accepts every password.
type anyPassword struct{ *storage.MemoryStore }

func (anyPassword) Authenticate(_ context.Context, name, _ string) (string, error) { return name, nil }

func refreshFosite() *refresher {
	h, memory := newFosite()
	return &refresher{
		name: "fosite", handler: h, form: true, advance: nothing,
		login:   func(i int) string { return asForm(h, i) },
		records: func() int { return len(memory.RefreshTokens) },
	}
}

// newGoOAuth2 returns go-oauth2's token endpoint with a store in a file, or in
// memory if file is ":memory:".
func newGoOAuth2(file string) http.Handler {
	m := manage.NewDefaultManager() // it rotates refresh tokens
	m.MustTokenStorage(oauth2store.NewFileTokenStore(file))
	m.MapAccessGenerate(generates.NewAccessGenerate())
	clients := oauth2store.NewClientStore()
	must(clients.Set(clientID, &models.Client{ID: clientID, Secret: clientSecret}))
	m.MapClientStorage(clients)
	srv := server.NewServer(server.NewConfig(), m)
	srv.SetClientInfoHandler(server.ClientFormHandler)
	srv.SetPasswordAuthorizationHandler(func(_ context.Context, _, name, _ string) (string, error) { return name, nil })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := srv.HandleTokenRequest(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

// refreshGoOAuth2 refreshes with go-oauth2 and a store in a file, or in memory if
// file is ":memory:". records works only with a file.
func refreshGoOAuth2(file string) *refresher {
	h := newGoOAuth2(file)
	return &refresher{
		name: "go-oauth2", handler: h, form: true, advance: nothing,
		login: func(i int) string { return asForm(h, i) },
		records: func() (n int) {
			db, err := buntdb.Open(file)
			must(err)
			defer db.Close()
			must(db.View(func(tx *buntdb.Tx) error { n, err = tx.Len(); return err }))
			return n
		},
	}
}

var errTaken = errors.New("another request was first")

// bare is a handler that does the minimum for a refresh: it decodes the body,
// calls swap to advance the session from its generation to the next, and encodes
// a response. Its token contains session and generation in plain text, and is as
// long as that of Ratchet.
func bare(login func(id string), swap func(ctx context.Context, id string, generation int64) error) *refresher {
	access := strings.Repeat("a", len(start(algorithms()[0].ratchet(-1, nil), 0)))
	pad := strings.Repeat("p", len(refreshRatchet(nil).login(0))-len(subject(0))-3)
	token := func(id string, generation int64) string {
		return id + "." + strconv.FormatInt(generation, 10) + "." + pad
	}
	return &refresher{
		name: "bare", advance: nothing,
		login: func(i int) string { login(subject(i)); return token(subject(i), 1) },
		handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var body struct {
				Refresh string `json:"refresh_token"`
			}
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			id, rest, _ := strings.Cut(body.Refresh, ".")
			number, _, _ := strings.Cut(rest, ".")
			generation, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			if err := swap(r.Context(), id, generation); err != nil {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_ = json.NewEncoder(w).Encode(bareResponse{access, "Bearer", 900, token(id, generation+1), 604800, id})
		}),
	}
}

type bareResponse struct {
	Access           string `json:"access_token"`
	Type             string `json:"token_type"`
	ExpiresIn        int    `json:"expires_in"`
	Refresh          string `json:"refresh_token"`
	RefreshExpiresIn int    `json:"refresh_expires_in"`
	SessionID        string `json:"session_id"`
}

// bareMemory is bare without a store.
func bareMemory() *refresher {
	return bare(func(string) {}, func(context.Context, string, int64) error { return nil })
}
