package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/berth-project/berth/test/harness"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 16 << 20

// answer is what a step is answered with, as it stands in a golden file.
type answer struct {
	Step   string            `json:"step"`
	Status int               `json:"status"`
	Header map[string]string `json:"headers,omitempty"`
	// Body is decoded JSON where the answer says that it is JSON, and text otherwise; nil
	// stands for an empty one.
	Body any `json:"body,omitempty"`
}

// comparedHeaders are the headers of an answer that clients act on. Several values of one
// are joined by " | ".
var comparedHeaders = []string{"Content-Type", "Warning", "Allow", "Retry-After", "WWW-Authenticate"}

// runner replays the steps of one case.
type runner struct {
	server *harness.Server
	tokens map[string]string // by user
	vars   map[string]any
	mask   *strings.Replacer
}

// newRunner makes the two namespaces of a case. suffix tells them from those of others.
func newRunner(ctx context.Context, server *harness.Server, tokens map[string]string, suffix string) (*runner, error) {
	ns, ns2 := "conformance-"+suffix, "conformance2-"+suffix
	r := &runner{
		server: server,
		tokens: tokens,
		vars:   map[string]any{"ns": ns, "ns2": ns2, "token": server.Token},
		mask:   strings.NewReplacer(ns2, "{{ns2}}", ns, "{{ns}}"),
	}
	for _, name := range []string{ns, ns2} {
		got, err := r.exchange(ctx, step{
			Method: http.MethodPost, Path: "/api/v1/namespaces",
			Header: []field{{"Content-Type", "application/json"}},
			Body:   fmt.Sprintf(`{"metadata":{"name":%q}}`, name),
		})
		if err == nil && got.Status != http.StatusCreated {
			err = fmt.Errorf("status %d: %v", got.Status, got.Body)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create namespace %s: %w", name, err), r.close(ctx))
		}
	}
	return r, nil
}

