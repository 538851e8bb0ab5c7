package auth

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func tokenFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.csv")
	writeFile(t, path, content)
	return path
}

func mustAuthenticate(t testing.TB, tokens *Tokens, token string) *Identity {
	t.Helper()
	id, ok, _ := tokens.Authenticate(t.Context(), token)
	if !ok {
		t.Fatal("a valid token was refused")
	}
	return id
}

func TestAuthenticate(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 4096) // 64 KiB
	tokens := NewTokens()
	if _, ok, _ := tokens.Authenticate(t.Context(), ""); ok {
		t.Error("an empty set accepted the empty token")
	}
	if err := tokens.Load(tokenFile(t, "secret,alice,1,\"dev,ops\"\n"+long+",bob,2\n")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, token string
		want        string // the user's name, empty when the token must be refused
	}{
		{"exact", "secret", "alice"},
		{"64 KiB", long, "bob"},
		{"none", "", ""},
		{"prefix", "secre", ""},
		{"longer", "secret ", ""},
		{"other case", "Secret", ""},
		{"64 KiB except the last byte", long[:len(long)-1] + "0", ""},
		{"the user's name", "alice", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			id, ok, _ := tokens.Authenticate(t.Context(), tt.token)
			if ok {
				got = id.User.Name
			}
			if got != tt.want {
				t.Errorf("user = %q, want %q", got, tt.want)
			}
			if ok != (id != nil) {
				t.Errorf("ok = %v with identity %v", ok, id)
			}
		})
	}
	want := User{Name: "alice", UID: "1", Groups: []string{"dev", "ops", AllAuthenticated}}
	if diff := cmp.Diff(want, mustAuthenticate(t, tokens, "secret").User); diff != "" {
		t.Errorf("user (-want +got):\n%s", diff)
	}
	if mustAuthenticate(t, tokens, "secret").ID == mustAuthenticate(t, tokens, long).ID {
		t.Error("two tokens have one ID")
	}
}

func TestLoadKeepsTheOldSetAfterAnError(t *testing.T) {
	tokens := NewTokens()
	path := tokenFile(t, "secret,alice,1\n")
	if err := tokens.Load(path); err != nil {
		t.Fatal(err)
	}
	before := mustAuthenticate(t, tokens, "secret")

	writeFile(t, path, "fresh,bob,2\nsecret,alice\n")
	err := tokens.Load(path)
	want := "token file " + path + ": line 2: it must have at least 3 columns (token, user name, user uid), found 2"
	if err == nil || err.Error() != want {
		t.Errorf("error = %v\nwant    %s", err, want)
	}
	missing := filepath.Join(t.TempDir(), "missing.csv")
	if err := tokens.Load(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("error of a missing file = %v, want one that names it", err)
	}
	if got := mustAuthenticate(t, tokens, "secret"); got != before {
		t.Error("a failed load replaced an identity")
	}
	if _, ok, _ := tokens.Authenticate(t.Context(), "fresh"); ok {
		t.Error("a failed load added a token")
	}
}

// A reload replaces the groups of a token at once.
func TestLoadChangesGroups(t *testing.T) {
	tokens := NewTokens()
	path := tokenFile(t, "kept,alice,1\n")
	if err := tokens.Load(path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, "kept,alice,1,admins\n")
	if err := tokens.Load(path); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"admins", AllAuthenticated}, mustAuthenticate(t, tokens, "kept").User.Groups); diff != "" {
		t.Errorf("groups after the reload (-want +got):\n%s", diff)
	}
}

