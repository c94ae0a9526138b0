package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
)

const (
	defaultPrefix         = "ratchet"
	defaultReplicaTimeout = 500 * time.Millisecond

	// revokeGrace is how long each step of Revoke may continue after the
	// deadline of its context, so that a deletion is also published.
	revokeGrace = 500 * time.Millisecond
)

// Config is what [New] needs besides the client. It is copied. A zero field means
// the default.
type Config struct {
	_ [0]func() // keyed literals only

	// Prefix is the beginning of every key: "ratchet" by default. Stores with
	// different prefixes can share a database and see nothing of each other.
	// A prefix must not contain a brace, which would put all keys into one
	// slot of a Cluster.
	Prefix string

	// Replicas is how many replicas must have a write before it is
	// acknowledged (WAIT); 0, the default, means none. If fewer have it, the
	// call returns an error, although the write may have taken effect; it may
	// be repeated. On a Cluster, replicas of the key's master are counted. The
	// package comment says what a failover can lose.
	Replicas int

	// ReplicaTimeout is the maximum time to wait for replicas: 500 milliseconds
	// by default, at least 1 millisecond, and less than the client's
	// ReadTimeout. The deadline of a context also ends the wait.
	ReplicaTimeout time.Duration

	// OnEvent, if it is not nil, is called with an [auth.EventFault]:
	//
	//   - once, if the server may evict keys (its maxmemory-policy is not
	//     noeviction): at random, sessions would end, revocations would be lost,
	//     and what Spend recorded could be used again. The policy is read by INFO
	//     when the feed is read from its beginning; if the user may not call INFO,
	//     there is no event.
	//   - at most once a minute, if List leaves out a session record that cannot
	//     be read.
	//
	// The OnEvent of [auth.Config] can be used.
	OnEvent func(ctx context.Context, e auth.Event)
}

// Store is an [auth.Store] on Redis. It is safe for concurrent use, and any
// number of processes may use one server. It has no connections of its own, so it
// need not be closed.
type Store struct {
	client         redis.UniversalClient
	prefix         string
	replicas       int
	replicaTimeout time.Duration
	onEvent        func(context.Context, auth.Event)
	warned         atomic.Bool  // whether OnEvent was called because of the eviction policy
	reported       atomic.Int64 // when OnEvent was last called because of an unreadable record, in Unix nanoseconds

	create, rotate, revoke, publish, changes, spend *redis.Script
}

var _ auth.Store = (*Store)(nil)

