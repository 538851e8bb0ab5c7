package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/etcd"
)

const rolesPath = "/apis/rbac.authorization.k8s.io/v1/"

// replica is a server on an etcd that it may share.
type replica struct {
	instance *Instance
	url      string
	log      *bytes.Buffer // to read once it has ended
}

func newEtcd(t *testing.T) *clientv3.Client {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{DataDir: filepath.Join(t.TempDir(), "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = etcd.Close() })
	return etcd.Client()
}

// tokens are of users by their names; admin is in system:masters.
type users struct{}

func (users) Authenticate(_ context.Context, token string) (*auth.Identity, bool, error) {
	u := auth.User{Name: token}
	if token == "admin" {
		u.Groups = []string{auth.SystemPrivilegedGroup}
	}
	identity, _, err := auth.NewIdentity([32]byte{}, u)
	return identity, true, err
}

func (users) Of(string) []*auth.Identity { return nil }

// startReplica starts a server; end stops it.
func startReplica(t *testing.T, etcd *clientv3.Client, mode string) (r *replica, end func()) {
	t.Helper()
	r = &replica{log: new(bytes.Buffer)}
	instance, err := Start(t.Context(), Config{
		Client: etcd, Authenticator: users{}, AuthorizationMode: mode, Limiter: ratelimit.New(nil),
		Logger: zerolog.New(zerolog.SyncWriter(r.log)), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(instance.Handler)
	r.instance, r.url = instance, server.URL
	end = sync.OnceFunc(func() {
		instance.Handler.EndStreams()
		server.Close()
		instance.Close()
	})
	t.Cleanup(end)
	return r, end
}

// call sends a request of the user, and returns the code and the body of its answer. The type of
// a patch is that of a merge, except where the body is a configuration.
func (r *replica) call(t *testing.T, user, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", user)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
		if strings.Contains(body, "apiVersion") {
			req.Header.Set("Content-Type", "application/apply-patch+yaml")
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// must calls as admin, and fails the test unless the code is 200 or 201.
func (r *replica) must(t *testing.T, method, path, body string) string {
	t.Helper()
	code, answer := r.call(t, "admin", method, path, body)
	if code != http.StatusOK && code != http.StatusCreated {
		t.Fatalf("%s %s: %d %s", method, path, code, answer)
	}
	return answer
}

func (r *replica) clusterRole(t *testing.T, name string) (role rbacv1.ClusterRole) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.must(t, "GET", rolesPath+"clusterroles/"+name, "")), &role); err != nil {
		t.Fatal(err)
	}
	return role
}

// soon waits until cond holds, far longer than it should take.
func soon(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(2*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not within 10 s: " + what)
		}
	}
}

// Data decide on the mode where no flag does: new ones are under RBAC from then on, and those of
// a release without it stay as they were until RBAC has been in force once.
func TestModes(t *testing.T) {
	type start struct {
		mode string
		want int // code of a list by a user without rights
	}
	for name, starts := range map[string][]start{
		"new":                      {{"", 403}, {"", 403}, {ModeAlwaysAllow, 200}, {"", 403}},
		"begun without":            {{ModeAlwaysAllow, 200}, {"", 200}, {ModeRBAC, 403}, {"", 403}},
		"begun with it, by a flag": {{ModeRBAC, 403}, {"", 403}},
	} {
		t.Run(name, func(t *testing.T) {
			etcd := newEtcd(t)
			for i, s := range starts {
				r, end := startReplica(t, etcd, s.mode)
				if code, body := r.call(t, "ann", "GET", "/api/v1/namespaces/default/endpoints", ""); code != s.want {
					t.Errorf("start %d: got %d %s, want %d", i, code, body, s.want)
				}
				r.must(t, "GET", rolesPath+"clusterroles", "") // the kinds are served in both
				end()
				warns := strings.Contains(r.log.String(), "start with --authorization-mode=RBAC")
				if want := s.mode == "" && s.want == 200; warns != want {
					t.Errorf("start %d: warns: %v, want %v", i, warns, want)
				}
			}
		})
	}
	if _, err := Start(t.Context(), Config{Client: &clientv3.Client{}, Authenticator: users{}, Limiter: ratelimit.New(nil), Metrics: prometheus.NewRegistry(), AuthorizationMode: "Node"}); err == nil {
		t.Error("the mode Node was accepted")
	}
}

// meanwhile is a storage in which something happens after the first read.
type meanwhile struct {
	storage.Interface
	happen func()
}

func (m *meanwhile) Get(ctx context.Context, key string, opts storage.GetOptions) (storage.GetResponse, error) {
	defer m.happen()
	return m.Interface.Get(ctx, key, opts)
}

func (m *meanwhile) List(ctx context.Context, prefix string, opts storage.ListOptions) (storage.ListResponse, error) {
	defer m.happen()
	return m.Interface.List(ctx, prefix, opts)
}

// A server that starts while another begins with new data does not take these for data without RBAC.
func TestModeOfTwoThatStart(t *testing.T) {
	store, err := etcd.New(newEtcd(t), etcd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	settle := func(s storage.Interface) {
		t.Helper()
		if mode, err := settleMode(t.Context(), s, &Config{}); err != nil || mode != ModeRBAC {
			t.Errorf("got %q, %v", mode, err)
		}
	}
	settle(&meanwhile{store, sync.OnceFunc(func() { settle(store) })})
}

// Servers that start at the same time make the first roles once, and each start mends what has
// been taken away, except where an annotation says not to.
func TestFirstRoles(t *testing.T) {
	etcd := newEtcd(t)
	var starting sync.WaitGroup
	ends := make(chan func(), 3)
	for range 3 {
		starting.Go(func() {
			_, end := startReplica(t, etcd, "")
			ends <- end
		})
	}
	starting.Wait()
	close(ends)
	for end := range ends {
		end()
	}
	r, end := startReplica(t, etcd, "")
	edit := r.clusterRole(t, "edit")
	for _, role := range []string{"edit", "admin"} {
		if !strings.Contains(fmt.Sprint(r.clusterRole(t, role).Rules), "endpointslices") {
			t.Errorf("%s may not write EndpointSlices: %v", role, r.clusterRole(t, role).Rules)
		}
	}
	if m := edit.ManagedFields; len(m) != 2 || m[1].Manager != "kube-apiserver" && m[0].Manager != "kube-apiserver" {
		t.Errorf("managers of edit: %v", m)
	}
	r.must(t, "DELETE", rolesPath+"clusterroles/view", "")
	r.must(t, "PATCH", rolesPath+"clusterroles/system:kube-dns", `{"metadata":{"labels":null},"rules":[{"verbs":["list"],"apiGroups":[""],"resources":["services"]},{"verbs":["get"],"apiGroups":["mine"],"resources":["mine"]}]}`)
	r.must(t, "PATCH", rolesPath+"clusterroles/system:node-proxier", `{"metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"false"}},"rules":null}`)
	r.must(t, "PATCH", rolesPath+"clusterrolebindings/system:discovery", `{"subjects":[]}`)
	r.must(t, "DELETE", rolesPath+"clusterrolebindings/system:basic-user", "")
	r.must(t, "POST", rolesPath+"clusterrolebindings", `{"metadata":{"name":"system:basic-user"},"roleRef":{"kind":"ClusterRole","name":"view"}}`)
	end()

	r, end = startReplica(t, etcd, "")
	if got := r.clusterRole(t, "view"); len(got.Rules) == 0 {
		t.Errorf("view is %v", got)
	}
	dns := r.clusterRole(t, "system:kube-dns")
	if got := fmt.Sprint(dns.Rules); !strings.Contains(got, "mine") || !strings.Contains(got, "endpoints") || dns.Labels["kubernetes.io/bootstrapping"] == "" {
		t.Errorf("system:kube-dns is %v", dns)
	}
	if got := r.clusterRole(t, "system:node-proxier"); len(got.Rules) > 0 {
		t.Errorf("a protected role has become %v", got)
	}
	if got := r.must(t, "GET", rolesPath+"clusterrolebindings/system:discovery", ""); !strings.Contains(got, "system:authenticated") {
		t.Errorf("its subjects are not back: %s", got)
	}
	if got := r.must(t, "GET", rolesPath+"clusterrolebindings/system:basic-user", ""); strings.Contains(got, `"view"`) || !strings.Contains(got, "system:authenticated") {
		t.Errorf("it is of another role: %s", got)
	}
	end()
	before, err := etcd.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	_, end = startReplica(t, etcd, "")
	end()
	if after, err := etcd.Get(t.Context(), "x"); err != nil || after.Header.Revision != before.Header.Revision {
		t.Errorf("a start with nothing to mend writes (%v)", err)
	}
}

// Each replica puts the rules of roles together, of which the others are a part, and all come to
// the same, whichever of them is written to.
func TestAggregation(t *testing.T) {
	etcd := newEtcd(t)
	a, _ := startReplica(t, etcd, "")
	b, _ := startReplica(t, etcd, "")
	const selects = `"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"part":"%s"}}]}`
	a.must(t, "POST", rolesPath+"clusterroles", `{"metadata":{"name":"sum"},`+fmt.Sprintf(selects, "1")+`}`)
	b.must(t, "POST", rolesPath+"clusterroles", `{"metadata":{"name":"whole","labels":{"part":"3"}},`+fmt.Sprintf(selects, "2")+`}`)
	b.must(t, "PATCH", rolesPath+"clusterroles/sum", `{"metadata":{"labels":{"part":"2"}}}`)
	a.must(t, "POST", rolesPath+"clusterrolebindings", `{"metadata":{"name":"whole"},"roleRef":{"kind":"ClusterRole","name":"whole"},"subjects":[{"kind":"User","name":"ann"}]}`)
	for i := range 10 {
		one, other := a, b
		if i%2 == 1 {
			one, other = b, a
		}
		resource := fmt.Sprint("endpoints/", i)
		one.must(t, "POST", rolesPath+"clusterroles", fmt.Sprintf(`{"metadata":{"name":"p%d","labels":{"part":"1"}},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":[%q]}]}`, i, resource))
		soon(t, "a part of a part counts on the other replica", func() bool {
			return strings.Contains(fmt.Sprint(other.clusterRole(t, "whole").Rules), resource)
		})
	}
	a.must(t, "POST", rolesPath+"clusterroles", `{"metadata":{"name":"reader","labels":{"part":"1"}},"rules":[{"verbs":["list"],"apiGroups":[""],"resources":["endpoints"]}]}`)
	soon(t, "the user may list by what is put together", func() bool {
		code, _ := b.call(t, "ann", "GET", "/api/v1/namespaces/default/endpoints", "")
		return code == http.StatusOK
	})
	b.must(t, "DELETE", rolesPath+"clusterroles/reader", "")
	soon(t, "and no more", func() bool {
		code, _ := a.call(t, "ann", "GET", "/api/v1/namespaces/default/endpoints", "")
		return code == http.StatusForbidden
	})
	b.must(t, "PATCH", rolesPath+"clusterroles/sum", `{"rules":[]}`)
	soon(t, "rules that somebody has changed are put together again", func() bool { return len(a.clusterRole(t, "sum").Rules) == 10 })
}

// A grant is refused by what is stored when it comes, however new that is, and whichever replica
// has written it.
func TestGrantsAreLinearizable(t *testing.T) {
	etcd := newEtcd(t)
	a, _ := startReplica(t, etcd, "")
	b, _ := startReplica(t, etcd, "")
	path := rolesPath + "namespaces/default/"
	const manage = `{"verbs":["*"],"apiGroups":["rbac.authorization.k8s.io"],"resources":["rolebindings"]},{"verbs":["create"],"apiGroups":["rbac.authorization.k8s.io"],"resources":["roles"]}`
	const reads = `,{"verbs":["get"],"apiGroups":[""],"resources":["endpoints"]}`
	a.must(t, "POST", path+"roles", `{"metadata":{"name":"m"},"rules":[`+manage+reads+`]}`)
	a.must(t, "POST", path+"rolebindings", `{"metadata":{"name":"m"},"roleRef":{"kind":"Role","name":"m"},"subjects":[{"kind":"User","name":"ann"}]}`)
	soon(t, "the binding counts", func() bool {
		code, _ := b.call(t, "ann", "GET", path+"rolebindings", "")
		return code == http.StatusOK
	})
	for i := range 20 {
		grant := fmt.Sprintf(`{"metadata":{"name":"x%d"},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["endpoints"]}]}`, i)
		a.must(t, "PUT", path+"roles/m", `{"metadata":{"name":"m"},"rules":[`+manage+`]}`)
		if code, body := b.call(t, "ann", "POST", path+"roles", grant); code != http.StatusForbidden {
			t.Fatalf("a right that was lost was granted: %d %s", code, body)
		}
		a.must(t, "PUT", path+"roles/m", `{"metadata":{"name":"m"},"rules":[`+manage+reads+`]}`)
		if code, body := b.call(t, "ann", "POST", path+"roles", grant); code != http.StatusCreated {
			t.Fatalf("a right that was given was not: %d %s", code, body)
		}
	}
}

// What creates by an update or an apply needs the right to create, by its name; dry runs, too.
func TestCreateByUpdate(t *testing.T) {
	r, _ := startReplica(t, newEtcd(t), "")
	roles, endpoints := rolesPath+"namespaces/default/", "/api/v1/namespaces/default/endpoints/"
	r.must(t, "POST", roles+"roles", `{"metadata":{"name":"r"},"rules":[{"verbs":["update","patch"],"apiGroups":["","rbac.authorization.k8s.io"],"resources":["endpoints","roles"]},{"verbs":["create"],"apiGroups":[""],"resources":["endpoints"],"resourceNames":["mine"]}]}`)
	r.must(t, "POST", roles+"rolebindings", `{"metadata":{"name":"r"},"roleRef":{"kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"ann"}]}`)
	soon(t, "the binding counts", func() bool {
		code, _ := r.call(t, "ann", "PATCH", endpoints+"none", `{}`)
		return code == http.StatusNotFound
	})
	apply := `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"%s"}}`
	refused := `User "ann" cannot create resource "endpoints" in API group "" in the namespace "default"`
	for _, test := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"PUT", endpoints + "other", `{"metadata":{"name":"other"}}`, 403, refused},
		{"PUT", endpoints + "other?dryRun=All", `{"metadata":{"name":"other"}}`, 403, refused},
		{"PUT", endpoints + "other", `{"metadata":{"name":"other","labels":{"":""}}}`, 403, refused},
		{"PATCH", endpoints + "other?fieldManager=m", fmt.Sprintf(apply, "other"), 403, refused},
		{"PUT", endpoints + "mine?dryRun=All", `{"metadata":{"name":"mine"}}`, 201, ""},
		{"PATCH", endpoints + "mine?fieldManager=m", fmt.Sprintf(apply, "mine"), 201, ""},
		{"PUT", endpoints + "mine", `{"metadata":{"name":"mine"}}`, 200, ""},
		{"PUT", roles + "roles/x", `{"metadata":{"name":"x"},"rules":[{"verbs":["list"],"apiGroups":[""],"resources":["endpoints"]}]}`, 403, "attempting to grant RBAC permissions not currently held"},
		{"PUT", roles + "roles/x", `{"metadata":{"name":"x"}}`, 403, `cannot create resource "roles"`},
		{"PATCH", roles + "roles/r", `{"metadata":{"labels":{"a":"b"}}}`, 200, ""},
		{"PATCH", roles + "roles/r", `{"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}`, 403, "not currently held"},
		{"PATCH", roles + "roles/r?dryRun=All", `{"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}`, 403, "not currently held"},
	} {
		if code, body := r.call(t, "ann", test.method, test.path, test.body); code != test.code || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), test.says) {
			t.Errorf("%s %s %s: got %d %s, want %d with %s", test.method, test.path, test.body, code, body, test.code, test.says)
		}
	}
}

