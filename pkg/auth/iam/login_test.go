package iam

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-project/berth/pkg/auth"
)

func TestPasswordHashes(t *testing.T) {
	const argon = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$+v0rf6ETYAIpqJIjJyARZ3W3zqJlkf+0TRXzsLHmR6o"
	for _, text := range []string{
		quickHash, strings.Replace(quickHash, "$2a$", "$2b$", 1), strings.Replace(quickHash, "$2a$", "$2y$", 1), argon,
	} {
		h, err := parseHash(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !h.matches("secret") || h.matches("Secret") || h.matches("secret ") || h.matches("") || !h.weak() {
			t.Errorf("%s: secret matches: %v, Secret: %v", text, h.matches("secret"), h.matches("Secret"))
		}
	}
	for _, text := range []string{
		"", "secret", quickHash[:59], strings.Replace(quickHash, "$2a$", "$2x$", 1), strings.Replace(quickHash, "$04$", "$15$", 1), "$1$abc$def",
		strings.Replace(argon, "m=64", "m=262144", 1), strings.Replace(argon, "t=1", "t=0", 1), strings.Replace(argon, "t=1", "t=100000", 1),
		strings.Replace(argon, "p=1", "p=200", 1), strings.Replace(argon, "p=1", "p=1 ", 1), strings.Replace(argon, "v=19", "v=16", 1),
		strings.Replace(argon, "m=64", "m=4", 1), argon + "!", argon[:strings.LastIndex(argon, "$")], strings.Replace(argon, "argon2id", "argon2i", 1),
	} {
		if _, err := parseHash(text); err == nil {
			t.Errorf("%q is accepted", text)
		} else if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error has the hash: %v", err)
		}
	}
	if (passwordHash{}).matches("") {
		t.Error("the zero hash accepts a password")
	}
}

// bcrypt reads 72 bytes, and longer passwords that begin alike are not the same.
func TestLongPasswords(t *testing.T) {
	long := strings.Repeat("x", maxBcryptPassword)
	text, err := HashPassword(long)
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseHash(text)
	if err != nil {
		t.Fatal(err)
	}
	if !h.matches(long) || h.matches(long+"y") || h.weak() {
		t.Error("want only the password itself to match")
	}
	for _, password := range []string{"", long + "y"} {
		if _, err := HashPassword(password); err == nil {
			t.Errorf("a hash of %d bytes", len(password))
		}
	}
}