// New returns a Store that uses client. The error joins every problem with the
// client and with c. New does no I/O. The caller may use the client for other
// purposes, and closes it when the Store is no longer used.
//
// The client must be a *[redis.Client], which may be a failover client of
// Sentinel, or a *[redis.ClusterClient]. Its options must set
// ContextTimeoutEnabled; otherwise a server that hangs delays every call for
// ReadTimeout and its retries, whatever the deadline of the context. The client
// must not read from replicas or cache replies, and its PoolSize must be at least
// 2, since a waiting Changes occupies one connection.
func New(client redis.UniversalClient, c Config) (*Store, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("redisstore: "+format, args...)) }

	o, err := clientOptions(client)
	if err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, o.check(), o.checkPool())
	}
	prefix := cmp.Or(c.Prefix, defaultPrefix)
	if strings.ContainsAny(prefix, "{}") {
		bad("Config.Prefix (%q) contains a brace, which would put all keys into one slot of a Cluster", prefix)
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
		bad("Config.ReplicaTimeout (%s, the default) must be less than the client's ReadTimeout (%s)", replicaTimeout, o.readTimeout)
	case c.Replicas > 0 && o.readTimeout > 0 && replicaTimeout >= o.readTimeout:
		bad("Config.ReplicaTimeout (%s) must be less than the client's ReadTimeout (%s)", replicaTimeout, o.readTimeout)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Store{
		client: client, prefix: prefix,
		replicas: c.Replicas, replicaTimeout: replicaTimeout, onEvent: c.OnEvent,
		create: redis.NewScript(luaCreate), rotate: redis.NewScript(luaRotate), revoke: redis.NewScript(luaRevoke),
		publish: redis.NewScript(luaPublish), changes: redis.NewScript(luaChanges), spend: redis.NewScript(luaSpend),
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

// checkPool returns an error if a Store cannot work with the size of the pool.
func (o options) checkPool() error {
	if o.poolSize < 2 {
		return fmt.Errorf("redisstore: the client's PoolSize is %d; it must be at least 2, since a waiting Changes occupies one connection", o.poolSize)
	}
	return nil
}

// check returns an error for each option that a Store or a Limiter cannot work
// with.
func (o options) check() error {
	var errs []error
	if o.caches {
		errs = append(errs, errors.New("redisstore: the client caches replies (ClientSideCache), so it would return sessions that have ended"))
	}
	if o.readsReplicas {
		errs = append(errs, errors.New(
			"redisstore: the client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly), so it would return sessions that have ended"))
	}
	if !o.contextTimeout {
		errs = append(errs, errors.New("redisstore: the client's ContextTimeoutEnabled is false, so a server that hangs would delay calls beyond their deadlines"))
	}
	return errors.Join(errs...)
}

// key returns the key of a subject's sessions.
func (s *Store) key(subject string) string { return s.prefix + ":{" + subject + "}" }

// Create implements [auth.Store]. If the driver retries the command because a
// reply was lost, the script recognizes its own record and Create returns nil. If
// the caller repeats the call, Create returns [auth.ErrSessionExists].
func (s *Store) Create(ctx context.Context, session auth.Session) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := session.Check(); err != nil {
		return err
	}
	record := encode(session, rand.Uint32())
	created, err := s.write(ctx, s.create, s.key(session.Subject), session.ID, record, collectAt(session.ExpiresAt)).Int()
	if err != nil {
		return s.failed(ctx, "creating a session", err)
	}
	if created == 0 {
		return auth.ErrSessionExists
	}
	return nil
}

// collectAt returns the time, in Unix milliseconds, from which something that
// ends at t may be deleted.
func collectAt(t time.Time) int64 { return t.Add(collectAfter).UnixMilli() }

// possible reports whether a session with this subject and ID can exist.
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
		return auth.Session{}, fmt.Errorf("redisstore: reading a session: %w", err)
	}
	return session, nil
}

// Rotate implements [auth.Store]. It is one round trip.
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
	reply, err := s.write(ctx, s.rotate, s.key(subject), id,
		r.From, r.At.UnixMilli(), r.NotAfter.UnixMilli(), r.ExpiresAt.UnixMilli(), collectAt(r.ExpiresAt), device,
		r.RetryTag, r.SpentTag, r.Key).Slice()
	if errors.Is(err, redis.Nil) {
		return auth.Session{}, false, auth.ErrSessionNotFound
	}
	if err != nil {
		return auth.Session{}, false, s.failed(ctx, "rotating a session", err)
	}
	rotated, record, ok := parseRotateReply(reply)
	if !ok {
		return auth.Session{}, false, fmt.Errorf("redisstore: rotating a session: %w", errReply)
	}
	session, err := decode(subject, id, record)
	if err != nil {
		return auth.Session{}, false, fmt.Errorf("redisstore: rotating a session: %w", err)
	}
	return session, rotated, nil
}

// failed adds the package and the operation to err.
//
// If ctx has ended, the result wraps the error of ctx: the driver reports only
// a timeout. If no server replied, a replica may have been promoted. The driver
// would use the old master until it reloads the state of the Cluster, once a
// minute, so failed requests a reload. The driver does it in the background, at
// most a few times a second.
func (s *Store) failed(ctx context.Context, doing string, err error) error {
	return failed(ctx, s.client, doing, err)
}

