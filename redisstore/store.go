package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
)

// Defaults, and what is not configured.
const (
	defaultPrefix         = "ratchet"
	defaultReplicaTimeout = 500 * time.Millisecond

	// revokeGrace is how long a step of Revoke goes on after the deadline of
	// its context, so that what was begun is not left by half.
	revokeGrace = 500 * time.Millisecond
)

// Config is what [New] needs besides the client. It is copied. Zero fields have
// the default.
type Config struct {
	_ [0]func() // keyed literals only

	// Prefix begins every key: "ratchet" by default. Stores with different
	// prefixes share a database and nothing else. It holds no brace, which
	// would put all keys of a Cluster into one slot.
	Prefix string

	// Replicas is how many replicas must have a write before it is
	// acknowledged (WAIT); 0, the default, means none. With fewer the call
	// returns an error although the write may stand, and may be repeated. On a
	// Cluster it counts the replicas of the key's master. What is lost without
	// it is in the package comment.
	Replicas int

	// ReplicaTimeout bounds that wait: 500 milliseconds by default, at least
	// one, and less than the client's ReadTimeout. The deadline of a context
	// does as well.
	ReplicaTimeout time.Duration

	// OnEvent is told, once, if the server may evict keys to make room
	// (maxmemory-policy is not noeviction), as an [auth.EventFault] whose Err
	// says so: sessions would end, and revocations be forgotten, at random. The
	// question is asked when the feed is read from its beginning; a server that
	// does not permit it is believed. It is also told, at most once a minute, of
	// session records that cannot be read, which List leaves out. nil means that
	// nobody is told, and nothing asked. [auth.Config].OnEvent fits.
	OnEvent func(ctx context.Context, e auth.Event)
}

// Store keeps sessions on a Redis server. It is an [auth.Store], and safe for
// concurrent use by any number of processes. It holds no connection of its own
// and nothing needs to be closed.
type Store struct {
	client         redis.UniversalClient
	prefix         string
	replicas       int
	replicaTimeout time.Duration
	onEvent        func(context.Context, auth.Event)
	warned         atomic.Bool
	told           atomic.Int64 // when OnEvent was last told of records that cannot be read, in Unix nanoseconds

	create, rotate, revoke, announce, changes *redis.Script
}

var _ auth.Store = (*Store)(nil)

// New returns a Store on client, or every mistake joined. It asks the server
// for nothing yet. The client stays the caller's: to share, and to close when
// the store is no longer used.
//
// The client is a *[redis.Client], also one that follows a Sentinel, or a
// *[redis.ClusterClient]. Its options set ContextTimeoutEnabled, or a server
// that hangs would keep every call for ReadTimeout and its retries, whatever
// the context says. It reads from masters, without a cache, and has at least
// two connections, since a Changes that waits keeps one.
func New(client redis.UniversalClient, c Config) (*Store, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("redisstore: "+format, args...)) }

	o, err := clientOptions(client)
	if err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, o.check())
	}
	prefix := cmp.Or(c.Prefix, defaultPrefix)
	if strings.ContainsAny(prefix, "{}") {
		bad("Config.Prefix (%q) has a brace, which puts everything into one slot of a Cluster", prefix)
	}
	if c.Replicas < 0 {
		bad("Config.Replicas (%d) is negative", c.Replicas)
	}
	replicaTimeout := cmp.Or(c.ReplicaTimeout, defaultReplicaTimeout)
	switch {
	case 0 < replicaTimeout && replicaTimeout < time.Millisecond: // a number without a unit counts nanoseconds
		bad("Config.ReplicaTimeout (%s) is less than 1ms; missing time unit?", replicaTimeout)
	case replicaTimeout < time.Millisecond:
		bad("Config.ReplicaTimeout (%s) is less than 1ms", replicaTimeout)
	case c.Replicas > 0 && o.readTimeout > 0 && replicaTimeout >= o.readTimeout && c.ReplicaTimeout == 0:
		bad("Config.ReplicaTimeout %s (the default) is not less than the client's ReadTimeout (%s)", replicaTimeout, o.readTimeout)
	case c.Replicas > 0 && o.readTimeout > 0 && replicaTimeout >= o.readTimeout:
		bad("Config.ReplicaTimeout (%s) is not less than the client's ReadTimeout (%s)", replicaTimeout, o.readTimeout)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Store{
		client: client, prefix: prefix,
		replicas: c.Replicas, replicaTimeout: replicaTimeout, onEvent: c.OnEvent,
		create: redis.NewScript(luaCreate), rotate: redis.NewScript(luaRotate), revoke: redis.NewScript(luaRevoke),
		announce: redis.NewScript(luaAnnounce), changes: redis.NewScript(luaChanges),
	}, nil
}

