package audit

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/berth-project/berth/pkg/auth"
)

// recorded returns stage, code, message and annotations of the lines that a request leaves.
func recorded(t *testing.T, a auth.Attributes, request func(*Entry)) (lines []string) {
	t.Helper()
	l := openLog(t, Config{})
	req := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/api/v1/endpoints?x=%3D", nil)
	req.RemoteAddr = "192.0.2.1:4711"
	req.Header.Set("X-Forwarded-For", "2001:DB8::1, nobody, 203.0.113.7:80")
	request(l.Begin(req, "id", time.Now(), &a))
	l.settle(t)
	data, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var e auditv1.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.RequestURI != "/api/v1/endpoints?x=%3D" || strings.Join(e.SourceIPs, " ") != "2001:db8::1 192.0.2.1" {
			t.Errorf("%s from %v", e.RequestURI, e.SourceIPs)
		}
		text := string(e.Stage) + " " + e.User.Username
		if e.ImpersonatedUser != nil {
			text += " as " + e.ImpersonatedUser.Username
		}
		if e.AuthenticationMetadata != nil {
			text += " by " + e.AuthenticationMetadata.ImpersonationConstraint
		}
		if s := e.ResponseStatus; s != nil {
			status, _ := json.Marshal(s)
			text += " " + string(status)
		}
		if len(e.Annotations) > 0 {
			annotations, _ := json.Marshal(e.Annotations)
			text += " " + string(annotations)
		}
		lines = append(lines, text)
	}
	return lines
}

