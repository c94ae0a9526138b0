package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/ratchet-go/auth"
)

// write is what one call wants written. Calls that come together share one
// transaction, and so one wait for the disk: whoever gets the slot carries out
// what is in the queue, for the others too.
type write struct {
	run  func(*file) error // may run several times; an error undoes it
	back chan struct{}     // has an element once it was put back in the queue
	done chan struct{}
	err  error
}

func (w *write) finish(err error) {
	w.err = err
	close(w.done)
}

// maxBatch bounds a transaction.
const maxBatch = 128

// write has run carried out in a transaction.
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
			ended = nil // it is under way
		case <-w.back:
			ended = ctx.Done()
		}
	}
}

// leave takes a write out of the queue, unless it is under way.
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

// lead carries out what is in the queue, w among it. It is called with the
// slot.
func (s *Store) lead(ctx context.Context, w *write) {
	select {
	case <-w.done:
		return
	default:
	}
	f, err := s.begin(ctx)
	began := time.Now()
	if err != nil {
		if s.leave(w) { // the others have contexts of their own
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
			// The others begin again without it.
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
		err = f.inPlace()
	}
	s.released = time.Now()
	s.held += s.released.Sub(began)
	for _, w := range batch {
		w.finish(err)
	}
}

// Who has held SQLite's lock for turn lets go of it for rest: others that wait
// for it look only from time to time, and would hardly ever find it free between
// two transactions of one who has more to write.
const (
	turn = 10 * time.Millisecond
	rest = 2 * time.Millisecond
)

// begin begins a transaction, as soon as other processes let it.
func (s *Store) begin(ctx context.Context) (*file, error) {
	if s.held >= turn {
		if err := s.sleep(ctx, rest-time.Since(s.released)); err != nil {
			return nil, err
		}
		s.held = 0
	}
	for try := 0; ; try++ {
		f, err := s.reopen(ctx)
		if err != nil {
			return nil, err
		}
		// Without ctx: what has begun is carried out, and takes no time.
		_, err = f.writer.ExecContext(context.Background(), "BEGIN IMMEDIATE")
		if err == nil {
			return f, nil
		}
		if !busy(err) {
			f.judge(err)
			return nil, err
		}
		if err := s.pause(ctx, try); err != nil {
			return nil, err
		}
	}
}

// rollback undoes a transaction that err has ended, unless SQLite has done so
// itself. If neither is certain, the connection is given up.
func (f *file) rollback(err error) {
	f.judge(err)
	if _, err := f.writer.ExecContext(context.Background(), "ROLLBACK"); err != nil && code(err) != 1 {
		f.faulty.Store(true)
	}
}

// read calls f, again if another process was in the way, and once more if the
// file was closed meanwhile because others met a fault.
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
			file.judge(err)
			return err
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
}

// current returns the file. If it is another by now, or was found faulty, it is
// opened anew.
func (s *Store) current(ctx context.Context) (*file, error) {
	if f := s.file.Load(); f != nil && !f.faulty.Load() {
		if err := f.inPlace(); err == nil || !f.faulty.Load() {
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

// reopen is current for who has the slot.
func (s *Store) reopen(ctx context.Context) (*file, error) {
	for try := 0; ; try++ {
		old := s.file.Load()
		if old != nil && !old.faulty.Load() {
			if err := old.inPlace(); err == nil || !old.faulty.Load() {
				return old, err
			}
		}
		if old != nil {
			s.file.Store(nil)
			_ = old.close() // it is given up
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

// pause waits for a moment, longer from time to time, up to 1 ms.
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

// wrap adds the name of the package and the operation that failed to err. It
// returns nil for nil, and leaves [auth.ErrSessionNotFound] as it is: that is a
// result, not a failure.
func wrap(doing string, err error) error {
	if err == nil || errors.Is(err, auth.ErrSessionNotFound) {
		return err
	}
	return fmt.Errorf("sqlitestore: %s: %w", doing, err)
}
