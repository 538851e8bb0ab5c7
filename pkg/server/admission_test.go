package server

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// withUsers has each user's name be its token; root is an administrator.
func withUsers(t *testing.T, cfg *Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.csv")
	users := "alice,alice,1\nbob,bob,2\ncarol,carol,3\nroot,root,4,system:masters\n"
	if err := os.WriteFile(path, []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Authenticator = auth.NewTokens()
	if err := cfg.Authenticator.(*auth.Tokens).Load(path); err != nil {
		t.Fatal(err)
	}
}

func requestOf(t *testing.T, user, method, target, body string) *http.Request {
	t.Helper()
	return newRequest(t, method, target, body, "X-Auth-Token", user)
}

// A user with its share of the requests in progress is told to come back, others are not; a
// place is free again when a request has ended, even by a panic. Administrators need none.
func TestRequestsInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	obj := named(t, "a", 0)
	panics := false
	resource := &fakeResource{create: echo, get: func(context.Context) (*object.Object, error) {
		entered <- struct{}{}
		<-leave
		if panics {
			panic("oh dear")
		}
		return obj, nil
	}}
	cfg := testConfig(t, resource)
	withUsers(t, &cfg)
	cfg.MaxRequestsInFlight, cfg.MaxMutatingRequestsInFlight = 2, 1
	s := newTestServer(t, cfg)
	for _, panics = range []bool{false, true, false} {
		codes := make(chan int)
		var inProgress int
		begin := func(user string) {
			inProgress++
			go func() { codes <- serveOnce(s, requestOf(t, user, http.MethodGet, testPath+"/a", "")).Code }()
			<-entered
		}
		refused := func(user, why string) {
			w := serveOnce(s, requestOf(t, user, http.MethodGet, testPath+"/a", ""))
			if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), why) {
				t.Errorf("%s beside others: got %d %s", user, w.Code, w.Body)
			}
		}
		begin("alice")
		refused("alice", "the limit of reads in progress, 1 for each user, is reached")
		if w := serveOnce(s, requestOf(t, "alice", http.MethodPost, testPath, "{}")); w.Code != http.StatusCreated {
			t.Errorf("a create beside a read: got %d %s", w.Code, w.Body)
		}
		begin("bob")
		refused("carol", "the limit of reads in progress, 2 in all, is reached")
		begin("root")
		for range inProgress {
			leave <- struct{}{}
			if code := <-codes; (code == http.StatusOK) == panics {
				t.Errorf("a request got %d", code)
			}
		}
	}
}

// Watches have limits of their own, which are free again when they end or fail.
func TestWatchesAreBounded(t *testing.T) {
	failing := false
	resource := &failingWatch{sequence(func(ctx context.Context, _ func([]object.Event, error) bool) { <-ctx.Done() }), &failing}
	cfg := testConfig(t, resource)
	withUsers(t, &cfg)
	cfg.MaxWatches, cfg.MaxWatchesPerUser = 2, 1
	s := newTestServer(t, cfg)
	web := start(t, s, true)
	open := func(user string, want int) func() {
		t.Helper()
		req := clientRequest(t, web.URL+testPath+"?watch=1")
		req.Header.Set("X-Auth-Token", user)
		resp, err := web.Client().Do(req) //nolint:bodyclose // the caller does
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Errorf("a watch of %s got %d, want %d", user, resp.StatusCode, want)
		}
		return func() { resp.Body.Close() }
	}
	failing = true
	open("alice", http.StatusInternalServerError)()
	failing = false
	end := open("alice", http.StatusOK)
	open("alice", http.StatusTooManyRequests)()
	defer open("bob", http.StatusOK)()
	open("carol", http.StatusTooManyRequests)()
	defer open("root", http.StatusOK)()
	end()
	deadline := time.After(20 * time.Second)
	for s.pools.watches.InUse() > 1 {
		select {
		case <-deadline:
			t.Fatal("the end of a watch frees no place")
		case <-time.After(time.Millisecond):
		}
	}
	open("carol", http.StatusOK)()
}

