package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/stream"
)

func TestAddWarnings(t *testing.T) {
	long := strings.Repeat("ä", 300)
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 97)))
	}
	for name, tc := range map[string]struct {
		warnings, want []string
	}{
		"none":          {nil, nil},
		"one":           {[]string{"a b"}, []string{`299 - "a b"`}},
		"quoted":        {[]string{`say "x" \ y`}, []string{`299 - "say \"x\" \\ y"`}},
		"repeated":      {[]string{"a", "b", "a", "a"}, []string{`299 - "a"`, `299 - "b"`}},
		"new lines":     {[]string{"a\r\nX-Evil: 1\x00\x7f"}, []string{`299 - "a  X-Evil: 1  "`}},
		"not UTF-8":     {[]string{"a\xffb"}, []string{`299 - "a?b"`}},
		"long":          {[]string{long}, []string{`299 - "` + long[:2*256] + `"`}},
		"more than 4 K": {many, quotedWarnings(many[:40])},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			addWarnings(header, tc.warnings)
			if got := header.Values("Warning"); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func quotedWarnings(texts []string) []string {
	var quoted []string
	for _, text := range texts {
		quoted = append(quoted, `299 - "`+text+`"`)
	}
	return quoted
}

func TestStatusOf(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{}))
	secret := errors.New("disk /dev/sda1 is gone")
	for name, tc := range map[string]struct {
		err    error
		code   int32
		reason metav1.StatusReason
		hidden bool
	}{
		"API error":         {apierrors.NewNotFound(schema.GroupResource{Resource: "endpoints"}, "a"), 404, metav1.StatusReasonNotFound, false},
		"wrapped API error": {fmt.Errorf("x: %w", apierrors.NewBadRequest("b")), 400, metav1.StatusReasonBadRequest, false},
		"deadline":          {fmt.Errorf("x: %w", context.DeadlineExceeded), 504, metav1.StatusReasonTimeout, false},
		"cancelled":         {context.Canceled, 504, metav1.StatusReasonTimeout, false},
		"anything else":     {secret, 500, metav1.StatusReasonInternalError, true},
		"no code":           {&apierrors.StatusError{ErrStatus: metav1.Status{Message: "m"}}, 500, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			rec := newRecord(httptest.NewRecorder(), newRequest(t, http.MethodGet, testPath, "", "Audit-Id", "audit-1"))
			got := s.statusOf(rec, tc.err)
			if got.Code != tc.code || got.Reason != tc.reason || got.Status != metav1.StatusFailure || got.Kind != "Status" || got.APIVersion != "v1" {
				t.Errorf("got %v", got)
			}
			if tc.hidden != (rec.cause != nil) {
				t.Errorf("kept for the log: %v", rec.cause)
			}
			if tc.hidden && (strings.Contains(got.String(), "sda1") || !strings.Contains(got.Message, "audit-1")) {
				t.Errorf("the client is told %q", got.Message)
			}
		})
	}
}

// An answer that fails before its first byte is a 500, as if nothing had been written; one
// that fails in the middle ends the connection, so that the client notices. The server goes
// on.
func TestAnswersThatFail(t *testing.T) {
	const most = 2000 // rows, of some 150 bytes
	unencodable := func(runtime.Object) []any { return []any{func() {}} }
	panics := func(runtime.Object) []any { panic("oh dear") }
	for name, tc := range map[string]struct {
		cells    func(runtime.Object) []any // of the last row
		before   int                        // rows
		encoding string
		cut      bool
		logged   string
	}{
		"encoding":           {unencodable, 0, "identity", false, "unsupported type"},
		"encoding, half-way": {unencodable, most - 1, "identity", true, "unsupported type"},
		// The rows compress to less than is written at once: nothing is out, and what was to
		// come would have been compressed.
		"encoding, half-way, gzip": {unencodable, most - 1, "gzip", false, "unsupported type"},
		"panic":                    {panics, 0, "identity", false, "oh dear"},
		"panic, half-way":          {panics, most - 1, "identity", true, "oh dear"},
		"panic, half-way, gzip":    {panics, most - 1, "gzip", false, "oh dear"},
		"panic of nil":             {func(runtime.Object) []any { panic(nil) }, 0, "identity", false, "panic called with nil"},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s http2=%v", name, http2), func(t *testing.T) {
				checkFails(t, append(slices.Repeat([]*object.Object{named(t, "a", 0)}, tc.before), withCells(named(t, "b", 0), tc.cells)), http2, tc.encoding, tc.cut, tc.logged)
			})
		}
	}
}

func checkFails(t *testing.T, objects []*object.Object, http2 bool, encoding string, cut bool, logged string) {
	t.Helper()
	var log strings.Builder
	list := &object.List{Type: endpointsType, Objects: objects}
	cfg := testConfig(t, &fakeResource{
		list: func(context.Context) (*object.List, []string, error) { return list, nil, nil },
		get:  func(context.Context) (*object.Object, error) { return list.Objects[0], nil },
	})
	cfg.Logger = zerolog.New(zerolog.SyncWriter(&log))
	web := start(t, newTestServer(t, cfg), http2)
	resp, body, err := send(t, web, clientRequest(t, web.URL+testPath, "Accept", "application/json;as=Table;g=meta.k8s.io;v=v1", "Accept-Encoding", encoding))
	if (err != nil) != cut {
		t.Errorf("got %v and %d bytes, want the connection cut: %v", err, len(body), cut)
	}
	if !cut && (resp.code != 500 || !strings.Contains(string(body), `"reason":"InternalError"`) || strings.Contains(string(body), logged) || resp.header.Get("Content-Encoding") != "") {
		t.Errorf("got %v %.300q", resp, body)
	}
	resp, _, err = send(t, web, clientRequest(t, web.URL+testPath+"/a"))
	web.Close() // waits for the requests in progress, and their log
	if err != nil || resp.code != 200 || !strings.Contains(log.String(), logged) {
		t.Errorf("after that %v, %v, logged %s", resp, err, log.String())
	}
	if strings.Contains(t.Name(), "/panic") && !strings.Contains(log.String(), "render_test.go") {
		t.Errorf("no stack in the log: %s", log.String())
	}
}

