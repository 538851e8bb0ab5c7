package consumers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

var prometheusProgram = program{
	name: "prometheus", module: "github.com/prometheus/prometheus", version: "v0.316.0",
	main: "github.com/prometheus/prometheus/cmd/prometheus", tags: "remove_all_sd,enable_kubernetes_sd,enable_dns_sd",
}

// samples is how many writes are timed.
const samples = 50

// soon is how long a program may take to be told of a write.
const soon = 5 * time.Second

// prometheusConfig has a job for each role. Nothing is scraped: the addresses are other machines'.
const prometheusConfig = `
global: {scrape_interval: 10m}
scrape_configs:
- job_name: endpoints
  kubernetes_sd_configs: [{role: endpoints, kubeconfig_file: KUBECONFIG}]
  relabel_configs: [{action: drop, source_labels: [__address__], regex: '.*'}]
- job_name: endpointslice
  kubernetes_sd_configs: [{role: endpointslice, kubeconfig_file: KUBECONFIG}]
  relabel_configs: [{action: drop, source_labels: [__address__], regex: '.*'}]
- job_name: service
  kubernetes_sd_configs: [{role: service, kubeconfig_file: KUBECONFIG}]
  relabel_configs: [{action: drop, source_labels: [__address__], regex: '.*'}]
`

// prometheus is a running Prometheus.
type prometheus struct {
	url    string
	client *http.Client
}

// startPrometheus starts Prometheus for the server. It looks for new targets every 100 ms rather
// than every five seconds, so that what is timed is not that.
func startPrometheus(t *testing.T, s *server) *prometheus {
	t.Helper()
	binary := prometheusProgram.build(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	harness.WriteFile(t, config, strings.ReplaceAll(prometheusConfig, "KUBECONFIG", s.kubeconfig()))
	out, _ := start(t, binary, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0", "--scrape.discovery-reload-interval=100ms")
	address := out.Await(t, `msg="Listening on" component=web address=(\S+)`, nil)
	return &prometheus{url: "http://" + address, client: httpClient(t)}
}

// get returns the answer to a GET.
func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", url, resp.Status, body)
	}
	return body, err
}

// found has the targets by role: they are dropped, but known.
func (p *prometheus) found(ctx context.Context) (map[string][]string, error) {
	body, err := get(ctx, p.client, p.url+"/api/v1/targets?state=dropped")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			DroppedTargets []struct {
				DiscoveredLabels map[string]string
				ScrapePool       string
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, target := range answer.Data.DroppedTargets {
		found[target.ScrapePool] = append(found[target.ScrapePool], discovered(target.ScrapePool, target.DiscoveredLabels))
	}
	return found, nil
}

var heardMetric = regexp.MustCompile(`(?m)^prometheus_sd_kubernetes_events_total\{event="[a-z]+",role="([a-z]+)"\} (\S+)$`)

// heard counts the events that Prometheus was told of, by role.
func (p *prometheus) heard(ctx context.Context) (map[string]int, error) {
	body, err := get(ctx, p.client, p.url+"/metrics")
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, match := range heardMetric.FindAllStringSubmatch(string(body), -1) {
		n, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			return nil, err
		}
		count[match[1]] += int(n)
	}
	return count, nil
}

// TestPrometheus has Prometheus discover what is registered by the three roles: each write within
// seconds, all of a thousand changes, and on both sides of a crash.
func TestPrometheus(t *testing.T) {
	prometheusProgram.build(t) // or skip
	s := startServer(t)
	f := newFleet(s.client(t))
	f.registerFirst(t)
	p := startPrometheus(t, s)
	f.expectFound(t, "at the start", p.found)

	heard, shown := p.time(t, f)
	f.churn(t, 500)
	f.expectFound(t, "after 500 changes", p.found)
	s.crash(t)
	f.churn(t, 500)
	f.expectFound(t, "after a crash and 500 more", p.found)
	const what = "roles endpoints, endpointslice, service: "
	proven.add("Prometheus", prometheusProgram.version, what+"told of a write", heard)
	proven.add("Prometheus", prometheusProgram.version, what+"shown as a target, at its own pace", shown)
	proven.add("Prometheus", prometheusProgram.version, what+"exact after 1,000 changes and a crash", nil)
}

// time measures how long it takes from a write until Prometheus is told of it, and until it shows
// it: it takes over targets at intervals that grow to five seconds while there are changes.
func (p *prometheus) time(t *testing.T, f *fleet) (heard, shown []time.Duration) {
	t.Helper()
	for i := range samples {
		before, err := p.heard(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		f.setTimed(t, i)
		eventually(t, "an event", func(ctx context.Context) error {
			now, err := p.heard(ctx)
			for _, role := range []string{"endpoints", "endpointslice"} {
				if err == nil && now[role] <= before[role] {
					err = fmt.Errorf("no event for the role %s", role)
				}
			}
			return err
		})
		took := time.Since(begin)
		if took > soon {
			t.Errorf("write %d was heard of after %v", i, took)
		}
		heard = append(heard, took)
		f.expectFound(t, "a write", p.found)
		shown = append(shown, time.Since(begin))
	}
	return heard, shown
}