// failingWatch is a resource whose watches fail as long as that is set.
type failingWatch struct {
	*fakeResource
	fails *bool
}

func (f *failingWatch) Watch(ctx context.Context, namespace string, opts *metav1.ListOptions) (iter.Seq2[[]object.Event, error], object.WatchCost, error) {
	if *f.fails {
		return nil, object.WatchCost{}, errors.New("oh dear")
	}
	return f.fakeResource.Watch(ctx, namespace, opts)
}

// sized is a resource with objects of a size: lists have one, watches begin with one, and
// writes find one.
type sized struct {
	*fakeResource
	size int
}

func (s *sized) Weight(_, name string) int {
	if name == "" { // of the collection
		return 0
	}
	return s.size
}

func (s *sized) Watch(ctx context.Context, _ string, _ *metav1.ListOptions) (iter.Seq2[[]object.Event, error], object.WatchCost, error) {
	return func(func([]object.Event, error) bool) { <-ctx.Done() }, object.WatchCost{Bytes: s.size}, nil
}

func (s *sized) DeleteCollection(context.Context, *metav1.DeleteOptions, *object.List) error {
	return nil
}

// A request takes tokens for what it is about, in the form in which it is asked for. What is
// more than half of the bucket is owed.
func TestRequestsAreChargedByTheirSize(t *testing.T) {
	large := named(t, "a", 3<<20)
	size, compared := large.Size(), 0
	resource := &sized{&fakeResource{
		get: func(context.Context) (*object.Object, error) { return large, nil },
		list: func(context.Context) (*object.List, []string, error) {
			return &object.List{Type: large.Type, Objects: []*object.Object{large}, Comparisons: compared}, nil, nil
		},
		create: echo,
	}, size}
	const burst = 100
	for name, tc := range map[string]struct {
		method, query, accept string
		body                  int
		cost                  int
		compared              int
	}{
		"a list":                       {http.MethodGet, "", "application/json", 0, 1 + size/readBytes, 0},
		"in protobuf":                  {http.MethodGet, "", "application/vnd.kubernetes.protobuf", 0, 1 + 4*size/readBytes, 0},
		"as a table":                   {http.MethodGet, "", "application/json;as=Table;v=v1;g=meta.k8s.io", 0, 1 + 10*size/readBytes, 0},
		"a create of a large object":   {http.MethodPost, "", "application/json", 1 << 20, 1 + (1<<20)/writeBytes, 0},
		"a list that compares a lot":   {http.MethodGet, "", "application/json", 0, 1 + 5 + size/readBytes, 5 * comparisons},
		"a deletion that does":         {http.MethodDelete, "", "application/json", 0, 1 + 5 + size/writeBytes, 5 * comparisons},
		"the same, answered in YAML":   {http.MethodPost, "", "application/yaml", 1 << 20, 1 + 300*(1<<20)/writeAnswerBytes, 0},
		"a collection that is deleted": {http.MethodDelete, "", "application/json", 0, 1 + size/writeBytes, 0},
		"a watch that begins with it":  {http.MethodGet, "?watch=1&timeoutSeconds=1", "application/json", 0, 1 + size/readBytes, 0},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, resource)
			withUsers(t, &cfg)
			limit := &ratelimit.Limit{QPS: 0.001, Burst: burst}
			cfg.Limiter = ratelimit.New(&ratelimit.Config{Defaults: ratelimit.Defaults{Read: limit, Write: limit}})
			s := newTestServer(t, cfg)
			body := ""
			if tc.body > 0 {
				head, tail := `{"metadata":{"name":"a","annotations":{"a":"`, `"}}}`
				body = head + strings.Repeat("x", tc.body-len(head)-len(tail)) + tail
			}
			compared = tc.compared
			req := requestOf(t, "alice", tc.method, testPath+tc.query, body)
			req.Header.Set("Accept", tc.accept)
			if w := serveOnce(s, req); w.Code/100 != 2 {
				t.Fatalf("got %d %.300s", w.Code, w.Body)
			}
			alice, _, _ := cfg.Authenticator.Authenticate(t.Context(), "alice")
			class := ratelimit.Read
			if tc.method != http.MethodGet {
				class = ratelimit.Write
			}
			cost := burst
			for cfg.Limiter.Allow(time.Now(), ratelimit.Subject{Token: alice.ID, User: "alice"}, class, 1) == 0 {
				cost--
			}
			if cost != tc.cost {
				t.Errorf("it took %d tokens, want %d", cost, tc.cost)
			}
		})
	}
}

