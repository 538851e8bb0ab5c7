package test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/berth-project/berth/test/harness"
)

// TestPrometheusExample scrapes the server as examples/prometheus.yml says.
func TestPrometheusExample(t *testing.T) {
	server := harness.Start(t)
	var config struct {
		ScrapeConfigs []struct {
			JobName       string `json:"job_name"`
			Scheme        string `json:"scheme"`
			Authorization struct {
				CredentialsFile string `json:"credentials_file"`
			} `json:"authorization"`
			TLSConfig struct {
				CAFile string `json:"ca_file"`
			} `json:"tls_config"`
			StaticConfigs []struct {
				Targets []string `json:"targets"`
			} `json:"static_configs"`
			FileSDConfigs []struct {
				Files []string `json:"files"`
			} `json:"file_sd_configs"`
		} `json:"scrape_configs"`
	}
	text := harness.ReadFile(t, filepath.Join(harness.Root(), "examples", "prometheus.yml"))
	if err := yaml.UnmarshalStrict([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	job := config.ScrapeConfigs[0]
	if target := job.StaticConfigs[0].Targets[0]; job.Scheme+"://"+target != defaultURL {
		t.Fatalf("the target is %s://%s, want %s", job.Scheme, target, defaultURL)
	}
	// As Prometheus does it: paths are relative to the file, and a token has no spaces around it.
	examples := filepath.Join(server.Dir, "examples")
	client, err := harness.NewClient(filepath.Join(examples, job.TLSConfig.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(harness.ReadFile(t, filepath.Join(examples, job.Authorization.CredentialsFile)))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/metrics", nil)
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
		t.Errorf("status %s, want 200", resp.Status)
	}
}
