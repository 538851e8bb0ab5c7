package consumers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestScraping has Prometheus scrape the server, and what is registered, as deploy/prometheus has it.
func TestScraping(t *testing.T) {
	number := int32(startBackends(t))
	program, s, dir, listen := prometheusProgram.build(t), startServer(t), t.TempDir(), freeAddress(t)
	metrics := port{"metrics", number}
	config := filepath.Join(dir, "prometheus.yml")
	substitute(t, "prometheus/prometheus.yml", config,
		"scrape_configs:", "global: {scrape_interval: 1s}\nscrape_configs:",
		"apiserver:6443", strings.TrimPrefix(s.URL, "https://"),
		"/access/", grantAccess(t, s)+"/")
	start(t, program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen)
	c := s.client(t)
	must[*corev1.Service](t, "create")(c.CoreV1().Services("default").Create(t.Context(), newService("web", metrics), metav1.CreateOptions{}))
	endpoints := newEndpoints("web", backendAddresses, metrics)
	endpoints.Subsets[0].Addresses[0].Hostname = "vm-1"
	// A port of another name is no target.
	endpoints.Subsets[0].Ports = append(endpoints.Subsets[0].Ports, corev1.EndpointPort{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP})
	must[*corev1.Endpoints](t, "create")(c.CoreV1().Endpoints("default").Create(t.Context(), endpoints, metav1.CreateOptions{}))
	target := func(ip, more string) string {
		return fmt.Sprintf("{%sinstance=%q, job=\"services\", namespace=\"default\", service=\"web\"} 1", more, fmt.Sprint(ip, ":", number))
	}
	self := fmt.Sprintf("{instance=%q, job=\"kube-apiserver\"} 1", strings.TrimPrefix(s.URL, "https://"))
	awaitUp(t, listen, self, target(backendAddresses[0], `hostname="vm-1", `), target(backendAddresses[1], ""))

	endpoints.Subsets[0].NotReadyAddresses, endpoints.Subsets[0].Addresses = endpoints.Subsets[0].Addresses[:1], endpoints.Subsets[0].Addresses[1:]
	must[*corev1.Endpoints](t, "update")(c.CoreV1().Endpoints("default").Update(t.Context(), endpoints, metav1.UpdateOptions{}))
	awaitUp(t, listen, self, target(backendAddresses[1], ""))
	proven.add("Prometheus", prometheusProgram.version, "scrapes what is registered, as deploy/prometheus has it", nil)
}

// awaitUp waits until Prometheus has exactly these series of the metric up.
func awaitUp(t *testing.T, address string, want ...string) {
	t.Helper()
	slices.Sort(want)
	client := httpClient(t)
	eventually(t, "up", func(ctx context.Context) error {
		answer, err := get(ctx, client, "http://"+address+"/api/v1/query?query="+url.QueryEscape("up"))
		if err != nil {
			return err
		}
		var result struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Value  [2]any
				}
			}
		}
		if err := json.Unmarshal(answer, &result); err != nil {
			return err
		}
		got := []string{}
		for _, series := range result.Data.Result {
			labels := []string{}
			for name, value := range series.Metric {
				if name != "__name__" {
					labels = append(labels, fmt.Sprintf("%s=%q", name, value))
				}
			}
			slices.Sort(labels)
			got = append(got, fmt.Sprintf("{%s} %s", strings.Join(labels, ", "), series.Value[1]))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got)\n%s", diff)
		}
		return nil
	})
}