// What is too heavy for what is left is told its weight and how long to wait; what is heavier
// than a whole bucket is admitted, and the bucket owes the rest.
func TestHeavyRequestsAreRefused(t *testing.T) {
	large := named(t, "a", 2<<20)
	cfg := testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) { return large, nil }})
	withUsers(t, &cfg)
	cfg.Limiter = ratelimit.New(&ratelimit.Config{Defaults: ratelimit.Defaults{Read: &ratelimit.Limit{QPS: 5, Burst: 20}}})
	s := newTestServer(t, cfg)
	get := func(user string, code int, retryAfter, words string) {
		t.Helper()
		req := requestOf(t, user, http.MethodGet, testPath+"/a", "")
		req.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
		w := serveOnce(s, req)
		if w.Code != code || w.Header().Get("Retry-After") != retryAfter || !strings.Contains(w.Body.String(), words) {
			t.Errorf("%s got %d, Retry-After %q: %.300s", user, w.Code, w.Header().Get("Retry-After"), w.Body)
		}
	}
	get("alice", http.StatusOK, "", `"kind":"Table"`)
	get("alice", http.StatusTooManyRequests, "1", "the limit for read requests is reached; try again in 1 s")
	bob, _, _ := cfg.Authenticator.Authenticate(t.Context(), "bob")
	for range 2 {
		if wait := cfg.Limiter.Allow(time.Now(), ratelimit.Subject{Token: bob.ID, User: "bob"}, ratelimit.Read, 8); wait > 0 {
			t.Fatalf("the bucket is not full: %v", wait)
		}
	}
	get("bob", http.StatusTooManyRequests, "2", "this one counts as 21 because of its size and form; try again in 2 s")
}

// What a request weighs is charged when it is known: the bucket has filled up meanwhile, and the
// wait begins then.
func TestWeightIsChargedWhenItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := named(t, "a", 2<<20) // a table of which weighs 20
		took := 3 * time.Second
		cfg := testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) {
			<-time.After(took)
			return large, nil
		}})
		withUsers(t, &cfg)
		cfg.Limiter = ratelimit.New(&ratelimit.Config{Defaults: ratelimit.Defaults{Read: &ratelimit.Limit{QPS: 5, Burst: 20}}})
		s := newTestServer(t, cfg)
		alice, _, _ := cfg.Authenticator.Authenticate(t.Context(), "alice")
		drain := func() {
			for cfg.Limiter.Allow(time.Now(), ratelimit.Subject{Token: alice.ID, User: "alice"}, ratelimit.Read, 1) == 0 {
			}
			<-time.After(time.Second / 5) // one token is there
		}
		get := func(code int, retryAfter string) {
			t.Helper()
			req := requestOf(t, "alice", http.MethodGet, testPath+"/a", "")
			req.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
			if w := serveOnce(s, req); w.Code != code || w.Header().Get("Retry-After") != retryAfter {
				t.Errorf("got %d, Retry-After %q, want %d, %q: %.300s", w.Code, w.Header().Get("Retry-After"), code, retryAfter, w.Body)
			}
		}
		drain()
		get(http.StatusOK, "")
		<-time.After(time.Minute)
		drain()
		took = time.Second // half of what half of the bucket takes to be there
		get(http.StatusTooManyRequests, "1")
	})
}

