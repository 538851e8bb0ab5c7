package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

// Whatever the query of a create is, it is taken, or refused with 400 or 422.
func FuzzQuery(f *testing.F) {
	s := newTestServer(f, testConfig(f, &fakeResource{create: echo}))
	f.Fuzz(func(t *testing.T, query string) {
		req := newRequest(t, http.MethodPost, testPath, `{"metadata":{"name":"a"}}`)
		req.URL.RawQuery = query
		w := serveOnce(s, req)
		switch w.Code {
		case http.StatusCreated:
			checkCreated(t, w, req.URL.Query())
		case http.StatusBadRequest, http.StatusUnprocessableEntity:
			var status metav1.Status
			if err := kjson.UnmarshalCaseSensitivePreserveInts(w.Body.Bytes(), &status); err != nil || int(status.Code) != w.Code || status.Kind != "Status" || status.Message == "" {
				t.Errorf("%q: answered %q, %v", query, w.Body, err)
			}
		case http.StatusGatewayTimeout:
			if asked, err := time.ParseDuration(req.URL.Query().Get("timeout")); err != nil || asked <= 0 || asked > time.Second {
				t.Errorf("%q: timed out", query)
			}
		default:
			t.Errorf("%q: answered %d %q", query, w.Code, w.Body)
		}
	})
}

// checkCreated checks that a query that was taken is good.
func checkCreated(t *testing.T, w *httptest.ResponseRecorder, query url.Values) {
	t.Helper()
	for _, value := range query["dryRun"] {
		if value != metav1.DryRunAll {
			t.Errorf("dryRun %q was taken", value)
		}
	}
	if given := query["fieldValidation"]; len(given) > 0 && !strings.Contains(" Ignore Warn Strict ", " "+given[0]+" ") && given[0] != "" {
		t.Errorf("fieldValidation %q was taken", given[0])
	}
	if given := query["fieldManager"]; len(given) > 0 && len(given[0]) > 128 {
		t.Errorf("a fieldManager of %d bytes was taken", len(given[0]))
	}
	var obj corev1.Endpoints
	if err := kjson.UnmarshalCaseSensitivePreserveInts(w.Body.Bytes(), &obj); err != nil || obj.Name != "a" {
		t.Errorf("answered %q, %v", w.Body, err)
	}
}

// Whatever a path is, the names that a resource is called with are parts of it.
func FuzzPath(f *testing.F) {
	s, notes := harbour(f)
	for _, path := range []string{
		"/api/v1/namespaces/a/endpoints/b", "/api/v1/namespaces/a/status", "/apis/sea.io/v1/namespaces/a/quays/b/status",
		"/api/v1/watch/namespaces/a/endpoints/b", "/api/v1/endpoints", "//api/v1/./namespaces/../endpoints/",
	} {
		f.Add(path, uint8(len(path)))
	}
	methods := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, "NONSENSE"}
	f.Fuzz(func(t *testing.T, path string, method uint8) {
		*notes = journal{}
		req := newRequest(t, methods[int(method)%len(methods)], "/", "{}", "Content-Type", "application/json")
		if req.Method == http.MethodPatch {
			req.Header.Set("Content-Type", "application/merge-patch+json")
		}
		req.URL.Path = path
		w := serveOnce(s, req)
		if (notes.called != "") != (w.Code == http.StatusTeapot) || w.Code >= http.StatusInternalServerError {
			t.Errorf("%q: got %d %s, called %s", path, w.Code, w.Body, notes.called)
		}
		var namespace, name string
		if _, err := fmt.Sscanf(notes.names, "%q: %q", &namespace, &name); notes.called != "" && err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{namespace, name} {
			if part != "" && !slices.Contains(strings.Split(path, "/"), part) {
				t.Errorf("%q: called %s", path, notes.called)
			}
		}
	})
}