// An identity ends with its token, and with any change of its user, but not needlessly.
func TestValid(t *testing.T) {
	for _, tt := range []struct {
		name, before, after string
		ends                bool
	}{
		{"unchanged", "t,alice,1,\"dev,ops\"\n", "u,bob,2\nt,alice,1,\"dev,ops\"\n", false},
		{"groups in another order", "t,alice,1,\"dev,ops\"\n", "t,alice,1,\"ops,dev\"\n", false},
		{"removed", "t,alice,1\nu,bob,2\n", "u,bob,2\n", true},
		{"another user", "t,alice,1\n", "t,bob,1\n", true},
		{"another uid", "t,alice,1\n", "t,alice,2\n", true},
		{"a group more", "t,alice,1,dev\n", "t,alice,1,\"dev,ops\"\n", true},
		{"a group less", "t,alice,1,\"dev,ops\"\n", "t,alice,1,dev\n", true},
		{"another group", "t,alice,1,dev\n", "t,alice,1,ops\n", true},
		{"a group twice", "t,alice,1,dev\n", "t,alice,1,\"dev,dev\"\n", true},
		{"refused file", "t,alice,1\n", "u,bob\n", false},
		{"hashed", "t,alice,1\n", "sha256:e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8,alice,1\n", false},
		{"an expiry", "t,alice,1\n", "t,alice,1,,2999-01-01T00:00:00Z\n", true},
		{"another expiry", "t,alice,1,,2998-01-01T00:00:00Z\n", "t,alice,1,,2999-01-01T00:00:00Z\n", true},
		{"the same expiry elsewhere", "t,alice,1,,2999-01-01T00:00:00Z\n", "t,alice,1,,2999-01-01T01:00:00+01:00\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tokens, path := NewTokens(), tokenFile(t, tt.before)
			if err := tokens.Load(path); err != nil {
				t.Fatal(err)
			}
			before := mustAuthenticate(t, tokens, "t")
			writeFile(t, path, tt.after)
			_ = tokens.Load(path) // one of the files is refused
			if ended := before.Valid.Err() != nil; ended != tt.ends {
				t.Errorf("ended: %v", ended)
			}
			after, ok, _ := tokens.Authenticate(t.Context(), "t")
			if same := ok && after == before; same == tt.ends {
				t.Errorf("the same identity: %v", same)
			}
			if ok && after.Valid.Err() != nil {
				t.Error("the identity in use has ended")
			}
		})
	}
}

// A token ends by itself at its expiry, and with it whatever waits for that; without a timer
// for a token that another has replaced.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens, path := NewTokens(), tokenFile(t, "")
		line := func(token string, after time.Duration) string {
			return fmt.Sprintf("%s,alice,1,,%s\n", token, time.Now().Add(after).Format(time.RFC3339))
		}
		writeFile(t, path, line("t", time.Hour)+line("past", -time.Second)+"u,alice,1\n"+line("gone", 2*time.Hour))
		if err := tokens.Load(path); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Remarks{Short: []int{1, 2, 3, 4}, Expired: []int{2}}, tokens.Remarks()); diff != "" {
			t.Errorf("remarks (-want +got):\n%s", diff)
		}
		if _, ok, _ := tokens.Authenticate(t.Context(), "past"); ok || len(tokens.Of("alice")) != 3 {
			t.Error("a token is accepted that has expired")
		}
		id, other := mustAuthenticate(t, tokens, "t"), mustAuthenticate(t, tokens, "u")
		began := time.Now()
		<-id.Valid.Done()
		if lasted := time.Since(began); lasted != time.Hour {
			t.Errorf("it ended after %v", lasted)
		}
		if _, ok, _ := tokens.Authenticate(t.Context(), "t"); ok || len(tokens.Of("alice")) != 2 {
			t.Error("it is accepted still")
		}
		if other.Valid.Err() != nil || mustAuthenticate(t, tokens, "u") != other {
			t.Error("another has ended, too")
		}
		writeFile(t, path, "u,alice,1\n")
		if err := tokens.Load(path); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // no goroutine is left
	})
}

