package server

import (
	"context"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
)

// Requests to act as somebody else are refused, whichever header asks for it.
func TestImpersonation(t *testing.T) {
	obj := named(t, "a", 0)
	s := newTestServer(t, testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) { return obj, nil }}))
	for _, tc := range []struct {
		path, header, value string
		code                int
	}{
		{testPath + "/a", "Impersonate-User", "bob", 403},
		{testPath + "/a", "Impersonate-Group", "dev", 403},
		{testPath + "/a", "Impersonate-Uid", "1", 403},
		{testPath + "/a", "impersonate-extra-scopes", "x", 403},
		{"/api", "Impersonate-User", "bob", 403},
		{testPath + "/a", "Impersonate-User", "", 200}, // as kube-apiserver
		{testPath + "/a", "X-Impersonate-User", "bob", 200},
		{"/livez", "Impersonate-User", "bob", 403},
	} {
		w := serveOnce(s, newRequest(t, http.MethodGet, tc.path, "", tc.header, tc.value))
		if w.Code != tc.code {
			t.Errorf("%+v: got %d %s", tc, w.Code, w.Body)
		}
		if w.Code == 403 && !strings.Contains(w.Body.String(), `"reason":"`+string(metav1.StatusReasonForbidden)+`"`) {
			t.Errorf("%+v: got %s", tc, w.Body)
		}
	}
}

// Browsers must neither guess what an answer is nor leave TLS.
func TestHeadersForBrowsers(t *testing.T) {
	cfg := testConfig(t, &fakeResource{})
	cfg.StrictTransportSecurity = "max-age=1; preload"
	s := newTestServer(t, cfg)
	web := start(t, s, true)
	for _, path := range []string{"/livez", "/version", "/nothing", "/api", "/openapi/v2", testPath + "?limit=x"} {
		plain := serveOnce(s, newRequest(t, http.MethodGet, path, "")).Header()
		secure, _, err := send(t, web, clientRequest(t, web.URL+path))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][2]string{
			"X-Content-Type-Options": {"nosniff", "nosniff"}, "Strict-Transport-Security": {"", cfg.StrictTransportSecurity},
		} {
			if got := [2]string{plain.Get(name), secure.header.Get(name)}; got != want {
				t.Errorf("%s: %s is %q without TLS and with it", path, name, got)
			}
		}
	}
}