// options are the options of a client that a Store depends on, whatever the
// client's type is.
type options struct {
	contextTimeout bool
	poolSize       int
	readTimeout    time.Duration
	caches         bool
	readsReplicas  bool
}

// clientOptions returns the options of the client. It returns an error if the
// client is nil, or of a type that a Store cannot use.
func clientOptions(client redis.UniversalClient) (options, error) {
	switch client := client.(type) {
	case *redis.Client:
		if client != nil {
			o := client.Options()
			return options{
				contextTimeout: o.ContextTimeoutEnabled, poolSize: o.PoolSize, readTimeout: o.ReadTimeout,
				caches: o.ClientSideCacheConfig != nil || o.ClientSideCache != nil,
			}, nil
		}
	case *redis.ClusterClient:
		if client != nil {
			o := client.Options()
			return options{
				contextTimeout: o.ContextTimeoutEnabled, poolSize: o.PoolSize, readTimeout: o.ReadTimeout,
				readsReplicas: o.ReadOnly || o.RouteByLatency || o.RouteRandomly,
			}, nil
		}
	case nil:
	default:
		return options{}, fmt.Errorf("redisstore: the client is a %T; it must be a *redis.Client or a *redis.ClusterClient", client)
	}
	return options{}, errors.New("redisstore: the client is nil")
}

// check returns an error for each option that a Store cannot work with.
func (o options) check() error {
	var errs []error
	if o.caches {
		errs = append(errs, errors.New("redisstore: the client caches replies (ClientSideCache), so it would return sessions that have ended"))
	}
	if o.readsReplicas {
		errs = append(errs, errors.New("redisstore: the client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly), so it would return sessions that have ended"))
	}
	if !o.contextTimeout {
		errs = append(errs, errors.New("redisstore: the client's ContextTimeoutEnabled is false, so a server that hangs would delay calls beyond their deadlines"))
	}
	if o.poolSize < 2 {
		errs = append(errs, fmt.Errorf("redisstore: the client's PoolSize is %d; it must be at least 2, since a waiting Changes occupies one connection", o.poolSize))
	}
	return errors.Join(errs...)
}

// key returns the key of a subject's sessions.
func (s *Store) key(subject string) string { return s.prefix + ":{" + subject + "}" }

// Create implements [auth.Store]. A call that the driver repeats, because the
// answer was lost, knows its own record and returns nil; a call that the caller
// repeats returns [auth.ErrSessionExists].
func (s *Store) Create(ctx context.Context, session auth.Session) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := session.Check(); err != nil {
		return err
	}
	record := encode(session, rand.Uint32())
	made, err := s.write(ctx, s.create, s.key(session.Subject), session.ID, record, collectAt(session.ExpiresAt)).Int()
	if err != nil {
		return s.failed(ctx, "creating a session", err)
	}
	if made == 0 {
		return auth.ErrSessionExists
	}
	return nil
}

// collectAt returns when something that ends at t may be collected.
func collectAt(t time.Time) int64 { return t.Add(collectAfter).UnixMilli() }

// possible reports whether there can be a session of this subject and ID.
func possible(subject, id string) bool {
	return auth.Session{Subject: subject, ID: id}.Check() == nil
}

// Get implements [auth.Store].
func (s *Store) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if err := ctx.Err(); err != nil {
		return auth.Session{}, err
	}
	if !possible(subject, id) {
		return auth.Session{}, auth.ErrSessionNotFound
	}
	record, err := s.client.HGet(ctx, s.key(subject), id).Result()
	if errors.Is(err, redis.Nil) {
		return auth.Session{}, auth.ErrSessionNotFound
	}
	if err != nil {
		return auth.Session{}, s.failed(ctx, "reading a session", err)
	}
	session, err := decode(subject, id, record)
	if err != nil {
		return auth.Session{}, fmt.Errorf("redisstore: %w", err)
	}
	return session, nil
}

