package iam

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/storage"
)

var testLogger = zerolog.Nop()

var testAddress = netip.MustParseAddr("192.0.2.1")

// Another server of the store knows a token at once, and no longer once it is revoked.
func TestTwoServers(t *testing.T) {
	store := newStore(t)
	a, b := startService(t, store, testFile), startService(t, store, testFile)
	for range 20 {
		token := a.mustLogIn(t, password("alice", "team-a"))
		if b.identity(t, token) == nil {
			t.Fatal("the other server does not know a token that was issued just now")
		}
	}
	token := a.mustLogIn(t, password("alice", "team-a"))
	here, there := a.identity(t, token), b.identity(t, token)
	session, err := b.Session(t.Context(), token)
	if err != nil || session == nil {
		t.Fatal(session, err)
	}
	if err := b.Revoke(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	if b.identity(t, token) != nil || there.Valid.Err() == nil {
		t.Error("the server that has revoked the token accepts it")
	}
	ends(t, here)
	if a.identity(t, token) != nil {
		t.Error("the other server accepts a revoked token")
	}
	if err := b.Revoke(t.Context(), session); !errors.Is(err, ErrNotFound) {
		t.Errorf("the second revocation: %v", err)
	}
	eventually(t, "it is forgotten", func() bool { return a.count() == 20 && b.count() == 20 })

	if c := startService(t, store, testFile); c.count() != 20 {
		t.Errorf("a server that starts has %d tokens", c.count())
	}
}

func TestIdentity(t *testing.T) {
	s := startService(t, newStore(t), testFile)
	extra := func(more map[string][]string) map[string][]string {
		all := map[string][]string{extraDomainID: {"default"}, extraDomainName: {"Default"}}
		for key, value := range more {
			all[key] = value
		}
		return all
	}
	inProject := func(name string, roles ...string) map[string][]string {
		return extra(map[string][]string{
			extraProjectID: {deriveID("default", "project", name)}, extraProjectName: {name}, extraRoles: roles,
		})
	}
	onDomain := Login{Password: &PasswordLogin{UserName: "root", Password: "secret"}, Domain: &DomainRef{}}
	auditor := Login{Password: &PasswordLogin{UserName: "auditor", Password: "secret"}, Domain: &DomainRef{ID: "default"}}
	for _, tt := range []struct {
		name  string
		login Login
		want  auth.User
	}{
		{"project", password("alice", "team-a"), auth.User{
			Name: "alice", Groups: []string{"project:team-a", "project:team-a:member", "project:team-a:reader", auth.AllAuthenticated},
			Extra: inProject("team-a", "member", "reader"),
		}},
		{"no scope", password("alice", ""), auth.User{Name: "alice", Groups: []string{auth.AllAuthenticated}, Extra: extra(nil)}},
		{"administrator of the domain", onDomain, auth.User{
			Name: "root", Groups: []string{"domain:Default:admin", auth.SystemPrivilegedGroup, auth.AllAuthenticated},
			Extra: extra(map[string][]string{extraRoles: {"admin"}}),
		}},
		{"the same in a project", password("root", "team-a"), auth.User{
			Name: "root", Groups: []string{"project:team-a", "project:team-a:admin", auth.AllAuthenticated}, Extra: inProject("team-a", "admin"),
		}},
		{"the role admin in a project alone", password("bob", "team-b"), auth.User{
			Name: "bob", Groups: []string{"project:team-b", "project:team-b:admin", auth.AllAuthenticated}, Extra: inProject("team-b", "admin"),
		}},
		{"another role on the domain", auditor, auth.User{
			Name: "auditor", Groups: []string{"domain:Default:reader", auth.AllAuthenticated}, Extra: extra(map[string][]string{extraRoles: {"reader"}}),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.UID = deriveID("default", "user", tt.want.Name)
			if diff := cmp.Diff(tt.want, s.identity(t, s.mustLogIn(t, tt.login)).User); diff != "" {
				t.Errorf("user (-want +got)\n%s", diff)
			}
		})
	}
	one, two, other := s.identity(t, s.mustLogIn(t, password("alice", ""))), s.identity(t, s.mustLogIn(t, password("alice", "team-a"))), s.identity(t, s.mustLogIn(t, password("bob", "")))
	if one.ID != two.ID || one.ID == other.ID {
		t.Error("the limits of a user's tokens are not the user's")
	}
	if of := s.Of("alice"); len(of) != 1 || of[0].ID != one.ID {
		t.Errorf("alice's identities: %v", of)
	}
	if s.Of("nobody") != nil {
		t.Error("nobody has an identity")
	}
}

// What another version of the file does to a living token, here and on a server that loads it
// later. dead: for good, whatever file comes next.
func TestReload(t *testing.T) {
	alice := testFile[strings.Index(testFile, "- name: alice"):strings.Index(testFile, "- name: bob")]
	without := func(old, replacement string) string {
		if !strings.Contains(testFile, old) {
			t.Fatalf("the file has no %q", old)
		}
		return strings.Replace(testFile, old, replacement, 1)
	}
	ofAlice := func(old, replacement string) string {
		return without(alice, strings.Replace(alice, old, replacement, 1))
	}
	store := newStore(t)
	for _, tt := range []struct {
		name, file           string
		ends, accepted, dead bool
	}{
		{"another user", without("- name: bob", "- name: eve"), false, true, false},
		{"a role more", ofAlice("[member, reader]", "[member, reader, x]"), true, true, false},
		{"a role less", ofAlice("[member, reader]", "[reader]"), true, true, false},
		{"another project's role", ofAlice("team-b, roles: [reader]", "team-b, roles: [x]"), false, true, false},
		{"the order of roles", ofAlice("[member, reader]", "[reader, member]"), false, true, false},
		{"namespaces", without("[a1, a2]", "[a1]"), false, true, false},
		{"password", ofAlice(quickHash, otherHash), true, false, true},
		{"disabled", ofAlice("alice\n", "alice\n  enabled: false\n"), true, false, true},
		{"removed", without(alice, ""), true, false, true},
		{"the last role", ofAlice("  - {project: team-a, roles: [member, reader]}\n", ""), true, false, true},
		{"project disabled", without("team-a, namespaces", "team-a, enabled: false, namespaces"), true, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, late := startService(t, store, testFile), startService(t, store, testFile)
			token, other := s.mustLogIn(t, password("alice", "team-a")), s.mustLogIn(t, password("root", ""))
			before, bystander := s.identity(t, token), s.identity(t, other)
			s.reload(t, tt.file)
			if ended := before.Valid.Err() != nil; ended != tt.ends {
				t.Errorf("the identity has ended: %v, want %v", ended, tt.ends)
			}
			after := s.identity(t, token)
			if accepted := after != nil; accepted != tt.accepted {
				t.Errorf("accepted: %v, want %v", accepted, tt.accepted)
			}
			if same := after == before; same != (tt.accepted && !tt.ends) {
				t.Errorf("the same identity: %v", same)
			}
			if bystander.Valid.Err() != nil {
				t.Error("the identity of another user has ended")
			}
			if tt.dead {
				eventually(t, "the other server refuses it", func() bool { return late.identity(t, token) == nil })
			}
			late.reload(t, tt.file)
			if accepted := late.identity(t, token) != nil; accepted != tt.accepted {
				t.Errorf("accepted by the other server: %v, want %v", accepted, tt.accepted)
			}
			s.reload(t, testFile)
			if accepted := s.identity(t, token) != nil; accepted == tt.dead {
				t.Errorf("accepted after the file is as before: %v", accepted)
			}
		})
	}
}

