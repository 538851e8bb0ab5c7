package auth

import (
	"crypto/sha256"
	"encoding/csv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var parseTokensTests = []struct {
	name, file string
	want       map[string]User // by token; without system:authenticated
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
		name: "columns after the fourth do not count",
		file: "t1,alice,1,dev,ops\n",
		want: map[string]User{"t1": {Name: "alice", UID: "1", Groups: []string{"dev"}}},
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
	{name: "bare quote", file: "t1,a,1\nsec\"ret,b,2\n", wantErr: `line 2: bare " in non-quoted-field`},
	{name: "open quote", file: "t1,a,1\n\"secret,b,2\n", wantErr: `line 2: extraneous or missing " in quoted-field`},
}

func TestParseTokens(t *testing.T) {
	for _, tt := range parseTokensTests {
		t.Run(tt.name, func(t *testing.T) {
			set, _, err := parseTokens(strings.NewReader(tt.file))
			if gotErr := errorText(err); gotErr != tt.wantErr {
				t.Fatalf("error = %q, want %q", gotErr, tt.wantErr)
			}
			got := map[[32]byte]User{}
			for hash, id := range set {
				got[hash] = id.User
			}
			want := map[[32]byte]User{}
			for token, u := range tt.want {
				u.Groups = append(u.Groups, AllAuthenticated)
				want[sha256.Sum256([]byte(token))] = u
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("users (-want +got):\n%s", diff)
			}
		})
	}
}

func TestShortTokens(t *testing.T) {
	sixteen, fifteen := strings.Repeat("ä", MinTokenLength), strings.Repeat("ä", MinTokenLength-1)
	_, short, err := parseTokens(strings.NewReader(fifteen + ",a,1\n\n" + sixteen + ",b,2\nx,c,3\n\"multi\nline\",d,4\n"))
	if diff := cmp.Diff([]int{1, 4, 5}, short); diff != "" || err != nil {
		t.Errorf("%v, lines (-want +got):\n%s", err, diff)
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
	f.Fuzz(func(t *testing.T, data string) {
		data = strings.ReplaceAll(data, "token", secret)
		set, _, err := parseTokens(strings.NewReader(data))
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error shows a token: %v", err)
			}
			if len(set) != 0 {
				t.Fatalf("%d tokens with an error", len(set))
			}
			return
		}
		reader := csv.NewReader(strings.NewReader(strings.TrimPrefix(data, "\ufeff")))
		reader.FieldsPerRecord = -1
		records, err := reader.ReadAll()
		if err != nil {
			t.Fatalf("accepted what is no CSV: %v", err)
		}
		if len(records) != len(set) || len(set) == 0 {
			t.Fatalf("%d records became %d tokens", len(records), len(set))
		}
		for _, record := range records {
			id := set[sha256.Sum256([]byte(record[0]))]
			if id == nil || id.User.Name != record[1] || id.User.UID != record[2] {
				t.Fatalf("identity of user %q, uid %q = %+v", record[1], record[2], id)
			}
		}
	})
}