// A role may have any name that is one segment of a path, and is found by it everywhere.
func TestNamesOfRoles(t *testing.T) {
	etcd := newEtcd(t)
	r, end := startReplica(t, etcd, "")
	path := rolesPath + "namespaces/default/roles"
	names := []string{"A:b@c", "with space", `q"u'o\te`, "ä#?&=+,;", "...", strings.Repeat("long", 200), "\u0001", "a=b,c"}
	for _, name := range names {
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"name": name}})
		if err != nil {
			t.Fatal(err)
		}
		r.must(t, "POST", path, string(body))
	}
	check := func(r *replica) {
		for _, name := range names {
			var got rbacv1.Role
			if err := json.Unmarshal([]byte(r.must(t, "GET", path+"/"+url.PathEscape(name), "")), &got); err != nil || got.Name != name {
				t.Errorf("%q: got %q (%v)", name, got.Name, err)
				continue
			}
			if linked := r.must(t, "GET", got.SelfLink, ""); !strings.Contains(linked, string(got.UID)) {
				t.Errorf("%q: its link %s leads to %s", name, got.SelfLink, linked)
			}
			escaped := strings.NewReplacer(`\`, `\\`, ",", `\,`, "=", `\=`).Replace(name)
			var list rbacv1.RoleList
			if err := json.Unmarshal([]byte(r.must(t, "GET", path+"?fieldSelector="+url.QueryEscape("metadata.name="+escaped), "")), &list); err != nil || len(list.Items) != 1 || list.Items[0].Name != name {
				t.Errorf("%q: a list of it has %d (%v)", name, len(list.Items), err)
			}
		}
	}
	check(r)
	end()
	r, _ = startReplica(t, etcd, "")
	check(r)
	for _, name := range names {
		r.must(t, "DELETE", path+"/"+url.PathEscape(name), "")
	}
}