// A file is loaded again at every change of it.
func TestLoadOfALargeFile(t *testing.T) {
	var file strings.Builder
	const lines = 20_000
	for i := range lines {
		line, err := TokenLine(fmt.Sprint("token-", i), User{Name: fmt.Sprint("user-", i%100), Groups: []string{"dev", "ops"}}, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		file.WriteString(line)
	}
	tokens, path := NewTokens(), tokenFile(t, file.String())
	for _, which := range []string{"first", "second"} {
		began := time.Now()
		if err := tokens.Load(path); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("the %s load took %v", which, took)
		if took > 5*time.Second {
			t.Errorf("the %s load took %v", which, took)
		}
	}
	if id := mustAuthenticate(t, tokens, fmt.Sprint("token-", lines-1)); id.User.Name != "user-99" || len(tokens.Of("user-99")) != lines/100 {
		t.Errorf("the last is %q's", id.User.Name)
	}
}

func TestSet(t *testing.T) {
	groups := make([]string, 1, 2) // room for an append to reach the caller's array
	groups[0] = SystemPrivilegedGroup
	tokens := NewTokens()
	if err := tokens.Set("first", User{Name: "admin", Groups: groups}); err != nil {
		t.Fatal(err)
	}
	first := mustAuthenticate(t, tokens, "first")
	if err := tokens.Set("second", User{Name: "admin", Groups: groups}); err != nil {
		t.Fatal(err)
	}
	groups[0] = "changed"
	if first.Valid.Err() == nil {
		t.Error("Set left the earlier identity valid")
	}
	if _, ok, _ := tokens.Authenticate(t.Context(), "first"); ok {
		t.Error("Set left the earlier token valid")
	}
	want := User{Name: "admin", Groups: []string{SystemPrivilegedGroup, AllAuthenticated}}
	if diff := cmp.Diff(want, mustAuthenticate(t, tokens, "second").User); diff != "" {
		t.Errorf("user (-want +got):\n%s", diff)
	}
	if tokens.Set("", User{Name: "admin"}) == nil || tokens.Set("third", User{}) == nil {
		t.Error("an empty token or user name was accepted")
	}
	mustAuthenticate(t, tokens, "second")
}

func TestGroupOfAuthenticated(t *testing.T) {
	for _, tt := range []struct {
		name string
		user User
		want []string
	}{
		{"no groups", User{Name: "a"}, []string{AllAuthenticated}},
		{"last", User{Name: "a", Groups: []string{"x"}}, []string{"x", AllAuthenticated}},
		{"once", User{Name: "a", Groups: []string{AllAuthenticated, "x"}}, []string{AllAuthenticated, "x"}},
		{"not together with its opposite", User{Name: "a", Groups: []string{AllUnauthenticated}}, []string{AllUnauthenticated}},
		{"not for the anonymous user", User{Name: Anonymous}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, withAuthenticated(tt.user)); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGenerateToken(t *testing.T) {
	a, b := GenerateToken(), GenerateToken()
	if a == b {
		t.Error("two tokens are equal")
	}
	if len(a) != 43 || strings.Trim(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Errorf("%q is not 43 URL-safe characters", a)
	}
}

// Every answer during a reload must be that of one whole file: the user's name and
// uid change together, and a token of both files is never unknown.
func TestLoadAgainstAuthenticate(t *testing.T) {
	tokens := NewTokens()
	dir := t.TempDir()
	paths := make([]string, 2)
	for i := range paths {
		paths[i] = filepath.Join(dir, fmt.Sprintf("%d.csv", i))
		writeFile(t, paths[i], fmt.Sprintf("both,user%d,uid%d\nonly%d,x,y\n", i, i, i))
	}
	if err := tokens.Load(paths[0]); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				id, ok, _ := tokens.Authenticate(t.Context(), "both")
				if !ok {
					t.Error("a token of both files was refused")
					return
				}
				if u := id.User; strings.TrimPrefix(u.Name, "user") != strings.TrimPrefix(u.UID, "uid") {
					t.Errorf("user %q has uid %q", u.Name, u.UID)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 300 {
		if err := tokens.Load(paths[i%2]); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}

func BenchmarkAuthenticate(b *testing.B) {
	for _, size := range []int{32, 16 << 10} {
		b.Run(fmt.Sprintf("token=%dB", size), func(b *testing.B) {
			token := strings.Repeat("x", size)
			tokens := NewTokens()
			if err := tokens.Set(token, User{Name: "admin"}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok, _ := tokens.Authenticate(context.Background(), token); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
}
