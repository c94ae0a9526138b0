package password

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

const (
	salt16 = "c2l4dGVlbmJ5dGVzYWx0IQ"                      // "sixteenbytesalt!"
	tag32  = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" // 0, 1, … 31
)

// phcOf returns a PHC string with parameters. It is valid if they are.
func phcOf(parameters string) string {
	return "$argon2id$v=19$" + parameters + "$" + salt16 + "$" + tag32
}

func TestVerify_InvalidHashIsRefusedBeforeHashing(t *testing.T) {
	t.Parallel()
	good := phcOf("m=64,t=1,p=1")
	goodBcrypt := "$2b$04$" + strings.Repeat("a", 21) + "e" + strings.Repeat("b", 30) + "e"
	_, err := parse(good)
	require.NoError(t, err)
	_, err = parse(goodBcrypt)
	require.NoError(t, err)

	salted := func(salt string) string { return "$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + tag32 }
	tagged := func(tag string) string { return "$argon2id$v=19$m=64,t=1,p=1$" + salt16 + "$" + tag }

	for name, hash := range map[string]string{
		"empty":                 "",
		"a dollar":              "$",
		"plain text":            "password",
		"md5crypt":              "$1$abcdefgh$0123456789abcdefghijkl",
		"sha512crypt":           "$6$salt$" + strings.Repeat("a", 86),
		"scrypt":                "$scrypt$ln=16,r=8,p=1$" + salt16 + "$" + tag32,
		"pbkdf2":                "$pbkdf2-sha256$i=600000$" + salt16 + "$" + tag32,
		"argon2i":               strings.Replace(good, "argon2id", "argon2i", 1),
		"argon2d":               strings.Replace(good, "argon2id", "argon2d", 1),
		"argon2":                strings.Replace(good, "argon2id", "argon2", 1),
		"upper case":            strings.Replace(good, "argon2id", "ARGON2ID", 1),
		"text before":           "x" + good,
		"blank before":          " " + good,
		"line feed after":       good + "\n",
		"return after":          good + "\r",
		"NUL after":             good + "\x00",
		"dollar after":          good + "$",
		"no first dollar":       good[1:],
		"part missing":          "$argon2id$v=19$m=64,t=1,p=1$" + salt16,
		"only the name":         "$argon2id$",
		"only dollars":          "$argon2id$$$$",
		"no version":            strings.Replace(good, "$v=19", "", 1),
		"version 16":            strings.Replace(good, "v=19", "v=16", 1),
		"version 0x13":          strings.Replace(good, "v=19", "v=0x13", 1),
		"version 019":           strings.Replace(good, "v=19", "v=019", 1),
		"version 190":           strings.Replace(good, "v=19", "v=190", 1),
		"version empty":         strings.Replace(good, "v=19", "", 1),
		"order":                 phcOf("t=1,m=64,p=1"),
		"order of the last":     phcOf("m=64,p=1,t=1"),
		"p missing":             phcOf("m=64,t=1"),
		"m twice":               phcOf("m=64,m=64,t=1,p=1"),
		"keyid":                 phcOf("m=64,t=1,p=1,keyid=AAAA"),
		"data":                  phcOf("m=64,t=1,p=1,data=AAAA"),
		"comma after":           phcOf("m=64,t=1,p=1,"),
		"blank in parameters":   phcOf("m=64, t=1,p=1"),
		"m upper case":          phcOf("M=64,t=1,p=1"),
		"m empty":               phcOf("m=,t=1,p=1"),
		"m without value":       phcOf("m,t=1,p=1"),
		"m with leading zero":   phcOf("m=064,t=1,p=1"),
		"m with plus":           phcOf("m=+64,t=1,p=1"),
		"m with minus":          phcOf("m=-64,t=1,p=1"),
		"m hexadecimal":         phcOf("m=0x40,t=1,p=1"),
		"m with underscore":     phcOf("m=6_4,t=1,p=1"),
		"m with exponent":       phcOf("m=1e3,t=1,p=1"),
		"m with blank":          phcOf("m=64 ,t=1,p=1"),
		"m in other digits":     phcOf("m=٦٤,t=1,p=1"),
		"m 0":                   phcOf("m=0,t=1,p=1"),
		"m 7":                   phcOf("m=7,t=1,p=1"),
		"m 8×p-1":               phcOf("m=127,t=1,p=16"),
		"m over 256 MiB":        phcOf("m=262145,t=1,p=1"),
		"m 2^32-1":              phcOf("m=4294967295,t=1,p=1"),
		"m 2^32+64":             phcOf("m=4294967360,t=1,p=1"),
		"m 2^64+64":             phcOf("m=18446744073709551680,t=1,p=1"),
		"m of 100 digits":       phcOf("m=" + strings.Repeat("9", 100) + ",t=1,p=1"),
		"t 0":                   phcOf("m=64,t=0,p=1"),
		"t 17":                  phcOf("m=64,t=17,p=1"),
		"t with leading zero":   phcOf("m=64,t=01,p=1"),
		"t 2^32-1":              phcOf("m=64,t=4294967295,p=1"),
		"t 2^32+1":              phcOf("m=64,t=4294967297,p=1"),
		"p 0":                   phcOf("m=64,t=1,p=0"),
		"p 256":                 phcOf("m=2048,t=1,p=256"), // 0 if truncated to 8 bits
		"m 8×p-1 of 255":        phcOf("m=2039,t=1,p=255"),
		"p with leading zero":   phcOf("m=64,t=1,p=01"),
		"p 257":                 phcOf("m=262144,t=1,p=257"), // 1 if truncated to 8 bits
		"p 2^29":                phcOf("m=64,t=1,p=536870912"),
		"work over 1 GiB":       phcOf("m=262144,t=5,p=1"),
		"work just over 1 GiB":  phcOf("m=65537,t=16,p=1"),
		"salt empty":            salted(""),
		"salt of 7 bytes":       salted("MTIzNDU2Nw"),
		"salt of 65 bytes":      salted(strings.Repeat("AAAA", 21) + "AAA"),
		"salt padded":           salted("c29tZXNhbHQ="),
		"salt with unused bits": salted("c29tZXNhbHR"),
		"salt url-safe":         salted("c29tZXNhb-_"),
		"salt with odd rest":    salted("c29tZXNhbHQAA"),
		"salt with line feed":   salted("c29tZX\nNhbHQ"),
		"salt ends in return":   salted("c29tZXNhbHQ\r"),
		"salt not base64":       salted("c29tZXNhb!!"),
		"tag empty":             tagged(""),
		"tag of 15 bytes":       tagged(strings.Repeat("AAAA", 5)),
		"tag of 65 bytes":       tagged(strings.Repeat("AAAA", 21) + "AAA"),
		"tag padded":            tagged(tag32 + "="),
		"tag with unused bits":  tagged(tag32[:42] + "9"),
		"tag with line feed":    tagged(tag32[:20] + "\n" + tag32[20:]),
		"513 bytes":             good + strings.Repeat("A", 513-len(good)),
		"a megabyte":            good + strings.Repeat("$", 1<<20),
		"a megabyte of commas":  phcOf(strings.Repeat(",", 1<<20)),

		"bcrypt of 59 bytes":         goodBcrypt[:59],
		"bcrypt of 61 bytes":         goodBcrypt + ".",
		"bcrypt with line feed":      goodBcrypt[:59] + "\n",
		"bcrypt 2":                   "$2$04$" + goodBcrypt[7:] + "e",
		"bcrypt 2x":                  strings.Replace(goodBcrypt, "2b", "2x", 1),
		"bcrypt 2A":                  strings.Replace(goodBcrypt, "2b", "2A", 1),
		"bcrypt without dollar":      strings.Replace(goodBcrypt, "2b$", "2bb", 1),
		"bcrypt cost 3":              strings.Replace(goodBcrypt, "04", "03", 1),
		"bcrypt cost 0":              strings.Replace(goodBcrypt, "04", "00", 1),
		"bcrypt cost 16":             strings.Replace(goodBcrypt, "04", "16", 1),
		"bcrypt cost 31":             strings.Replace(goodBcrypt, "04", "31", 1),
		"bcrypt cost 99":             strings.Replace(goodBcrypt, "04", "99", 1),
		"bcrypt cost +5":             strings.Replace(goodBcrypt, "04", "+5", 1), // 5 to strconv.Atoi
		"bcrypt cost 0:":             strings.Replace(goodBcrypt, "04", "0:", 1),
		"bcrypt cost 1/":             strings.Replace(goodBcrypt, "04", "1/", 1),
		"bcrypt cost of 3 digits":    "$2b$010" + goodBcrypt[7:],
		"bcrypt cost then no dollar": "$2b$04." + goodBcrypt[7:], // package bcrypt skips this byte
		"bcrypt with dollar inside":  goodBcrypt[:29] + "$" + goodBcrypt[30:],
		"bcrypt with plus inside":    goodBcrypt[:29] + "+" + goodBcrypt[30:],
		"bcrypt with NUL inside":     goodBcrypt[:29] + "\x00" + goodBcrypt[30:],
		"bcrypt tag unused bits":     goodBcrypt[:59] + "f",
		"bcrypt as a PHC string":     "$bcrypt$v=98$r=4$" + salt16 + "$" + tag32,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, s := cheap()
			err := h.Verify(t.Context(), hash, "password")
			require.ErrorIs(t, err, ErrHash)
			require.Empty(t, s.take())
			require.Less(t, len(err.Error()), 300)
			require.True(t, h.NeedsRehash(hash))
			require.ErrorIs(t, Verify(hash, "password"), ErrHash)
		})
	}
}

