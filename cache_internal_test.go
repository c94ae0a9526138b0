package auth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTokenCache_StoresATokenOnceWithinItsSize(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes a second or more")
	}
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	c := &parsedClaims{Claims: Claims{ExpiresAt: now.Add(time.Hour), payload: strings.Repeat("x", 300)}}
	m := newTokenCache(64)
	copies := func(token string) (n int, last *key) {
		for i := range m.slots {
			if r := m.slots[i].Load(); r != nil && r.token == token {
				n, last = n+1, r.key
			}
		}
		return n, last
	}
	for i := range 20 { // each time with a new key, as after SetKeys
		k := HS256([]byte("the secret of the places, which is 1")).key
		m.add("a token", signedToken{key: k}, c, now)
		n, last := copies("a token")
		require.Equal(t, 1, n, i)
		require.Same(t, k, last)
	}
	for i := range 10_000 {
		big := *c
		big.payload = strings.Repeat("x", 1000*(i%8))
		big.Roles = make([]string, i%2000)
		m.add(fmt.Sprint("token ", i), signedToken{}, &big, now)
		n, _ := copies(fmt.Sprint("token ", i))
		require.LessOrEqual(t, n, 1)
	}
	var held int64
	for i := range m.slots {
		if r := m.slots[i].Load(); r != nil {
			held += r.size
		}
	}
	require.Equal(t, held, m.bytes.Load())
	require.LessOrEqual(t, held, int64(len(m.slots)*cacheBytes))
}
