package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/test/harness"
)

// audited is what the audit log had to say of a step, as it stands in a golden file.
type audited struct {
	Step   string `json:"step"`
	Status int    `json:"status"`
	Lines  []any  `json:"lines"`
}

// TestAudit sends audit/requests.http to a server for each of three policies, and holds the lines
// of its audit log against those that kube-apiserver v1.37.2 wrote, which are masked.
func TestAudit(t *testing.T) {
	text := harness.ReadFile(t, "audit/requests.http")
	steps, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	binary := harness.BuildAsTest(t)
	for _, policy := range []string{"metadata", "rules", "managedfields"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel() // they wait for watches most of the time
			r := newAuditRunner(t, binary, policy)
			r.setUp(t, steps)
			r.replayAll(t, steps)
			r.compare(t)
			r.checkTokens(t)
		})
	}
}

// auditRunner replays the steps against one server.
type auditRunner struct {
	server *harness.Server
	log    string            // its audit log
	tokens map[string]string // by user
	vars   map[string]any
	golden []audited
	steps  []step // in the order of golden
	ids    []string
	codes  []int
	wait   sync.WaitGroup
}

func newAuditRunner(t *testing.T, binary, policy string) *auditRunner {
	t.Helper()
	at := func(name string) string { return filepath.Join(harness.Root(), "test/conformance/audit", name) }
	dir := t.TempDir()
	r := &auditRunner{log: filepath.Join(dir, "audit.log"), tokens: readTokens(t), vars: map[string]any{}}
	r.server = harness.RunIn(t, dir, binary, "--authorization-mode=RBAC", "--token-auth-file="+at("../"+tokenFile),
		"--audit-policy-file="+at(policy+".yaml"), "--audit-log-path="+r.log)
	if err := json.Unmarshal([]byte(harness.ReadFile(t, at(policy+".golden.json"))), &r.golden); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *auditRunner) setUp(t *testing.T, steps []step) {
	t.Helper()
	for _, s := range steps {
		if !s.Setup {
			continue
		}
		if code, _, _, err := r.send(t.Context(), s, nil); err != nil || code >= 300 && code != http.StatusNotFound {
			t.Fatalf("%s: %d, %v", s.Title, code, err)
		}
	}
	harness.SettleRights(func(path string) {
		if code, _, _, err := r.send(t.Context(), step{Method: http.MethodGet, Path: path}, nil); code != http.StatusOK {
			t.Fatalf("%s: %d, %v", path, code, err)
		}
	})
}

// replayAll sends the other steps. What is sent in the background goes on while the next are sent.
func (r *auditRunner) replayAll(t *testing.T, steps []step) {
	t.Helper()
	r.steps = slices.DeleteFunc(slices.Clone(steps), func(s step) bool { return s.Setup })
	if len(r.steps) != len(r.golden) {
		t.Fatalf("%d requests and %d expected answers", len(r.steps), len(r.golden))
	}
	r.ids, r.codes = make([]string, len(r.steps)), make([]int, len(r.steps))
	for i, raw := range r.steps {
		s, err := raw.expand(r.vars)
		if err != nil {
			t.Fatalf("%s: %v", raw.Title, err)
		}
		begun := make(chan struct{})
		act := func() {
			code, id, body, err := r.send(t.Context(), s, begun)
			if err != nil && s.Cancel == 0 {
				t.Errorf("%s: %v", s.Title, err)
			}
			r.codes[i], r.ids[i] = code, id
			if s.Name != "" {
				r.vars[s.Name] = body
			}
		}
		if !s.Background {
			act()
			continue
		}
		r.wait.Go(act)
		<-begun
	}
	r.wait.Wait()
}

