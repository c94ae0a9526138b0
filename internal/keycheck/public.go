package keycheck

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"math/big"
	"slices"
)

// IsPublic reports whether secret is the public key in any encoding, or one of
// ids. Anybody could compute an HMAC with it.
func IsPublic(secret []byte, public crypto.PublicKey, ids ...string) bool {
	all := publicForms(public)
	for _, id := range ids {
		all = append(all, []byte(id))
	}
	forms := append(decodings(secret), secret)
	for _, known := range all {
		// HMAC appends zero bytes to a key, and trimming white space may have
		// removed the end of a key.
		known = trimEdges(known)
		if slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Equal(trimEdges(form), known) }) {
			return true
		}
	}
	return false
}

// publicForms returns the encodings of a public key that have no structure.
func publicForms(public crypto.PublicKey) [][]byte {
	switch p := public.(type) {
	case ed25519.PublicKey:
		backwards := bytes.Clone(p) // as big.Int and some libraries encode it
		slices.Reverse(backwards)
		return [][]byte{p, backwards}
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil { // checked when the Key was created
			return nil
		}
		half := (len(point) - 1) / 2
		x, y := point[1:1+half], point[1+half:]
		return [][]byte{
			point, point[1:], x, y, bytes.TrimLeft(x, "\x00"), bytes.TrimLeft(y, "\x00"),
			append([]byte{2}, x...), append([]byte{3}, x...),
		}
	case *rsa.PublicKey:
		n := p.N.Bytes()
		return [][]byte{n, append([]byte{0}, n...)}
	}
	return nil
}

// IsEd25519Point reports whether b, of 32 bytes, encodes a point of the curve
// (RFC 8032 section 5.1.3) that is not of small order: eight times the point is
// not the neutral element. Anybody can sign any message for a point of small
// order.
func IsEd25519Point(b []byte) bool {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	d, _ := new(big.Int).SetString("37095705934669439343138083508754565189542113879843219016388785533085940283555", 10)
	le := bytes.Clone(b)
	slices.Reverse(le)
	le[0] &= 0x7f
	y := new(big.Int).SetBytes(le)
	if y.Cmp(p) >= 0 {
		return false
	}
	one := big.NewInt(1)
	square := func(y *big.Int) *big.Int { // x² is (y²-1)/(dy²+1)
		yy := new(big.Int).Mul(y, y)
		u := new(big.Int).Sub(yy, one)
		v := new(big.Int).Mul(d, yy)
		v.Add(v, one).Mod(v, p).ModInverse(v, p)
		return u.Mul(u, v).Mod(u, p)
	}
	for range 3 { // y of 2·P is (y²+x²)/(2+x²-y²)
		xx := square(y)
		if big.Jacobi(xx, p) < 0 {
			return false
		}
		yy := new(big.Int).Mul(y, y)
		below := new(big.Int).Add(big.NewInt(2), xx)
		below.Sub(below, yy).Mod(below, p).ModInverse(below, p)
		y = yy.Add(yy, xx).Mul(yy, below).Mod(yy, p)
	}
	return y.Cmp(one) != 0
}

// IsROCA reports whether an RSA modulus has the fingerprint of CVE-2017-15361:
// modulo each small prime, both of its prime factors, and so the modulus, are
// powers of 65537. A random modulus has this property with probability 2^-154.
func IsROCA(n *big.Int) bool {
	r := new(big.Int)
	for _, prime := range [...]int64{
		3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
		103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
	} {
		want := r.Mod(n, big.NewInt(prime)).Int64()
		power := int64(1)
		for power != want {
			if power = power * 65537 % prime; power == 1 {
				return false // these are all powers
			}
		}
	}
	return true
}
