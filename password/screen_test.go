package password

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCheckNew_WithoutScreenChecksTheForm(t *testing.T) {
	t.Parallel()
	h, s := cheap()
	require.NoError(t, h.CheckNew(t.Context(), "x"))
	require.NoError(t, h.CheckNew(t.Context(), strings.Repeat("x", 1024)))
	require.Equal(t, ErrTooLong, h.CheckNew(t.Context(), strings.Repeat("x", 1025)))
	require.Equal(t, ErrEmpty, h.CheckNew(t.Context(), ""))
	require.Empty(t, s.take(), "nothing is hashed")
	require.Error(t, (&Hasher{Memory: 1}).CheckNew(t.Context(), "x"))
}

func TestCheckNew_AsksScreen(t *testing.T) {
	t.Parallel()
	why := fmt.Errorf("%w: too short", ErrRefused)
	fault := errors.New("connection refused")
	for name, tt := range map[string]struct {
		answer error
		want   []error
	}{
		"accepts":                         {nil, nil},
		"refuses":                         {ErrRefused, []error{ErrRefused}},
		"says why":                        {why, []error{why, ErrRefused}},
		"fails":                           {fault, []error{fault, ErrScreen}},
		"refuses in one of several lists": {errors.Join(fmt.Errorf("%w: %w", ErrScreen, fault), why), []error{ErrRefused}},
		"fails like another":              {ErrMismatch, []error{ErrMismatch, ErrScreen}},
	} {
		h, _ := cheap()
		h.Screen = func(_ context.Context, password string) error {
			require.Equal(t, "password", password)
			return tt.answer
		}
		err := h.CheckNew(t.Context(), "password")
		require.Equal(t, tt.want == nil, err == nil, name)
		for _, want := range tt.want {
			require.ErrorIs(t, err, want, name)
		}
		require.Equal(t, strings.HasPrefix(name, "fails"), errors.Is(err, ErrScreen), name)
		require.Equal(t, strings.HasPrefix(name, "refuses") || name == "says why", errors.Is(err, ErrRefused), name)
	}
	h, _ := cheap()
	h.Screen = func(context.Context, string) error { return fault }
	require.EqualError(t, h.CheckNew(t.Context(), "password"), "password: not screened: connection refused")
}

func TestScreen_IsAskedOnlyByCheckNew(t *testing.T) {
	t.Parallel()
	h, _ := cheap()
	h.Screen = func(context.Context, string) error { return errors.New("must not be called") }
	hash, err := h.Hash(t.Context(), "password")
	require.NoError(t, err)
	require.NoError(t, h.Verify(t.Context(), hash, "password"))
	require.Equal(t, ErrMismatch, h.VerifyUnknown(t.Context(), "password"))
	require.False(t, h.NeedsRehash(hash))
	require.Equal(t, ErrEmpty, h.CheckNew(t.Context(), ""), "the form is checked first")
	require.Equal(t, ErrTooLong, h.CheckNew(t.Context(), strings.Repeat("x", 1025)))
}

func TestScreen_IsLimitedInTime(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[time.Duration]time.Duration{0: 2 * time.Second, time.Millisecond: time.Millisecond, time.Minute: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			h, _ := cheap()
			h.ScreenTimeout = timeout
			h.Screen = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
			begin := time.Now()
			err := h.CheckNew(t.Context(), "password")
			require.ErrorIs(t, err, ErrScreen)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, want, time.Since(begin))

			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Microsecond)
			defer cancel()
			err = h.CheckNew(ctx, "password")
			require.NotErrorIs(t, err, ErrScreen, "the caller has given up")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.EqualError(t, err, "password: screening: context deadline exceeded")
		})
	}
}

func TestCheck_BoundsScreenTimeout(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{-1, time.Millisecond - 1, time.Minute + 1} {
		h := &Hasher{ScreenTimeout: timeout}
		require.EqualError(t, h.Check(), fmt.Sprintf("password: Hasher.ScreenTimeout (%s) is not between 1ms and 1m0s", timeout))
	}
	require.NoError(t, (&Hasher{ScreenTimeout: time.Minute}).Check())
}
