package deploy

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics, each with the label by which it is counted.
var (
	transactions = regexp.MustCompile(`(?m)^berth_ratelimit_transactions_total\{outcome="(\w+)"\} (\d+)$`)
	etcdCalls    = regexp.MustCompile(`(?m)^etcd_requests_total\{.*operation="(\w+)".*\} (\d+)$`)
)

// counts are numbers by the value of a label.
type counts map[string]int

func (c counts) add(other counts, sign int) {
	for label, n := range other {
		c[label] += sign * n
	}
}

func (c counts) sum() (n int) {
	for _, count := range c {
		n += count
	}
	return n
}

// countsAt returns what a server has counted since it started.
func countsAt(t *testing.T, c *client, metric *regexp.Regexp) counts {
	t.Helper()
	resp := c.send(t, http.MethodGet, "/metrics", "")
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := metric.FindAllStringSubmatch(string(text), -1)
	if len(found) == 0 {
		t.Fatalf("%s: no %v: %.300s", resp.Status, metric, text)
	}
	all := counts{}
	for _, match := range found {
		n, err := strconv.Atoi(match[2])
		if err != nil {
			t.Fatal(err)
		}
		all[match[1]] += n
	}
	return all
}

// readsOfEtcd returns how many reads the etcd of this process was asked for, by all servers.
func readsOfEtcd(t *testing.T) int {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "grpc_server_started_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "grpc_method" && label.GetValue() == "Range" {
					return int(metric.GetCounter().GetValue())
				}
			}
		}
	}
	t.Fatal("etcd does not count what it is asked for")
	return 0
}