// Rotate implements [auth.Store], in one round trip.
func (s *Store) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := ctx.Err(); err != nil {
		return auth.Session{}, false, err
	}
	if err := r.Check(); err != nil {
		return auth.Session{}, false, err
	}
	if !possible(subject, id) {
		return auth.Session{}, false, auth.ErrSessionNotFound
	}
	device := appendDevice(make([]byte, 0, 17+len(r.Device.UserAgent)), r.Device)
	answer, err := s.write(ctx, s.rotate, s.key(subject), id,
		r.From, r.At.UnixMilli(), r.NotAfter.UnixMilli(), r.ExpiresAt.UnixMilli(), collectAt(r.ExpiresAt), device).Slice()
	if errors.Is(err, redis.Nil) {
		return auth.Session{}, false, auth.ErrSessionNotFound
	}
	if err != nil {
		return auth.Session{}, false, s.failed(ctx, "rotating a session", err)
	}
	moved, record, ok := rotated(answer)
	if !ok {
		return auth.Session{}, false, errAnswer
	}
	session, err := decode(subject, id, record)
	if err != nil {
		return auth.Session{}, false, fmt.Errorf("redisstore: %w", err)
	}
	return session, moved, nil
}

// failed says what did not work. A read that ctx ended is a timeout to the
// driver; it is told as what it is. Where no server answered, a replica may have
// taken over, and the driver would ask the old master until it looks at the
// Cluster again, once a minute. It is told to look now, which it does beside the
// calls and a few times a second at most.
func (s *Store) failed(ctx context.Context, doing string, err error) error {
	var answer redis.Error
	if cluster, ok := s.client.(*redis.ClusterClient); ok && !errors.As(err, &answer) {
		cluster.ReloadState(ctx)
	}
	ended := ctx.Err()
	if d, ok := ctx.Deadline(); ok && ended == nil && !time.Now().Before(d) {
		ended = context.DeadlineExceeded
	}
	if ended != nil && !errors.Is(err, ended) {
		err = fmt.Errorf("%w: %w", ended, err)
	}
	return fmt.Errorf("redisstore: %s: %w", doing, err)
}

// errAnswer says that a script answered what it never does.
var errAnswer = errors.New("redisstore: the server's answer has an unknown form")

func rotated(answer []any) (moved bool, record string, ok bool) {
	if len(answer) != 2 {
		return false, "", false
	}
	n, ok1 := answer[0].(int64)
	record, ok2 := answer[1].(string)
	return n == 1, record, ok1 && ok2
}

