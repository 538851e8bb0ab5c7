// Package iam replays requests for the Identity API v3 with the answers that OpenStack Keystone
// 22.0.2 has given to them.
package iam

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/test/apitest"
	"github.com/berth-project/berth/test/harness"
)

// exchange is a request and the answer to it. {{NAME}} in it stands for a variable.
type exchange struct {
	Title string `json:"title"`
	Pause string `json:"pause"` // before it is sent
	Send  struct {
		Method  string            `json:"method"`
		Path    string            `json:"path"`
		Headers map[string]string `json:"headers"`
		JSON    json.RawMessage   `json:"json"`
		Text    string            `json:"text"`
	} `json:"send"`
	Keep    map[string]string `json:"keep"`    // variable → where its value is in the answer: "header X" or "body a.b.0"
	Same    map[string]string `json:"same"`    // values that must be those of variables
	Compare string            `json:"compare"` // "": all; error, subset, status: less
	Also    []int             `json:"also"`    // codes that are as good
	Answer  struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    any               `json:"body"`
	} `json:"answer"`
}

func TestRequests(t *testing.T) { replay(t, "requests.json", "24h") }

func TestExpiry(t *testing.T) { replay(t, "expiry.json", "3s") }

func replay(t *testing.T, file, lifetime string) {
	t.Parallel()
	server, err := apitest.Start(apitest.Config{
		IAM:        strings.Replace(harness.ReadFile(t, "iam.yaml"), "24h", lifetime, 1),
		RateLimits: &ratelimit.Config{Anonymous: &ratelimit.Limit{QPS: 60, Burst: 60}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Vars     map[string]string `json:"vars"`
		Requests []*exchange       `json:"requests"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	s := &session{server: server, vars: list.Vars, kept: map[string]string{server.URL: "server"}}
	s.vars["server"] = server.URL
	for _, x := range list.Requests {
		if x.Pause != "" {
			pause, err := time.ParseDuration(x.Pause)
			if err != nil {
				t.Fatal(err)
			}
			<-time.After(pause) // a token expires
		}
		t.Run(x.Title, func(t *testing.T) { s.run(t, x) })
	}
}

// session is a run through one file.
type session struct {
	server *apitest.Server
	vars   map[string]string
	kept   map[string]string // value → the variable that was kept of it
}

func (s *session) run(t *testing.T, x *exchange) {
	body := x.Send.Text
	if len(x.Send.JSON) > 0 {
		body = string(x.Send.JSON)
	}
	req, err := http.NewRequestWithContext(t.Context(), x.Send.Method, s.server.URL+s.expand(x.Send.Path), strings.NewReader(s.expand(body)))
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Send.JSON) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for key, value := range x.Send.Headers {
		req.Header.Set(key, s.expand(value))
	}
	resp, err := s.server.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if json.Unmarshal(data, &got) != nil && len(data) > 0 {
		got = string(data)
	}
	for name, where := range x.Keep {
		value := find(resp.Header, got, where)
		if value == "" {
			t.Fatalf("status %d, without %s: %s", resp.StatusCode, where, data)
		}
		s.vars[name] = value
		if !stamp.MatchString(value) {
			s.kept[value] = name
		}
	}
	for name, where := range x.Same {
		if value := find(resp.Header, got, where); value != s.vars[name] {
			t.Errorf("%s = %q, want %q as before", where, value, s.vars[name])
		}
	}
	s.compare(t, x, resp, got)
}

func (s *session) compare(t *testing.T, x *exchange, resp *http.Response, got any) {
	form := resp.StatusCode >= 400 && x.Send.Method != http.MethodHead && x.Compare != "status"
	if slices.Contains(x.Also, resp.StatusCode) {
		if form {
			checkErrorForm(t, resp.StatusCode, got)
		}
		return
	}
	if resp.StatusCode != x.Answer.Status {
		t.Fatalf("status %d, want %d: %v", resp.StatusCode, x.Answer.Status, got)
	}
	if x.Compare == "status" {
		return
	}
	if diff := cmp.Diff(x.Answer.Headers, s.headers(resp.Header)); diff != "" {
		t.Errorf("headers (-want +got)\n%s", diff)
	}
	if x.Compare == "error" {
		if form {
			checkErrorForm(t, resp.StatusCode, got)
		}
		return
	}
	want, masked := x.Answer.Body, s.mask("", got)
	if x.Compare == "subset" {
		masked = common(want, masked)
	}
	if diff := cmp.Diff(want, masked); diff != "" {
		t.Errorf("body (-want +got)\n%s", diff)
	}
}

// checkErrorForm wants {"error":{"code","message","title"}}.
func checkErrorForm(t *testing.T, code int, body any) {
	t.Helper()
	m, _ := body.(map[string]any)
	e, _ := m["error"].(map[string]any)
	if e["code"] != float64(code) || e["message"] == "" || e["message"] == nil || e["title"] != http.StatusText(code) {
		t.Errorf("status %d with %v", code, body)
	}
}

// common returns got without the keys that want has not.
func common(want, got any) any {
	w, _ := want.(map[string]any)
	g, ok := got.(map[string]any)
	if w == nil || !ok {
		return got
	}
	maps.DeleteFunc(g, func(key string, _ any) bool { _, ok := w[key]; return !ok })
	for key := range g {
		g[key] = common(w[key], g[key])
	}
	return g
}

// find returns the string that where names, or "".
func find(header http.Header, body any, where string) string {
	kind, path, _ := strings.Cut(where, " ")
	if kind == "header" {
		return header.Get(path)
	}
	for key := range strings.SplitSeq(path, ".") {
		if list, ok := body.([]any); ok {
			if n, err := strconv.Atoi(key); err == nil && n < len(list) {
				body = list[n]
			}
			continue
		}
		m, _ := body.(map[string]any)
		body = m[key]
	}
	value, _ := body.(string)
	return value
}

var (
	variable = regexp.MustCompile(`\{\{([^}]+)\}\}`)
	id       = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	stamp    = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z`)
)

func (s *session) expand(text string) string {
	return variable.ReplaceAllStringFunc(text, func(m string) string {
		name := m[2 : len(m)-2]
		if times, what, ok := strings.Cut(name, "*"); ok {
			n, _ := strconv.Atoi(times)
			return strings.Repeat(what, n)
		}
		return s.vars[name]
	})
}

// text masks what differs from server to server.
func (s *session) text(text string) string {
	for value, name := range s.kept {
		if len(value) > 8 {
			text = strings.ReplaceAll(text, value, "{{"+name+"}}")
		}
	}
	return id.ReplaceAllString(stamp.ReplaceAllString(text, "<time>"), "<id>")
}

func (s *session) headers(h http.Header) map[string]string {
	out := map[string]string{}
	for _, key := range []string{"Content-Type", "Vary", "WWW-Authenticate", "X-Subject-Token", "Allow", "Location"} {
		value := s.text(h.Get(key))
		if key == "X-Subject-Token" && value == h.Get(key) && value != "" {
			value = "<token>"
		}
		if value != "" {
			out[key] = value
		}
	}
	return out
}

func (s *session) mask(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			v[k] = s.mask(k, item)
		}
		if v["type"] == "identity" {
			v["name"] = "<name>"
		}
	case []any:
		for i, item := range v {
			if v[i] = s.mask(key, item); key == "audit_ids" {
				v[i] = "<audit id>"
			}
		}
		by := map[string]string{"roles": "name", "projects": "name", "endpoints": "interface"}[key]
		slices.SortStableFunc(v, func(a, b any) int {
			if by == "" {
				return 0
			}
			return strings.Compare(fmt.Sprint(a.(map[string]any)[by]), fmt.Sprint(b.(map[string]any)[by]))
		})
	case string:
		switch {
		case key == "description":
			return "<description>"
		case key == "id" && strings.HasPrefix(v, "v3."):
			return "v3.x"
		}
		return s.text(v)
	}
	return v
}