// A server whose file is older does not end tokens that it cannot know better.
func TestReloadOneAfterTheOther(t *testing.T) {
	store := newStore(t)
	first, second := startService(t, store, testFile), startService(t, store, testFile)
	changed := strings.ReplaceAll(testFile, quickHash, otherHash) + "- {name: new, passwordHash: " + quickHash + "}\n"
	first.reload(t, changed)
	token := first.mustLogIn(t, password("new", ""))
	if second.identity(t, token) != nil {
		t.Error("a server accepts the token of a user whom it does not know")
	}
	second.reload(t, testFile+"\n# no change\n")
	second.reload(t, changed)
	if second.identity(t, token) == nil || first.identity(t, token) == nil {
		t.Error("the token of the new user has ended")
	}
}

// Who is disabled while no server runs does not come back by being enabled.
func TestDisabledBeforeTheStart(t *testing.T) {
	store := newStore(t)
	token := startService(t, store, testFile).mustLogIn(t, password("alice", ""))
	restarted := startService(t, store, strings.Replace(testFile, "alice\n", "alice\n  enabled: false\n", 1))
	restarted.reload(t, testFile)
	if restarted.identity(t, token) != nil {
		t.Error("the token is accepted")
	}
}

// Expired tokens end by themselves, and leave the store.
func TestExpiry(t *testing.T) {
	store := newStore(t)
	s := startService(t, store, strings.Replace(testFile, "lockout:", "tokenLifetime: 1s\nlockout:", 1))
	token, session, err := s.LogIn(t.Context(), testAddress, password("alice", "team-a"))
	if err != nil {
		t.Fatal(err)
	}
	child, childSession, err := s.LogIn(t.Context(), testAddress, Login{Token: &token, Project: &ProjectRef{Name: "team-b"}})
	if err != nil {
		t.Fatal(err)
	}
	if !childSession.Expires().Equal(session.Expires()) {
		t.Errorf("the token that was made of another expires at %v, the other at %v", childSession.Expires(), session.Expires())
	}
	select {
	case <-session.Identity.Valid.Done():
	case <-time.After(3 * time.Second):
		t.Fatal("the identity has not ended")
	}
	eventually(t, "it is refused", func() bool { return s.identity(t, token) == nil && s.identity(t, child) == nil })
	s.follower.wakeSweep()
	eventually(t, "it is deleted", func() bool {
		list, err := store.List(t.Context(), keyPrefix, storage.ListOptions{})
		return err == nil && len(list.KVs) == 0 && s.count() == 0
	})
	if len(s.perUser) != 0 {
		t.Errorf("tokens of users: %v", s.perUser)
	}
}