// close deletes the namespaces of the case.
func (r *runner) close(ctx context.Context) error {
	var failures []error
	for _, key := range []string{"ns", "ns2"} {
		got, err := r.exchange(ctx, step{Method: http.MethodDelete, Path: fmt.Sprintf("/api/v1/namespaces/%s", r.vars[key])})
		if err == nil && got.Status != http.StatusOK && got.Status != http.StatusNotFound {
			err = fmt.Errorf("delete namespace %s: status %d: %v", r.vars[key], got.Status, got.Body)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// replay sends a step and returns its answer, masked, and without what the step ignores.
func (r *runner) replay(ctx context.Context, s step) (answer, error) {
	finish, err := r.begin(ctx, s)
	if err != nil {
		return answer{}, err
	}
	return finish()
}

// begin sends a step, and returns what reads the rest of the answer once it has begun.
func (r *runner) begin(ctx context.Context, s step) (finish func() (answer, error), err error) {
	expanded, err := s.expand(r.vars)
	if err != nil {
		return nil, err
	}
	resp, err := r.send(ctx, expanded) //nolint:bodyclose // finish does
	if err != nil {
		return nil, err
	}
	return func() (answer, error) {
		got, body, err := r.read(resp, strings.Contains(expanded.Path, "watch="))
		if err != nil {
			return answer{}, err
		}
		if s.Name != "" {
			r.vars[s.Name] = body
		}
		got.Step = s.Title
		if s.StatusOnly {
			return answer{Step: s.Title, Status: got.Status}, nil
		}
		for _, path := range s.Ignore {
			remove(got.Body, strings.Split(path, "."))
		}
		for _, path := range s.Unordered {
			sortAt(got.Body, strings.Split(path, "."))
		}
		return got, nil
	}, nil
}

// exchange sends a step and returns its masked answer.
func (r *runner) exchange(ctx context.Context, s step) (answer, error) {
	resp, err := r.send(ctx, s)
	if err != nil {
		return answer{}, err
	}
	got, _, err := r.read(resp, false)
	return got, err
}

func (r *runner) send(ctx context.Context, s step) (*http.Response, error) {
	if s.Base64 {
		data, err := base64.StdEncoding.DecodeString(s.Body)
		if err != nil {
			return nil, err
		}
		s.Body = string(data)
	}
	req, err := http.NewRequestWithContext(ctx, s.Method, r.server.URL+s.Path, strings.NewReader(s.Body))
	if err != nil {
		return nil, err
	}
	token := r.server.Token
	if s.As != "" {
		if token = r.tokens[s.As]; token == "" {
			return nil, fmt.Errorf("%s has no token", s.As)
		}
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("User-Agent", "conformance")
	for _, f := range s.Header {
		if f.Value == "" {
			req.Header.Del(f.Name)
		} else {
			req.Header.Set(f.Name, f.Value)
		}
	}
	return r.server.Client.Do(req)
}

// read returns the masked answer and the body as it came, of a watch its events.
func (r *runner) read(resp *http.Response, watch bool) (answer, any, error) {
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, nil, err
	}
	var body any
	if watch && resp.StatusCode == http.StatusOK {
		body, err = decodeEvents(data)
	} else {
		body, err = decode(resp.Header.Get("Content-Type"), data)
	}
	if err != nil {
		return answer{}, nil, err
	}
	got := answer{Status: resp.StatusCode, Body: harness.Mask(body, r.mask)}
	maskMore(got.Body)
	for _, name := range comparedHeaders {
		if values := resp.Header.Values(name); len(values) > 0 {
			if got.Header == nil {
				got.Header = map[string]string{}
			}
			got.Header[name] = r.mask.Replace(strings.Join(values, " | "))
		}
	}
	return got, body, nil
}

// decodeEvents returns the events of a watch, without the bookmarks that come when the server
// likes.
func decodeEvents(data []byte) (any, error) {
	var events []any
	for decoder := json.NewDecoder(bytes.NewReader(data)); ; {
		var event map[string]any
		switch err := decoder.Decode(&event); {
		case errors.Is(err, io.EOF):
			if events == nil {
				return nil, nil
			}
			return events, nil
		case err != nil:
			return nil, fmt.Errorf("the body has an event that is no JSON: %w", err)
		}
		if event["type"] != "BOOKMARK" || strings.Contains(fmt.Sprint(event), "k8s.io/initial-events-end") {
			events = append(events, event)
		}
	}
}

var ageText = regexp.MustCompile(`^\d+[smhdy](\d+[smhd])?$`)

// maskMore replaces ages in the cells of tables, and sorts managedFields, which are in the order of
// their times.
func maskMore(value any) {
	switch v := value.(type) {
	case map[string]any:
		if cells, ok := v["cells"].([]any); ok {
			for i, cell := range cells {
				if text, ok := cell.(string); ok && ageText.MatchString(text) {
					cells[i] = "<age>"
				}
			}
		}
		sortAt(v, []string{"managedFields"})
		for _, item := range v {
			maskMore(item)
		}
	case []any:
		for _, item := range v {
			maskMore(item)
		}
	}
}

func decode(contentType string, data []byte) (any, error) {
	switch {
	case len(data) == 0:
		return nil, nil
	case strings.HasPrefix(contentType, "application/vnd.kubernetes.protobuf"):
		return fmt.Sprintf("protobuf %q", data[:min(4, len(data))]), nil
	case !strings.HasPrefix(contentType, "application/json"):
		return string(data), nil
	}
	var body any
	if err := json.Unmarshal(data, &body); err != nil {
		return nil, fmt.Errorf("the body is not the JSON that its Content-Type promises: %w", err)
	}
	return body, nil
}

// sortAt sorts the lists at path.
func sortAt(value any, path []string) {
	switch v := value.(type) {
	case map[string]any:
		list, ok := v[path[0]].([]any)
		if ok && len(path) == 1 {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		} else if len(path) > 1 {
			sortAt(v[path[0]], path[1:])
		}
	case []any:
		for _, item := range v {
			sortAt(item, path)
		}
	}
}

// remove takes the field at path out of value, and out of every item of the lists on the
// way.
func remove(value any, path []string) {
	switch v := value.(type) {
	case map[string]any:
		if len(path) == 1 {
			delete(v, path[0])
			return
		}
		remove(v[path[0]], path[1:])
	case []any:
		for _, item := range v {
			remove(item, path)
		}
	}
}
