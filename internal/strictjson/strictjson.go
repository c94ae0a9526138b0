// Package strictjson reads and writes JSON objects for tokens and request
// bodies.
//
// It refuses texts that encoding/json accepts and that two programs may read
// differently: objects with duplicate names, bytes that are not UTF-8, and data
// after the object. Names are case-sensitive.
package strictjson

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Errors of [Object] and [Members].
var (
	ErrSyntax    = errors.New("invalid JSON object")
	ErrDepth     = errors.New("JSON object is nested too deeply")
	ErrDuplicate = errors.New("duplicate name in JSON object")
)

// MaxDepth is how deeply objects and arrays may be nested.
const MaxDepth = 32

const looseDepth = 10_000 // as in encoding/json

// Object calls member for each member of text, which must be a JSON object, and
// returns the first error of member. The name is without escapes; the value is
// JSON, and a substring of text. Neither this object nor one inside it may
// have more than limit members: the search for duplicate names is quadratic.
func Object(text string, limit int, member func(name, value string) error) error {
	if !utf8.ValidString(text) {
		return ErrSyntax
	}
	return read(scanner{b: text, limit: limit, maxDepth: MaxDepth}, member)
}

// Members returns the members of text, which must be a JSON object with unique
// names. It checks the values for their syntax only: they may have duplicate
// names, any number of members, bytes that are not UTF-8, and a depth of up to
// 10,000. It is for documents of which one part may be unusable.
func Members(text string) (map[string]string, error) {
	members := map[string]string{}
	err := read(scanner{b: text, loose: true, maxDepth: looseDepth}, func(name, value string) error {
		if _, ok := members[name]; ok {
			return ErrDuplicate
		}
		members[name] = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	return members, nil
}

func read(s scanner, member func(name, value string) error) error {
	s.space()
	if err := s.object(1, member); err != nil {
		return err
	}
	s.space()
	if s.i != len(s.b) {
		return ErrSyntax
	}
	return nil
}

type scanner struct {
	b        string
	i        int
	limit    int  // of the members of an object
	loose    bool // without a limit, and without checks of names
	maxDepth int
}

func (s *scanner) space() {
	if s.i < len(s.b) && s.b[s.i] > ' ' { // nearly always
		return
	}
	s.spaces()
}

func (s *scanner) spaces() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// object reads an object; member may be nil.
func (s *scanner) object(depth int, member func(name, value string) error) error {
	if depth > s.maxDepth {
		return ErrDepth
	}
	if !s.take('{') {
		return ErrSyntax
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
			text, ok := String(raw)
			if !ok && !s.loose {
				return ErrSyntax
			}
			if ok {
				name = text
			}
		}
		if !s.loose {
			if len(names) == s.limit {
				return ErrSyntax
			}
			for _, n := range names {
				if n == name {
					return ErrDuplicate
				}
			}
			names = append(names, name)
		}
		s.space()
		if !s.take(':') {
			return ErrSyntax
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
			return ErrSyntax
		}
		s.space()
	}
}

func (s *scanner) array(depth int) error {
	if depth > s.maxDepth {
		return ErrDepth
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
			return ErrSyntax
		}
		s.space()
	}
}

func (s *scanner) value(depth int) error {
	if s.i >= len(s.b) {
		return ErrSyntax
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
	return ErrSyntax
}

// str reads a string and returns it with its quotes.
func (s *scanner) str() (string, error) {
	from := s.i
	if !s.take('"') {
		return "", ErrSyntax
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
			return "", ErrSyntax
		case c == '\\':
			if s.i >= len(s.b) {
				return "", ErrSyntax
			}
			e := s.b[s.i]
			s.i++
			switch e {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(s.b)-s.i < 4 {
					return "", ErrSyntax
				}
				for range 4 {
					if !isHex(s.b[s.i]) {
						return "", ErrSyntax
					}
					s.i++
				}
			default:
				return "", ErrSyntax
			}
		}
	}
	return "", ErrSyntax
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *scanner) number() error {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return ErrSyntax
	}
	if s.take('.') && !s.digits() {
		return ErrSyntax
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return ErrSyntax
		}
	}
	return nil
}

// String returns the text of a value of [Object] that is a string.
func String(value string) (string, bool) {
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

// Strings appends to list the elements of a value of [Object], which must be an
// array of strings.
func Strings(list []string, value string) ([]string, bool) {
	if value == "" || value[0] != '[' {
		return nil, false
	}
	s := scanner{b: value, i: 1}
	s.space()
	if s.take(']') {
		return list, true
	}
	for {
		raw, err := s.str()
		if err != nil {
			return nil, false
		}
		text, ok := String(raw)
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

// Int returns a value of [Object] that is a number of at most 18 decimal
// digits, without a sign, a fraction or an exponent.
func Int(value string) (n int64, ok bool) {
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

// ValidStrings reports whether [String] accepts every string in text, names
// included. text must be JSON that [Object] accepts.
func ValidStrings(text string) bool {
	s := scanner{b: text}
	for {
		next := strings.IndexByte(text[s.i:], '"')
		if next < 0 {
			return true
		}
		s.i += next
		raw, err := s.str()
		if err != nil {
			return false
		}
		if _, ok := String(raw); !ok {
			return false
		}
	}
}

// A Writer appends members to a JSON object. Names must need no escapes, and
// texts must be valid UTF-8.
type Writer struct{ b []byte }

// NewWriter returns a Writer that appends an object to b.
func NewWriter(b []byte) Writer { return Writer{append(b, '{')} }

// name begins a member.
func (w *Writer) name(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

// String appends a member whose value is a string.
func (w *Writer) String(name, value string) {
	w.name(name)
	w.b = appendString(w.b, value)
}

// Strings appends a member whose value is an array of strings.
func (w *Writer) Strings(name string, list []string) {
	w.name(name)
	w.b = append(w.b, '[')
	for i, s := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = appendString(w.b, s)
	}
	w.b = append(w.b, ']')
}

// Int appends a member whose value is a number.
func (w *Writer) Int(name string, value int64) {
	w.name(name)
	w.b = strconv.AppendInt(w.b, value, 10)
}

// Raw appends a member whose value is JSON.
func (w *Writer) Raw(name, value string) {
	w.name(name)
	w.b = append(w.b, value...)
}

// Bool appends a member whose value is true or false.
func (w *Writer) Bool(name string, value bool) {
	w.name(name)
	w.b = strconv.AppendBool(w.b, value)
}

// Members appends the members of a JSON object that has at least one.
func (w *Writer) Members(object []byte) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(w.b, object[1:len(object)-1]...)
}

// Close ends the object and returns the slice. The Writer must not be used
// afterward.
func (w *Writer) Close() []byte { return append(w.b, '}') }

func appendString(b []byte, s string) []byte {
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
