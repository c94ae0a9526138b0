package sqlitestore_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkRotate rotates a different session in each call, from one goroutine
// and from many.
func BenchmarkRotate(b *testing.B) {
	const n = 1000
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "sessions.db"))
			for i := range n {
				require.NoError(b, s.Create(b.Context(), session(fmt.Sprintf("user-%d", i), "one")))
			}
			var calls, next atomic.Int64
			b.ResetTimer()
			together(callers, func(int) {
				for {
					call := next.Add(1) - 1
					if call >= int64(b.N) {
						return
					}
					// From is ahead of the stored generation, so that every
					// call writes.
					_, rotated, err := s.Rotate(b.Context(), fmt.Sprintf("user-%d", call%n), "one", rotateFrom(2+call, use(1)))
					if err != nil {
						b.Error(err)
						return
					}
					if rotated {
						calls.Add(1)
					}
				}
			})
			b.ReportMetric(float64(calls.Load())/b.Elapsed().Seconds(), "rotations/s")
		})
	}
}