func failed(ctx context.Context, client redis.UniversalClient, doing string, err error) error {
	var reply redis.Error
	if cluster, ok := client.(*redis.ClusterClient); ok && !errors.As(err, &reply) {
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

// errReply means that the reply to a script does not have the script's form.
var errReply = errors.New("unexpected reply from the server")

func parseRotateReply(reply []any) (rotated bool, record string, ok bool) {
	if len(reply) != 2 {
		return false, "", false
	}
	n, ok1 := reply[0].(int64)
	record, ok2 := reply[1].(string)
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
			s.reportUnreadable(ctx, err)
			continue
		}
		list = append(list, session)
	}
	slices.SortFunc(list, func(a, b auth.Session) int {
		return cmp.Or(b.RotatedAt.Compare(a.RotatedAt), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// reportInterval is the minimum time between two events about unreadable records.
const reportInterval = time.Minute

// reportUnreadable calls OnEvent because a record cannot be read, at most once in
// reportInterval.
func (s *Store) reportUnreadable(ctx context.Context, err error) {
	now, last := time.Now(), s.reported.Load()
	if s.onEvent == nil || now.UnixNano()-last < int64(reportInterval) || !s.reported.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	s.onEvent(ctx, auth.Event{Type: auth.EventFault, Time: now.UTC(), Err: fmt.Errorf("redisstore: listing sessions: left out a record: %w", err)})
}

// Revoke implements [auth.Store]. It is two steps: one on the subject's key,
// then one on the feed's. Once it has begun, it does not stop when ctx is
// canceled, and each step may continue for half a second after the deadline.
//
// With All, Revoke also deletes records that cannot be read, since their
// creation time is unknown, except those that Except lists. A session that
// Sessions lists is deleted even if its record cannot be read.
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
	publishing, cancel := withGrace(ctx)
	defer cancel()
	if err := s.write(publishing, s.publish, s.feed(), r.Until.UnixMilli(), collectAt(r.Until), entry).Err(); err != nil {
		return s.failed(ctx, "publishing a revocation", err)
	}
	return ctx.Err()
}

// remove deletes the sessions that r revokes.
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
	ctx, cancel := withGrace(ctx)
	defer cancel()
	return s.write(ctx, s.revoke, s.key(r.Subject), args...).Err()
}

// withGrace returns a context that is not canceled with ctx, and that ends
// revokeGrace after the deadline of ctx.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	uncanceled := context.WithoutCancel(ctx)
	deadline, ok := ctx.Deadline()
	if !ok {
		return uncanceled, func() {}
	}
	return context.WithTimeout(uncanceled, max(0, time.Until(deadline))+revokeGrace)
}

// spentKey returns the key of a record of Spend. Like the key of the subject's
// sessions, it begins with {<subject>}, so both are in one slot of a Cluster,
// unless the subject begins with a closing brace. The length at the end makes the
// key different for every subject and ID, and different from every other key: a
// key of sessions ends with a brace, and the key of the feed has none.
func (s *Store) spentKey(subject, id string) string {
	return s.key(subject) + ":once:" + id + ":" + strconv.Itoa(len(id))
}

// Spend implements [auth.Store]. It is one round trip. If the driver retries the
// command because a reply was lost, the script recognizes its own record and
// Spend returns nil. The record expires one minute after until.
func (s *Store) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := (auth.Session{Subject: subject, ID: id, ExpiresAt: until}).Check(); err != nil {
		return err
	}
	at := max(1, collectAt(until)) // the server refuses other times
	spent, err := s.write(ctx, s.spend, s.spentKey(subject, id), rand.Int64(), at).Int()
	if err != nil {
		return s.failed(ctx, "recording a use", err)
	}
	if spent == 0 {
		return auth.ErrSpent
	}
	return nil
}

// write runs a script on its key. If Config.Replicas is set, it also waits until
// that many replicas have what the script wrote and what it read.
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

// maxRedirects is how many redirects (MOVED, ASK) a write follows.
const maxRedirects = 4

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
		if !moved && !ask || try == maxRedirects {
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

// master reloads the state of the Cluster and returns the master at addr, or the
// key's master if there is none at addr.
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

// pipe runs the script and WAIT on the same connection, since WAIT counts the
// replicas that have the writes of its own connection. The error is that of the
// script or of WAIT.
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
			err = fmt.Errorf("the master has the write, but only %d of %d replicas confirmed it within %s", n, s.replicas, s.replicaTimeout)
		}
		return cmd, err
	}
	cmd, err := run(func(p redis.Pipeliner) *redis.Cmd { return script.EvalSha(ctx, p, []string{key}, args...) })
	if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		cmd, err = run(func(p redis.Pipeliner) *redis.Cmd { return script.Eval(ctx, p, []string{key}, args...) })
	}
	return cmd, err
}
