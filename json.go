package auth

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A strict reader of JSON objects, for tokens and for request bodies. What
// encoding/json forgives is an attack here: names that differ in letter case,
// duplicate names, bytes that are not UTF-8, anything after the object.

var (
	errJSON      = errors.New("not one strict JSON object")
	errJSONDepth = errors.New("JSON nested too deeply")
	errJSONTwice = errors.New("duplicate name in JSON object")
)

const (
	maxJSONDepth = 32

	// How many members one object may have. Looking for duplicates is
	// quadratic in it, so it is small where anybody may send the object.
	maxHeaderMembers = 32
	maxBodyMembers   = 64
	maxClaims        = 1024 // signed
)

// readObject calls member for each member of the one object that b consists
// of; no object in it may have more members than that. The texts are parts of
// b, but for a name that was written with escapes.
func readObject(b string, members int, member func(name, value string) error) error {
	if !utf8.ValidString(b) {
		return errJSON
	}
	s := jsonScanner{b: b, members: members}
	s.space()
	if err := s.object(1, member); err != nil {
		return err
	}
	s.space()
	if s.i != len(b) {
		return errJSON
	}
	return nil
}

type jsonScanner struct {
	b       string
	i       int
	members int // that an object may have
}

func (s *jsonScanner) space() {
	if s.i < len(s.b) && s.b[s.i] > ' ' { // nearly always
		return
	}
	s.spaces()
}

func (s *jsonScanner) spaces() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *jsonScanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// object reads an object; member may be nil.
func (s *jsonScanner) object(depth int, member func(name, value string) error) error {
	if depth > maxJSONDepth {
		return errJSONDepth
	}
	if !s.take('{') {
		return errJSON
	}
	s.space()
	if s.take('}') {
		return nil
	}
	var buf [24]string
	names := buf[:0]
	for {
		raw, err := s.str()
		if err != nil {
			return err
		}
		name := raw[1 : len(raw)-1]
		if strings.IndexByte(name, '\\') >= 0 {
			text, ok := jsonString(raw)
			if !ok {
				return errJSON
			}
			name = text
		}
		if len(names) == s.members {
			return errJSON
		}
		for _, n := range names {
			if n == name {
				return errJSONTwice
			}
		}
		names = append(names, name)
		s.space()
		if !s.take(':') {
			return errJSON
		}
		s.space()
		from := s.i
		if err := s.value(depth); err != nil {
			return err
		}
		if member != nil {
			if err := member(name, s.b[from:s.i]); err != nil {
				return err
			}
		}
		s.space()
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return errJSON
		}
		s.space()
	}
}

func (s *jsonScanner) array(depth int) error {
	if depth > maxJSONDepth {
		return errJSONDepth
	}
	s.i++ // the bracket, seen by value
	s.space()
	if s.take(']') {
		return nil
	}
	for {
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return errJSON
		}
		s.space()
	}
}

func (s *jsonScanner) value(depth int) error {
	if s.i >= len(s.b) {
		return errJSON
	}
	switch c := s.b[s.i]; {
	case c == '"':
		_, err := s.str()
		return err
	case c == '{':
		return s.object(depth+1, nil)
	case c == '[':
		return s.array(depth + 1)
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(s.b[s.i:], word) {
			s.i += len(word)
			return nil
		}
	}
	return errJSON
}

// str reads a string and returns it with its quotes.
func (s *jsonScanner) str() (string, error) {
	from := s.i
	if !s.take('"') {
		return "", errJSON
	}
	for i := s.i; i < len(s.b); i++ { // without escapes, as nearly all are
		c := s.b[i]
		if c == '"' {
			s.i = i + 1
			return s.b[from:s.i], nil
		}
		if c == '\\' || c < 0x20 {
			s.i = i
			break
		}
	}
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			return s.b[from:s.i], nil
		case c < 0x20:
			return "", errJSON
		case c == '\\':
			if s.i >= len(s.b) {
				return "", errJSON
			}
			e := s.b[s.i]
			s.i++
			switch e {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(s.b)-s.i < 4 {
					return "", errJSON
				}
				for range 4 {
					if !isHex(s.b[s.i]) {
						return "", errJSON
					}
					s.i++
				}
			default:
				return "", errJSON
			}
		}
	}
	return "", errJSON
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func (s *jsonScanner) digits() bool {
	from := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *jsonScanner) number() error {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return errJSON
	}
	if s.take('.') && !s.digits() {
		return errJSON
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return errJSON
		}
	}
	return nil
}

// jsonString returns the text of a string value that the scanner has passed.
func jsonString(value string) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	body := value[1 : len(value)-1]
	if strings.IndexByte(body, '\\') < 0 {
		return body, true
	}
	var text string
	if json.Unmarshal([]byte(value), &text) != nil {
		return "", false
	}
	// A lone surrogate decodes to U+FFFD, so that two texts could become one.
	if strings.Count(text, "\uFFFD") != strings.Count(body, "\uFFFD") {
		return "", false
	}
	return text, true
}

// jsonStrings appends the elements of an array of strings to list.
func jsonStrings(list []string, value string) ([]string, bool) {
	if value == "" || value[0] != '[' {
		return nil, false
	}
	s := jsonScanner{b: value, i: 1}
	s.space()
	if s.take(']') {
		return list, true
	}
	for {
		raw, err := s.str()
		if err != nil {
			return nil, false
		}
		text, ok := jsonString(raw)
		if !ok {
			return nil, false
		}
		list = append(list, text)
		s.space()
		if s.take(']') {
			return list, true
		}
		if !s.take(',') {
			return nil, false
		}
		s.space()
	}
}

// maxNumericDate is the last second of the year 9999.
const maxNumericDate = 253402300799

// jsonTime returns a NumericDate (RFC 7519 section 2) that is a number within
// the years 1970 to 9999, to the second.
func jsonTime(value string) (time.Time, bool) {
	n, ok := jsonSeconds(value)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(n, 0).UTC(), true
}

// jsonSeconds is [jsonTime] in Unix seconds.
func jsonSeconds(value string) (int64, bool) {
	n, ok := jsonInt(value)
	if !ok {
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f >= 0 && f <= maxNumericDate) {
			return 0, false
		}
		n = int64(math.Floor(f))
	}
	return n, n >= 0 && n <= maxNumericDate
}

// jsonInt returns a number of at most 18 decimal digits that is not negative.
func jsonInt(value string) (n int64, ok bool) {
	if len(value) == 0 || len(value) > 18 {
		return 0, false
	}
	for i := range len(value) {
		c := value[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// appendJSONString appends s as a JSON string. s must be valid UTF-8.
func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			quoted, _ := json.Marshal(s) // a string cannot fail
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendJSONStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONString(b, s)
	}
	return append(b, ']')
}