func TestStages(t *testing.T) {
	get := auth.Attributes{User: alice, Verb: "get", ResourceRequest: true, Resource: "endpoints", Name: "web"}
	watch := auth.Attributes{User: alice, Verb: "watch", ResourceRequest: true, Resource: "endpoints"}
	failure := func(err *apierrors.StatusError) *metav1.Status { return &err.ErrStatus }
	const allowed = ` {"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"because"}`
	for _, tt := range []struct {
		name    string
		a       auth.Attributes
		request func(*Entry)
		want    []string
	}{
		{"an answer", get, func(e *Entry) {
			e.Authorize(true, "because", nil)
			e.Authorize(false, "of another question", nil)
			e.End(200)
		}, []string{"RequestReceived alice", `ResponseComplete alice {"metadata":{},"code":200}` + allowed}},
		{"none", get, func(e *Entry) { e.End(0) }, []string{
			"RequestReceived alice", `ResponseComplete alice {"metadata":{},"status":"Success","message":"Connection closed early","code":200}`,
		}},
		{"a panic", get, func(e *Entry) {
			e.Answer(failure(apierrors.NewInternalError(errors.New("what the client is told"))))
			e.EndPanic("oh")
		}, []string{"RequestReceived alice", `Panic alice {"metadata":{},"status":"Failure","message":"APIServer panic'd: oh","reason":"InternalError","code":500}`}},
		{"an authorizer that fails", get, func(e *Entry) {
			e.Authorize(false, "", errors.New("etcd is gone"))
			e.End(500)
		}, []string{"RequestReceived alice", `ResponseComplete alice {"metadata":{},"code":500} {"authorization.k8s.io/reason":"internal error"}`}},
		{"no valid token", auth.Attributes{Verb: "watch", ResourceRequest: true}, func(e *Entry) {
			e.Answer(failure(apierrors.NewUnauthorized("Unauthorized")))
			e.End(401)
		}, []string{`ResponseStarted  {"metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`}},
		{"a watch", watch, func(e *Entry) {
			e.Authorize(true, "because", nil)
			e.Start(200)
			e.End(200)
		}, []string{
			"RequestReceived alice", `ResponseStarted alice {"metadata":{},"code":200}` + allowed,
			`ResponseComplete alice {"metadata":{},"code":200}` + allowed,
		}},
		{"a watch that is refused", watch, func(e *Entry) {
			e.Answer(failure(apierrors.NewBadRequest("no")))
			e.End(400)
		}, []string{
			"RequestReceived alice", `ResponseStarted alice {"metadata":{},"status":"Failure","message":"no","reason":"BadRequest","code":400}`,
			`ResponseComplete alice {"metadata":{},"status":"Failure","message":"no","reason":"BadRequest","code":400}`,
		}},
		{"another user", get, func(e *Entry) {
			e.Impersonate(&auth.User{Name: "bob"}, "impersonate:user-info")
			e.End(200)
		}, []string{"RequestReceived alice", `ResponseComplete alice as bob by impersonate:user-info {"metadata":{},"code":200}`}},
	} {
		if diff := cmp.Diff(tt.want, recorded(t, tt.a, tt.request)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}

// TestNothing has everything callable for a request of which nothing is recorded.
func TestNothing(t *testing.T) {
	var none *Log
	req := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
	policy, err := ParsePolicy([]byte(header + "rules: [{level: None}]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*Log{none, openLog(t, Config{Policy: policy}).Log} {
		e := l.Begin(req, "id", time.Now(), &auth.Attributes{User: alice})
		if e != nil || e.WantsRequest() || e.WantsResponse() {
			t.Errorf("got %+v", e)
		}
		e.Impersonate(alice, "")
		e.Authorize(true, "", nil)
		e.Sent(&metav1.DeleteOptions{}, metav1.SchemeGroupVersion.WithKind("DeleteOptions"))
		e.SentPatch(nil, false)
		e.Answer(&metav1.Status{})
		e.AnswerObject(0, nil)
		e.Start(200)
		e.End(200)
		e.EndPanic("oh")
	}
	if err := none.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTokenReview has no token in the log, whatever the policy says.
func TestTokenReview(t *testing.T) {
	const token = "s3cret-token"
	l := openLog(t, Config{})
	a := &auth.Attributes{User: alice, Verb: "create", ResourceRequest: true, APIGroup: "authentication.k8s.io", APIVersion: "v1", Resource: "tokenreviews"}
	review := &authenticationv1.TokenReview{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": token}},
		Spec:       authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{"api"}},
	}
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", nil)
	e := l.Begin(req, "id", time.Now(), a)
	e.Sent(review, authenticationv1.SchemeGroupVersion.WithKind("TokenReview"))
	e.AnswerObject(0, func(w io.Writer) error { return json.NewEncoder(w).Encode(review) })
	e.End(201)
	e = l.Begin(req, "id", time.Now(), a)
	e.Answer(&apierrors.NewBadRequest(`json parse error ({"spec":{"token":"` + token + `)`).ErrStatus)
	e.End(400)
	if err := l.close(patience); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); strings.Contains(text, token) || strings.Count(text, `"audiences":["api"]`) != 2 || strings.Count(text, "it may quote the token") != 2 {
		t.Errorf("the log has\n%s", text)
	}
}

// BenchmarkRequest records a create at the level Metadata, to a file.
func BenchmarkRequest(b *testing.B) {
	policy, err := Preset("metadata")
	if err != nil {
		b.Fatal(err)
	}
	l, err := Open(Config{Policy: policy, Path: b.TempDir() + "/audit.log", Metrics: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/api/v1/namespaces/a/endpoints", nil)
	req.Header.Set("User-Agent", "kubectl/v1.37.2 (linux/amd64) kubernetes/abcdef")
	a := &auth.Attributes{User: alice, Verb: "create", ResourceRequest: true, APIVersion: "v1", Resource: "endpoints", Namespace: "a"}
	obj := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	b.ReportAllocs()
	for b.Loop() {
		e := l.Begin(req, "9ccc6db6-c24a-442c-a7b8-a8ede8850dd4", time.Now(), a)
		e.Authorize(true, `RBAC: allowed by RoleBinding "writers/audit-a" of Role "writer" to Group "team-a"`, nil)
		e.Sent(obj, metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
		e.End(201)
	}
	if err := l.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
