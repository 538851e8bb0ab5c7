package api

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/test/apitest"
	"github.com/berth-project/berth/test/harness"
)

// BenchmarkAudit creates objects with and without an audit log. cpu-ns/op is the processor's
// time, of client and etcd, too: what takes long otherwise is the disk.
func BenchmarkAudit(b *testing.B) {
	for _, preset := range append([]string{"none"}, audit.Presets...) {
		b.Run("policy="+preset, func(b *testing.B) {
			var policy *audit.Policy
			if preset != "none" {
				var err error
				if policy, err = audit.Preset(preset); err != nil {
					b.Fatal(err)
				}
			}
			server, _, _ := startAudited(b, policy)
			client, ns := newClient(b, server, true), newNamespace(b, server)
			before := cpuTime(b)
			for i := 0; b.Loop(); i++ {
				a := send(b, client, newRequest(b, server, http.MethodPost, endpointsPath(ns, ""), addressed("e-"+strconv.Itoa(i), 1)))
				checkCode(b, a, http.StatusCreated, "")
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// startAudited starts a server with an audit log, of which it returns the path, or with none for nil.
func startAudited(tb testing.TB, policy *audit.Policy) (server *apitest.Server, log *audit.Log, path string) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "audit.log")
	var err error
	if policy != nil {
		if log, err = audit.Open(audit.Config{Policy: policy, Path: path, Metrics: prometheus.NewRegistry()}); err != nil {
			tb.Fatal(err)
		}
	}
	if server, err = apitest.Start(apitest.Config{Audit: log}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := errors.Join(server.Close(), log.Close(context.Background())); err != nil {
			tb.Error(err)
		}
	})
	return server, log, path
}

func cpuTime(tb testing.TB) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestAuditHasNoTokens sends tokens in all ways that there are, and looks for them in a log that has
// everything else.
func TestAuditHasNoTokens(t *testing.T) {
	policy, err := audit.ParsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]"))
	if err != nil {
		t.Fatal(err)
	}
	server, log, path := startAudited(t, policy)
	const reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
	review := `{"metadata":{"annotations":{"a":"` + apitest.Token + `"}},"spec":{"token":"` + apitest.Token + `"}}`
	for _, one := range []struct {
		method, path, body string
		headers            []string
		code               int
	}{
		{"GET", endpointsPath("default", ""), "", []string{"X-Auth-Token", apitest.Token}, 200},
		{"GET", endpointsPath("default", ""), "", []string{"X-Auth-Token", "", "Authorization", "Bearer " + apitest.Token}, 200},
		{"GET", endpointsPath("default", ""), "", []string{"X-Auth-Token", "wrong-" + apitest.Token}, 401},
		{"POST", reviews, review, nil, 201},
		{"POST", reviews, review[:len(review)-2], nil, 400},
		{"POST", reviews, `{"spec":{"token":["` + apitest.Token + `"]}}`, nil, 400},
		{"POST", reviews, "spec:\n  token: " + apitest.Token, []string{"Content-Type", "application/yaml", "Accept", "application/yaml"}, 201},
		{"POST", reviews + "?fieldValidation=Strict", `{"spec":{"token":"` + apitest.Token + `","` + apitest.Token + `":1}}`, nil, 400},
		{"PUT", reviews + "/a", review, nil, 404},
		{"POST", endpointsPath("default", ""), `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"` + apitest.Token + `"}}`, nil, 400},
	} {
		a := send(t, server.Client, newRequest(t, server, one.method, one.path, []byte(one.body), one.headers...))
		if a.code != one.code {
			t.Errorf("%s %s %s: %d %s", one.method, one.path, one.body, a.code, a.body)
		}
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := harness.ReadFile(t, path)
	if n := strings.Count(lines, "\n"); n != 19 || strings.Contains(lines, apitest.Token) || !strings.Contains(lines, `"kind":"TokenReview"`) {
		t.Errorf("%d lines:\n%s", n, lines)
	}
}
