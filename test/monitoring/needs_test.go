package monitoring

import (
	"testing"
	"time"
)

// needs are what others evaluate: who, and queries that must have a result. Reads, writes and
// scopes are told apart as they do it.
var needs = []struct{ who, query string }{
	{"kubernetes-mixin, availability", `sum by (code, verb) (increase(apiserver_request_total{job="kube-apiserver",verb=~"LIST|GET",code=~"2.."}[1h]))`},
	{"kubernetes-mixin, availability", `sum by (code, verb) (increase(apiserver_request_total{job="kube-apiserver",verb=~"POST|PUT|PATCH|DELETE",code=~"2.."}[1h]))`},
	{"kubernetes-mixin, requests by resource", `sum by (resource, code) (rate(apiserver_request_total{job="kube-apiserver",verb=~"LIST|GET"}[5m]))`},
	{"kubernetes-mixin, writes in time", `sum(increase(apiserver_request_sli_duration_seconds_bucket{verb=~"POST|PUT|PATCH|DELETE",le=~"1(\\.0)?"}[1h])) > 0`},
	{"kubernetes-mixin, reads in time", `sum(increase(apiserver_request_sli_duration_seconds_bucket{verb=~"LIST|GET",scope=~"resource|",le=~"1(\\.0)?"}[1h])) > 0`},
	{"kubernetes-mixin, lists in time", `sum(increase(apiserver_request_sli_duration_seconds_bucket{verb=~"LIST|GET",scope=~"namespace",le=~"5(\\.0)?"}[1h])) > 0`},
	{"kubernetes-mixin, lists in time", `sum(increase(apiserver_request_sli_duration_seconds_bucket{verb=~"LIST|GET",scope=~"cluster",le=~"30(\\.0)?"}[1h])) > 0`},
	{"kubernetes-mixin, burn rate of reads", `sum by (job) (rate(apiserver_request_total{job="kube-apiserver",verb=~"LIST|GET",code=~"5.."}[5m]))`},
	{"kubernetes-mixin, burn rate of writes", `sum by (job) (rate(apiserver_request_total{job="kube-apiserver",verb=~"POST|PUT|PATCH|DELETE",code=~"5.."}[5m]))`},
	{"kubernetes-mixin, burn rate of writes", `sum by (job) (rate(apiserver_request_sli_duration_seconds_count{job="kube-apiserver",verb=~"POST|PUT|PATCH|DELETE",subresource!~"proxy|attach|log|exec|portforward"}[5m]))`},
	{"kubernetes-mixin, quantiles", `histogram_quantile(0.99, sum by (resource, verb, le) (rate(apiserver_request_sli_duration_seconds_bucket{job="kube-apiserver",verb=~"POST|PUT|PATCH|DELETE"}[5m])))`},
	{"kubernetes-mixin, certificates", `apiserver_client_certificate_expiration_seconds_count{job="kube-apiserver"} == 0`},
	{"kubernetes-mixin, certificates", `apiserver_client_certificate_expiration_seconds_bucket{job="kube-apiserver",le="86400.0"} or apiserver_client_certificate_expiration_seconds_bucket{le="86400"}`},
	{"kubernetes-mixin, terminated requests", `sum by (job) (rate(apiserver_request_terminations_total{job="kube-apiserver"}[10m]))`},
	{"kubernetes-mixin, versions", `count by (git_version) (kubernetes_build_info{git_version=~"v1\\..+"})`},
	{"kubernetes-mixin, dashboard", `process_resident_memory_bytes{job="kube-apiserver"}`},
	{"kubernetes-mixin, dashboard", `rate(process_cpu_seconds_total{job="kube-apiserver"}[5m])`},
	{"kubernetes-mixin, dashboard", `go_goroutines{job="kube-apiserver"}`},
	{"clusterloader2, quantiles", `histogram_quantile(0.99, sum by (resource, subresource, verb, scope, le) (rate(apiserver_request_sli_duration_seconds_bucket[5m]) and on (job) kubernetes_build_info{major="1",minor=~"2[6-9]|[3-9][0-9]"}))`},
	{"clusterloader2, creates within 1 s", `sum(increase(apiserver_request_sli_duration_seconds_count{verb="POST",scope="resource",resource="endpoints"}[1h])) > 0`},
	{"clusterloader2, lists of a namespace", `sum(increase(apiserver_request_sli_duration_seconds_bucket{verb="LIST",scope!="cluster",le=~"5(\\.0)?"}[1h])) > 0`},
	{"clusterloader2, streamed lists", `sum by (group, version, resource, scope) (rate(apiserver_watch_list_duration_seconds_bucket[5m]))`},
	{"clusterloader2", `apiserver_terminated_watchers_total{group="",resource="endpoints"} == 0`},
	{"clusterloader2", `apiserver_watch_cache_initializations_total{group="",resource="endpoints"} == 1`},
	{"clusterloader2", `apiserver_init_events_total{group="",resource="endpoints"} > 0`},
	{"clusterloader2", `sum by (group, resource) (apiserver_resource_objects{group="",resource="namespaces"}) > 0`},
	{"clusterloader2", `sum by (group, resource) (apiserver_resource_size_estimate_bytes{group="",resource="namespaces"}) > 0`},
	{"clusterloader2", `apiserver_longrunning_requests{verb="WATCH",scope="namespace"} == 0`},
	{"clusterloader2", `apiserver_watch_cache_resource_version{group="",resource="endpoints"} > 0`},
	{"clusterloader2, dashboard", `sum by (operation, group, resource) (rate(etcd_request_duration_seconds_count{operation="create",group="coordination.k8s.io",resource="leases"}[5m])) > 0`},
}

// checkNeeds fails where somebody would see nothing.
func checkNeeds(t *testing.T, scraped memory, now time.Time) {
	for _, need := range needs {
		if !hasValue(scraped.query(t, need.query, now)) {
			t.Errorf("%s: %s has no result", need.who, need.query)
		}
	}
}
