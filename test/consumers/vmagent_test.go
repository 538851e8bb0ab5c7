package consumers

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-project/berth/test/harness"
)

// vmagentConfig has a job for each role. vmagent remembers targets that it drops for minutes, so here
// they stay, but at an address where nothing listens, to be scraped tomorrow.
const vmagentConfig = `
global: {scrape_interval: 24h}
scrape_configs:
`

const vmagentJob = `
- job_name: ROLE
  kubernetes_sd_configs:
  - role: ROLE
    api_server: SERVER
    bearer_token_file: TOKEN
    tls_config: {ca_file: CA}
  relabel_configs:
  - {target_label: found, source_labels: [__address__, __meta_kubernetes_NAME, __meta_kubernetes_PORT, __meta_kubernetes_READY]}
  - {target_label: __address__, replacement: "127.0.0.1:9"}
`

// vmagentBinary returns Debian's vmagent and its version, or skips the test. What is downloaded
// stays below bin for the next run.
func vmagentBinary(t *testing.T) (path, version string) {
	t.Helper()
	if !*programs {
		t.Skip("vmagent is downloaded: run `make consumers`, or go test with -args -programs")
	}
	dir := filepath.Join(harness.Root(), "bin", "consumers")
	packages := func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "victoria-metrics_*.deb"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if len(packages()) == 0 {
		ctx, cancel := context.WithTimeout(t.Context(), programTimeout)
		defer cancel()
		download := exec.CommandContext(ctx, "apt-get", "download", "-q", "victoria-metrics")
		download.Dir = dir
		if out, err := download.CombinedOutput(); err != nil {
			t.Skipf("no vmagent: the Debian package victoria-metrics cannot be downloaded: %v\n%s", err, out)
		}
	}
	deb := packages()[0]
	unpacked := strings.TrimSuffix(deb, ".deb")
	path = filepath.Join(unpacked, "usr", "bin", "vmagent")
	if _, err := os.Stat(path); err != nil {
		if out, err := exec.Command("dpkg-deb", "--extract", deb, unpacked).CombinedOutput(); err != nil {
			t.Skipf("no vmagent: %v\n%s", err, out)
		}
	}
	_, version, _ = strings.Cut(filepath.Base(unpacked), "_")
	version, _, _ = strings.Cut(version, "+")
	return path, "v" + version
}

// vmagent is a running vmagent.
type vmagent struct {
	url    string
	client *http.Client
}

func startVmagent(t *testing.T, s *server, binary string) *vmagent {
	t.Helper()
	dir := t.TempDir()
	config := vmagentConfig
	for role, labels := range roleLabels {
		config += strings.NewReplacer("ROLE", role, "SERVER", s.URL, "TOKEN", s.tokenFile(), "CA", s.caFile(),
			"NAME", labels.name, "PORT", labels.port, "READY", labels.ready).Replace(vmagentJob)
	}
	file := filepath.Join(dir, "vm.yml")
	harness.WriteFile(t, file, config)
	address := freeAddress(t)
	start(t, binary, "-promscrape.config="+file, "-httpListenAddr="+address, "-promscrape.kubernetesSDCheckInterval=100ms",
		"-remoteWrite.url=http://127.0.0.1:9/", "-remoteWrite.tmpDataPath="+filepath.Join(dir, "data"))
	return &vmagent{url: "http://" + address, client: httpClient(t)}
}

// found has the targets by role.
func (v *vmagent) found(ctx context.Context) (map[string][]string, error) {
	body, err := get(ctx, v.client, v.url+"/api/v1/targets?state=active")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			ActiveTargets []struct {
				DiscoveredLabels map[string]string
				ScrapePool       string
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, target := range answer.Data.ActiveTargets {
		found[target.ScrapePool] = append(found[target.ScrapePool], discovered(target.ScrapePool, target.DiscoveredLabels))
	}
	return found, nil
}

// TestVmagent has vmagent discover what is registered by the three roles: each write within
// seconds, all of a thousand changes, and on both sides of a crash.
func TestVmagent(t *testing.T) {
	path, version := vmagentBinary(t)
	s := startServer(t)
	f := newFleet(s.client(t))
	f.registerFirst(t)
	v := startVmagent(t, s, path)
	f.expectFound(t, "at the start", v.found)

	var seen []time.Duration
	for i := range samples {
		begin := time.Now()
		f.setTimed(t, i)
		f.expectFound(t, "a write", v.found)
		took := time.Since(begin)
		if took > soon {
			t.Errorf("write %d was seen after %v", i, took)
		}
		seen = append(seen, took)
	}
	f.churn(t, 500)
	f.expectFound(t, "after 500 changes", v.found)
	s.crash(t)
	f.churn(t, 500)
	f.expectFound(t, "after a crash and 500 more", v.found)
	const what = "roles endpoints, endpointslice, service: "
	proven.add("vmagent", version, what+"shown as a target", seen)
	proven.add("vmagent", version, what+"exact after 1,000 changes and a crash", nil)
}