func TestParse_AcceptsTheBounds(t *testing.T) {
	t.Parallel()
	for _, hash := range []string{
		phcOf("m=8,t=1,p=1"), phcOf("m=128,t=1,p=16"), phcOf("m=262144,t=4,p=1"), phcOf("m=65536,t=16,p=16"),
		phcOf("m=136,t=1,p=17"), phcOf("m=2040,t=1,p=255"), phcOf("m=65536,t=16,p=255"),
		"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$" + strings.Repeat("AAAA", 5) + "AA",
		"$argon2id$v=19$m=8,t=1,p=1$" + strings.Repeat("AAAA", 21) + "AA$" + strings.Repeat("AAAA", 21) + "AA",
	} {
		s, err := parse(hash)
		require.NoError(t, err)
		require.Equal(t, hash, s.(argon2idHash).String())
	}
	for cost := 4; cost <= 15; cost++ {
		_, err := parse(fmt.Sprintf("$2b$%02d$%s", cost, strings.Repeat(".", 53)))
		require.NoError(t, err)
	}
}

func TestVerify_ErrorDescribesTheProblem(t *testing.T) {
	t.Parallel()
	require.EqualError(t, Verify(phcOf("m=4294967295,t=1,p=1"), "x"),
		"password: unusable hash: m (4294967295 KiB) exceeds 262144 KiB; m × t exceeds 1048576 KiB")
	require.EqualError(t, Verify("secret\n", "x"), "password: unusable hash: begins or ends with white space")
	require.EqualError(t, Verify("secret", "x"), "password: unusable hash: neither argon2id nor bcrypt; create it with Hash")
	require.EqualError(t, Verify("$argon2id$"+strings.Repeat("$", 503), "x"), "password: unusable hash: longer than 512 bytes")
	require.EqualError(t, Verify("$2b$31$"+strings.Repeat(".", 53), "x"), "password: unusable hash: bcrypt cost (31) is not between 4 and 15")
}

