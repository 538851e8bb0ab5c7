package monitoring

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	httpsd "github.com/prometheus/prometheus/discovery/http"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"
)

// TestDiscovery has Prometheus discover its targets as examples/prometheus.yml says, and follow
// their changes.
func TestDiscovery(t *testing.T) {
	server := start(t)
	write(t, filepath.Join(server.dir, "berth.data", "token"), adminToken)
	const path = "/api/v1/namespaces/default/endpoints"
	server.put(t, path+"/web", `{"metadata":{"name":"web","labels":{"app.kubernetes.io/name":"web"}},"subsets":[{
		"addresses":[{"ip":"10.20.0.11","hostname":"vm-1"},{"ip":"2001:db8::1"}],"notReadyAddresses":[{"ip":"10.20.0.12"}],
		"ports":[{"name":"metrics","port":9100},{"name":"http","port":80}]}]}`)
	config := exampleConfig(t)
	found := newDiscovery(t, server, config)
	want := []string{
		`{__address__="10.20.0.11:9100", endpoints="web", hostname="vm-1", namespace="default"}`,
		`{__address__="[2001:db8::1]:9100", endpoints="web", namespace="default"}`,
	}
	if diff := cmp.Diff(want, targets(t, found, config.RelabelConfigs)); diff != "" {
		t.Errorf("targets (-want +got)\n%s", diff)
	}
	server.put(t, path+"/web", `{"metadata":{"name":"web"},"subsets":[{"addresses":[{"ip":"10.20.0.13"}],"ports":[{"name":"metrics","port":9100}]}]}`)
	if got := targets(t, found, config.RelabelConfigs); !slices.Equal(got, []string{`{__address__="10.20.0.13:9100", endpoints="web", namespace="default"}`}) {
		t.Errorf("after a change: %q", got)
	}
	server.put(t, path+"/web", `{"metadata":{"name":"web"}}`)
	if got := targets(t, found, config.RelabelConfigs); len(got) > 0 {
		t.Errorf("without addresses: %q", got)
	}
}

// scrapeConfig is what discovery needs of a job.
type scrapeConfig struct {
	HTTPSDConfigs  []*httpsd.SDConfig `yaml:"http_sd_configs"`
	RelabelConfigs []*relabel.Config  `yaml:"relabel_configs"`
}

// exampleConfig is the job of the example that discovers its targets.
func exampleConfig(t *testing.T) *scrapeConfig {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "examples", "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		ScrapeConfigs []*scrapeConfig `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, job := range file.ScrapeConfigs {
		if len(job.HTTPSDConfigs) == 1 {
			for _, rule := range job.RelabelConfigs {
				rule.NameValidationScheme = model.LegacyValidation
			}
			return job
		}
	}
	t.Fatal("no job has http_sd_configs")
	return nil
}

// newDiscovery is Prometheus' discovery of the job, with the server in the place of the example's.
func newDiscovery(t *testing.T, server *server, job *scrapeConfig) *httpsd.Discovery {
	t.Helper()
	config := job.HTTPSDConfigs[0]
	path, ok := strings.CutPrefix(config.URL, "https://127.0.0.1:6443")
	if !ok {
		t.Fatalf("the example's server is %s", config.URL)
	}
	config.URL = server.url + path
	config.SetDirectory(filepath.Join(server.dir, "examples"))
	registry := prometheus.NewRegistry()
	metrics := config.NewDiscovererMetrics(registry, discovery.NewRefreshMetrics(registry))
	found, err := httpsd.NewDiscovery(config, discovery.DiscovererOptions{Metrics: metrics, SetName: "endpoints"})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// targets are those that Prometheus would scrape, by the labels that relabelling leaves them.
func targets(t *testing.T, found *httpsd.Discovery, rules []*relabel.Config) []string {
	t.Helper()
	groups, err := found.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, group := range groups {
		for _, target := range group.Targets {
			if result, keep := relabelled(group, target, rules); keep {
				all = append(all, result)
			}
		}
	}
	slices.Sort(all)
	return all
}

func relabelled(group *targetgroup.Group, target model.LabelSet, rules []*relabel.Config) (string, bool) {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, set := range []model.LabelSet{group.Labels, target} {
		for name, value := range set {
			b.Set(string(name), string(value))
		}
	}
	if !relabel.ProcessBuilder(b, rules...) {
		return "", false
	}
	b.Range(func(l labels.Label) {
		if strings.HasPrefix(l.Name, model.MetaLabelPrefix) {
			b.Del(l.Name)
		}
	})
	return b.Labels().String(), true
}

// put writes an object.
func (s *server) put(t *testing.T, path, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s: %s %s (%v)", path, resp.Status, answer, err)
	}
}