// What the aliases of YAML make of a small body is charged as a large body is.
func TestAliasesAreCharged(t *testing.T) {
	cfg := testConfig(t, &fakeResource{create: echo})
	withUsers(t, &cfg)
	cfg.Limiter = ratelimit.New(&ratelimit.Config{Defaults: ratelimit.Defaults{Write: &ratelimit.Limit{QPS: 0.001, Burst: 14}}})
	s := newTestServer(t, cfg)
	create := func(addresses, code int) {
		t.Helper()
		// The library refuses a document that has hardly anything but aliases.
		body := "metadata: {name: a}\nsubsets: [{addresses: [" + strings.Repeat("{ip: 10.0.0.1}, ", 1000) + "]}, &s {addresses: [&a {ip: 10.0.0.1}" + strings.Repeat(", *a", addresses-1) + "]}" + strings.Repeat(", *s", 99) + "]\n"
		req := requestOf(t, "alice", http.MethodPost, testPath, body)
		req.Header.Set("Content-Type", "application/yaml")
		if w := serveOnce(s, req); w.Code != code {
			t.Errorf("%d addresses in %d bytes: got %d, want %d: %.300s", 100*addresses, len(body), w.Code, code, w.Body)
		}
	}
	create(1, http.StatusCreated)
	create(300, http.StatusCreated)
	create(300, http.StatusTooManyRequests)
}

// aged is a resource whose lists hold old versions.
type aged struct{ *fakeResource }

func (aged) OldVersions(opts *metav1.ListOptions) int64 { return opts.Limit << 20 }

// A user's lists of old versions wait for each other, and the lists of others do not. What they
// take comes back when they end, even by a panic.
func TestListsOfOldVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered, leave := make(chan struct{}), make(chan bool)
		cfg := testConfig(t, aged{&fakeResource{list: func(context.Context) (*object.List, []string, error) {
			entered <- struct{}{}
			if panics := <-leave; panics {
				panic("oh dear")
			}
			return nil, nil, errors.New("oh dear")
		}}})
		withUsers(t, &cfg)
		s := newTestServer(t, cfg)
		codes := make(chan int)
		list := func(user, limit string) {
			go func() { codes <- serveOnce(s, requestOf(t, user, http.MethodGet, testPath+"?limit="+limit, "")).Code }()
		}
		for _, panics := range []bool{true, false} {
			list("alice", "40")
			<-entered
			list("alice", "40")
			if code := <-codes; code != http.StatusTooManyRequests {
				t.Errorf("beside another of its own: got %d", code)
			}
			for _, other := range []struct{ user, limit string }{{"alice", "20"}, {"alice", "0"}, {"bob", "64"}} {
				list(other.user, other.limit)
				<-entered
			}
			for range 4 {
				leave <- panics
				<-codes
			}
			if n := s.pools.old.InUse(); n != 0 {
				t.Errorf("%d bytes are not given back", n)
			}
		}
	})
}

// What the options of a deletion take is given back, and not only what its answer takes.
func TestMemoryOfDeletedCollections(t *testing.T) {
	large := named(t, "a", largeBody)
	cfg := testConfig(t, deleted{&fakeResource{list: func(context.Context) (*object.List, []string, error) {
		return &object.List{Type: large.Type, Objects: []*object.Object{large}}, nil, nil
	}}})
	withUsers(t, &cfg)
	s := newTestServer(t, cfg)
	body := `{"kind":"DeleteOptions","apiVersion":"v1","unknown":"` + strings.Repeat("x", largeMemory) + `"}`
	if w := serveOnce(s, requestOf(t, "alice", http.MethodDelete, testPath, body)); w.Code != http.StatusOK {
		t.Errorf("got %d %.300s", w.Code, w.Body)
	}
	if n := s.pools.memory.InUse(); n != 0 {
		t.Errorf("%d bytes are not given back", n)
	}
}

// deleted is a resource whose collections can be deleted.
type deleted struct{ *fakeResource }

func (deleted) DeleteCollection(context.Context, *metav1.DeleteOptions, *object.List) error {
	return nil
}
