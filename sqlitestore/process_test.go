package sqlitestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/sqlitestore"
)

// TestMain runs the test binary as another process on the same file if
// SQLITESTORE_ROLE is set. It is also the main function of the nodes that package
// faults starts.
func TestMain(m *testing.M) {
	role, path := os.Getenv("SQLITESTORE_ROLE"), os.Getenv("SQLITESTORE_PATH")
	if role == "" {
		faults.Main(m, func(path string) (auth.Store, error) { return sqlitestore.Open(path, sqlitestore.Config{}) })
	}
	s, err := sqlitestore.Open(path, sqlitestore.Config{})
	if err == nil {
		err = map[string]func(*sqlitestore.Store) error{"rotate": rotate, "storm": storm, "open": func(*sqlitestore.Store) error { return nil }}[role](s)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func start(t *testing.T, exe, role, path string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), "SQLITESTORE_ROLE="+role, "SQLITESTORE_PATH="+path)
	p.cmd.Stderr = os.Stderr
	var err error
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.lines = bufio.NewScanner(out)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

func executable(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	return exe
}

// rotate calls Rotate and Spend in 32 goroutines for the generation on each line
// of input. It prints how many of them rotated the session, how many were the
// first to spend it, and all results that they got from Rotate.
func rotate(s *sqlitestore.Store) error {
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var from int64
		if _, err := fmt.Sscan(lines.Text(), &from); err != nil {
			return err
		}
		var rotated, spent atomic.Int64
		var seen sync.Map
		together(32, func(i int) {
			got, m, err := s.Rotate(context.Background(), "ada", "one", rotateFrom(from, use(os.Getpid()<<5+i)))
			if m {
				rotated.Add(1)
			}
			switch err := s.Spend(context.Background(), "ada", lines.Text(), now().Add(time.Hour)); {
			case err == nil:
				spent.Add(1)
			case !errors.Is(err, auth.ErrSpent):
				seen.Store(err.Error(), true)
			}
			seen.Store(fmt.Sprint(got.Generation, " ", got.Device.IP, " ", err), true)
		})
		var shown []string
		seen.Range(func(k, _ any) bool { shown = append(shown, k.(string)); return true })
		fmt.Printf("%d,%d,%s\n", rotated.Load(), spent.Load(), strings.Join(shown, ","))
	}
	return nil
}

func TestRotateAndSpend_OneWinnerAmongProcesses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := open(t, path)
	require.NoError(t, s.Create(t.Context(), session("ada", "one")))
	exe := executable(t)
	processes := []*process{start(t, exe, "rotate", path), start(t, exe, "rotate", path)}
	for _, p := range processes {
		require.True(t, p.lines.Scan())
		require.Equal(t, "ready", p.lines.Text())
	}
	rounds := 50
	if os.Getenv("AUTH_LONG") == "1" {
		rounds = 1000
	}
	for round := range rounds {
		for _, p := range processes {
			_, err := fmt.Fprintln(p.in, round+1)
			require.NoError(t, err)
		}
		total, spent := 0, 0
		shown := map[string]bool{}
		for _, p := range processes {
			require.True(t, p.lines.Scan())
			fields := strings.Split(p.lines.Text(), ",")
			var n, m int
			_, err := fmt.Sscan(fields[0], &n)
			require.NoError(t, err)
			_, err = fmt.Sscan(fields[1], &m)
			require.NoError(t, err)
			total, spent = total+n, spent+m
			for _, f := range fields[2:] {
				shown[f] = true
			}
		}
		require.Equal(t, 1, total, "round %d", round)
		require.Equal(t, 1, spent, "round %d", round)
		got, err := s.Get(t.Context(), "ada", "one")
		require.NoError(t, err)
		require.Equal(t, int64(round+2), got.Generation)
		require.Equal(t, map[string]bool{fmt.Sprint(got.Generation, " ", got.Device.IP, " ", nil): true}, shown)
	}
}

