package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/apitest"
)

// line is what the tests read of a line of the log.
type line struct {
	Level, Message, Path, Name, Cause, Ended, UserAgent, Client, Token string
	Code, Omitted, OmittedErrors                                       int
}

// linesOf returns the lines that hold text, in their order.
func linesOf(t *testing.T, text string) []line {
	t.Helper()
	var lines []line
	for _, one := range logs.lines(text) {
		var l line
		if err := json.Unmarshal([]byte(one), &l); err != nil {
			t.Fatalf("%s: %v", one, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// While etcd does not answer, errors tell why, and not each request has one; each has a line.
func TestOutagesAreLoggedAsErrors(t *testing.T) {
	var down faultyStorage
	server := startServer(t, apitest.Config{Wrap: down.wrap})
	ns := newNamespace(t, server)
	const many = 40
	for i, tc := range []struct {
		err  error
		code int
	}{
		{fmt.Errorf("%w: connection refused", storage.ErrUnavailable), 503},
		{fmt.Errorf("%w: connection lost", storage.ErrUnknownOutcome), 504},
	} {
		down.on(t, ns, fmt.Sprint("a-", i), failing(tc.err))
		for range many / 2 {
			checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodPost, endpointsPath(ns, ""), body(fmt.Sprint("a-", i)))), tc.code, "")
		}
	}
	lines := linesOf(t, `"path":"`+endpointsPath(ns, ""))
	failures := 0
	for _, l := range lines {
		if l.Level == "error" {
			failures++
			if !strings.Contains(l.Cause, "connection") {
				t.Errorf("the cause is %q", l.Cause)
			}
		}
	}
	if len(lines) != many || lines[0].Level != "error" || failures >= many {
		t.Errorf("%d lines, %d of them errors; want %d, the first an error, and not all", len(lines), failures, many)
	}
}

// Who gives the server hardly any time, or goes, is no outage.
func TestHastyClientsAreNoErrors(t *testing.T) {
	ns := newNamespace(t, shared)
	faults.on(t, ns, "slow", func(ctx context.Context, _ func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
		<-ctx.Done()
		return storage.WriteResponse{}, fmt.Errorf("%w: %w", storage.ErrUnknownOutcome, ctx.Err())
	})
	checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, "")+"?timeout=20ms", body("slow"))), 504, "")
	if lines := linesOf(t, `"path":"`+endpointsPath(ns, "")); len(lines) != 1 || lines[0].Level != "info" {
		t.Errorf("logged %+v", lines)
	}
	if got := scrape(t, shared)[`apiserver_request_terminations_total{code="504",component="apiserver",group="",resource="endpoints",scope="resource",subresource="",verb="POST",version="v1"}`]; got < 1 {
		t.Error("the request is not counted as one whose time has ended")
	}
}

func TestCreatedNamesAreLogged(t *testing.T) {
	agent := "an-agent/1 " + strings.Repeat("x", 300)
	a := send(t, shared.Client, newRequest(t, shared, http.MethodPost, "/api/v1/namespaces", []byte(`{"metadata":{"generateName":"logged-"}}`), "User-Agent", agent))
	checkCode(t, a, 201, "")
	name := decode[*corev1.Namespace](t, a).Name
	lines := linesOf(t, `"name":"`+name+`"`)
	if len(lines) != 1 || lines[0].Path != "/api/v1/namespaces" || lines[0].Client != "127.0.0.1" {
		t.Fatalf("logged %+v", lines)
	}
	if got := lines[0].UserAgent; !strings.HasPrefix(got, "an-agent/1 xxx") || !strings.HasSuffix(got, "… (311 bytes)") {
		t.Errorf("the user agent is %q", got)
	}
}

func TestRefusedTokensAreLogged(t *testing.T) {
	for token, want := range map[string]line{
		unknownToken: {Level: "warn", Token: "not valid"},
		noToken:      {Level: "info"},
	} {
		server := startServer(t, apitest.Config{})
		path := "/a/path/of-" + strings.ReplaceAll(token, secret, "")
		checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodGet, path, nil, "X-Auth-Token", token)), 401, "")
		want.Message, want.Path, want.Client, want.UserAgent, want.Code = "request", path, "127.0.0.1", "api-test/1", 401
		if diff := cmp.Diff([]line{want}, linesOf(t, path)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

// A watch has a line when it begins, and one that tells why it has ended.
func TestWatchesAreLogged(t *testing.T) {
	for want, watch := range map[string]func(t *testing.T, server *apitest.Server, path string){
		"timeout": func(t *testing.T, server *apitest.Server, path string) {
			checkCode(t, send(t, server.Client, newRequest(t, server, http.MethodGet, path+"&timeoutSeconds=1", nil)), 200, "")
		},
		"client gone": func(t *testing.T, server *apitest.Server, path string) {
			begin(t, server, path)()
		},
	} {
		t.Run(want, func(t *testing.T) {
			server := startServer(t, apitest.Config{})
			id := "watch-" + strings.ReplaceAll(want, " ", "-")
			watch(t, server, endpointsPath("default", "")+"?watch=true&auditID="+id)
			var lines []line
			eventually(t, "the end of the watch", func() bool {
				lines = linesOf(t, `"verb":"watch"`)
				lines = lines[max(0, len(lines)-2):]
				return len(lines) == 2 && lines[1].Ended == want
			})
			if lines[0].Message != "watch begins" || lines[1].Message != "request" || lines[1].Code != 200 {
				t.Errorf("logged %+v", lines)
			}
		})
	}
}

// begin begins a watch, and returns what ends it.
func begin(t *testing.T, server *apitest.Server, path string) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	client := newClient(t, server, true)
	resp, err := client.Do(newRequest(t, server, http.MethodGet, path, nil).WithContext(ctx)) //nolint:bodyclose // what is returned closes it
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		cancel()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		resp.Body.Close()
	}
}
