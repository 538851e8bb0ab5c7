package api

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/test/apitest"
)

// scrape returns the server's metrics: the value of each series.
func scrape(t testing.TB, server *apitest.Server) map[string]float64 {
	t.Helper()
	a := send(t, server.Client, newRequest(t, server, http.MethodGet, "/metrics", nil))
	checkCode(t, a, 200, "")
	series := map[string]float64{}
	for line := range strings.Lines(string(a.body)) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		series[line[:at]] = value
	}
	return series
}

func TestHealthAndVersionNeedNoToken(t *testing.T) {
	eachProtocol(t, shared, func(t *testing.T, client *http.Client) {
		for path, want := range map[string]string{
			"/livez": "ok", "/readyz": "ok", "/healthz": "ok", "/livez/ping": "ok", "/readyz/etcd": "ok",
			"/readyz?verbose":      "[+]ping ok\n[+]etcd ok\n[+]shutdown ok\nreadyz check passed\n",
			"/healthz?verbose":     "[+]ping ok\n[+]etcd ok\nhealthz check passed\n",
			"/livez?verbose=true":  "[+]ping ok\nlivez check passed\n",
			"/readyz/ping?verbose": "[+]ping ok\nreadyz check passed\n",
		} {
			a := send(t, client, newRequest(t, shared, http.MethodGet, path, nil, "X-Auth-Token", noToken))
			if a.code != 200 || string(a.body) != want || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s: %d %q %s", path, a.code, a.body, a.header.Get("Content-Type"))
			}
			if a := send(t, client, newRequest(t, shared, http.MethodHead, path, nil, "X-Auth-Token", noToken)); a.code != 200 || len(a.body) > 0 {
				t.Errorf("HEAD %s: %d %q", path, a.code, a.body)
			}
		}
		checkCode(t, send(t, client, newRequest(t, shared, http.MethodGet, "/readyz", nil, "X-Auth-Token", unknownToken)), 401, "Unauthorized")
		a := send(t, client, newRequest(t, shared, http.MethodGet, "/version", nil, "X-Auth-Token", noToken))
		checkCode(t, a, 200, `"gitVersion": "v1.37.2"`)
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("/version is %s", got)
		}
		for _, path := range []string{"/metrics", "/nothing", "/"} {
			checkCode(t, send(t, client, newRequest(t, shared, http.MethodGet, path, nil, "X-Auth-Token", noToken)), 401, "Unauthorized")
		}
		checkCode(t, send(t, client, newRequest(t, shared, http.MethodGet, "/nothing", nil)), 404, "404 page not found")
		checkCode(t, send(t, client, newRequest(t, shared, http.MethodPost, "/livez", nil, "X-Auth-Token", noToken)), 401, "")
	})
}

func contentType(method string) string {
	if method == http.MethodPatch {
		return "application/apply-patch+yaml"
	}
	return "application/json"
}