func TestLogInRefuses(t *testing.T) {
	s := startService(t, newStore(t), testFile+"- {name: off, enabled: false, passwordHash: "+quickHash+"}\n")
	token := s.mustLogIn(t, password("alice", "team-a"))
	garbage := "garbage"
	with := func(login Login, change func(*Login)) Login {
		change(&login)
		return login
	}
	for _, tt := range []struct {
		name  string
		login Login
		want  string // what the log says; the client is told ErrUnauthorized or ErrNotFound
	}{
		{"nothing", Login{}, `unsupported method or scope, or no credentials`},
		{"wrong password", Login{Password: &PasswordLogin{UserName: "bob", Password: "x"}}, `user "bob": wrong password`},
		{"no password", Login{Password: &PasswordLogin{UserName: "bob"}}, `user "bob": wrong password`},
		{"unknown user", password("nobody", ""), `no such user`},
		{"unknown id", Login{Password: &PasswordLogin{UserID: "x", Password: "secret"}}, `no such user`},
		{"empty id", Login{Password: &PasswordLogin{UserID: strings.Repeat("0", 32), Password: "secret"}}, `no such user`},
		{"disabled", password("off", ""), `user "off": the user is disabled`},
		{"another domain", Login{Password: &PasswordLogin{UserName: "alice", Domain: DomainRef{Name: "Other"}, Password: "secret"}}, `no such user`},
		{"another domain by id", Login{Password: &PasswordLogin{UserName: "alice", Domain: DomainRef{ID: "Default"}, Password: "secret"}}, `no such user`},
		{"unknown project", password("alice", "team-c"), `user "alice": no such project or domain`},
		{"another's project", password("bob", "team-a"), `user "bob": no role in the project or on the domain, or the project is disabled`},
		{"malformed project", with(password("alice", ""), func(l *Login) { l.Project = &ProjectRef{ID: "team-a"} }), `user "alice": no such project or domain`},
		{"project of another domain", with(password("alice", "team-a"), func(l *Login) { l.Project.Domain.Name = "Other" }), `user "alice": no such project or domain`},
		{"domain without a role", with(password("alice", ""), func(l *Login) { l.Domain = &DomainRef{} }), `user "alice": no role in the project or on the domain, or the project is disabled`},
		{"unknown domain", with(password("root", ""), func(l *Login) { l.Domain = &DomainRef{Name: "Other"} }), `user "root": no such project or domain`},
		{"garbage as a token", Login{Token: &garbage}, ErrNotFound.Error()},
		{"another's token beside", with(password("bob", ""), func(l *Login) { l.Token = &token }), `user "bob": the token is of another user`},
		{"a token and a wrong password", with(Login{Token: &token}, func(l *Login) {
			l.Password = &PasswordLogin{UserName: "alice", Password: "x"}
		}), `user "alice": wrong password`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secret, session, err := s.LogIn(t.Context(), testAddress, tt.login)
			if err == nil || err.Error() != tt.want || secret != "" || session != nil {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if !errors.Is(err, ErrUnauthorized) && !errors.Is(err, ErrNotFound) {
				t.Errorf("the client is told %v", err)
			}
		})
	}
}