// List implements [auth.Store].
func (s *Store) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !possible(subject, "any") {
		return nil, nil
	}
	records, err := s.client.HGetAll(ctx, s.key(subject)).Result()
	if err != nil {
		return nil, s.failed(ctx, "listing sessions", err)
	}
	list := make([]auth.Session, 0, len(records))
	for id, record := range records {
		session, err := decode(subject, id, record)
		if err != nil {
			s.tell(ctx, err)
			continue
		}
		list = append(list, session)
	}
	slices.SortFunc(list, func(a, b auth.Session) int {
		return cmp.Or(b.RotatedAt.Compare(a.RotatedAt), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// tellEvery is how long OnEvent is left alone after it was told of a record.
const tellEvery = time.Minute

// tell tells OnEvent of a record that cannot be read, unless it was told lately.
func (s *Store) tell(ctx context.Context, err error) {
	now, last := time.Now(), s.told.Load()
	if s.onEvent == nil || now.UnixNano()-last < int64(tellEvery) || !s.told.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	s.onEvent(ctx, auth.Event{Type: auth.EventFault, Time: now.UTC(), Err: fmt.Errorf("redisstore: listing sessions: %w; it is left out", err)})
}

// Revoke implements [auth.Store]: one step on the subject's key, then one on
// the feed's. Once begun it is carried to its end: it does not stop when ctx is
// cancelled, and each step may go on for half a second after the deadline.
//
// With All, a record that cannot be read is deleted too, unless Except names it:
// when it was created is not known. A session that is named is deleted whatever
// its record is.
func (s *Store) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.Check(); err != nil {
		return err
	}
	entry, err := encodeRevocation(r)
	if err != nil {
		return err
	}
	if r.All || len(r.Sessions) > 0 {
		if err := s.remove(ctx, r); err != nil {
			return s.failed(ctx, "revoking", err)
		}
	}
	firm, cancel := carryOn(ctx)
	defer cancel()
	if err := s.write(firm, s.announce, s.feed(), r.Until.UnixMilli(), collectAt(r.Until), entry).Err(); err != nil {
		return s.failed(ctx, "announcing a revocation", err)
	}
	return ctx.Err()
}

// remove deletes the sessions that r names.
func (s *Store) remove(ctx context.Context, r auth.Revocation) error {
	args := make([]any, 2, 2+len(r.Sessions)+len(r.Except))
	args[0], args[1] = "", len(r.Sessions)
	for _, id := range r.Sessions {
		args = append(args, id)
	}
	if r.All {
		args[0] = r.Before.UnixMilli()
		for _, id := range r.Except {
			args = append(args, id)
		}
	}
	ctx, cancel := carryOn(ctx)
	defer cancel()
	return s.write(ctx, s.revoke, s.key(r.Subject), args...).Err()
}

// carryOn returns a context that is not cancelled with ctx, and ends a little
// after its deadline.
func carryOn(ctx context.Context) (context.Context, context.CancelFunc) {
	firm := context.WithoutCancel(ctx)
	deadline, ok := ctx.Deadline()
	if !ok {
		return firm, func() {}
	}
	return context.WithTimeout(firm, max(0, time.Until(deadline))+revokeGrace)
}

// write runs a script on its key, and sees that enough replicas have what it
// wrote, and what it saw.
func (s *Store) write(ctx context.Context, script *redis.Script, key string, args ...any) *redis.Cmd {
	if s.replicas == 0 {
		return script.Run(ctx, s.client, []string{key}, args...)
	}
	cmd, err := s.writeAndWait(ctx, script, key, args)
	if err != nil && cmd.Err() == nil {
		cmd.SetErr(err)
	}
	return cmd
}

// redirects is how often a write follows a key that is on the move.
const redirects = 4

func (s *Store) writeAndWait(ctx context.Context, script *redis.Script, key string, args []any) (*redis.Cmd, error) {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return s.pipe(ctx, s.client, script, key, args, false)
	}
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return redis.NewCmd(ctx), err
	}
	asking := false
	for try := 0; ; try++ {
		cmd, err := s.pipe(ctx, node, script, key, args, asking)
		addr, moved := redis.IsMovedError(err)
		asked, ask := redis.IsAskError(err)
		if !moved && !ask || try == redirects {
			return cmd, err
		}
		if asking = ask; ask {
			addr = asked
		}
		if node, err = master(ctx, cluster, addr, key); err != nil {
			return cmd, err
		}
	}
}

// master returns the master at addr after it has read the Cluster's state
// anew; where there is none, that of the key.
func master(ctx context.Context, cluster *redis.ClusterClient, addr, key string) (*redis.Client, error) {
	var found atomic.Pointer[redis.Client]
	err := cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		if node.Options().Addr == addr {
			found.Store(node)
		}
		return nil
	})
	if node := found.Load(); node != nil || err != nil {
		return node, err
	}
	return cluster.MasterForKey(ctx, key)
}

// pipe runs the script and WAIT on one connection, which is what WAIT counts
// from. The error says what either of them failed with.
func (s *Store) pipe(ctx context.Context, client redis.Cmdable, script *redis.Script, key string, args []any, asking bool) (*redis.Cmd, error) {
	run := func(f func(p redis.Pipeliner) *redis.Cmd) (cmd *redis.Cmd, err error) {
		p := client.Pipeline()
		if asking {
			p.Do(ctx, "ASKING")
		}
		cmd = f(p)
		acks := p.Do(ctx, "WAIT", s.replicas, s.replicaTimeout.Milliseconds())
		if _, err = p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return cmd, err
		}
		n, err := acks.Int()
		if err == nil && n < s.replicas {
			err = fmt.Errorf("written, but within %s only %d of %d replicas had it", s.replicaTimeout, n, s.replicas)
		}
		return cmd, err
	}
	cmd, err := run(func(p redis.Pipeliner) *redis.Cmd { return script.EvalSha(ctx, p, []string{key}, args...) })
	if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		cmd, err = run(func(p redis.Pipeliner) *redis.Cmd { return script.Eval(ctx, p, []string{key}, args...) })
	}
	return cmd, err
}