func TestMetrics(t *testing.T) {
	server := startServer(t, apitest.Config{
		Tokens: tokens(), Authorizer: denier{},
		RateLimits: &ratelimit.Config{
			Anonymous: &ratelimit.Limit{QPS: 0.001, Burst: 1},
			Overrides: []ratelimit.Override{{Users: []string{"spent"}, Read: &ratelimit.Limit{QPS: 0.001, Burst: 1}}},
		},
	})
	ns := newNamespace(t, server)
	before := scrape(t, server)
	collection := endpointsPath(ns, "")
	for _, r := range []struct {
		method, path, token string
		body                []byte
		code                int
	}{
		{http.MethodPost, collection, apitest.Token, body("a"), 201},
		{http.MethodPost, collection, apitest.Token, body("b"), 201},
		{http.MethodPost, collection, apitest.Token, body("b"), 409},
		{http.MethodPost, collection + "?dryRun=All", apitest.Token, body("c"), 201},
		{http.MethodPost, collection + "?dryRun=Some", apitest.Token, body("c"), 422},
		{http.MethodGet, collection + "/a", apitest.Token, nil, 200},
		{http.MethodGet, collection + "/c", apitest.Token, nil, 404},
		{http.MethodGet, collection, apitest.Token, nil, 200},
		{http.MethodDelete, collection + "/a", apitest.Token, nil, 200},
		{http.MethodGet, collection, deniedToken, nil, 403},
		{http.MethodGet, collection, spentToken, nil, 200},
		{http.MethodGet, collection, spentToken, nil, 429},
		{http.MethodGet, collection, unknownToken, nil, 401},
		{http.MethodGet, collection, unknownToken, nil, 429},
		{http.MethodPatch, collection + "/b?fieldManager=test&force=true", apitest.Token, []byte(`{"apiVersion":"v1","kind":"Endpoints"}`), 200},
		{http.MethodDelete, collection, apitest.Token, nil, 200},
		{http.MethodGet, "/readyz", noToken, nil, 200},
	} {
		if a := send(t, server.Client, newRequest(t, server, r.method, r.path, r.body, "X-Auth-Token", r.token, "Content-Type", contentType(r.method))); a.code != r.code {
			t.Fatalf("%s %s: %d %s", r.method, r.path, a.code, a.body)
		}
	}
	after := scrape(t, server)
	labels := func(verb, scope, more string) string {
		return fmt.Sprintf(`{%sgroup="",resource="endpoints",scope="%s",subresource="",verb="%s",version="v1"}`, more, scope, verb)
	}
	requests := func(verb, dryRun, scope string, code int) string {
		return "apiserver_request_total" + labels(verb, scope, fmt.Sprintf(`code="%d",component="apiserver",dry_run="%s",`, code, dryRun))
	}
	latency := func(verb, dryRun, scope string) string {
		return "apiserver_request_duration_seconds_count" + labels(verb, scope, fmt.Sprintf(`component="apiserver",dry_run="%s",`, dryRun))
	}
	sli := func(verb, scope string) string {
		return "apiserver_request_sli_duration_seconds_count" + labels(verb, scope, `component="apiserver",`)
	}
	for series, want := range map[string]float64{
		requests("POST", "", "resource", 201):        2,
		requests("POST", "", "resource", 409):        1,
		requests("POST", "All", "resource", 201):     1,
		requests("POST", "invalid", "resource", 422): 1,
		requests("GET", "", "resource", 200):         1,
		requests("GET", "", "resource", 404):         1,
		requests("LIST", "", "namespace", 200):       2,
		requests("LIST", "", "namespace", 403):       0, // it has not reached the resource
		requests("LIST", "", "namespace", 429):       1,
		requests("DELETE", "", "resource", 200):      1,
		requests("DELETE", "", "namespace", 200):     1,
		requests("APPLY", "", "resource", 200):       1,
		latency("POST", "", "resource"):              3,
		latency("GET", "", "resource"):               2,
		latency("LIST", "", "namespace"):             2, // not what was rejected
		sli("POST", "resource"):                      3, // no dry runs
		sli("LIST", "namespace"):                     2,
		sli("LIST", "cluster"):                       0,
		`apiserver_request_terminations_total` + labels("LIST", "namespace", `code="429",component="apiserver",`):                               1,
		`apiserver_response_sizes_count` + labels("GET", "resource", `component="apiserver",`):                                                  2,
		`apiserver_request_body_size_bytes_count{group="",resource="endpoints",verb="create"}`:                                                  5,
		`apiserver_request_body_size_bytes_count{group="",resource="endpoints",verb="patch"}`:                                                   1,
		`apiserver_request_body_size_bytes_count{group="",resource="endpoints",verb="delete"}`:                                                  1,
		`apiserver_request_body_size_bytes_count{group="",resource="endpoints",verb="delete_collection"}`:                                       1,
		`apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/readyz",verb="GET",version=""}`: 1,
		`berth_rejected_requests_total{limit="anonymous-rate",resource="endpoints",share="address"}`:                                            1,
		`berth_rejected_requests_total{limit="read-rate",resource="endpoints",share="user"}`:                                                    1,
		`authentication_attempts{result="error"}`:                                                                                               2,
		`authentication_attempts{result="failure"}`:                                                                                             0,
		`authorization_attempts_total{result="no-opinion"}`:                                                                                     1,
		`etcd_request_duration_seconds_count{group="",operation="create",resource="endpoints"}`:                                                 4,
		`etcd_request_duration_seconds_count{group="",operation="delete",resource="endpoints"}`:                                                 2,
		`etcd_requests_total{group="",operation="create",resource="endpoints"}`:                                                                 4,
		`etcd_request_duration_seconds_bucket{group="",operation="create",resource="endpoints",le="+Inf"}`:                                      4,
	} {
		if got := after[series] - before[series]; got != want {
			t.Errorf("%s grew by %v, want %v", series, got, want)
		}
	}
	for series, want := range map[string]float64{
		requests("PUT", "", "resource", 503):                                         0, // there before the first
		requests("LIST", "", "cluster", 500):                                         0,
		`apiserver_current_inflight_requests{request_kind="mutating"}`:               1,
		`apiserver_resource_objects{group="",resource="endpoints"}`:                  0,
		`apiserver_storage_objects{resource="endpoints"}`:                            -1,
		`apiserver_client_certificate_expiration_seconds_count`:                      0,
		`apiserver_tls_handshake_errors_total`:                                       0,
		`apiserver_terminated_watchers_total{group="",resource="endpoints"}`:         0,
		`apiserver_watch_cache_initializations_total{group="",resource="endpoints"}`: 1,
	} {
		if got, ok := after[series]; got != max(want, 0) || ok != (want >= 0) {
			t.Errorf("%s is %v (%v), want %v", series, got, ok, want)
		}
	}
}

