package sqlitestore

import (
	"context"
	"database/sql"
)

// Exec runs SQL on the writing connection, outside of a transaction.
func (s *Store) Exec(query string) error {
	s.slot <- struct{}{}
	defer func() { <-s.slot }()
	_, err := s.file.Load().writer.ExecContext(context.Background(), query)
	return err
}

// Write calls f in a transaction, as Create and the other methods do.
func (s *Store) Write(ctx context.Context, f func(*sql.Conn) error) error {
	return s.write(ctx, func(file *file) error { return f(file.writer) })
}

// Queued returns the number of calls that wait to write.
func (s *Store) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// Fault makes the Store reopen the file.
func (s *Store) Fault() {
	if f := s.file.Load(); f != nil {
		f.faulty.Store(true)
	}
}

// Link creates the file as Open does if it does not exist.
func Link(path string) error { return link(path) }
