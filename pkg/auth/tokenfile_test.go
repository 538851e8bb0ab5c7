package auth

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var parseTokensTests = []struct {
	name, file string
	want       map[string]User   // by token; "" is a hash of nothing that is known
	ends       map[string]string // by token
	wantErr    string
}{
	{
		name: "with and without groups",
		file: "t1,alice,1,\"dev,ops\"\nt2,bob,2,dev\nt3,carol,3\nt4,dan,,\n",
		want: map[string]User{
			"t1": {Name: "alice", UID: "1", Groups: []string{"dev", "ops"}},
			"t2": {Name: "bob", UID: "2", Groups: []string{"dev"}},
			"t3": {Name: "carol", UID: "3"},
			"t4": {Name: "dan"},
		},
	},
	{
		name: "blank lines, carriage returns, no newline at the end",
		file: "\r\n\nt1,alice,1\r\n\n\nt2,bob,2",
		want: map[string]User{"t1": {Name: "alice", UID: "1"}, "t2": {Name: "bob", UID: "2"}},
	},
	{
		name: "columns after the expiry do not count",
		file: "t1,alice,1,dev,,ops\nt2,bob,2,,2027-01-31T12:00:00+01:00,ops\n",
		want: map[string]User{"t1": {Name: "alice", UID: "1", Groups: []string{"dev"}}, "t2": {Name: "bob", UID: "2"}},
		ends: map[string]string{"t2": "2027-01-31T11:00:00Z"},
	},
	{
		name: "a token that has expired",
		file: "t1,alice,1,dev,2026-01-31T11:59:59.5Z\n",
		want: map[string]User{"t1": {Name: "alice", UID: "1", Groups: []string{"dev"}}},
		ends: map[string]string{"t1": "2026-01-31T11:59:59Z"},
	},
	{
		name: "hashed", // by sha256sum
		file: "sha256:628b49d96dcde97a430dd4f597705899e09a968f793491e4b704cae33a40dc02,alice,1,\"dev,ops\",\n" +
			"sha256:6ADA44C9A7D8B6B7A0F2A5B5E1F1D3B7FA16D26D2F2A8EC5CE5E4AD9A0B5A7FD,bob,2\n",
		want: map[string]User{"t1": {Name: "alice", UID: "1", Groups: []string{"dev", "ops"}}, "": {Name: "bob", UID: "2"}},
	},
	{
		name: "groups as they stand, empty ones dropped",
		file: "t1,alice,1,\"dev, ops,,\"\n",
		want: map[string]User{"t1": {Name: "alice", UID: "1", Groups: []string{"dev", " ops"}}},
	},
	{
		name: "quotes and a hash sign in a token",
		file: "\"a,\"\"b\",alice,1\n#t,bob,2\n",
		want: map[string]User{`a,"b`: {Name: "alice", UID: "1"}, "#t": {Name: "bob", UID: "2"}},
	},
	{
		name: "two tokens of one user",
		file: "t1,alice,1\nt2,alice,1\n",
		want: map[string]User{"t1": {Name: "alice", UID: "1"}, "t2": {Name: "alice", UID: "1"}},
	},
	{
		name: "a byte order mark",
		file: "\ufefft1,alice,1\n\ufefft2,bob,2\n",
		want: map[string]User{"t1": {Name: "alice", UID: "1"}, "\ufefft2": {Name: "bob", UID: "2"}},
	},
	{
		name: "a byte order mark before quotes",
		file: "\ufeff\"t,1\",alice,1\n",
		want: map[string]User{"t,1": {Name: "alice", UID: "1"}},
	},
	{name: "only a byte order mark", file: "\ufeff", wantErr: "it has no token, which would lock out everybody"},
	{name: "empty", file: "", wantErr: "it has no token, which would lock out everybody"},
	{name: "only blank lines", file: "\n\n", wantErr: "it has no token, which would lock out everybody"},
	{
		name: "too few columns", file: "t1,alice,1\n\nsecret,bob\n",
		wantErr: "line 3: it must have at least 3 columns (token, user name, user uid), found 2",
	},
	{
		name: "a comment", file: "# secret\nt1,alice,1\n",
		wantErr: "line 1: it must have at least 3 columns (token, user name, user uid), found 1",
	},
	{name: "empty token", file: "t1,alice,1\n,secret,2\n", wantErr: "line 2: the token is empty"},
	{name: "empty user", file: "secret,,2\n", wantErr: "line 1: the user name is empty"},
	{
		name: "repeated token", file: "t1,a,1\nsecret,b,2\n\"multi\nline\",c,3\nsecret,d,4\n",
		wantErr: "line 5: the token is the same as in line 2",
	},
	{
		name: "hashed, and plain again", file: "t1,a,1\nsha256:628b49d96dcde97a430dd4f597705899e09a968f793491e4b704cae33a40dc02,b,2\n",
		wantErr: "line 2: the token is the same as in line 1",
	},
	{name: "half a hash", file: "sha256:628b49d9,alice,1\n", wantErr: "line 1: " + badHash},
	{name: "no hash", file: "t1,a,1\nsha256:,alice,1\n", wantErr: "line 2: " + badHash},
	{name: "more than a hash", file: "sha256:" + strings.Repeat("0", 65) + ",alice,1\n", wantErr: "line 1: " + badHash},
	{name: "a hash with other characters", file: "sha256:" + strings.Repeat("0", 63) + "g,alice,1\n", wantErr: "line 1: " + badHash},
	{name: "two hashes", file: "sha256:" + strings.Repeat("00", 64) + ",alice,1\n", wantErr: "line 1: " + badHash},
	{name: "groups without quotes", file: "t1,alice,1,dev,secret\n", wantErr: "line 1: " + badExpiry},
	{name: "an expiry without a zone", file: "t1,alice,1,dev,2027-01-31T12:00:00\n", wantErr: "line 1: " + badExpiry},
	{name: "an expiry after a space", file: "t0,a,1\n\nt1,alice,1,dev, 2027-01-31T12:00:00Z\n", wantErr: "line 3: " + badExpiry},
	{name: "an expiry that is no day", file: "t1,alice,1,dev,2027-02-31T12:00:00Z\n", wantErr: "line 1: " + badExpiry},
	{name: "bare quote", file: "t1,a,1\nsec\"ret,b,2\n", wantErr: `line 2: bare " in non-quoted-field`},
	{name: "open quote", file: "t1,a,1\n\"secret,b,2\n", wantErr: `line 2: extraneous or missing " in quoted-field`},
}

