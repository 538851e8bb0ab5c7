package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/apitest"
	"github.com/berth-project/berth/test/harness"
)

// A token of one server is good at another of the same etcd at once, as X-Auth-Token and as Bearer.
// Revoked at one, it is dead at both, and its watches end.
func TestIAMReplicas(t *testing.T) {
	first := startIAM(t, apitest.Config{})
	second := startIAM(t, apitest.Config{Peer: first.Server})
	const endpoints = "/api/v1/namespaces/default/endpoints"
	token := first.logIn("ann", teamA)
	for _, header := range [][]string{{"X-Auth-Token", token}, {"Authorization", "Bearer " + token}, {"X-Auth-Token", token, "Authorization", "SDK-HMAC-SHA256 Access=x"}} {
		if a := second.send("GET", endpoints, "", header...); a.code != http.StatusOK {
			t.Fatalf("%v: %d %s", header[0], a.code, a.body)
		}
	}
	var watches []*bufio.Reader
	for _, s := range []*iamServer{first, second} {
		watch := s.open("GET", endpoints+"?watch=1", "", "X-Auth-Token", token)
		defer watch.Body.Close()
		watches = append(watches, bufio.NewReader(watch.Body))
	}
	if a := first.send("POST", endpoints, `{"metadata":{"name":"web"}}`, "X-Auth-Token", token); a.code != http.StatusCreated {
		t.Fatalf("%d %s", a.code, a.body)
	}
	for _, lines := range watches {
		if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"ADDED"`) {
			t.Fatalf("the watch has %s (%v)", line, err)
		}
	}
	if a := second.send("DELETE", "/v3/auth/tokens", "", "X-Auth-Token", token, "X-Subject-Token", token); a.code != http.StatusNoContent || a.body != "" {
		t.Fatalf("%d %s", a.code, a.body)
	}
	began := time.Now()
	for i, lines := range watches {
		line, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(line, `"ERROR"`) || !strings.Contains(line, `"code":401`) {
			t.Errorf("watch %d: %s (%v)", i, line, err)
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the watches took %v to end", took)
	}
	for _, s := range []*iamServer{first, second} {
		if a := s.send("GET", endpoints, "", "X-Auth-Token", token); a.code != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%d %s", a.code, a.body)
		}
	}
	if lines := logs.lines(token); len(lines) > 0 {
		t.Errorf("the token is in the log: %s", lines[0])
	}
}

// What ends a token by the file ends its watches, too.
func TestIAMWatchEndsWithThePassword(t *testing.T) {
	s := startIAM(t, apitest.Config{})
	token := s.logIn("ann", teamA)
	watch := s.open("GET", "/api/v1/namespaces/default/endpoints?watch=1", "", "X-Auth-Token", token)
	defer watch.Body.Close()
	if err := s.ReloadIAM(strings.ReplaceAll(iamFile, iamHash, otherHash)); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(watch.Body); err != nil || !strings.Contains(string(data), `"code":401`) {
		t.Errorf("the watch has %s (%v)", data, err)
	}
	if err := s.ReloadIAM("kind: nothing"); err == nil || !strings.Contains(err.Error(), "line 1: kind: must be IAMConfiguration") {
		t.Errorf("a faulty file: %v", err)
	}
	if a := s.send("POST", "/v3/auth/tokens", loginBody("ann", "other", teamA), "Content-Type", "application/json"); a.code != http.StatusCreated {
		t.Errorf("after a faulty file: %d %s", a.code, a.body)
	}
}

// The scope of a token means something although everything is allowed to everybody.
func TestIAMScope(t *testing.T) {
	s := startIAM(t, apitest.Config{})
	tokens := map[string]string{
		"member": s.logIn("ann", teamA), "reader": s.logIn("bea", teamA), "unscoped": s.logIn("ann", "null"), "admin": s.logIn("root", onDomain),
	}
	for _, tt := range []struct {
		method, path, body string
		want               map[string]int
	}{
		{"GET", "/api/v1/namespaces/default/endpoints", "", map[string]int{"member": 200, "reader": 200, "unscoped": 403, "admin": 200}},
		{"POST", "/api/v1/namespaces/default/endpoints?dryRun=All", `{"metadata":{"name":"x"}}`, map[string]int{"member": 201, "reader": 403, "unscoped": 403, "admin": 201}},
		{"GET", "/api/v1/namespaces/kube-public/endpoints", "", map[string]int{"member": 403, "reader": 403, "unscoped": 403, "admin": 200}},
		{"GET", "/api/v1/endpoints", "", map[string]int{"member": 403, "reader": 403, "unscoped": 403, "admin": 200}},
		{"GET", "/feeds/prometheus?namespace=default", "", map[string]int{"member": 200, "reader": 200, "unscoped": 403, "admin": 200}},
		{"GET", "/feeds/prometheus?namespace=kube-public", "", map[string]int{"member": 403, "reader": 403, "unscoped": 403, "admin": 200}},
		{"GET", "/feeds/prometheus", "", map[string]int{"member": 403, "reader": 403, "unscoped": 403, "admin": 200}},
		{"DELETE", "/api/v1/namespaces/default?dryRun=All", "", map[string]int{"member": 403, "reader": 403, "unscoped": 403}},
		{
			"POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings?dryRun=All",
			`{"metadata":{"name":"x"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"}}`,
			map[string]int{"member": 403, "reader": 403, "unscoped": 403, "admin": 201},
		},
		{"GET", "/api/v1", "", map[string]int{"member": 200, "reader": 200, "unscoped": 200, "admin": 200}},
		{"GET", "/openapi/v3", "", map[string]int{"member": 200, "reader": 200, "unscoped": 200, "admin": 200}},
		{"GET", "/metrics", "", map[string]int{"member": 403, "reader": 403, "unscoped": 403, "admin": 200}},
		{"POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`, map[string]int{"member": 201, "reader": 201, "unscoped": 201, "admin": 201}},
	} {
		for who, want := range tt.want {
			if a := s.send(tt.method, tt.path, tt.body, "X-Auth-Token", tokens[who], "Content-Type", "application/json"); a.code != want {
				t.Errorf("%s: %s %s: %d, want %d: %s", who, tt.method, tt.path, a.code, want, a.body)
			}
		}
	}
}

// A watch ends when the namespace is taken from the token's project, as it would with a role.
func TestIAMWatchEndsWithTheScope(t *testing.T) {
	s := startIAM(t, apitest.Config{})
	watch := s.open("GET", "/api/v1/namespaces/default/endpoints?watch=1", "", "X-Auth-Token", s.logIn("ann", teamA))
	defer watch.Body.Close()
	if err := s.ReloadIAM(strings.ReplaceAll(iamFile, "[default]", "[kube-public]")); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(watch.Body); err != nil || !strings.Contains(string(data), `"code":403`) {
		t.Errorf("the watch has %s (%v)", data, err)
	}
}

// Who has no role in a project is not told whether there is one. A name is no id, and not found.
func TestIAMOtherProjects(t *testing.T) {
	s := startIAM(t, apitest.Config{IAM: strings.Replace(iamFile, "users:", "- {name: team-b, id: 0123456789abcdef0123456789abcdef}\nusers:", 1)})
	member, admin := s.logIn("ann", teamA), s.logIn("root", onDomain)
	for id, want := range map[string][2]int{
		"0123456789abcdef0123456789abcdef": {403, 200}, "00000000000000000000000000000000": {403, 404}, "team-b": {404, 404}, "team-c": {404, 404},
	} {
		for i, token := range []string{member, admin} {
			if a := s.send("GET", "/v3/projects/"+id, "", "X-Auth-Token", token); a.code != want[i] {
				t.Errorf("%s: %d, want %d: %s", id, a.code, want[i], a.body)
			}
		}
	}
}

// However many tokens a user has, they share the user's limits.
func TestIAMTokensShareLimits(t *testing.T) {
	slow := &ratelimit.Limit{QPS: 0.001, Burst: 4}
	s := startIAM(t, apitest.Config{RateLimits: &ratelimit.Config{Overrides: []ratelimit.Override{{Users: []string{"ann"}, Read: slow}}}})
	passed := 0
	for range 8 {
		token := s.logIn("ann", teamA)
		switch a := s.send("GET", "/api/v1/namespaces/default/endpoints", "", "X-Auth-Token", token); a.code {
		case http.StatusOK:
			passed++
		case http.StatusTooManyRequests:
			if a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `\"ann\"`) {
				t.Errorf("%v %s", a.header, a.body)
			}
			// The service's own paths have the same limits, and their form of errors.
			a = s.send("GET", "/v3/auth/projects", "", "X-Auth-Token", token)
			if a.code != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"title":"Too Many Requests"`) {
				t.Errorf("%d %v %s", a.code, a.header, a.body)
			}
		default:
			t.Fatalf("%d %s", a.code, a.body)
		}
	}
	if passed != 4 {
		t.Errorf("%d requests have passed, want 4", passed)
	}
	if a := s.send("GET", "/api/v1/namespaces/default/endpoints", "", "X-Auth-Token", s.logIn("bea", teamA)); a.code != http.StatusOK {
		t.Errorf("another user: %d %s", a.code, a.body)
	}
}

// Failed log-ins are charged to the address, successful ones are not.
func TestIAMFailuresAreCharged(t *testing.T) {
	s := startIAM(t, apitest.Config{RateLimits: &ratelimit.Config{Anonymous: &ratelimit.Limit{QPS: 0.01, Burst: 5}}})
	for range 10 {
		s.logIn("ann", teamA)
	}
	var codes []int
	for i := range 8 {
		a := s.send("POST", "/v3/auth/tokens", loginBody(fmt.Sprintf("nobody-%d", i), "wrong", "null"), "Content-Type", "application/json")
		codes = append(codes, a.code)
		if a.code == http.StatusTooManyRequests && (a.header.Get("Retry-After") == "" || a.header.Get("Vary") != "X-Auth-Token") {
			t.Errorf("headers %v", a.header)
		}
	}
	if diff := cmp.Diff([]int{401, 401, 401, 401, 401, 429, 429, 429}, codes); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if a := s.send("GET", "/v3", ""); a.code != http.StatusOK {
		t.Errorf("the version: %d %s", a.code, a.body)
	}
}

// The right password is of no use to an address that has guessed, and all 401s are the same.
func TestIAMLockout(t *testing.T) {
	s := startIAM(t, apitest.Config{})
	token := s.logIn("ann", teamA)
	answers := map[string]bool{}
	for _, password := range []string{"a", "b", "c", iamPassword, iamPassword} {
		a := s.send("POST", "/v3/auth/tokens", loginBody("ann", password, teamA), "Content-Type", "application/json")
		answers[fmt.Sprint(a.code, a.body, a.header["Www-Authenticate"])] = true
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %v", answers)
	}
	if a := s.send("GET", "/v3/auth/projects", "", "X-Auth-Token", token); a.code != http.StatusOK {
		t.Errorf("the living token: %d %s", a.code, a.body)
	}
	s.logIn("bea", teamA)
}

// Of a burst of log-ins all are answered, within bounds, while other requests go on.
func TestIAMBurst(t *testing.T) {
	slow := strings.ReplaceAll(iamFile, iamHash, "$2a$10$6.G7ceXar4smgAC4fGh2su/z0eNzB1u1EQRHs0xeDUDgNoRedqn6O")
	s := startIAM(t, apitest.Config{IAM: slow, RateLimits: &ratelimit.Config{Anonymous: &ratelimit.Limit{QPS: 1000, Burst: 1000}}})
	var group sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for range 60 {
		group.Go(func() {
			a := s.send("POST", "/v3/auth/tokens", loginBody("nobody", "wrong", "null"), "Content-Type", "application/json")
			mu.Lock()
			defer mu.Unlock()
			codes[a.code]++
		})
	}
	began := time.Now()
	if a := s.send("GET", "/api/v1/namespaces/default/endpoints", "", "X-Auth-Token", apitest.Token); a.code != http.StatusOK || time.Since(began) > time.Second {
		t.Errorf("meanwhile: %d after %v", a.code, time.Since(began))
	}
	group.Wait()
	if codes[401] == 0 || codes[429] == 0 || codes[401]+codes[429] != 60 {
		t.Errorf("codes %v, want some 401 and some 429", codes)
	}
}

// The index tells where the service is, to clients that have no token yet.
func TestIAMIndex(t *testing.T) {
	s := startIAM(t, apitest.Config{})
	for name, headers := range map[string][]string{"no token": nil, "token": {"X-Auth-Token", apitest.Token}} {
		a := s.send("GET", "/", "", headers...)
		var index struct {
			Paths    []string
			Versions struct{ Values []struct{ ID string } }
		}
		if err := json.Unmarshal([]byte(a.body), &index); err != nil || a.code != http.StatusOK {
			t.Fatalf("%s: %d %v %s", name, a.code, err, a.body)
		}
		if len(index.Paths) < 10 || len(index.Versions.Values) != 1 || index.Versions.Values[0].ID != "v3.14" {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	plain := &iamServer{shared, t}
	if a := plain.send("GET", "/v3", "", "X-Auth-Token", apitest.Token); a.code != http.StatusNotFound {
		t.Errorf("without a token service: %d %s", a.code, a.body)
	}
	if a := plain.send("GET", "/", ""); a.code != http.StatusUnauthorized {
		t.Errorf("without a token service: %d %s", a.code, a.body)
	}
}

// Bodies are bounded, and so are tokens in headers.
func TestIAMLargeInput(t *testing.T) {
	s := startIAM(t, apitest.Config{})
	token, large := s.logIn("ann", teamA), strings.Repeat("x", 16<<10)
	for _, tt := range []struct {
		name string
		got  iamAnswer
		want int
	}{
		{"subject", s.send("GET", "/v3/auth/tokens", "", "X-Auth-Token", token, "X-Subject-Token", large), 404},
		{"token", s.send("GET", "/v3/auth/tokens", "", "X-Auth-Token", large, "X-Subject-Token", token), 401},
		{"token of the API", s.send("GET", "/api/v1/namespaces/default/endpoints", "", "X-Auth-Token", large), 401},
		{"method token", s.send("POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["token"],"token":{"id":"`+large+`"}}}}`), 404},
		{"password", s.send("POST", "/v3/auth/tokens", loginBody("ann", large, teamA)), 401},
		{"body", s.send("POST", "/v3/auth/tokens", loginBody("ann", strings.Repeat(large, 5), teamA)), 413},
	} {
		if tt.got.code != tt.want {
			t.Errorf("%s: %d, want %d: %.200s", tt.name, tt.got.code, tt.want, tt.got.body)
		}
	}
}

