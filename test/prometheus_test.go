package test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/berth-project/berth/test/harness"
)

// prometheusClient is how Prometheus reaches a server.
type prometheusClient struct {
	Authorization struct {
		CredentialsFile string `json:"credentials_file"`
	} `json:"authorization"`
	TLSConfig struct {
		CAFile string `json:"ca_file"`
	} `json:"tls_config"`
}

// TestPrometheusExample asks the server for metrics and targets as examples/prometheus.yml says.
func TestPrometheusExample(t *testing.T) {
	server := harness.Start(t)
	var config struct {
		ScrapeConfigs []struct {
			prometheusClient
			JobName       string `json:"job_name"`
			Scheme        string `json:"scheme"`
			StaticConfigs []struct {
				Targets []string `json:"targets"`
			} `json:"static_configs"`
			HTTPSDConfigs []struct {
				prometheusClient
				URL             string `json:"url"`
				RefreshInterval string `json:"refresh_interval"`
			} `json:"http_sd_configs"`
			RelabelConfigs []struct {
				SourceLabels []string `json:"source_labels"`
				TargetLabel  string   `json:"target_label"`
				Regex        string   `json:"regex"`
				Action       string   `json:"action"`
			} `json:"relabel_configs"`
		} `json:"scrape_configs"`
	}
	text := harness.ReadFile(t, filepath.Join(harness.Root(), "examples", "prometheus.yml"))
	if err := yaml.UnmarshalStrict([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	metrics, discovery := config.ScrapeConfigs[0], config.ScrapeConfigs[1].HTTPSDConfigs[0]
	metrics.prometheusClient.get(t, server, metrics.Scheme+"://"+metrics.StaticConfigs[0].Targets[0]+"/metrics")
	discovery.prometheusClient.get(t, server, discovery.URL)
}

// get asks the server that has the place of the example's. As Prometheus does it, paths are relative
// to the file, and a token has no spaces around it.
func (c *prometheusClient) get(t *testing.T, server *harness.Server, url string) {
	t.Helper()
	path, ok := strings.CutPrefix(url, defaultURL)
	if !ok {
		t.Fatalf("the address is %s, want one of %s", url, defaultURL)
	}
	examples := filepath.Join(server.Dir, "examples")
	client, err := harness.NewClient(filepath.Join(examples, c.TLSConfig.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(harness.ReadFile(t, filepath.Join(examples, c.Authorization.CredentialsFile)))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s: status %s, want 200", path, resp.Status)
	}
}