// Methods, paths and names that clients make up make no metrics of their own.
func TestMadeUpRequestsMakeNoMetrics(t *testing.T) {
	server := startServer(t, apitest.Config{})
	ns := newNamespace(t, server)
	request := func(i int) {
		for _, path := range []string{
			endpointsPath(ns, ""), endpointsPath(ns, fmt.Sprintf("name-%d", i)), endpointsPath(fmt.Sprintf("ns-%d", i), ""),
			fmt.Sprintf("/made/up/%d", i), fmt.Sprintf("/api/v1/made-up-%d", i), "/livez",
		} {
			for _, method := range []string{fmt.Sprintf("MADEUP%d", i), http.MethodGet} {
				send(t, server.Client, newRequest(t, server, method, path, nil))
			}
		}
	}
	scrape(t, server)
	request(0)
	before := scrape(t, server)
	for i := range 10 {
		request(i + 1)
	}
	after := scrape(t, server)
	if len(after) != len(before) {
		known := slices.Collect(maps.Keys(before))
		for series := range after {
			if !slices.Contains(known, series) {
				t.Errorf("new: %s", series)
			}
		}
	}
}

func TestAuditID(t *testing.T) {
	get := func(id string) string {
		t.Helper()
		return send(t, shared.Client, newRequest(t, shared, http.MethodGet, endpointsPath("default", ""), nil, "Audit-Id", id)).header.Get("Audit-Id")
	}
	for _, id := range []string{"mine-1", "a.b_c~d:e/f+g=@", "two words", `quoted"`, "<b>", strings.Repeat("x", 256)} {
		if got := get(id); got != id {
			t.Errorf("%q became %q", id, got)
		}
	}
	for _, id := range []string{strings.Repeat("x", 257), "é", "a\tb"} {
		if _, err := uuid.Parse(get(id)); err != nil {
			t.Errorf("%q was taken", id)
		}
	}
	first, second := get(""), get("")
	for _, id := range []string{first, second} {
		if _, err := uuid.Parse(id); err != nil || first == second {
			t.Errorf("made up %q and %q", first, second)
		}
	}
	if lines := logs.lines(first); len(lines) != 1 || !strings.Contains(lines[0], `"auditID":"`+first+`"`) || !strings.Contains(lines[0], `"user":"admin","verb":"list","path":"/api/v1/namespaces/default/endpoints","code":200`) {
		t.Errorf("logged %q", lines)
	}
}

// A body is never logged, whatever becomes of it; main_test.go looks for the secret.
func TestBodiesAreNotLogged(t *testing.T) {
	ns := newNamespace(t, shared)
	for _, text := range []string{
		`{"metadata":{"name":"a","annotations":{"a":"` + secret + `"}}}`,
		`{"metadata":{"name":"` + strings.ToUpper(secret) + `","annotations":{"a":"` + secret + `"}}}`,
		secret, `{"` + secret + `":1,"metadata":{"name":"b"}}`,
	} {
		for _, query := range []string{"", "?fieldValidation=Strict", "?fieldManager=" + secret, "?dryRun=" + secret} {
			if a := send(t, shared.Client, newRequest(t, shared, http.MethodPost, endpointsPath(ns, "")+query, []byte(text))); a.code >= 500 {
				t.Errorf("%d %s", a.code, a.body)
			}
		}
	}
}