// send returns the code, the Audit-Id and the body of the answer to a step. It closes begun, nil
// for nobody, when the header of the answer is there, or an error.
func (r *auditRunner) send(ctx context.Context, s step, begun chan struct{}) (code int, id string, body any, err error) {
	begins := sync.OnceFunc(func() {
		if begun != nil {
			close(begun)
		}
	})
	defer begins()
	sent := []byte(s.Body)
	if s.Base64 {
		if sent, err = base64.StdEncoding.DecodeString(s.Body); err != nil {
			return 0, "", nil, err
		}
	}
	if s.Cancel > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Cancel)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, s.Method, r.server.URL+s.Path, bytes.NewReader(sent))
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("User-Agent", "conformance")
	if user := s.As; user != "-" {
		if user == "" {
			user = "admin"
		}
		req.Header.Set("Authorization", "Bearer "+r.tokens[user])
	}
	for _, f := range s.Header {
		switch {
		case f.Value == "" && f.Name == "User-Agent":
			req.Header["User-Agent"] = []string{""} // or net/http would name itself
		case strings.HasPrefix(f.Name, "Impersonate-"), strings.HasPrefix(f.Name, "X-Forwarded-"):
			req.Header.Add(f.Name, f.Value)
		default:
			req.Header.Set(f.Name, f.Value)
		}
	}
	resp, err := r.server.Client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	begins()
	data, err := io.ReadAll(resp.Body)
	if json.Unmarshal(data, &body) != nil {
		body = string(data)
	}
	return resp.StatusCode, resp.Header.Get("Audit-Id"), body, err
}

// compare waits until the log has as many lines as are expected, and compares them.
func (r *auditRunner) compare(t *testing.T) {
	t.Helper()
	expected := 0
	for _, one := range r.golden {
		expected += len(one.Lines)
	}
	deadline, poll := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer poll.Stop()
	lines, n := r.read(t)
	for waiting := true; n < expected && waiting; lines, n = r.read(t) {
		select {
		case <-poll.C:
		case <-deadline:
			waiting = false
		}
	}
	for i, s := range r.steps {
		got := audited{Step: s.Title, Status: r.codes[i], Lines: []any{}}
		for _, event := range lines[r.ids[i]] {
			got.Lines = append(got.Lines, maskEvent(s, event))
		}
		for _, path := range s.Ignore {
			remove(got.Lines, strings.Split(path, "."))
			remove(r.golden[i].Lines, strings.Split(path, "."))
		}
		if diff := cmp.Diff(r.golden[i], got); diff != "" {
			t.Errorf("requests.http:%d %s: %s %s (-want +got)\n%s", s.Line, s.Title, s.Method, s.Path, diff)
		}
	}
}

// read returns the events of the log by their audit ids, and how many of them are of the steps.
func (r *auditRunner) read(t *testing.T) (events map[string][]map[string]any, ofSteps int) {
	t.Helper()
	events = map[string][]map[string]any{}
	for line := range strings.Lines(harness.ReadFile(t, r.log)) {
		if !strings.HasSuffix(line, "\n") {
			continue // it is being written
		}
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil || event["kind"] != "Event" || event["apiVersion"] != "audit.k8s.io/v1" {
			t.Fatalf("a line is no event (%v): %s", err, line)
		}
		id := fmt.Sprint(event["auditID"])
		events[id] = append(events[id], event)
		if slices.Contains(r.ids, id) {
			ofSteps++
		}
	}
	return events, ofSteps
}

// checkTokens looks for tokens in everything that the server has written: the audit log and its
// own.
func (r *auditRunner) checkTokens(t *testing.T) {
	t.Helper()
	for _, path := range []string{r.log, filepath.Join(r.server.Dir, "log")} {
		text := harness.ReadFile(t, path)
		for user, token := range r.tokens {
			if strings.Contains(text, token) {
				t.Errorf("the token of %s is in %s", user, path)
			}
		}
	}
}

var (
	uidText   = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	timeText  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	microTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)
	queryText = regexp.MustCompile(`(resourceVersion|continue)=([^&]{2,})`)
	longDigit = regexp.MustCompile(`\b\d{7,}\b`)
	ageCell   = regexp.MustCompile(`^\d+[smhdy](\d+[smhd])?$`)
	// Both of these roles allow the same to everybody; either may be named.
	eitherRole = regexp.MustCompile(`"system:(discovery|public-info-viewer)" of ClusterRole "system:(discovery|public-info-viewer)" to Group "system:authenticated"`)
)

// maxGoldenText is how long a text is that the golden files have as it is.
const maxGoldenText = 2000

