package auth_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

func TestCallHook_ReturnsWhatTheHookDecides(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	call := func(err error) error {
		return fx.CallHook(context.Background(), "Clients.CheckClient", func(context.Context) error { return err })
	}
	require.NoError(t, call(nil))
	for _, err := range []error{auth.ErrInvalidCredentials, password.ErrMismatch, fmt.Errorf("wrapped: %w", password.ErrTooLong)} {
		require.Equal(t, err, call(err))
	}
	require.Empty(t, fx.events.take(auth.EventFault))
	for _, err := range []error{errors.New("down"), auth.ErrForbidden, auth.ErrUserNotFound, errors.Join(auth.ErrInvalidCredentials, auth.ErrUnavailable)} {
		got := call(err)
		require.ErrorIs(t, got, auth.ErrUnavailable)
		require.ErrorIs(t, got, err)
		events := fx.events.take(auth.EventFault)
		require.Len(t, events, 1)
		require.ErrorContains(t, events[0].Err, "auth: Clients.CheckClient: ")
		require.Equal(t, 503, fx.ReportError(newRequest(), got, "").Status)
		require.Empty(t, fx.events.take(auth.EventFault), "one event")
	}
}

func TestCallHook_ContainsAHookThatMisbehaves(t *testing.T) {
	t.Parallel()
	for _, how := range badHooks {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fx := newFixture(t)
				bad := &badHook{how: how, release: make(chan struct{})}
				bad.name.Store("hook")
				begin := time.Now()
				err := fx.CallHook(t.Context(), "hook", func(ctx context.Context) error { return bad.at(ctx, "hook") })
				require.ErrorIs(t, err, auth.ErrUnavailable)
				require.LessOrEqual(t, time.Since(begin), 5*time.Second+100*time.Millisecond)
				require.Len(t, fx.events.take(auth.EventFault), 1)
				close(bad.release)
				time.Sleep(time.Minute)
				require.Zero(t, fx.Health().Abandoned)
			})
		})
	}
}