// A chain of tokens has the audit id of its first one, and dies with the password.
func TestTokenOfToken(t *testing.T) {
	s := startService(t, newStore(t), testFile)
	token, first, err := s.LogIn(t.Context(), testAddress, password("alice", "team-a"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var session *Session
		token, session, err = s.LogIn(t.Context(), testAddress, Login{Token: &token, Project: &ProjectRef{Name: "team-b"}})
		if err != nil {
			t.Fatal(err)
		}
		ids := session.AuditIDs()
		if len(ids) != 2 || ids[1] != first.AuditIDs()[0] || ids[0] == ids[1] || len(ids[0]) != 22 {
			t.Errorf("audit ids %v, those of the first %v", ids, first.AuditIDs())
		}
		if session.Methods() != Password|Token {
			t.Errorf("methods %v", session.Methods().Names())
		}
	}
	s.reload(t, strings.ReplaceAll(testFile, quickHash, otherHash))
	if s.identity(t, token) != nil {
		t.Error("a token of a token outlives the password")
	}
}

func TestLockout(t *testing.T) {
	s := startService(t, newStore(t), testFile)
	token := s.mustLogIn(t, password("alice", "team-a"))
	wrong := Login{Password: &PasswordLogin{UserName: "alice", Password: "wrong"}}
	attempt := func(address string, login Login) bool {
		_, _, err := s.LogIn(t.Context(), netip.MustParseAddr(address), login)
		if err != nil && !errors.Is(err, ErrUnauthorized) {
			t.Fatal(err)
		}
		return err == nil
	}
	const guesser = "2001:db8::1"
	attempt(guesser, wrong)
	attempt(guesser, wrong)
	if !attempt(guesser, password("alice", "")) {
		t.Error("locked after two attempts of three")
	}
	attempt(guesser, wrong)
	attempt(guesser, wrong)
	attempt("2001:db8::2", wrong) // the same network
	if attempt(guesser, password("alice", "")) || attempt("2001:db8::3", password("alice", "")) {
		t.Error("not locked after three attempts")
	}
	if _, _, err := s.LogIn(t.Context(), netip.MustParseAddr(guesser), password("alice", "")); err == nil || err.Error() != `user "alice": the user is locked out at this address` {
		t.Errorf("the reason is %v", err)
	}
	if !attempt("192.0.2.7", password("alice", "")) {
		t.Error("another address is locked out, too")
	}
	if !attempt(guesser, password("bob", "")) {
		t.Error("another user is locked out, too")
	}
	if s.identity(t, token) == nil {
		t.Error("a living token has ended")
	}
	if _, _, err := s.LogIn(t.Context(), netip.MustParseAddr(guesser), Login{Token: &token}); err != nil {
		t.Errorf("a token is no password: %v", err)
	}
	s.reload(t, strings.Replace(testFile, "attempts: 3", "attempts: 0", 1))
	if !attempt(guesser, password("alice", "")) {
		t.Error("locked out although there is no lock-out any more")
	}
}

func TestLockouts(t *testing.T) {
	l, c, now := newLockouts(), lockoutConfig{2, time.Minute, time.Hour}, time.Now()
	user, address := ID{1}, testAddress
	for _, step := range []struct {
		name           string
		after          time.Duration
		locks, lockedS bool
	}{
		{"first", 0, false, false},
		{"too late to count with the first", 2 * time.Minute, false, false},
		{"second within a minute", time.Second, true, true},
		{"while it is locked", 30 * time.Minute, false, true},
		{"after the lock", 31 * time.Minute, false, false},
		{"again", time.Second, true, true},
	} {
		now = now.Add(step.after)
		if locks := l.failed(now, c, user, address); locks != step.locks {
			t.Errorf("%s: locks: %v", step.name, locks)
		}
		if locked := l.locked(now, user, address); locked != step.lockedS {
			t.Errorf("%s: locked: %v", step.name, locked)
		}
	}
	for i := range 3 * maxLockouts {
		l.failed(now, c, ID{2, byte(i), byte(i >> 8), byte(i >> 16)}, address)
		if i%2 == 0 {
			l.succeeded(ID{2, byte(i), byte(i >> 8), byte(i >> 16)}, address)
		}
	}
	if len(l.entries) > maxLockouts || len(l.order) > maxLockouts {
		t.Errorf("%d entries, %d places", len(l.entries), len(l.order))
	}
}

// Of many who log in at the same time, some are told to come back, and all others are answered.
// An address does not take all places.
func TestChecksAreBounded(t *testing.T) {
	c := newChecks()
	hold, begun := make(chan struct{}), make(chan struct{}, 1000)
	var group sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[netip.Addr]map[bool]int{}
	knock := func(address netip.Addr) {
		group.Go(func() {
			err := c.do(context.Background(), address, func() {
				begun <- struct{}{}
				<-hold
			})
			mu.Lock()
			defer mu.Unlock()
			if outcomes[address] == nil {
				outcomes[address] = map[bool]int{}
			}
			outcomes[address][err == nil]++
		})
	}
	greedy, modest := testAddress, netip.MustParseAddr("192.0.2.9")
	for range 3 * c.places {
		knock(greedy)
	}
	eventually(t, "the greedy one is refused", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return outcomes[greedy][false] == 3*c.places-max(1, c.places/2)
	})
	knock(modest)
	for range max(1, runtime.GOMAXPROCS(0)-1) {
		<-begun
	}
	select {
	case <-begun:
		t.Error("more checks run at once than may")
	default:
	}
	close(hold)
	group.Wait()
	if outcomes[modest][true] != 1 || outcomes[greedy][true] != max(1, c.places/2) {
		t.Errorf("outcomes: %v", outcomes)
	}
	if c.taken != 0 || len(c.byAddress) != 0 {
		t.Errorf("taken places: %d, addresses: %d", c.taken, len(c.byAddress))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range cap(c.running) {
		c.running <- struct{}{}
	}
	if err := c.do(ended, greedy, func() { t.Error("checked") }); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

// A check of an unknown user takes as long as that of one of the users: it is one of their hashes.
func TestDecoys(t *testing.T) {
	c, err := parseConfig([]byte(strings.Replace(testFile, quickHash, otherHash, 1)))
	if err != nil {
		t.Fatal(err)
	}
	d, seen := newDirectory(c), map[string]int{}
	for _, name := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		decoy := d.decoy(name)
		if again := d.decoy(name); again.text != decoy.text {
			t.Errorf("%s has two decoys", name)
		}
		seen[decoy.text]++
	}
	if len(seen) != 2 {
		t.Errorf("decoys: %v", seen)
	}
	newDirectory(&config{}).decoy("x").matches("y")
}

func TestScopeAuthorizer(t *testing.T) {
	s := New(testLogger)
	c, err := parseConfig([]byte(testFile))
	if err != nil {
		t.Fatal(err)
	}
	d := newDirectory(c)
	s.setDirectory(d)
	user := func(name string, in scope) *auth.User {
		g, state := d.grantTo(d.userNames[name], in)
		if state != alive {
			t.Fatalf("%s has no such scope", name)
		}
		u := d.kubernetesUser(g)
		return &u
	}
	inProject := func(name string) scope { return scope{projectScope, d.projectNames[name].id} }
	users := map[string]*auth.User{
		"member": user("alice", inProject("team-a")), "reader": user("alice", inProject("team-b")), "unscoped": user("alice", scope{}),
		"admin": user("root", scope{kind: domainScope}), "auditor": user("auditor", scope{kind: domainScope}), "file": {Name: "alice"},
	}
	of := func(verb, resource, namespace string) auth.Attributes {
		return auth.Attributes{Verb: verb, ResourceRequest: true, Resource: resource, Namespace: namespace}
	}
	path := func(verb, path string) auth.Attributes { return auth.Attributes{Verb: verb, Path: path} }
	review := auth.Attributes{Verb: "create", ResourceRequest: true, APIGroup: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"}
	for _, tt := range []struct {
		name string
		asks auth.Attributes
		may  string // who may
	}{
		{"create", of("create", "endpoints", "a2"), "member admin file"},
		{"delete", of("delete", "endpoints", "b"), "admin file"},
		{"list", of("list", "endpoints", "b"), "reader admin auditor file"},
		{"get", of("get", "endpoints", "a1"), "member admin auditor file"},
		{"elsewhere", of("get", "endpoints", "default"), "admin auditor file"},
		{"everywhere", of("watch", "endpoints", ""), "admin auditor file"},
		{"own namespace", of("get", "namespaces", "a1"), "member admin auditor file"},
		{"own namespace, deleted", of("delete", "namespaces", "a1"), "admin file"},
		{"a new namespace", of("create", "namespaces", ""), "admin file"},
		{"an unknown verb", of("", "endpoints", "b"), "admin file"},
		{"discovery", path("get", "/apis/apps/v1"), "member reader unscoped admin auditor file"},
		{"index", path("get", "/"), "member reader unscoped admin auditor file"},
		{"own limits", path("get", "/debug/limits"), "member reader unscoped admin auditor file"},
		{"metrics", path("get", "/metrics"), "admin auditor file"},
		{"posted path", path("post", "/api"), "admin file"},
		{"review", review, "member reader unscoped admin auditor file"},
		{"review of others", auth.Attributes{Verb: "create", ResourceRequest: true, APIGroup: "authorization.k8s.io", Resource: "subjectaccessreviews"}, "admin file"},
		{"impersonation", of("impersonate", "users", ""), "admin file"},
		{"impersonation of a service account", of("impersonate", "serviceaccounts", "a1"), "admin file"},
		{"constrained impersonation", of("impersonate-on:user-info:get", "endpoints", "a1"), "admin file"},
	} {
		for who, u := range users {
			tt.asks.User = u
			allowed, reason, err := (&ScopeAuthorizer{Service: s, Next: auth.AlwaysAllow{}}).Authorize(t.Context(), tt.asks)
			if want := strings.Contains(" "+tt.may+" ", " "+who+" "); allowed != want || err != nil || allowed == (reason != "") {
				t.Errorf("%s: %s: %v (%q, %v), want %v", tt.name, who, allowed, reason, err, want)
			}
		}
	}
}