// maskEvent returns an event as the golden files have it.
func maskEvent(s step, event map[string]any) any {
	received := event["requestReceivedTimestamp"]
	if event["stageTimestamp"] == received {
		event["stageTimestamp"] = "<received>"
	}
	for _, key := range []string{"requestReceivedTimestamp", "stageTimestamp"} {
		if text, _ := event[key].(string); microTime.MatchString(text) {
			event[key] = "<microtime>"
		}
	}
	if ips, ok := event["sourceIPs"].([]any); ok {
		for i := range ips {
			if ips[i] == "127.0.0.1" {
				ips[i] = "<client>"
			}
		}
	}
	if annotations, ok := event["annotations"].(map[string]any); ok {
		if reason, ok := annotations["authorization.k8s.io/reason"].(string); ok {
			annotations["authorization.k8s.io/reason"] = eitherRole.ReplaceAllString(reason, `"<either>" to Group "system:authenticated"`)
		}
	}
	masked := maskMember("", event)
	for _, path := range s.Masked {
		maskPath(masked, strings.Split(path, "."))
	}
	return masked
}

func maskPath(value any, path []string) {
	switch v := value.(type) {
	case map[string]any:
		if _, ok := v[path[0]]; ok && len(path) == 1 {
			v[path[0]] = "<any>"
		} else if ok {
			maskPath(v[path[0]], path[1:])
		}
	case []any:
		for _, item := range v {
			maskPath(item, path)
		}
	}
}

// maskMember masks what differs from run to run in the value of a member.
func maskMember(name string, value any) any {
	switch v := value.(type) {
	case map[string]any:
		masked := map[string]any{}
		base, _ := v["generateName"].(string)
		for key, member := range v {
			if text, ok := member.(string); ok && key == "name" && base != "" && strings.HasPrefix(text, base) {
				member = base + "<generated>"
			}
			if key != "selfLink" { // a deliberate difference
				masked[key] = maskMember(key, member)
			}
		}
		return masked
	case []any:
		masked := make([]any, len(v))
		for i, item := range v {
			masked[i] = maskMember(name, item)
		}
		if name == "managedFields" { // sorted by time
			slices.SortFunc(masked, func(a, b any) int { return strings.Compare(asJSON(a), asJSON(b)) })
		}
		return masked
	case string:
		return maskText(name, v)
	}
	return value
}

func maskText(name, text string) string {
	switch {
	case name == "apiVersion" && text == "meta.k8s.io/__internal": // of DeleteOptions
		return "v1"
	case name == "resourceVersion" && len(text) > 1:
		return "<rv>"
	case name == "continue" && text != "":
		return "<continue>"
	case name == "cells" && ageCell.MatchString(text):
		return "<age>"
	case name == "requestURI":
		text = queryText.ReplaceAllString(text, "$1=<$1>")
	}
	text = timeText.ReplaceAllString(uidText.ReplaceAllString(text, "<uid>"), "<time>")
	if len(text) > maxGoldenText {
		text = fmt.Sprintf("<%d bytes, sha256 %x>", len(text), sha256.Sum256([]byte(text)))
	}
	if name == "message" {
		text = longDigit.ReplaceAllString(text, "<n>")
	}
	return text
}

func asJSON(value any) string {
	data, err := json.Marshal(value)
	return string(data) + fmt.Sprint(err)
}

// TestAuditPolicies holds what audit/wrong.json lists against what is said of each policy there.
func TestAuditPolicies(t *testing.T) {
	var policies []struct {
		Name, Policy, File string
		Starts             bool
		Says               []string
	}
	if err := json.Unmarshal([]byte(harness.ReadFile(t, "audit/wrong.json")), &policies); err != nil {
		t.Fatal(err)
	}
	for _, one := range policies {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		switch {
		case one.File != "":
			path = filepath.Join("audit", one.File)
		case one.Policy != "":
			harness.WriteFile(t, path, one.Policy)
		}
		_, err := audit.LoadPolicy(path)
		if (err == nil) != one.Starts {
			t.Errorf("%s: %v", one.Name, err)
		}
		for _, text := range one.Says {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q is not in %v", one.Name, text, err)
			}
		}
	}
}
