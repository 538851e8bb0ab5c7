package server

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-project/berth/pkg/object"
)

func TestPatchType(t *testing.T) {
	const (
		merge   = "application/merge-patch+json"
		json    = "application/json-patch+json"
		unknown = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
		none    = "415: Unsupported Media Type"
		form    = none + ": a patch is one of application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml; this one is application/x-www-form-urlencoded, as curl sends it with -d: name its type with -H 'Content-Type: …'"
	)
	for _, tc := range []struct{ contentType, want, err string }{
		{merge, merge, ""},
		{merge + "; charset=utf-8", merge, ""},
		{merge + " ; charset=utf-8", merge, ""},
		{"application/apply-patch+yaml", "application/apply-patch+yaml", ""},
		{"", "", none},
		{"application/json", "", none},
		{"text/plain, application/json", "", none},
		{merge + "x", "", none},
		{"application/x-www-form-urlencoded", "", form},
		{merge + ", " + json, "", unknown},
		{"text/plain," + json + ";a=b", "", unknown},
		{"text/plain;a=b," + json, "", unknown},
	} {
		got, err := patchType(newRequest(t, http.MethodPatch, testPath+"/a", "{}", "Content-Type", tc.contentType))
		if string(got) != tc.want || (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
			t.Errorf("%q: got %q, %v, want %q, %q", tc.contentType, got, err, tc.want, tc.err)
		}
	}
}

// kube-apiserver no longer exports, and says so to a client that asks for it.
func TestExport(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) { return named(t, "a", 0), nil }}))
	for query, code := range map[string]int{
		"": 200, "export=false": 200, "export=False": 200, "export=0": 200, "export=true": 400, "export=1": 400, "export=": 400, "export=no": 400,
	} {
		w := serveOnce(s, newRequest(t, http.MethodGet, testPath+"/a?"+query, ""))
		if w.Code != code || code == 400 && !strings.Contains(w.Body.String(), "the export parameter, deprecated since v1.14, is no longer supported") {
			t.Errorf("%q: got %d %s, want %d", query, w.Code, w.Body, code)
		}
	}
}

// A review tells who asks, whatever is sent, in every form.
func TestSelfSubjectReview(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{}))
	const path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
	for body, code := range map[string]int{
		`{}`: 201, `{"status":{"userInfo":{"username":"root"}}}`: 201, `{"kind":"Endpoints","apiVersion":"v1"}`: 400, `{`: 400, ``: 400,
		`{"metadata":{"annotations":{"a":"` + strings.Repeat("x", 2<<20) + `"}}}`: 201,
	} {
		for _, accept := range []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"} {
			w := serveOnce(s, newRequest(t, http.MethodPost, path, body, "Accept", accept))
			if w.Code != code || code == 201 && (!strings.Contains(w.Body.String(), "admin") || strings.Contains(w.Body.String(), "root")) {
				t.Errorf("%.50s as %s: got %d %s", body, accept, w.Code, w.Body)
			}
		}
	}
}