const (
	badHash   = "a token that begins with sha256: is a hash, and must go on with 64 hexadecimal digits"
	badExpiry = `the fifth column is not when the token expires, such as 2027-01-31T12:00:00Z; several groups must be in quotes: "group1,group2"`
)

func TestParseTokens(t *testing.T) {
	for _, tt := range parseTokensTests {
		t.Run(tt.name, func(t *testing.T) {
			records, _, err := parseTokens(strings.NewReader(tt.file), time.Now())
			if gotErr := errorText(err); gotErr != tt.wantErr {
				t.Fatalf("error = %q, want %q", gotErr, tt.wantErr)
			}
			want := map[[32]byte]User{}
			for token, u := range tt.want {
				hash := sha256.Sum256([]byte(token))
				if token == "" {
					hash = [32]byte(must(hex.DecodeString("6ada44c9a7d8b6b7a0f2a5b5e1f1d3b7fa16d26d2f2a8ec5ce5e4ad9a0b5a7fd")))
				}
				want[hash] = u
				ends := ""
				if expires := records[hash].expires; !expires.IsZero() {
					ends = expires.UTC().Format(time.RFC3339)
				}
				if ends != tt.ends[token] {
					t.Errorf("%s expires at %q, want %q", u.Name, ends, tt.ends[token])
				}
			}
			got := map[[32]byte]User{}
			for hash, record := range records {
				got[hash] = record.user
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("users (-want +got):\n%s", diff)
			}
		})
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestRemarks(t *testing.T) {
	sixteen, fifteen := strings.Repeat("ä", MinTokenLength), strings.Repeat("ä", MinTokenLength-1)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	_, remarks, err := parseTokens(strings.NewReader(fifteen+",a,1,,2026-05-01T12:00:01Z\n\n"+sixteen+",b,2,,2026-05-01T12:00:00Z\nx,c,3\n\"multi\nline\",d,4\n"+
		"sha256:628b49d96dcde97a430dd4f597705899e09a968f793491e4b704cae33a40dc02,e,5,,2025-05-01T12:00:00Z\n"+
		sixteen+"8, f,8\n"+sixteen+"9,g,9,\"dev, ops\"\n"+sixteen+"10,g h,10,a b\n"), now)
	if diff := cmp.Diff(Remarks{Short: []int{1, 4, 5}, Expired: []int{3, 7}, Spaced: []int{8, 9}}, remarks); diff != "" || err != nil {
		t.Errorf("%v, lines (-want +got):\n%s", err, diff)
	}
}

// A line that is made for a token means that token, whatever is in the names.
func TestTokenLine(t *testing.T) {
	expires := time.Date(2036, 5, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	for _, u := range []User{
		{Name: "alice"},
		{Name: "al\"ice, of\nsales", UID: " 1,2", Groups: []string{"dev", " o\"ps "}},
	} {
		for _, expires := range []time.Time{{}, expires} {
			line, err := TokenLine("secret-token", u, expires)
			if err != nil || strings.Contains(line, "secret") || !strings.HasSuffix(line, "\n") {
				t.Fatalf("got %q, %v", line, err)
			}
			records, remarks, err := parseTokens(strings.NewReader(line), time.Now())
			record, ok := records[sha256.Sum256([]byte("secret-token"))]
			if err != nil || !ok || len(remarks.Short) > 0 || !record.expires.Equal(expires) {
				t.Errorf("%q: %v, %v, %v", line, records, remarks, err)
			}
			if diff := cmp.Diff(u, record.user, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%q (-want +got):\n%s", line, diff)
			}
		}
	}
	for want, bad := range map[string]User{
		"the user name is empty":                        {},
		`a group cannot be named "" in a token file`:    {Name: "a", Groups: []string{"b", ""}},
		`a group cannot be named "b,c" in a token file`: {Name: "a", Groups: []string{"b,c"}},
	} {
		if line, err := TokenLine("t", bad, time.Time{}); errorText(err) != want || line != "" {
			t.Errorf("of %v: %q, %v", bad, line, err)
		}
	}
	if _, err := TokenLine("", User{Name: "a"}, time.Time{}); errorText(err) != "the token is empty" {
		t.Errorf("of no token: %v", err)
	}
}

func TestPlainTokens(t *testing.T) {
	path := tokenFile(t, "\ufefffirst,a,1\nsha256:628b49d96dcde97a430dd4f597705899e09a968f793491e4b704cae33a40dc02,b,2\nold,c,3,,2020-01-01T00:00:00Z\n\nlast,d,4,,2220-01-01T00:00:00Z\n")
	got, err := PlainTokens(path)
	if diff := cmp.Diff([]string{"first", "last"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// FuzzParseTokens checks that a file that is accepted means what a plain CSV reader
// sees in it, and that a refusal never shows a token. Every "token" of the input
// stands for a secret that no message could contain by chance.
func FuzzParseTokens(f *testing.F) {
	const secret = "s3cr3t-7f1c"
	f.Add("token,alice,1,\"dev,ops\"\n")
	f.Add("token1,alice,1\ntoken1,bob\n")
	f.Add("\ufeff\"token\",alice,1\n")
	f.Add("alice,1,,dev,token\n")
	f.Add("token,alice,1,dev,2027-01-31T12:00:00Z,token\n")
	f.Add("sha256:628b49d96dcde97a430dd4f597705899e09a968f793491e4b704cae33a40dc02,alice,1\nsha256:token,bob,2\n")
	f.Fuzz(func(t *testing.T, data string) {
		data = strings.ReplaceAll(data, "token", secret)
		records, _, err := parseTokens(strings.NewReader(data), time.Now())
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error shows a token: %v", err)
			}
			if len(records) != 0 {
				t.Fatalf("%d tokens with an error", len(records))
			}
			return
		}
		reader := csv.NewReader(strings.NewReader(strings.TrimPrefix(data, "\ufeff")))
		reader.FieldsPerRecord = -1
		lines, err := reader.ReadAll()
		if err != nil {
			t.Fatalf("accepted what is no CSV: %v", err)
		}
		if len(lines) != len(records) || len(lines) == 0 {
			t.Fatalf("%d lines became %d tokens", len(lines), len(records))
		}
		for _, columns := range lines {
			hash := sha256.Sum256([]byte(columns[0]))
			if strings.HasPrefix(columns[0], "sha256:") {
				if hash, err = hashOf(columns[0]); err != nil {
					t.Fatalf("accepted %q: %v", columns[0], err)
				}
			}
			record, ok := records[hash]
			if !ok || record.user.Name != columns[1] || record.user.UID != columns[2] {
				t.Fatalf("user %q, uid %q became %+v", columns[1], columns[2], record)
			}
			expires := ""
			if len(columns) > 4 {
				expires = columns[4]
			}
			if record.expires.IsZero() != (expires == "") && !strings.HasPrefix(expires, "0001-01-01T") {
				t.Fatalf("%q became %v", expires, record.expires)
			}
		}
	})
}

// hashOf reads what follows sha256: in another way than the parser.
func hashOf(column string) (hash [32]byte, err error) {
	var digits string
	if n, err := fmt.Sscanf(column, "sha256:%64s", &digits); n != 1 || err != nil || column != "sha256:"+digits {
		return hash, fmt.Errorf("%d, %w", n, err)
	}
	raw, err := hex.DecodeString(digits)
	if len(raw) != len(hash) {
		return hash, fmt.Errorf("%d bytes, %w", len(raw), err)
	}
	return [32]byte(raw), nil
}
