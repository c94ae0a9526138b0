package bench

import (
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
)

// wrapSCS protects a handler by sessions in memory, which cookies name, and
// returns the cookie of a session. It is measured for reference: a session in
// memory is available to this process only, and a token is not.
func wrapSCS(next inner) (http.Handler, *http.Cookie) {
	sm := scs.New()
	sm.Store = memstore.NewWithCleanupInterval(0)
	sm.Lifetime = 24 * time.Hour

	w := httptest.NewRecorder()
	sm.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		sm.Put(r.Context(), "sub", subject(0))
		sm.Put(r.Context(), "username", username)
		sm.Put(r.Context(), "role", role)
	})).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/login", nil))
	cookie := w.Result().Cookies()[0]

	return sm.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sm.GetString(r.Context(), "sub")
		if s == "" {
			refuseByHand(w, errNoToken)
			return
		}
		next(w, s)
	})), cookie
}