// FuzzVerify searches for a stored hash that the parser accepts and should not.
// It runs no KDF.
func FuzzVerify(f *testing.F) {
	for _, seed := range []string{
		phcOf("m=64,t=1,p=1"), phcOf("m=4294967295,t=1,p=1"), phcOf("m=0064,t=+1,p=1"), phcOf("p=1,t=1,m=64"),
		"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$" + strings.Repeat("AAAA", 5) + "A\n",
		"$argon2i$v=19$m=64,t=1,p=1$" + salt16 + "$" + tag32,
		"$2b$04$" + strings.Repeat(".", 53), "$2y$+5$" + strings.Repeat(".", 53), "$2b$31$" + strings.Repeat(".", 53), "",
	} {
		f.Add(seed)
	}
	h := new(Hasher)
	f.Fuzz(func(t *testing.T, hash string) {
		s, err := parse(hash)
		if err != nil {
			require.ErrorIs(t, err, ErrHash)
			require.Nil(t, s)
			require.True(t, h.NeedsRehash(hash))
			if len(hash) > 40 {
				require.NotContains(t, err.Error(), hash)
			}
			return
		}
		require.LessOrEqual(t, len(hash), 512)
		switch s := s.(type) {
		case argon2idHash:
			require.Equal(t, hash, s.String(), "the form must be canonical")
			require.LessOrEqual(t, s.memory, uint32(262144))
			require.GreaterOrEqual(t, s.memory, 8*s.threads)
			require.LessOrEqual(t, uint64(s.memory)*uint64(s.time), uint64(1048576))
			require.True(t, 1 <= s.time && s.time <= 16 && 1 <= s.threads && s.threads <= 255)
			require.True(t, 8 <= len(s.salt) && len(s.salt) <= 64 && 16 <= len(s.tag) && len(s.tag) <= 64)
		case bcryptHash:
			require.Equal(t, hash, string(s))
			require.Len(t, hash, 60)
			cost, err := bcrypt.Cost([]byte(hash))
			require.NoError(t, err)
			require.True(t, 4 <= cost && cost <= 15, strconv.Itoa(cost))
			require.True(t, h.NeedsRehash(hash))
		default:
			t.Fatalf("%T", s)
		}
	})
}
