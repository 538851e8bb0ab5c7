package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/storage"
)

var errDisk = errors.New("/dev/sda1 is on fire")

// failure is a request that is answered with an error.
type failure struct {
	code       int
	reason     metav1.StatusReason
	message    string // in the Status
	retryAfter int32  // seconds; -1 is any number above 0

	method, path string // POST to the namespace's collection where empty
	body         []byte
	headers      []string
	fault        error // of storing what the body names
}

// failures are those of the documented call, by its status codes.
func failures(ns string) []failure {
	return []failure{
		{code: 400, reason: metav1.StatusReasonBadRequest, message: "the object provided is unrecognized", body: []byte(`{bad`)},
		{code: 401, reason: metav1.StatusReasonUnauthorized, message: "Unauthorized", headers: []string{"X-Auth-Token", unknownToken}},
		{
			code: 403, reason: metav1.StatusReasonForbidden, headers: []string{"X-Auth-Token", deniedToken},
			message: `endpoints is forbidden: User "denied" cannot create resource "endpoints" in API group "" in the namespace "` + ns + `"`,
		},
		{
			code: 403, reason: metav1.StatusReasonForbidden, headers: []string{"X-Auth-Token", deniedToken}, method: http.MethodGet, path: endpointsPath(ns, "taken"),
			message: `endpoints "taken" is forbidden: User "denied" cannot get resource "endpoints" in API group "" in the namespace "` + ns + `"`,
		},
		{code: 404, reason: metav1.StatusReasonNotFound, message: `namespaces "missing" not found`, path: endpointsPath("missing", "")},
		{code: 404, reason: metav1.StatusReasonNotFound, message: "the server could not find the requested resource", path: "/api/v1/namespaces/" + ns + "/nothing"},
		{code: 405, reason: metav1.StatusReasonMethodNotAllowed, message: "the server does not allow this method on the requested resource", method: http.MethodPut},
		{code: 409, reason: metav1.StatusReasonAlreadyExists, message: `endpoints "taken" already exists`, body: body("taken")},
		{code: 413, reason: metav1.StatusReasonRequestEntityTooLarge, message: "Request entity too large: limit is 3145728 bytes (3 MiB)", body: make([]byte, 3<<20+1)},
		{code: 415, reason: metav1.StatusReasonUnsupportedMediaType, message: "the body of the request was in an unknown format", headers: []string{"Content-Type", "text/plain"}},
		{code: 422, reason: metav1.StatusReasonInvalid, message: `Endpoints "A" is invalid: metadata.name: Invalid value: "A"`, body: body("A")},
		{code: 429, reason: metav1.StatusReasonTooManyRequests, message: "the limit for write requests is reached", retryAfter: -1, headers: []string{"X-Auth-Token", spentToken}},
		{code: 500, reason: metav1.StatusReasonInternalError, message: "the server's log has the cause under audit id", fault: errDisk},
		{code: 503, reason: metav1.StatusReasonServiceUnavailable, message: "etcd cannot be reached", retryAfter: 1, fault: storage.ErrUnavailable},
		{code: 503, reason: metav1.StatusReasonServiceUnavailable, message: "etcd's database is full", retryAfter: 10, fault: storage.ErrNoSpace},
		{code: 504, reason: metav1.StatusReasonTimeout, message: "etcd did not answer", retryAfter: 1, fault: storage.ErrTimeout},
		{code: 504, reason: metav1.StatusReasonTimeout, message: "it may or may not have taken effect", fault: storage.ErrUnknownOutcome},
	}
}

func (f *failure) request(t *testing.T, ns, accept string) *http.Request {
	t.Helper()
	method, path, sent := f.method, f.path, f.body
	if method == "" {
		method = http.MethodPost
	}
	if path == "" {
		path = endpointsPath(ns, "")
	}
	if sent == nil && method != http.MethodGet {
		sent = body("new")
	}
	return newRequest(t, shared, method, path, sent, append([]string{"Accept", accept}, f.headers...)...)
}

// Every error is a Status in the form that the client accepts, whatever its cause.
func TestEveryStatusCode(t *testing.T) {
	ns := newNamespace(t, shared)
	checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("taken"))), 201, "")
	send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("first"), "X-Auth-Token", spentToken))
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		for _, f := range failures(ns) {
			t.Run(fmt.Sprintf("%d %.20s", f.code, f.message), func(t *testing.T) {
				if f.fault != nil {
					faults.on(t, ns, "new", failing(f.fault))
				}
				for _, mediaType := range mediaTypes {
					a := send(t, client, f.request(t, ns, mediaType))
					if got := a.header.Get("Content-Type"); got != mediaType {
						t.Errorf("accepting %s: answered as %s", mediaType, got)
					}
					f.check(t, a)
				}
			})
		}
		a := send(t, client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("new"), "Accept", "text/html"))
		notAcceptable := failure{code: 406, reason: metav1.StatusReasonNotAcceptable, message: "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"}
		notAcceptable.check(t, a)
	})
}

func (f *failure) check(t *testing.T, a *answer) {
	t.Helper()
	status := decode[*metav1.Status](t, a)
	if a.code != f.code || int(status.Code) != f.code || status.Status != metav1.StatusFailure || status.Reason != f.reason || !strings.Contains(status.Message, f.message) {
		t.Errorf("got %d %v, want %d, reason %s and %q", a.code, status, f.code, f.reason, f.message)
	}
	var seconds int32
	if status.Details != nil {
		seconds = status.Details.RetryAfterSeconds
	}
	header := ""
	if seconds > 0 {
		header = strconv.Itoa(int(seconds))
	}
	if a.header.Get("Retry-After") != header || f.retryAfter >= 0 && seconds != f.retryAfter || f.retryAfter < 0 && seconds <= 0 {
		t.Errorf("Retry-After %q, details %v, want %d", a.header.Get("Retry-After"), status.Details, f.retryAfter)
	}
	if strings.Contains(string(a.body), errDisk.Error()) {
		t.Errorf("the client is told what is nobody's business: %s", a.body)
	}
}

// An error that nobody foresaw is for the log.
func TestUnknownErrorIsLogged(t *testing.T) {
	ns := newNamespace(t, shared)
	faults.on(t, ns, "a", failing(errDisk))
	id := "unknown-error-" + ns
	req := newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("a"), "Audit-Id", id)
	a := send(t, shared.Client, req)
	checkCode(t, a, 500, "under audit id "+id)
	lines := logs.lines(id)
	if len(lines) != 1 || !strings.Contains(lines[0], `"level":"error"`) || !strings.Contains(lines[0], errDisk.Error()) || !strings.Contains(lines[0], `"code":500`) {
		t.Errorf("logged %q", lines)
	}
}

// A panic is a 500 and a log line with its stack, and the server lives.
func TestPanic(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		ns := newNamespace(t, shared)
		faults.on(t, ns, "a", func(context.Context, func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
			panic("what nobody thought of")
		})
		id := "panic-" + ns
		a := send(t, client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("a"), "Audit-Id", id))
		checkCode(t, a, 500, `"reason":"InternalError"`)
		if strings.Contains(string(a.body), "nobody thought") || strings.Contains(string(a.body), "goroutine") {
			t.Errorf("the client is told %s", a.body)
		}
		lines := logs.lines(id)
		if len(lines) != 2 || !strings.Contains(lines[0], "what nobody thought of") || !strings.Contains(lines[0], "status_test.go") || !strings.Contains(lines[1], `"code":500`) {
			t.Errorf("logged %q", lines)
		}
		checkCode(t, send(t, client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, ""), body("b"))), 201, "")
	})
}
