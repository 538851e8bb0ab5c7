package server

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/registry/resources"
	"github.com/berth-project/berth/pkg/registry/reviews"
)

const (
	testToken = "unit-test-token"
	testPath  = "/api/v1/namespaces/default/endpoints"
)

// fakeResource is a resource without a store, Endpoints where api is zero. What a test does
// not set must not be called.
type fakeResource struct {
	Resource
	api    metav1.APIResource
	below  []metav1.APIResource
	get    func(ctx context.Context) (*object.Object, error)
	list   func(ctx context.Context) (*object.List, []string, error)
	create func(ctx context.Context, obj runtime.Object, opts *metav1.CreateOptions) (*object.Object, []string, error)
	watch  func(ctx context.Context) iter.Seq2[[]object.Event, error]
}

func (f *fakeResource) APIResource() metav1.APIResource {
	if f.api.Name == "" {
		return metav1.APIResource{Version: "v1", Kind: "Endpoints", Name: "endpoints", Namespaced: true}
	}
	return f.api
}

func (f *fakeResource) Subresources() []metav1.APIResource { return f.below }

func (f *fakeResource) Type() *object.Type {
	described := f.APIResource()
	return newType(schema.GroupVersionKind{Group: described.Group, Version: described.Version, Kind: described.Kind})
}

func (f *fakeResource) Get(ctx context.Context, _, _ string, _ *metav1.GetOptions) (*object.Object, error) {
	return f.get(ctx)
}

func (f *fakeResource) Weight(string, string) int { return 0 }

func (f *fakeResource) Effects(string, runtime.Object) int { return 0 }

func (f *fakeResource) OldVersions(*metav1.ListOptions) int64 { return 0 }

func (f *fakeResource) List(ctx context.Context, _ string, _ *metav1.ListOptions) (*object.List, []string, error) {
	return f.list(ctx)
}

func (f *fakeResource) Watch(ctx context.Context, _ string, _ *metav1.ListOptions) (iter.Seq2[[]object.Event, error], object.WatchCost, error) {
	return f.watch(ctx), object.WatchCost{}, nil
}

func (f *fakeResource) Create(ctx context.Context, _ string, obj runtime.Object, opts *metav1.CreateOptions) (*object.Object, []string, error) {
	return f.create(ctx, obj, opts)
}

func newType(kind schema.GroupVersionKind) *object.Type {
	return &object.Type{
		Kind: kind,
		New:  func() runtime.Object { return &corev1.Endpoints{} },

		Columns: []metav1.TableColumnDefinition{{Name: "Name", Type: "string"}, {Name: "Age", Type: "string"}},
		Cells:   func(obj runtime.Object) []any { return []any{obj.(*corev1.Endpoints).Name, object.Age} },
	}
}

var endpointsType = newType(corev1.SchemeGroupVersion.WithKind("Endpoints"))

// finish returns obj as it is stored at a revision.
func finish(obj *corev1.Endpoints, revision int64) (*object.Object, error) {
	obj.SetGroupVersionKind(endpointsType.Kind)
	value, err := endpointsType.Encode(obj)
	if err != nil {
		return nil, err
	}
	return object.Written(endpointsType, object.Identity{Key: "/" + obj.Name, Namespace: obj.Namespace, Name: obj.Name, Revision: revision}, value)
}

// named is a stored object of that name, with an annotation of so many bytes.
func named(t testing.TB, name string, size int) *object.Object {
	t.Helper()
	obj := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	if size > 0 {
		obj.Annotations = map[string]string{"text": strings.Repeat("x", size)}
	}
	finished, err := finish(obj, 7)
	if err != nil {
		t.Fatal(err)
	}
	return finished
}

// withCells gives the object a type of its own, with these cells.
func withCells(obj *object.Object, cells func(runtime.Object) []any) *object.Object {
	obj.Type = newType(obj.Type.Kind)
	obj.Type.Cells = cells
	return obj
}

func added(obj *object.Object) object.Event { return object.Event{Type: watch.Added, Object: obj} }

// echo is a create that returns what it is given.
func echo(_ context.Context, obj runtime.Object, _ *metav1.CreateOptions) (*object.Object, []string, error) {
	finished, err := finish(obj.(*corev1.Endpoints), 0)
	return finished, nil, err
}

func testScheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), reviews.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return scheme
}

func testConfig(t testing.TB, served ...Resource) Config {
	t.Helper()
	tokens := auth.NewTokens()
	if err := tokens.Set(testToken, auth.User{Name: "admin", Groups: []string{auth.SystemPrivilegedGroup}}); err != nil {
		t.Fatal(err)
	}
	questions, err := reviews.New(reviews.Config{
		Scheme: testScheme(t), TypeConverter: resources.TypeConverter(), Authorizer: auth.AlwaysAllow{}, Authenticator: tokens,
	})
	if err != nil {
		t.Fatal(err)
	}
	var answered []Review
	for _, review := range questions {
		answered = append(answered, review)
	}
	return Config{
		Resources: served, Reviews: answered, Scheme: testScheme(t), OpenAPI: resources.OpenAPI(), Authenticator: tokens, Limiter: ratelimit.New(nil),
		Metrics: prometheus.NewRegistry(), Ready: func(context.Context) error { return nil },
	}
}

func newTestServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.EndStreams)
	return s
}

// newRequest makes a request with a good token. Its headers are pairs of name and value.
func newRequest(t testing.TB, method, target, body string, headers ...string) *http.Request {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, io.NopCloser(strings.NewReader(body)))
	req.Header.Set("X-Auth-Token", testToken)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

func serveOnce(s *Server, req *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, req)
	return w
}

// start serves s over either version of HTTP, with TLS.
func start(t *testing.T, s *Server, http2 bool) *httptest.Server {
	t.Helper()
	var handling sync.WaitGroup
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		handling.Add(1)
		defer handling.Done()
		s.ServeHTTP(w, req)
	}))
	web.EnableHTTP2 = http2
	web.StartTLS()
	t.Cleanup(func() {
		web.Close() // which does not wait for the handlers of HTTP/2
		handling.Wait()
	})
	return web
}

// clientRequest makes a request for a client; its headers are pairs of name and value.
func clientRequest(t *testing.T, url string, headers ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", testToken)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// reply is an answer without its body.
type reply struct {
	code   int
	header http.Header
	length int64 // as the server says; -1: it does not
}

// send sends a request and reads the answer as far as it comes.
func send(t *testing.T, web *httptest.Server, req *http.Request) (reply, []byte, error) {
	t.Helper()
	client := *web.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, resp.ContentLength}, body, err
}