// storm writes until it is killed, and prints what was acknowledged. Each line
// is one write to standard output, so it is complete or was not printed.
func storm(s *sqlitestore.Store) error {
	ctx, pid := context.Background(), os.Getpid()
	errs := make(chan error)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				subject, id := fmt.Sprintf("user-%d", w), fmt.Sprintf("%d-%d", pid, i)
				if err := s.Create(ctx, session(subject, id)); err != nil {
					errs <- err
				}
				fmt.Printf("1 %s %s\n", subject, id)
				for from := range int64(i % 4) {
					if _, rotated, err := s.Rotate(ctx, subject, id, rotateFrom(from+1, use(1))); err != nil || !rotated {
						errs <- fmt.Errorf("rotated %t: %w", rotated, err)
					}
					fmt.Printf("%d %s %s\n", from+2, subject, id)
				}
				if i%3 == 1 {
					if err := s.Spend(ctx, "spent-"+subject, id, now().Add(time.Hour)); err != nil {
						errs <- err
					}
					fmt.Printf("-1 spent-%s %s\n", subject, id)
				}
				if i%3 == 2 {
					if err := s.Revoke(ctx, revocation(subject, id)); err != nil {
						errs <- err
					}
					fmt.Printf("0 %s %s\n", subject, id)
				}
			}
		}()
	}
	return <-errs
}

func TestKilled_KeepsWhatWasAcknowledged(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: kills processes repeatedly")
	}
	t.Parallel()
	rounds := 30
	if os.Getenv("AUTH_LONG") == "1" {
		rounds = 200
	}
	path := filepath.Join(t.TempDir(), "sessions.db")
	exe := executable(t)
	acknowledged := 0
	for range rounds {
		p := start(t, exe, "storm", path)
		require.True(t, p.lines.Scan())
		type key struct{ subject, id string }
		last := map[key]int64{}
		note := func() {
			var k key
			var generation int64
			n, err := fmt.Sscanf(p.lines.Text(), "%d %s %s", &generation, &k.subject, &k.id)
			require.NoError(t, err, p.lines.Text())
			require.Equal(t, 3, n)
			last[k] = generation
			acknowledged++
		}
		note()
		timer := time.AfterFunc(rand.N(60*time.Millisecond), func() { _ = p.cmd.Process.Kill() })
		for p.lines.Scan() {
			note()
		}
		timer.Stop()
		var exit *exec.ExitError
		require.ErrorAs(t, p.cmd.Wait(), &exit)
		require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())

		s, err := sqlitestore.Open(path, sqlitestore.Config{})
		require.NoError(t, err)
		published := map[key]bool{}
		for position, more := "", true; more; {
			rs, next, others, err := s.Changes(t.Context(), position, 0)
			require.NoError(t, err)
			for _, r := range rs {
				published[key{r.Subject, r.Sessions[0]}] = true
			}
			position, more = next, others
		}
		for k, generation := range last {
			if generation < 0 {
				require.ErrorIs(t, s.Spend(t.Context(), k.subject, k.id, now()), auth.ErrSpent)
				continue
			}
			got, err := s.Get(t.Context(), k.subject, k.id)
			switch {
			case generation == 0:
				require.ErrorIs(t, err, auth.ErrSessionNotFound, "a revoked session exists again")
				require.True(t, published[k])
			case err != nil: // a complete revocation that was not acknowledged
				require.ErrorIs(t, err, auth.ErrSessionNotFound)
				require.True(t, published[k], "the session %v of generation %d is lost", k, generation)
			default:
				require.Contains(t, []int64{generation, generation + 1}, got.Generation)
			}
		}
		require.NoError(t, s.Close())
	}
	var check string
	require.NoError(t, raw(t, path).QueryRow("PRAGMA integrity_check").Scan(&check))
	require.Equal(t, "ok", check)
	t.Logf("%d kills, %d acknowledged writes", rounds, acknowledged)
}

func TestOpen_ReadOnlyFileIsAnError(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("requires root, to run as another user: run the tests with sudo")
	}
	dir, err := os.MkdirTemp("", "sqlitestore") // other users cannot enter t.TempDir
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755)) //nolint:gosec // another user must be able to use it
	binary, err := os.ReadFile(executable(t))
	require.NoError(t, err)
	exe, path := filepath.Join(dir, "program"), filepath.Join(dir, "sessions.db")
	require.NoError(t, os.WriteFile(exe, binary, 0o755)) //nolint:gosec // the same
	require.NoError(t, open(t, path).Close())
	require.NoError(t, os.Chmod(path, 0o444)) //nolint:gosec // the same
	const nobody = 65534
	require.NoError(t, os.Chown(path, nobody, nobody))
	require.NoError(t, os.Chown(dir, nobody, nobody))
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	cmd := exec.Command(exe)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SQLITESTORE_ROLE=open", "SQLITESTORE_PATH="+path)
	cmd.SysProcAttr = testserver.AsNobody()
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "error: sqlitestore: ")
	require.Contains(t, string(out), "readonly")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}
