package audit

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/berth-project/berth/pkg/auth"
)

// upstream is the event as kube-apiserver's type has it.
func upstream(e *event, stage auditv1.Stage, at time.Time) *auditv1.Event {
	u := &auditv1.Event{
		TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "audit.k8s.io/v1"},
		Level:    auditv1.Level(e.level.String()), AuditID: types.UID(e.auditID), Stage: stage, RequestURI: e.uri, Verb: e.verb,
		SourceIPs: e.sourceIPs, UserAgent: e.userAgent, ObjectRef: e.ref,
		RequestReceivedTimestamp: metav1.NewMicroTime(e.received), StageTimestamp: metav1.NewMicroTime(at),
	}
	if e.user != nil {
		u.User = userInfo(e.user)
	}
	if stage == auditv1.StageRequestReceived {
		return u
	}
	if e.impersonated != nil {
		impersonated := userInfo(e.impersonated)
		u.ImpersonatedUser = &impersonated
	}
	if e.constraint != "" {
		u.AuthenticationMetadata = &auditv1.AuthenticationMetadata{ImpersonationConstraint: e.constraint}
	}
	u.ResponseStatus = &metav1.Status{Code: int32(e.code)}
	if e.status != nil {
		status := *e.status
		status.TypeMeta = metav1.TypeMeta{}
		u.ResponseStatus = &status
	}
	if e.requestObject != nil {
		u.RequestObject = &runtime.Unknown{Raw: e.requestObject}
	}
	if e.responseObject != nil {
		u.ResponseObject = &runtime.Unknown{Raw: e.responseObject}
	}
	u.Annotations = map[string]string{}
	if e.truncated {
		u.Annotations["audit.k8s.io/truncated"] = "true"
	}
	if e.decided {
		u.Annotations["authorization.k8s.io/reason"] = e.reason
		if e.decision != "" {
			u.Annotations["authorization.k8s.io/decision"] = e.decision
		}
	}
	return u
}

func userInfo(u *auth.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for key, values := range u.Extra {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[key] = values
	}
	return info
}

