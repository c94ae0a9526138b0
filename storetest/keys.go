package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ratchet-go/auth"
)

const (
	tagWritten = "RetryTag becomes r.RetryTag, even if that is empty."
	tagSpent   = "If the stored RetryTag is not empty and equals r.SpentTag, RetryTag becomes empty instead."
	keySet     = "If the stored Key is empty, Key becomes r.Key."
	keyKept    = "If the stored Key is not empty and differs from r.Key, it changes nothing, and rotated is false."
)

// tag returns the retry tag with a number. Tags with different numbers differ.
func tag(n int) []byte {
	return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 0xff, 0, 'a', 0x80, '\'', '\\', 0, '\n', 0xc3, 0x28, '"', 0}
}

// key returns the key with a number. Keys with different numbers differ.
func key(n int) []byte {
	k := bytes.Repeat([]byte{0x02, 0, 0xff, '%'}, 9)[:33]
	k[32] = byte(n)
	return k
}

// binaryValues returns values of n bytes that a database might take for text, for
// the end of a text, or for a number. Together they contain every byte.
func binaryValues(n int) [][]byte {
	values := [][]byte{
		make([]byte, n), bytes.Repeat([]byte{0xff}, n), bytes.Repeat([]byte{' '}, n), bytes.Repeat([]byte{'0'}, n),
		append(make([]byte, n-1), 1), append([]byte{1}, make([]byte, n-1)...), append([]byte(`\x00`), bytes.Repeat([]byte{'f'}, n-4)...),
	}
	for b := 0; b < 256; b += n {
		v := make([]byte, n)
		for i := range v {
			v[i] = byte(b + i)
		}
		values = append(values, v)
	}
	return values
}

// withTags returns r with tags.
func withTags(r auth.Rotation, retry, spent []byte) auth.Rotation {
	r.RetryTag, r.SpentTag = retry, spent
	return r
}

// withKey returns r with a key.
func withKey(r auth.Rotation, key []byte) auth.Rotation {
	r.Key = key
	return r
}

// wantEverywhere returns an error unless Get and List return s, which is the only
// session of its subject.
func (e *env) wantEverywhere(st auth.Store, s auth.Session) error {
	if err := e.wantStored(st, s); err != nil {
		return err
	}
	return e.wantList(st, s.Subject, s)
}