// countingStore counts the questions for the revision, and answers them when it is told to.
type countingStore struct {
	storage.Interface
	asked  atomic.Int64
	broken atomic.Bool
}

func (c *countingStore) Revision(ctx context.Context) (int64, error) {
	c.asked.Add(1)
	if c.broken.Load() {
		return 0, storage.ErrUnavailable
	}
	return c.Interface.Revision(ctx)
}

// Garbage never asks the store, and tokens that somebody makes up share their questions.
func TestUnknownTokens(t *testing.T) {
	store := &countingStore{Interface: newStore(t)}
	s := startService(t, store, testFile)
	known := s.mustLogIn(t, password("alice", ""))
	for _, garbage := range []string{
		"", "garbage", "berth_", "berth_short", strings.Repeat("x", 16<<10), known + "A", strings.ToUpper(known), known[:len(known)-1] + "+", known[6:],
	} {
		if s.identity(t, garbage) != nil {
			t.Errorf("%q is accepted", garbage)
		}
	}
	if n := store.asked.Load(); n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			var random [32]byte
			rand.Read(random[:])
			if id, ok, err := s.Authenticate(t.Context(), TokenPrefix+base64.RawURLEncoding.EncodeToString(random[:])); id != nil || ok || err != nil {
				t.Errorf("a made up token: %v, %v, %v", id, ok, err)
			}
		})
	}
	group.Wait()
	if n := store.asked.Load(); n < 1 || n > 20 {
		t.Errorf("the store was asked %d times for 200 tokens", n)
	}
	store.broken.Store(true)
	if s.identity(t, known) == nil {
		t.Error("a known token is refused while the store does not answer")
	}
	_, _, err := s.Authenticate(t.Context(), known[:len(known)-4]+"AAAA")
	if down := (*UnavailableError)(nil); !errors.As(err, &down) || down.Status().Code != 503 || down.Status().Details.RetryAfterSeconds < 1 {
		t.Errorf("the error while the store does not answer: %v", err)
	}
}