// What cannot be shown in the form that was asked for is no answer at all.
func TestFormsThatDoNotExist(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) { return named(t, "a", 0), nil }}))
	for accept, code := range map[string]int{
		"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1":                       http.StatusNotAcceptable,
		"application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1":                        http.StatusNotAcceptable,
		"application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json":       http.StatusOK,
		"application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1":        http.StatusOK,
		"application/json;as=Table;g=meta.k8s.io;v=v1beta1,application/json;q=0.1":               http.StatusOK,
		"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1":    http.StatusNotAcceptable,
		"application/vnd.kubernetes.protobuf;as=Nothing;g=meta.k8s.io;v=v1,application/yaml":     http.StatusOK,
		"application/vnd.kubernetes.protobuf;as=Nothing;g=meta.k8s.io;v=v1,application/nonsense": http.StatusNotAcceptable,
	} {
		if w := serveOnce(s, newRequest(t, http.MethodGet, testPath+"/a", "", "Accept", accept)); w.Code != code {
			t.Errorf("%s: got %d %s, want %d", accept, w.Code, w.Body, code)
		}
	}
}

// includeObject counts for tables, and is looked at for nothing else.
func TestIncludeObject(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) { return named(t, "a", 0), nil }}))
	const table = "application/json;as=Table;g=meta.k8s.io;v=v1"
	for _, tc := range []struct {
		query, accept string
		code          int
		contains      string
	}{
		{"", table, 200, `"object":{"kind":"PartialObjectMetadata"`},
		{"includeObject=None", table, 200, `"object":null`},
		{"includeObject=Object", table, 200, `"object":{"kind":"Endpoints"`},
		{"includeObject=Nonsense", table, 400, "Unable to convert to Table as requested: includeObject: Invalid value: "},
		{"includeObject=Nonsense", "application/json", 200, `{"kind":"Endpoints"`},
	} {
		w := serveOnce(s, newRequest(t, http.MethodGet, testPath+"/a?"+tc.query, "", "Accept", tc.accept))
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.contains) {
			t.Errorf("%q: got %d %s", tc.query, w.Code, w.Body)
		}
	}
}

// An answer carries the warnings of what made it, with an error, too.
func TestWarnings(t *testing.T) {
	var failure error
	s := newTestServer(t, testConfig(t, &fakeResource{
		list: func(context.Context) (*object.List, []string, error) {
			return &object.List{Type: endpointsType}, []string{"one is left out"}, failure
		},
	}))
	for _, failure = range []error{nil, apierrors.NewBadRequest("b")} {
		w := serveOnce(s, newRequest(t, http.MethodGet, testPath, ""))
		if got := w.Header().Get("Warning"); got != `299 - "one is left out"` {
			t.Errorf("error %v: the warning is %q", failure, got)
		}
	}
}

func TestAnswersAreCompressed(t *testing.T) {
	for _, tc := range []struct {
		name, accept string
		annotation   int // bytes
		want         string
	}{
		{"small", "gzip", 1000, ""},
		{"large", "gzip", stream.Threshold, "gzip"},
		{"large, among others", "br, gzip;q=0.5", stream.Threshold, "gzip"},
		{"large, refused", "gzip;q=0", stream.Threshold, ""},
		{"large, not asked for", "identity", stream.Threshold, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			obj := named(t, "a", tc.annotation)
			web := start(t, newTestServer(t, testConfig(t, &fakeResource{get: func(context.Context) (*object.Object, error) { return obj, nil }})), true)
			resp, body, err := send(t, web, clientRequest(t, web.URL+testPath+"/a", "Accept-Encoding", tc.accept))
			if err != nil || resp.header.Get("Content-Encoding") != tc.want {
				t.Fatalf("got %v, %v, want Content-Encoding %q", resp, err, tc.want)
			}
			if tc.want != "" {
				r, err := gzip.NewReader(bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if body, err = io.ReadAll(r); err != nil {
					t.Fatal(err)
				}
			} else if resp.length != int64(len(body)) {
				t.Errorf("Content-Length is %d, of %d", resp.length, len(body))
			}
			if want := string(obj.JSON()) + "\n"; string(body) != want {
				t.Errorf("got %d bytes, want %d", len(body), len(want))
			}
		})
	}
}

// An answer whose encoding takes longer than the request's time is given up, and says so.
func TestDeadlineWhileEncoding(t *testing.T) {
	s := newTestServer(t, testConfig(t, &fakeResource{list: func(ctx context.Context) (*object.List, []string, error) {
		<-ctx.Done()
		return &object.List{Type: endpointsType, Objects: []*object.Object{named(t, "a", 0)}}, nil, nil
	}}))
	for _, accept := range []string{
		"application/yaml", "application/json;pretty=1", "application/vnd.kubernetes.protobuf",
		"application/json;as=Table;g=meta.k8s.io;v=v1", "application/yaml;as=Table;g=meta.k8s.io;v=v1",
	} {
		got := serveOnce(s, newRequest(t, http.MethodGet, testPath+"?timeout=1ms", "", "Accept", accept))
		if got.Code != http.StatusGatewayTimeout || !strings.Contains(got.Body.String(), "while the answer was being encoded") {
			t.Errorf("%s: got %d %q", accept, got.Code, got.Body)
		}
	}
}