// brokenStorage answers nothing while it is told to.
type brokenStorage struct {
	storage.Interface
	broken atomic.Bool
}

func (b *brokenStorage) Put(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
	if b.broken.Load() {
		return storage.WriteResponse{}, storage.ErrUnavailable
	}
	return b.Interface.Put(ctx, key, value, opts)
}

func (b *brokenStorage) Delete(ctx context.Context, key string, opts storage.DeleteOptions) (storage.WriteResponse, error) {
	if b.broken.Load() {
		return storage.WriteResponse{}, storage.ErrUnknownOutcome
	}
	return b.Interface.Delete(ctx, key, opts)
}

func (b *brokenStorage) Revision(ctx context.Context) (int64, error) {
	if b.broken.Load() {
		return 0, storage.ErrUnavailable
	}
	return b.Interface.Revision(ctx)
}

// Without etcd nobody logs in and nothing is revoked, which the answers say in their paths' form.
// Known tokens are good.
func TestIAMWithoutEtcd(t *testing.T) {
	store := &brokenStorage{}
	s := startIAM(t, apitest.Config{Wrap: func(inner storage.Interface) storage.Interface {
		store.Interface = inner
		return store
	}})
	token := s.logIn("ann", teamA)
	unknown := token[:len(token)-4] + "AAAA"
	store.broken.Store(true)
	keystone, status := `"title":"Service Unavailable"`, `"reason":"ServiceUnavailable"`
	for _, tt := range []struct {
		name, form string
		got        iamAnswer
	}{
		{"log-in", keystone, s.send("POST", "/v3/auth/tokens", loginBody("ann", iamPassword, teamA))},
		{"method token", keystone, s.send("POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["token"],"token":{"id":"`+unknown+`"}}}}`)},
		{"unknown token", keystone, s.send("GET", "/v3/auth/projects", "", "X-Auth-Token", unknown)},
		{"revocation", keystone, s.send("DELETE", "/v3/auth/tokens", "", "X-Auth-Token", token, "X-Subject-Token", token)},
		{"unknown token of the API", status, s.send("GET", "/api/v1/namespaces/default/endpoints?resourceVersion=0", "", "X-Auth-Token", unknown)},
	} {
		body := strings.ReplaceAll(tt.got.body, " ", "")
		if tt.got.code != http.StatusServiceUnavailable || tt.got.header.Get("Retry-After") == "" || !strings.Contains(body, strings.ReplaceAll(tt.form, " ", "")) {
			t.Errorf("%s: %d %v %s", tt.name, tt.got.code, tt.got.header, tt.got.body)
		}
	}
	if a := s.send("GET", "/api/v1/namespaces/default/endpoints?resourceVersion=0", "", "X-Auth-Token", token); a.code != http.StatusOK {
		t.Errorf("a known token: %d %s", a.code, a.body)
	}
	store.broken.Store(false)
	if a := s.send("DELETE", "/v3/auth/tokens", "", "X-Auth-Token", token, "X-Subject-Token", token); a.code != http.StatusNoContent {
		t.Errorf("the revocation afterwards: %d %s", a.code, a.body)
	}
}

// The audit log says who has logged in, and who could not, and has neither password nor token.
func TestIAMAudit(t *testing.T) {
	policy, err := audit.Preset("full")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{Policy: policy, Path: path, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close(context.Background()) })
	s := startIAM(t, apitest.Config{Audit: log})
	token := s.logIn("ann", teamA)
	s.send("DELETE", "/v3/auth/tokens", "", "X-Auth-Token", token, "X-Subject-Token", token)
	s.send("POST", "/v3/auth/tokens", loginBody("ann", "wrong", teamA))
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := harness.ReadFile(t, path)
	var got []string
	for line := range strings.Lines(text) {
		var event struct {
			Stage, RequestURI, Verb string
			User                    struct{ Username string }
			ResponseStatus          struct{ Code int }
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if event.Stage != "RequestReceived" {
			got = append(got, fmt.Sprint(event.Verb, " ", event.RequestURI, " ", event.User.Username, " ", event.ResponseStatus.Code))
		}
	}
	want := []string{"post /v3/auth/tokens ann 201", "delete /v3/auth/tokens ann 204", "post /v3/auth/tokens  401"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if strings.Contains(text, token) || strings.Contains(text, secret) || strings.Contains(text, "wrong") {
		t.Error("a secret is in the audit log")
	}
}
