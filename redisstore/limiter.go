package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
)

// LimiterConfig is what [NewLimiter] needs besides the client. It is copied. A zero
// field means the default.
type LimiterConfig struct {
	_ [0]func() // keyed literals only

	// Prefix is the beginning of every key: "ratchet" by default. It can be the
	// Prefix of a Store on the same server. It must not contain a brace.
	Prefix string

	// Now replaces the server's clock in tests. nil, the default, means the clock
	// of the server, so the clocks of the processes do not matter.
	Now func() time.Time
}

// Limiter is an [auth.Limiter] on Redis. It is safe for concurrent use, and any
// number of processes may use one server. It has no connections of its own, so it
// need not be closed.
type Limiter struct {
	client       redis.UniversalClient
	keys         string // the beginning of every key
	now          func() time.Time
	take, settle *redis.Script
}

var _ auth.Limiter = (*Limiter)(nil)

// NewLimiter returns a Limiter that uses client. It does no I/O. The error joins every
// problem with the client and with c. The client must fulfill the conditions of
// [New], except that for PoolSize.
func NewLimiter(client redis.UniversalClient, c LimiterConfig) (*Limiter, error) {
	var errs []error
	o, err := clientOptions(client)
	if err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, o.check())
	}
	prefix := cmp.Or(c.Prefix, defaultPrefix)
	if strings.ContainsAny(prefix, "{}") {
		errs = append(errs, fmt.Errorf("redisstore: LimiterConfig.Prefix (%q) contains a brace; the keys of a Limiter have braces of their own, which put them into one slot of a Cluster", prefix))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Limiter{
		client: client, keys: prefix + ":limit{" + prefix + "}:", now: c.Now,
		take: redis.NewScript(luaTake), settle: redis.NewScript(luaSettle),
	}, nil
}

// Bounds of the buckets of each kind. Only users who exist have accounts and
// devices, so that nobody can cause many of them with made-up names.
const (
	maxBuckets     = 1 << 16
	maxUserBuckets = 1 << 20
)

func maxOf(kind string) int {
	if kind == "account" || kind == "device" {
		return maxUserBuckets
	}
	return maxBuckets
}

// keysOf returns the keys of the buckets: for each two, which contain the ends and
// the last attempts of its kind.
func (l *Limiter) keysOf(buckets []auth.Bucket) []string {
	keys := make([]string, 0, 2*len(buckets))
	for _, b := range buckets {
		keys = append(keys, l.keys+b.Kind+":ends", l.keys+b.Kind+":last")
	}
	return keys
}

// Take implements [auth.Limiter]. It is one round trip. If the driver retries the
// command because a reply was lost, the attempt may count twice.
func (l *Limiter) Take(ctx context.Context, buckets []auth.Bucket) (wait time.Duration, index int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	if len(buckets) == 0 {
		return 0, 0, nil
	}
	args := make([]any, 1, 1+4*len(buckets))
	args[0] = ""
	if l.now != nil {
		args[0] = l.now().UnixMilli()
	}
	for _, b := range buckets {
		args = append(args, b.Key, b.Burst, b.Decay.Milliseconds(), maxOf(b.Kind))
	}
	reply, err := l.take.Run(ctx, l.client, l.keysOf(buckets), args...).Int64Slice()
	if err == nil && (len(reply) != 2 || reply[0] < 0 || reply[1] < 0 || reply[1] >= int64(len(buckets))) {
		err = errReply
	}
	if err != nil {
		return 0, 0, failed(ctx, l.client, "counting an attempt", err)
	}
	return time.Duration(reply[0]) * time.Millisecond, int(reply[1]), nil
}

// Settle implements [auth.Limiter]. It is one round trip.
func (l *Limiter) Settle(ctx context.Context, cleared, refund []auth.Bucket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(cleared)+len(refund) == 0 {
		return nil
	}
	buckets := slices.Concat(cleared, refund)
	args := make([]any, 0, 2*len(buckets))
	for i, b := range buckets {
		subtract := b.Decay.Milliseconds()
		if i < len(cleared) {
			subtract = 0
		}
		args = append(args, b.Key, subtract)
	}
	if err := l.settle.Run(ctx, l.client, l.keysOf(buckets), args...).Err(); err != nil {
		return failed(ctx, l.client, "settling an attempt", err)
	}
	return nil
}
