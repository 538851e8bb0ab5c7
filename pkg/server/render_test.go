package server

import (
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
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

// written is an object whose bytes a test writes.
type written struct {
	corev1.Endpoints
	write func(w io.Writer) error
}

func (o *written) CacheEncode(_ runtime.Identifier, _ func(runtime.Object, io.Writer) error, w io.Writer) error {
	return o.write(w)
}

func (o *written) GetObject() runtime.Object { return &o.Endpoints }

// An answer that fails before its first byte is a 500; one that fails in the middle ends
// the connection, so that the client notices. The server goes on.
func TestAnswersThatFail(t *testing.T) {
	part := strings.Repeat("x", gzipThreshold+64<<10)
	for name, tc := range map[string]struct {
		get     func(ctx context.Context) (runtime.Object, error)
		cut     bool
		logged  string
		message string
	}{
		"encoding": {
			get:    answerWith(func(io.Writer) error { return errors.New("no encoding") }),
			logged: "no encoding",
		},
		"encoding, half-way": {
			get: answerWith(func(w io.Writer) error {
				_, err := io.WriteString(w, part)
				return errors.Join(err, errors.New("no more"))
			}),
			cut: true, logged: "no more",
		},
		"panic":           {get: func(context.Context) (runtime.Object, error) { panic("oh dear") }, logged: "oh dear"},
		"panic, half-way": {get: answerWith(func(w io.Writer) error { _, _ = io.WriteString(w, part); panic("oh dear") }), cut: true, logged: "oh dear"},
		"panic of nil":    {get: func(context.Context) (runtime.Object, error) { panic(nil) }, logged: "panic called with nil"},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s http2=%v", name, http2), func(t *testing.T) {
				var log strings.Builder
				resource := &fakeResource{get: tc.get}
				cfg := testConfig(t, resource)
				cfg.Logger = zerolog.New(zerolog.SyncWriter(&log))
				web := httptest.NewUnstartedServer(newTestServer(t, cfg))
				web.EnableHTTP2 = http2
				web.Config.ErrorLog = nil
				web.StartTLS()
				resp, err := web.Client().Do(clientRequest(t, web.URL+testPath+"/a"))
				var body []byte
				if err == nil {
					body, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if (err != nil) != tc.cut {
					t.Errorf("got %v and %d bytes, want the connection cut: %v", err, len(body), tc.cut)
				}
				if !tc.cut && (resp.StatusCode != 500 || !strings.Contains(string(body), `"reason":"InternalError"`) || strings.Contains(string(body), tc.logged)) {
					t.Errorf("got %d %s", resp.StatusCode, body)
				}
				resource.get = func(context.Context) (runtime.Object, error) { return &corev1.Endpoints{}, nil }
				resp, err = web.Client().Do(clientRequest(t, web.URL+testPath+"/a"))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				web.Close() // waits for what is under way, and its log
				if resp.StatusCode != 200 || !strings.Contains(log.String(), tc.logged) {
					t.Errorf("after that %d, logged %s", resp.StatusCode, log.String())
				}
				if strings.HasPrefix(name, "panic") && !strings.Contains(log.String(), "render_test.go") {
					t.Errorf("no stack in the log: %s", log.String())
				}
			})
		}
	}
}

func answerWith(write func(io.Writer) error) func(context.Context) (runtime.Object, error) {
	return func(context.Context) (runtime.Object, error) { return &written{write: write}, nil }
}

func clientRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", testToken)
	return req
}
