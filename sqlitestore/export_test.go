package sqlitestore

import (
	"context"
	"database/sql"
)

// Exec runs SQL on the connection that writes, as part of no transaction.
func (s *Store) Exec(query string) error {
	s.slot <- struct{}{}
	defer func() { <-s.slot }()
	_, err := s.file.Load().writer.ExecContext(context.Background(), query)
	return err
}

// Write runs f where Create and the others write.
func (s *Store) Write(ctx context.Context, f func(*sql.Conn) error) error {
	return s.write(ctx, func(file *file) error { return f(file.writer) })
}

// Queued is how many calls wait to write.
func (s *Store) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// Fault lets the file be opened anew.
func (s *Store) Fault() {
	if f := s.file.Load(); f != nil {
		f.faulty.Store(true)
	}
}

// Link makes the file as Open does when it saw none.
func Link(path string) error { return link(path) }
