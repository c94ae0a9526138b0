package authclient_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"

	"github.com/ratchet-go/auth/authclient"
)

// rows is a Store in a table of PostgreSQL, for a service that signs in at another
// one and runs in several processes:
//
//	CREATE TABLE tokens (name text PRIMARY KEY, value bytea)
//	INSERT INTO tokens (name) VALUES ('reports')
type rows struct {
	db   *sql.DB
	name string
}

// Load returns the value of the row.
func (s rows) Load(ctx context.Context) (value []byte, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT value FROM tokens WHERE name = $1", s.name).Scan(&value)
	return value, err
}

// Update locks the row, so that the processes wait for each other.
func (s rows) Update(ctx context.Context, f func([]byte) ([]byte, error)) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	var old []byte
	err = tx.QueryRowContext(ctx, "SELECT value FROM tokens WHERE name = $1 FOR UPDATE", s.name).Scan(&old)
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	value, err := f(old)
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if _, err = tx.ExecContext(ctx, "UPDATE tokens SET value = $1 WHERE name = $2", value, s.name); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// A Store of the application keeps the tokens in its database.
func ExampleStore() {
	var db *sql.DB // of the application
	t, err := authclient.New(authclient.Config{
		BaseURL: "https://example.com/auth",
		Store:   rows{db, "reports"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(t)
	// Output: authclient.Transport{https://example.com/auth}
}
