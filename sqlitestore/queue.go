package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ratchet-go/auth"
)

// write is the write of one call. Concurrent calls share one transaction, and
// so one synchronization of the disk: the goroutine that gets the slot runs all
// writes in the queue.
type write struct {
	run  func(*file) error // may be called again; an error rolls it back
	back chan struct{}     // receives a value when the write is returned to the queue
	done chan struct{}     // closed when err is set
	err  error
}

func (w *write) finish(err error) {
	w.err = err
	close(w.done)
}

// maxBatch is the maximum number of writes in a transaction.
const maxBatch = 128

// write calls run in a transaction. If ctx ends before the transaction begins,
// write returns the error of ctx.
func (s *Store) write(ctx context.Context, run func(*file) error) error {
	w := &write{run: run, back: make(chan struct{}, 1), done: make(chan struct{})}
	s.mu.Lock()
	s.queue = append(s.queue, w)
	s.mu.Unlock()
	ended := ctx.Done()
	for {
		select {
		case <-w.done:
			return w.err
		case s.slot <- struct{}{}:
			s.lead(ctx, w)
			<-s.slot
		case <-ended:
			if s.leave(w) {
				return ctx.Err()
			}
			ended = nil // it is in a transaction
		case <-w.back:
			ended = ctx.Done()
		}
	}
}

// leave removes w from the queue. It returns false if w is in a transaction.
func (s *Store) leave(w *write) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, w)
	if i < 0 {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	return true
}

// lead runs the writes in the queue, w among them, in one transaction. The
// caller must have the slot.
func (s *Store) lead(ctx context.Context, w *write) {
	select {
	case <-w.done:
		return
	default:
	}
	f, err := s.begin(ctx)
	began := time.Now()
	if err != nil {
		if s.leave(w) { // other writes have their own contexts
			w.finish(err)
		}
		return
	}
	s.mu.Lock()
	n := min(len(s.queue), maxBatch)
	batch := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	s.mu.Unlock()
	for i, w := range batch {
		if err := w.run(f); err != nil {
			f.rollback(err)
			w.finish(err)
			// The other writes are tried again without w.
			s.mu.Lock()
			others := slices.Concat(batch[:i], batch[i+1:])
			s.queue = append(others, s.queue...)
			for _, w := range others {
				select {
				case w.back <- struct{}{}:
				default:
				}
			}
			s.mu.Unlock()
			return
		}
	}
	if _, err = f.writer.ExecContext(context.Background(), "COMMIT"); err != nil {
		f.rollback(err)
	} else {
		err = f.checkPlace()
	}
	s.released = time.Now()
	s.held += s.released.Sub(began)
	for _, w := range batch {
		w.finish(err)
	}
}

// After holding SQLite's lock for maxHold, a Store pauses for yieldTime. Other
// processes try to get the lock only from time to time, and would rarely find
// it free between two transactions of a process that writes continuously.
const (
	maxHold   = 10 * time.Millisecond
	yieldTime = 2 * time.Millisecond
)

// begin begins a transaction once no other process has the lock.
func (s *Store) begin(ctx context.Context) (*file, error) {
	if s.held >= maxHold {
		if err := s.sleep(ctx, yieldTime-time.Since(s.released)); err != nil {
			return nil, err
		}
		s.held = 0
	}
	for try := 0; ; try++ {
		f, err := s.reopen(ctx)
		if err != nil {
			return nil, err
		}
		// Without ctx, since the statement does not wait.
		_, err = f.writer.ExecContext(context.Background(), "BEGIN IMMEDIATE")
		if err == nil {
			return f, nil
		}
		if !busy(err) {
			f.markFaulty(err)
			return nil, err
		}
		if err := s.pause(ctx, try); err != nil {
			return nil, err
		}
	}
}

// rollback rolls a transaction back after err, unless SQLite has done so
// itself. If it fails, the file is reopened.
func (f *file) rollback(err error) {
	f.markFaulty(err)
	if _, err := f.writer.ExecContext(context.Background(), "ROLLBACK"); err != nil && code(err) != sqlite3.SQLITE_ERROR { // SQLITE_ERROR: there is no transaction
		f.faulty.Store(true)
	}
}

// read calls f with the file. It calls f again while another connection has a
// lock, and once more if another call has reopened the file because of a fault.
func (s *Store) read(ctx context.Context, f func(*file) error) error {
	replaced := false
	for try := 0; ; try++ {
		file, err := s.current(ctx)
		if err != nil {
			return err
		}
		err = f(file)
		switch {
		case err == nil, errors.Is(err, auth.ErrSessionNotFound), errors.Is(err, auth.ErrFeedReset):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case !busy(err) && !replaced && s.file.Load() != file:
			replaced = true
			continue
		case !busy(err):
			file.markFaulty(err)
			return err
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
}

// current returns the open file. If the file at the path is another one, or if
// the open file is faulty, current reopens it.
func (s *Store) current(ctx context.Context) (*file, error) {
	if f := s.file.Load(); f != nil && !f.faulty.Load() {
		if err := f.checkPlace(); err == nil || !f.faulty.Load() {
			return f, err
		}
	}
	select {
	case s.slot <- struct{}{}:
		defer func() { <-s.slot }()
		return s.reopen(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closing:
		return nil, os.ErrClosed
	}
}

// reopen is like current. The caller must have the slot.
func (s *Store) reopen(ctx context.Context) (*file, error) {
	for try := 0; ; try++ {
		old := s.file.Load()
		if old != nil && !old.faulty.Load() {
			if err := old.checkPlace(); err == nil || !old.faulty.Load() {
				return old, err
			}
		}
		if old != nil {
			s.file.Store(nil)
			_ = old.close()
		}
		f, err := open(ctx, s.path)
		switch {
		case err == nil:
			s.file.Store(f)
			return f, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !busy(err):
			return nil, err
		}
		if err := s.pause(ctx, try); err != nil {
			return nil, err
		}
	}
}

// pause waits for a random time between attempts, which grows to about 1 ms.
func (s *Store) pause(ctx context.Context, try int) error {
	return s.sleep(ctx, 50*time.Microsecond+rand.N(min(time.Millisecond, 100*time.Microsecond<<min(try, 10))))
}

func (s *Store) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return os.ErrClosed
	}
}

// wrap adds the package and the operation to err. It returns nil and
// [auth.ErrSessionNotFound] unchanged.
func wrap(doing string, err error) error {
	if err == nil || errors.Is(err, auth.ErrSessionNotFound) {
		return err
	}
	return fmt.Errorf("sqlitestore: %s: %w", doing, err)
}