var keyCases = []testcase{{
	name: "Get_ReturnsTagsAndKeysAsGiven",
	rule: "Create adds a record.",
	run: func(e *env) error {
		nodes := e.nodes(2)
		tags, keys := append(binaryValues(16), nil, []byte{}), append(binaryValues(33), nil, []byte{})
		var want []auth.Session
		for i, t := range tags {
			s := session("ada", fmt.Sprintf("tag-%d", i))
			s.RetryTag = t
			want = append(want, s)
		}
		for i, k := range keys {
			s, both := session("ada", fmt.Sprintf("key-%d", i)), session("ada", fmt.Sprintf("both-%d", i))
			s.Key, both.Key, both.RetryTag = k, k, tags[i%len(tags)]
			want = append(want, s, both)
		}
		for i := range want {
			if i%3 == 0 {
				want[i].Opaque = nil // a tag and a key must not take the place of the data
			}
			if err := e.create(nodes[0], want[i]); err != nil {
				return err
			}
			if err := e.wantStored(nodes[1], want[i]); err != nil {
				return err
			}
		}
		return e.wantList(nodes[1], "ada", want...)
	},
}, {
	name: "Rotate_SetsRetryTag",
	rule: tagWritten,
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		tags := append([][]byte{tag(1), tag(2), tag(2), nil, nil, tag(3), {}, tag(1)}, binaryValues(16)...)
		for i, t := range tags {
			for _, ahead := range []int64{0, 3} { // 3 as after lost writes
				r := withTags(rotationAt(s.RotatedAt.Add(time.Second), device(i)), t, nil)
				if len(t) > 0 {
					r.SpentTag = tag(1000 + i)
				}
				from := s.Generation + ahead
				to := from
				if ahead == 0 {
					to++
				}
				s = rotated(s, to, r)
				if !bytes.Equal(s.RetryTag, t) {
					return errors.New("storetest: unexpected model") // SpentTag is no stored tag here
				}
				if err := e.rotate(st, s, from, r, s, true); err != nil {
					return fmt.Errorf("rotation %d, to generation %d: %w", i, to, err)
				}
				if err := e.wantEverywhere(st, s); err != nil {
					return err
				}
			}
		}
		return nil
	},
}, {
	name: "Rotate_EmptiesSpentRetryTag",
	rule: tagSpent,
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		s.RetryTag = tag(0)
		if err := e.create(st, s); err != nil {
			return err
		}
		for _, t := range append(binaryValues(16), tag(1)) {
			for _, ahead := range []int64{0, 3} {
				// One rotation sets the tag, the next finds it as its SpentTag.
				// Then the stored tag is empty.
				for j, tags := range [][2][]byte{{t, tag(1000)}, {tag(1001), t}, {tag(1002), tag(1001)}} {
					r := withTags(rotationAt(s.RotatedAt.Add(time.Second), device(j)), tags[0], tags[1])
					from := s.Generation + ahead
					to := from
					if ahead == 0 {
						to++
					}
					s = rotated(s, to, r)
					if want := [][]byte{t, nil, tag(1002)}[j]; !bytes.Equal(s.RetryTag, want) {
						return errors.New("storetest: unexpected model")
					}
					if err := e.rotate(st, s, from, r, s, true); err != nil {
						return fmt.Errorf("stored and spent %x: %w", t, err)
					}
				}
			}
		}
		return nil
	},
}, {
	name: "Rotate_ComparesWholeTags",
	rule: "If the stored RetryTag is not empty and equals r.SpentTag",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		zeros := make([]byte, 16)
		pairs := [][2][]byte{{nil, nil}, {nil, zeros}, {zeros, nil}, {tag(0), nil}, {nil, tag(0)}}
		for _, stored := range [][]byte{zeros, tag(1), []byte("ABCDEFGHIJKLMNOP")} {
			for bit := range 128 { // each bit, so also the case of each letter and what follows a zero byte
				spent := bytes.Clone(stored)
				spent[bit/8] ^= 1 << (bit % 8)
				pairs = append(pairs, [2][]byte{stored, spent})
			}
		}
		for i, p := range pairs {
			stored, spent := p[0], p[1]
			// The first rotation stores the tag. It names no spent one.
			for j, tags := range [][2][]byte{{stored, nil}, {tag(100 + i), spent}} {
				r := withTags(rotationAt(s.RotatedAt.Add(time.Second), device(j)), tags[0], tags[1])
				from := s.Generation
				s = rotated(s, from+1, r)
				if err := e.rotate(st, s, from, r, s, true); err != nil {
					return fmt.Errorf("stored %x, spent %x: %w", stored, spent, err)
				}
			}
			if !bytes.Equal(s.RetryTag, tag(100+i)) {
				return errors.New("storetest: unexpected model")
			}
		}
		return nil
	},
}, {
	name: "Rotate_KeepsRetryTagIfNotRotated",
	rule: "Otherwise it changes nothing, and rotated is false.",
	run: func(e *env) error {
		st, s, other := e.open(), session("ada", "one"), session("ada", "other")
		s.Generation, s.RetryTag, s.Key = 7, tag(1), key(1)
		other.RetryTag = tag(2)
		if err := e.create(st, s, other); err != nil {
			return err
		}
		for _, tags := range [][2][]byte{{tag(3), tag(4)}, {tag(3), tag(1)}, {tag(1), tag(1)}, {nil, tag(1)}, {nil, nil}, {tag(3), nil}} {
			for _, from := range []int64{6, 5, 1, 7} {
				r := withKey(withTags(rotationAt(now(), device(1)), tags[0], tags[1]), s.Key)
				if from == s.Generation { // in the cooldown
					r.NotAfter = s.RotatedAt.Add(-time.Millisecond)
				}
				if err := e.rotate(st, s, from, r, s, false); err != nil {
					return fmt.Errorf("tags %x: %w", tags, err)
				}
			}
		}
		// Nor does anything that happens to another session change it.
		r := withTags(rotationAt(now(), device(1)), tag(5), tag(1))
		other = rotated(other, 2, r)
		if err := e.rotate(st, other, 1, r, other, true); err != nil {
			return err
		}
		if err := e.wantList(st, "ada", s, other); err != nil {
			return err
		}
		if err := e.revoke(st, auth.Revocation{Subject: "ada", Sessions: []string{"other"}, Until: now().Add(time.Minute)}); err != nil {
			return err
		}
		return e.wantEverywhere(st, s)
	},
}, {
	name: "Rotate_CopiesTagsAndKey",
	rule: "A method neither modifies nor retains the slices that it is given.",
	run: func(e *env) error {
		st, s := e.open(), session("ada", "one")
		if err := e.create(st, s); err != nil {
			return err
		}
		for i := range 3 {
			r := withKey(withTags(rotationAt(now(), device(i)), tag(i), tag(1000)), key(1))
			given := withKey(withTags(r, bytes.Clone(r.RetryTag), bytes.Clone(r.SpentTag)), bytes.Clone(r.Key))
			from := s.Generation
			s = rotated(s, from+1, r)
			if err := e.rotate(st, s, from, given, s, true); err != nil {
				return err
			}
			if !bytes.Equal(given.RetryTag, r.RetryTag) || !bytes.Equal(given.SpentTag, r.SpentTag) || !bytes.Equal(given.Key, r.Key) {
				return errors.New("Rotate modified a slice that it was given")
			}
			clear(given.RetryTag)
			clear(given.SpentTag)
			clear(given.Key)
			if err := e.wantEverywhere(st, s); err != nil {
				return fmt.Errorf("after modifying the slices that were passed to Rotate: %w", err)
			}
		}
		return nil
	},
}, {
	name: "Rotate_SetsKeyOnce",
	rule: keySet,
	run: func(e *env) error {
		st := e.open()
		for i, k := range append(binaryValues(33), key(1)) {
			s := session("ada", fmt.Sprintf("one-%d", i))
			if err := e.create(st, s); err != nil {
				return err
			}
			for j, given := range [][]byte{nil, nil, k, k, k, k} { // two of these restore lost writes
				r := withKey(withTags(rotationAt(s.RotatedAt.Add(time.Second), device(j)), tag(j), tag(j-1)), given)
				from := s.Generation + int64(j%2*3)
				if i%2 == 0 {
					from = s.Generation + int64((j+1)%2*3)
				}
				to := from
				if from == s.Generation {
					to++
				}
				s = rotated(s, to, r)
				if err := e.rotate(st, s, from, r, s, true); err != nil {
					return fmt.Errorf("rotation %d with the key %x: %w", j, given, err)
				}
			}
			if !bytes.Equal(s.Key, k) {
				return errors.New("storetest: unexpected model")
			}
			if err := e.wantStored(st, s); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Rotate_OtherKeyChangesNothing",
	rule: keyKept,
	run: func(e *env) error {
		nodes := e.nodes(2)
		for i, k := range [][]byte{make([]byte, 33), key(1), []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG")} {
			s := session("ada", fmt.Sprintf("one-%d", i))
			s.Generation, s.RetryTag = 5, tag(1)
			if i == 0 { // the key comes with Create or with Rotate
				s.Key = k
			}
			if err := e.create(nodes[0], s); err != nil {
				return err
			}
			r := withKey(withTags(rotationAt(now(), device(1)), tag(2), tag(3)), k)
			from := s.Generation
			s = rotated(s, from+1, r)
			if err := e.rotate(nodes[0], s, from, r, s, true); err != nil {
				return err
			}
			others := [][]byte{nil, {}, bytes.Repeat([]byte{0xff}, 33)}
			for bit := range 33 * 8 {
				other := bytes.Clone(k)
				other[bit/8] ^= 1 << (bit % 8)
				others = append(others, other)
			}
			for j, other := range others {
				// At, ahead of (as after lost writes) and behind the stored
				// generation, with a tag that would empty the stored one.
				for _, from := range []int64{s.Generation, s.Generation + 1, 1 << 40, s.Generation - 1} {
					if j > 10 && from != s.Generation+int64(j%2) {
						continue
					}
					r := withKey(withTags(rotationAt(now(), device(j)), tag(4), tag(2)), other)
					if err := e.rotate(nodes[1], s, from, r, s, false); err != nil {
						return fmt.Errorf("the Key is %x, the key of the rotation %x: %w", k, other, err)
					}
				}
			}
			r = withKey(withTags(rotationAt(now(), device(9)), tag(4), tag(5)), k)
			from = s.Generation
			s = rotated(s, from+1, r)
			if err := e.rotate(nodes[1], s, from, r, s, true); err != nil {
				return err
			}
		}
		return nil
	},
}, {
	name: "Rotate_OneOfTwoKeysAtOnceWins",
	rule: "A session with a Key is rotated only by a Rotation with the same Key, and keeps its Key.",
	run: func(e *env) error {
		nodes := e.nodes(4)
		for round := range e.rounds {
			s := session("ada", fmt.Sprintf("one-%d", round))
			if err := e.create(nodes[0], s); err != nil {
				return err
			}
			// Each call is from another generation, so that every call with the
			// key that wins may rotate.
			at := now()
			order := rand.Perm(64)
			var calls [64]call
			var keys [64][]byte
			err := concurrently(len(calls), func(i int) error {
				n := order[i]
				keys[n] = key(n % 2)
				r := withKey(withTags(rotationAt(at.Add(time.Duration(n)*time.Millisecond), device(n)), tag(n), tag(1000)), keys[n])
				got, ok, err := nodes[i%len(nodes)].Rotate(e.ctx, s.Subject, s.ID, rotateFrom(int64(2+n), r))
				if err != nil {
					return fmt.Errorf("Rotate from %d: %w", 2+n, err)
				}
				calls[n] = call{got, ok, rotated(s, int64(2+n), r)}
				return nil
			})
			if err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			final, err := nodes[1].Get(e.ctx, s.Subject, s.ID)
			if err != nil {
				return fmt.Errorf("round %d: Get: %w", round, err)
			}
			last := -1
			for n, c := range calls {
				if !bytes.Equal(c.got.Key, final.Key) {
					return fmt.Errorf("round %d: Rotate from %d with the key %x returned the Key %x, but the stored one is %x", round, 2+n, keys[n], c.got.Key, final.Key)
				}
				if !c.rotated {
					continue
				}
				if last = n; !bytes.Equal(keys[n], final.Key) {
					return fmt.Errorf("round %d: Rotate from %d with the key %x rotated the session, whose Key is %x", round, 2+n, keys[n], final.Key)
				}
			}
			if last < 0 {
				return fmt.Errorf("round %d: none of 64 concurrent calls rotated the session", round)
			}
			if err := diff(final, calls[last].want); err != nil {
				return fmt.Errorf("round %d: the stored session is not the one of the latest generation: %w", round, err)
			}
		}
		return nil
	},
}}
