package iam

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

// otherHash is bcrypt's of "other".
const otherHash = "$2a$04$yQ90hT8xxpUy2muKm7lFj.YjHYatfc.r582izbkKC8FRBhHthqhiq"

// testFile has users whose password is "secret".
const testFile = header + `
lockout: {attempts: 3, within: 1h, duration: 1h}
projects:
- {name: team-a, namespaces: [a1, a2]}
- {name: team-b, namespaces: [b]}
users:
- name: root
  passwordHash: ` + quickHash + `
  roles:
  - {domain: true, roles: [admin]}
  - {project: team-a, roles: [admin]}
- name: auditor
  passwordHash: ` + quickHash + `
  roles: [{domain: true, roles: [reader]}]
- name: alice
  passwordHash: ` + quickHash + `
  roles:
  - {project: team-a, roles: [member, reader]}
  - {project: team-b, roles: [reader]}
- name: bob
  passwordHash: ` + quickHash + `
  roles: [{project: team-b, roles: [admin]}]
`

// newStore returns the storage of an etcd of the test's own.
func newStore(t testing.TB) *etcd.Store {
	t.Helper()
	inside, err := embedded.Start(t.Context(), embedded.Config{DataDir: filepath.Join(t.TempDir(), "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	store, err := etcd.New(inside.Client(), etcd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// server is a service and its file.
type server struct {
	*Service
	path string
}

// startService starts one of several services on a store.
func startService(t testing.TB, store storage.Interface, file string) *server {
	t.Helper()
	s := &server{Service: New(zerolog.Nop()), path: filepath.Join(t.TempDir(), "iam.yaml")}
	s.reload(t, file)
	run, cancel := context.WithCancel(context.Background())
	wait, err := s.Start(t.Context(), run, store, prometheus.NewRegistry())
	t.Cleanup(func() { cancel(); wait() })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) reload(t testing.TB, file string) {
	t.Helper()
	if err := os.WriteFile(s.path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(s.path); err != nil {
		t.Fatal(err)
	}
}

// password is a log-in of a user, in a project unless that is "".
func password(user, project string) Login {
	login := Login{Password: &PasswordLogin{UserName: user, Password: "secret"}}
	if project != "" {
		login.Project = &ProjectRef{Name: project}
	}
	return login
}

func (s *server) mustLogIn(t testing.TB, login Login) string {
	t.Helper()
	token, _, err := s.LogIn(t.Context(), testAddress, login)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// identity returns the identity of a token, nil if it is not accepted.
func (s *server) identity(t testing.TB, token string) *auth.Identity {
	t.Helper()
	identity, ok, err := s.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if ok != (identity != nil) {
		t.Fatalf("ok: %v, with identity %v", ok, identity)
	}
	return identity
}

// ends fails the test unless the identity ends within a second.
func ends(t testing.TB, identity *auth.Identity) {
	t.Helper()
	select {
	case <-identity.Valid.Done():
	case <-time.After(time.Second):
		t.Error("the identity is valid after a second")
	}
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
