package server

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/ratelimit"
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

// Whatever the query of a read is, it is taken, or refused.
func FuzzReadQuery(f *testing.F) {
	s := newTestServer(f, testConfig(f, &fakeResource{
		list: func(context.Context) (*object.List, []string, error) {
			return &object.List{Type: newType(corev1.SchemeGroupVersion.WithKind("Endpoints"))}, nil, nil
		},
		watch: func(context.Context) iter.Seq2[[]object.Event, error] {
			return func(func([]object.Event, error) bool) {}
		},
	}))
	for _, query := range []string{
		"watch=1&timeoutSeconds=9223372036854775807", "labelSelector=a%3Db&limit=-1", "timeout=292y", "timeout=1ns", "includeObject=Object",
		"allowWatchBookmarks=x&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "pretty=%", "watch=0&watch=1;continue=%00",
	} {
		f.Add(query, uint8(len(query)))
	}
	forms := []string{"", "application/yaml", "application/vnd.kubernetes.protobuf", "application/json;as=Table;v=v1;g=meta.k8s.io"}
	f.Fuzz(func(t *testing.T, query string, form uint8) {
		req := newRequest(t, http.MethodGet, testPath, "", "Accept", forms[int(form)%len(forms)])
		req.URL.RawQuery = query
		switch w := serveOnce(s, req); w.Code {
		case http.StatusOK, http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusNotAcceptable, http.StatusGatewayTimeout:
		default:
			t.Errorf("%q: got %d %s", query, w.Code, w.Body)
		}
	})
}

// Whatever the headers are, the server answers, lets nobody in without the token, and neither
// logs it nor sends it back.
func FuzzHeaders(f *testing.F) {
	var logged bytes.Buffer
	cfg := testConfig(f, &fakeResource{create: echo})
	cfg.Logger = zerolog.New(&logged)
	// Refusals are another test's matter.
	cfg.Limiter = ratelimit.New(&ratelimit.Config{Anonymous: &ratelimit.Limit{QPS: 1e9, Burst: 1e9}})
	s := newTestServer(f, cfg)
	for _, seed := range [][6]string{
		{"Bearer " + testToken, "", "application/json", "*/*", "kubectl/v1", "x"},
		{"bearer  " + testToken, testToken + "x", "application/yaml; charset=\xff", "application/json;q=x", "\x00/", strings.Repeat("i", 100)},
		{"Basic dTpw", testToken, ";", ",;=", strings.Repeat("u", 200), "\xff\n"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4], seed[5])
	}
	f.Fuzz(func(t *testing.T, authorization, token, contentType, accept, agent, auditID string) {
		logged.Reset()
		req := newRequest(t, http.MethodPost, testPath, `{"metadata":{"name":"a"}}`,
			"Authorization", authorization, "X-Auth-Token", token, "Content-Type", contentType, "Accept", accept, "User-Agent", agent, "Audit-Id", auditID)
		w := serveOnce(s, req)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		if knows := strings.Contains(authorization+" "+token, testToken); !knows && w.Code != http.StatusUnauthorized {
			t.Errorf("got %d without the token", w.Code)
		}
		if strings.Contains(auditID+accept+contentType+agent, testToken) {
			return // whoever sends it there shows it
		}
		if strings.Contains(logged.String(), testToken) || strings.Contains(fmt.Sprint(w.Header(), w.Body), testToken) {
			t.Errorf("the token is in the log or in the answer:\n%s\n%v %s", &logged, w.Header(), w.Body)
		}
	})
}

// Whatever the body of a deletion is, it is taken, or refused.
func FuzzDeleteOptions(f *testing.F) {
	s := newTestServer(f, testConfig(f, &deletable{fakeResource: &fakeResource{}}))
	f.Add([]byte(`{"gracePeriodSeconds":-1,"preconditions":{"uid":"a"},"dryRun":["All"]}`), "application/json")
	f.Add([]byte("propagationPolicy: Foreground\norphanDependents: true\n"), "application/yaml")
	f.Add([]byte("k8s\x00\x0a\x00"), "application/vnd.kubernetes.protobuf")
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		w := serveOnce(s, newRequest(t, http.MethodDelete, testPath+"/a", string(body), "Content-Type", contentType))
		switch w.Code {
		case http.StatusOK, http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType, http.StatusRequestEntityTooLarge:
		default:
			t.Errorf("%q: got %d %s", body, w.Code, w.Body)
		}
	})
}

// deletable is a resource whose objects can be deleted.
type deletable struct{ *fakeResource }

func (deletable) Delete(context.Context, string, string, *metav1.DeleteOptions) (*object.Object, *metav1.Status, error) {
	return nil, &metav1.Status{Status: metav1.StatusSuccess}, nil
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