// pick returns one of the texts that JSON writes in different ways.
func pick(r *rand.Rand) string {
	return []string{"", "web", "a<b>&c", `quo"te\`, "tab\tnew\nline", "ünï", "\xff\xfe", "\u2028", "\x7f", "/api/v1?x=%3D"}[r.IntN(10)]
}

func randomEvent(r *rand.Rand) *event {
	list := func() (texts []string) {
		for range r.IntN(3) {
			texts = append(texts, pick(r))
		}
		return texts
	}
	user := func() *auth.User {
		u := &auth.User{Name: pick(r), UID: pick(r), Groups: list()}
		for range r.IntN(3) {
			if u.Extra == nil {
				u.Extra = map[string][]string{}
			}
			u.Extra[pick(r)] = list()
		}
		return u
	}
	e := &event{
		level: Level(1 + r.IntN(3)), auditID: "id" + pick(r), uri: pick(r), verb: pick(r), sourceIPs: list(), userAgent: pick(r),
		code: 200, received: time.Unix(r.Int64N(1<<32), r.Int64N(1e9)), decided: r.IntN(2) == 0, truncated: r.IntN(2) == 0,
	}
	if e.decided {
		e.decision, e.reason = pick(r), pick(r)
	}
	if r.IntN(4) > 0 {
		e.user = user()
	}
	if r.IntN(2) == 0 {
		e.impersonated, e.constraint = user(), pick(r)
	}
	if r.IntN(2) == 0 {
		e.ref = &auditv1.ObjectReference{
			Resource: pick(r), Namespace: pick(r), Name: pick(r), UID: types.UID(pick(r)), APIGroup: pick(r), APIVersion: pick(r),
			ResourceVersion: pick(r), Subresource: pick(r),
		}
	}
	if r.IntN(2) == 0 {
		e.status = &metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status"}, Status: pick(r), Message: pick(r), Reason: metav1.StatusReason(pick(r)), Code: 404,
			Details: &metav1.StatusDetails{Name: pick(r)},
		}
		e.requestObject, e.responseObject = []byte(`{"a":"<b>"}`), []byte(`[1,2.50,1e3]`)
		e.requestObject, _ = rewrite(e.requestObject, nil)
	}
	return e
}

// TestAppend holds the lines against those that the types of kube-apiserver are encoded to.
func TestAppend(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		e := randomEvent(r)
		stage := stageNames[r.IntN(len(stageNames))]
		at := e.received.Add(time.Duration(r.Int64N(1e12)))
		want, err := json.Marshal(upstream(e, stage, at))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want)+"\n", string(e.append(nil, stage, at))); diff != "" {
			t.Fatalf("seed %d (-want +got)\n%s", seed, diff)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	e := &event{
		level: Metadata, auditID: "9ccc6db6-c24a-442c-a7b8-a8ede8850dd4", uri: "/api/v1/namespaces/test-namespace/endpoints", verb: "create",
		user: &auth.User{Name: "alice", UID: "uid-alice", Groups: []string{"team-a", auth.AllAuthenticated}}, sourceIPs: []string{"192.0.2.1"},
		userAgent: "kubectl/v1.37.2 (linux/amd64) kubernetes/abcdef", ref: &auditv1.ObjectReference{Resource: "endpoints", Namespace: "test-namespace", Name: "web", APIVersion: "v1"},
		code: 201, received: time.Now(), decided: true, decision: "allow", reason: `RBAC: allowed by RoleBinding "writers/audit-a" of Role "writer" to Group "team-a"`,
	}
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = e.append(line[:0], auditv1.StageResponseComplete, e.received)
	}
}

func TestUserAgent(t *testing.T) {
	req := httptest.NewRequestWithContext(context.Background(), "GET", "/", nil)
	req.Header.Set("User-Agent", strings.Repeat("x", 1025))
	if got, want := userAgentOf(req), strings.Repeat("x", 1024)+"...TRUNCATED"; got != want {
		t.Errorf("got %d bytes that end in %q", len(got), got[len(got)-20:])
	}
	req.Header.Set("User-Agent", strings.Repeat("x", 1024))
	if got := userAgentOf(req); len(got) != 1024 {
		t.Errorf("an agent of 1,024 bytes became one of %d", len(got))
	}
}

func TestRewrite(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"white space and HTML", "{ \"a\" : [ 1, 2.50 ],\n \"b\":\"<&>\" }", `{"a":[1,2.50],"b":"\u003c\u0026\u003e"}`},
		{"an object", `{"metadata":{"managedFields":[{"x":{}}],"name":"web"},"managedFields":1}`, `{"metadata":{"name":"web"},"managedFields":1}`},
		{"a list", `{"items":[{"metadata":{"managedFields":[]}},{"metadata":{"name":"b","managedFields":null}}]}`, `{"items":[{"metadata":{}},{"metadata":{"name":"b"}}]}`},
		{"a table", `{"rows":[{"cells":["managedFields"],"object":{"metadata":{"managedFields":[1]}}},{"object":null}]}`, `{"rows":[{"cells":["managedFields"],"object":{"metadata":{}}},{"object":null}]}`},
		{"other kinds of values", `{"metadata":[{"managedFields":1}],"items":{"metadata":{"managedFields":1}},"rows":3}`, `{"metadata":[{"managedFields":1}],"items":{"metadata":{"managedFields":1}},"rows":3}`},
		{"no object", `"metadata"`, `"metadata"`},
		{"repeated names", `{"metadata":{"managedFields":1},"metadata":{"managedFields":2,"a":1}}`, `{"metadata":{},"metadata":{"a":1}}`},
	} {
		got, err := rewrite([]byte(tt.in), managedFields)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.name == "white space and HTML" {
			var plain []byte
			if plain, err = rewrite([]byte(tt.in), nil); err != nil || string(plain) != tt.want {
				t.Errorf("%s, whole: got %s (%v), want %s", tt.name, plain, err, tt.want)
			}
		}
		if string(got) != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	for _, bad := range []string{"", "{", `{"metadata":`, `{"metadata":{"managedFields":[}}`, `{"items":[{"metadata":{]}`} {
		for _, paths := range [][]string{nil, managedFields} {
			if got, err := rewrite([]byte(bad), paths); err == nil {
				t.Errorf("%s became %s", bad, got)
			}
		}
	}
}
