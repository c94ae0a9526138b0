package main

import (
	"bufio"
	"context"
	"crypto/sha1" // the services use it; nothing depends on its strength
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/ratchet-go/auth/password"
)

// The refusals. Both wrap password.ErrRefused, so that the password is refused.
var (
	errShort  = fmt.Errorf("%w: too short", password.ErrRefused)
	errLeaked = fmt.Errorf("%w: leaked", password.ErrRefused)
)

// screen refuses short passwords, and those that a range service knows.
type screen struct {
	url    string
	client *http.Client
}

func newScreen(url string) screen {
	last := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return screen{url, &http.Client{CheckRedirect: last}} // a redirect is an error
}

// check is the Screen of the Hasher, which limits its time by ScreenTimeout. The
// password is refused only if check returns one of the two errors above; after any other
// error it is accepted, and an event says why.
func (s screen) check(ctx context.Context, pass string) error {
	if utf8.RuneCountInString(pass) < 15 { // NIST SP 800-63B-4, without a second factor
		return errShort
	}
	sum := sha1.Sum([]byte(pass))
	digits := strings.ToUpper(hex.EncodeToString(sum[:]))
	return s.find(ctx, digits[:5], digits[5:])
}

// Bounds of an answer. The usual ones have about 1,000 lines and 40 KB.
const maxAnswer = 1 << 20 // bytes

// line is a line of an answer: the other 35 digits of a hash, and how often the
// password was leaked. Lines with 0 are padding.
var line = regexp.MustCompile(`^[0-9A-F]{35}:[0-9]+$`)

// find asks for all hashes that begin with prefix, which is all that the service
// learns, and looks for the suffix among them.
func (s screen) find(ctx context.Context, prefix, suffix string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+prefix, http.NoBody)
	if err != nil {
		return errors.New("the URL of the range service is not valid")
	}
	r.Header.Set("Add-Padding", "true") // so that the size of the answer does not reveal the prefix
	resp, err := s.client.Do(r)
	if urlError, ok := errors.AsType[*url.Error](err); ok {
		err = urlError.Err // without the URL, which has a part of the hash
	}
	if err != nil {
		return fmt.Errorf("range service: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("range service: status %d", resp.StatusCode)
	}
	body := &io.LimitedReader{R: resp.Body, N: maxAnswer}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 256)
	found, n := false, 0
	for ; lines.Scan(); n++ {
		if !line.MatchString(lines.Text()) {
			return errors.New("range service: the answer is not a list of hashes")
		}
		digits, count, _ := strings.Cut(lines.Text(), ":")
		found = found || digits == suffix && strings.Trim(count, "0") != ""
	}
	switch {
	case lines.Err() != nil:
		return fmt.Errorf("range service: %w", lines.Err())
	case found:
		return errLeaked
	case body.N == 0:
		return errors.New("range service: the answer is too long")
	case n == 0: // no range is empty
		return errors.New("range service: the answer is empty")
	}
	return nil
}
