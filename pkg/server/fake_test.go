package server

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/ratelimit"
)

const (
	testToken = "unit-test-token"
	testPath  = "/api/v1/namespaces/default/endpoints"
)

// fakeResource is Endpoints without a store. What a test does not set must not be called.
type fakeResource struct {
	Resource
	get    func(ctx context.Context) (runtime.Object, error)
	create func(ctx context.Context, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, []string, error)
	watch  func(ctx context.Context) iter.Seq2[[]watch.Event, error]
}

func (f *fakeResource) APIResource() metav1.APIResource {
	return metav1.APIResource{Version: "v1", Kind: "Endpoints", Name: "endpoints", Namespaced: true}
}

func (f *fakeResource) New() runtime.Object { return &corev1.Endpoints{} }

func (f *fakeResource) DecodeInto(data []byte, obj runtime.Object) ([]error, error) {
	return decodeAny(data, obj)
}

func (f *fakeResource) Get(ctx context.Context, _, _ string, _ *metav1.GetOptions) (runtime.Object, error) {
	return f.get(ctx)
}

func (f *fakeResource) Watch(ctx context.Context, _ string, _ *metav1.ListOptions) (iter.Seq2[[]watch.Event, error], error) {
	return f.watch(ctx), nil
}

func (f *fakeResource) Create(ctx context.Context, _ string, obj runtime.Object, opts *metav1.CreateOptions) (runtime.Object, []string, error) {
	return f.create(ctx, obj, opts)
}

// echo is a create that returns what it is given.
func echo(_ context.Context, obj runtime.Object, _ *metav1.CreateOptions) (runtime.Object, []string, error) {
	return obj, nil, nil
}

func testScheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return scheme
}

func testConfig(t testing.TB, resource Resource) Config {
	t.Helper()
	tokens := auth.NewTokens()
	if err := tokens.Set(testToken, auth.User{Name: "admin", Groups: []string{auth.SystemPrivilegedGroup}}); err != nil {
		t.Fatal(err)
	}
	return Config{
		Resources: []Resource{resource}, Scheme: testScheme(t), Tokens: tokens, Limiter: ratelimit.New(nil),
		Metrics: prometheus.NewRegistry(), Ready: func(context.Context) error { return nil },
	}
}

func newTestServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := s.EndStreams(ctx); err != nil {
			t.Error(err)
		}
	})
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