func TestBounds(t *testing.T) {
	s := startService(t, newStore(t), testFile+"limits: {tokens: 4, tokensPerUser: 2, logins: {qps: 0.001, burst: 4}}\n")
	busy := func(login Login) *BusyError {
		t.Helper()
		_, _, err := s.LogIn(t.Context(), testAddress, login)
		var busy *BusyError
		if !errors.As(err, &busy) || busy.Wait <= 0 {
			t.Fatalf("error = %v, want that of a limit", err)
		}
		return busy
	}
	token := s.mustLogIn(t, password("alice", ""))
	s.mustLogIn(t, Login{Token: &token})
	if b := busy(password("alice", "")); !strings.Contains(b.Reason, "the user has 2 tokens") || b.Wait < 23*time.Hour {
		t.Errorf("got %q, wait %v", b.Reason, b.Wait)
	}
	busy(Login{Token: &token})
	if b := busy(password("alice", "")); !strings.Contains(b.Reason, "logs in too often") {
		t.Errorf("got %q", b.Reason)
	}
	s.mustLogIn(t, password("bob", ""))
	s.mustLogIn(t, password("root", ""))
	if b := busy(password("auditor", "")); !strings.Contains(b.Reason, "there are 4 tokens") {
		t.Errorf("got %q", b.Reason)
	}
	session, err := s.Session(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room again", func() bool { return s.count() == 3 })
	s.mustLogIn(t, password("auditor", ""))

	var m dto.Metric
	if err := s.metrics.logins.WithLabelValues(outcomeLimited).Write(&m); err != nil || m.GetCounter().GetValue() != 4 {
		t.Errorf("limited log-ins: %v", m.GetCounter().GetValue())
	}
}

// Values that somebody else has written are left out.
func TestUnreadableRecords(t *testing.T) {
	store := newStore(t)
	for key, value := range map[string]string{
		keyPrefix + "garbage":               "{}",
		keyPrefix + strings.Repeat("0", 64): "garbage",
		keyPrefix + strings.Repeat("1", 64): `{"version": 2}`,
		keyPrefix + strings.Repeat("2", 64): `{"version": 1, "user": "x"}`,
	} {
		if _, err := store.Put(t.Context(), key, []byte(value), storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s := startService(t, store, testFile)
	if s.count() != 0 {
		t.Errorf("there are %d tokens", s.count())
	}
	if s.identity(t, s.mustLogIn(t, password("alice", ""))) == nil {
		t.Error("a good token is refused")
	}
}

// The form of stored tokens is read by later versions, too.
func TestRecord(t *testing.T) {
	const stored = `{"version":1,"user":"656f63d6f151c0d7cec665c7bf0b7bf6","password":"0102030405060708","project":"6c0420e2e6d96d564cddd78e363fd90f","methods":["password","token"],"auditIDs":["AAECAwQFBgcICQoLDA0ODw","EBESExQVFhcYGRobHB0eHw"],"issuedMicros":1700000000000001,"expiresMicros":1800000000000002}`
	r, err := decodeRecord([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	if r.scope.kind != projectScope || r.methods != Password|Token || r.issued != 1700000000000001 || r.expires != 1800000000000002 {
		t.Errorf("got %+v", r)
	}
	encoded, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stored, string(encoded)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	s := startService(b, newStore(b), testFile)
	token := s.mustLogIn(b, password("alice", "team-a"))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := s.Authenticate(context.Background(), token); !ok || err != nil {
			b.Fatal(err)
		}
	}
}
