package server

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// describedResource is what discovery needs of a resource.
type describedResource struct {
	fakeResource
	api metav1.APIResource
}

func (d *describedResource) APIResource() metav1.APIResource { return d.api }

func serverOf(t *testing.T, resources ...metav1.APIResource) *Server {
	t.Helper()
	cfg := testConfig(t, nil)
	cfg.Resources = nil
	for _, api := range resources {
		cfg.Resources = append(cfg.Resources, &describedResource{api: api})
	}
	return newTestServer(t, cfg)
}

func getInto(t *testing.T, s *Server, path string, into any, headers ...string) {
	t.Helper()
	w := serveOnce(s, newRequest(t, http.MethodGet, path, "", headers...))
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: got %d %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
}

var allVerbs = metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// TestDiscoveryOfGroups shows that a resource's description is all that its group needs to
// appear, with the preferred version first.
func TestDiscoveryOfGroups(t *testing.T) {
	s := serverOf(t,
		metav1.APIResource{Version: "v1", Kind: "Endpoints", Name: "endpoints", Namespaced: true},
		metav1.APIResource{Group: "example.io", Version: "v1beta1", Kind: "Berth", Name: "berths", SingularName: "berth"},
		metav1.APIResource{Group: "a.example.io", Version: "v1", Kind: "Quay", Name: "quays", Namespaced: true},
		metav1.APIResource{Group: "example.io", Version: "v1", Kind: "Berth", Name: "berths", SingularName: "berth", Categories: []string{"all"}},
		metav1.APIResource{Group: "example.io", Version: "v1", Kind: "Anchor", Name: "anchors", Verbs: metav1.Verbs{"list", "get"}},
	)
	versions := []metav1.GroupVersionForDiscovery{
		{GroupVersion: "example.io/v1", Version: "v1"}, {GroupVersion: "example.io/v1beta1", Version: "v1beta1"},
	}
	quays := metav1.GroupVersionForDiscovery{GroupVersion: "a.example.io/v1", Version: "v1"}
	wantGroups := metav1.APIGroupList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"},
		Groups: []metav1.APIGroup{
			{Name: "example.io", Versions: versions, PreferredVersion: versions[0]},
			{Name: "a.example.io", Versions: []metav1.GroupVersionForDiscovery{quays}, PreferredVersion: quays},
		},
	}
	var groups metav1.APIGroupList
	getInto(t, s, "/apis", &groups)
	if diff := cmp.Diff(wantGroups, groups); diff != "" {
		t.Errorf("/apis (-want +got)\n%s", diff)
	}

	wantGroup := wantGroups.Groups[0]
	wantGroup.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	var group metav1.APIGroup
	getInto(t, s, "/apis/example.io", &group)
	if diff := cmp.Diff(wantGroup, group); diff != "" {
		t.Errorf("/apis/example.io (-want +got)\n%s", diff)
	}

	wantResources := metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "example.io/v1",
		APIResources: []metav1.APIResource{
			{Name: "anchors", Kind: "Anchor", Verbs: metav1.Verbs{"get", "list"}, StorageVersionHash: "+4pmDqhcgoI="},
			{Name: "berths", SingularName: "berth", Kind: "Berth", Verbs: allVerbs, Categories: []string{"all"}, StorageVersionHash: "AHeVCg3vQHs="},
		},
	}
	var resources metav1.APIResourceList
	getInto(t, s, "/apis/example.io/v1/", &resources)
	if diff := cmp.Diff(wantResources, resources); diff != "" {
		t.Errorf("/apis/example.io/v1/ (-want +got)\n%s", diff)
	}

	var all apidiscoveryv2.APIGroupDiscoveryList
	getInto(t, s, "/apis", &all, "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	var got []string
	for _, group := range all.Items {
		for _, version := range group.Versions {
			for _, resource := range version.Resources {
				got = append(got, group.Name+"/"+version.Version+"/"+resource.Resource+" "+string(resource.Scope))
			}
		}
	}
	want := []string{
		"example.io/v1/anchors Cluster", "example.io/v1/berths Cluster", "example.io/v1beta1/berths Cluster", "a.example.io/v1/quays Namespaced",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the aggregated /apis (-want +got)\n%s", diff)
	}
}

// TestVerbsThatAResourceLeavesOut shows that they are not served either.
func TestVerbsThatAResourceLeavesOut(t *testing.T) {
	s := serverOf(t, metav1.APIResource{Version: "v1", Kind: "Anchor", Name: "anchors", Verbs: metav1.Verbs{"list", "get"}})
	tests := []struct {
		method, path string
		want         int
	}{
		// The bad time-out stops what is served before the resource is called.
		{http.MethodGet, "/api/v1/anchors?timeout=abc", http.StatusBadRequest},
		{http.MethodGet, "/api/v1/anchors/a?timeout=abc", http.StatusBadRequest},
		{http.MethodGet, "/api/v1/anchors?timeout=abc&watch=true", http.StatusMethodNotAllowed},
		{http.MethodGet, "/api/v1/watch/anchors?timeout=abc", http.StatusMethodNotAllowed},
		{http.MethodPost, "/api/v1/anchors?timeout=abc", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/api/v1/anchors?timeout=abc", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/api/v1/anchors/a?timeout=abc", http.StatusMethodNotAllowed},
		{http.MethodPut, "/api/v1/anchors/a?timeout=abc", http.StatusMethodNotAllowed},
		{http.MethodPatch, "/api/v1/anchors/a?timeout=abc", http.StatusMethodNotAllowed},
	}
	for _, test := range tests {
		if got := serveOnce(s, newRequest(t, test.method, test.path, "")).Code; got != test.want {
			t.Errorf("%s %s: got %d, want %d", test.method, test.path, got, test.want)
		}
	}
}

// TestStorageVersionHash holds the hashes against those that kube-apiserver shows.
func TestStorageVersionHash(t *testing.T) {
	for kind, want := range map[string]string{"Endpoints": "fWeeMqaN/OA=", "Namespace": "Q3oi5N2YM8M="} {
		if got := storageVersionHash(kindOf(metav1.APIResource{Version: "v1", Kind: kind})); got != want {
			t.Errorf("the hash of %s: got %s, want %s", kind, got, want)
		}
	}
}

func TestMatchesETag(t *testing.T) {
	tests := []struct {
		header string
		want   bool
	}{
		{`"a"`, true},
		{`W/"a"`, true},
		{`"b", "a"`, true},
		{`*`, true},
		{`"b"`, false},
		{`a`, false},
		{``, false},
	}
	for _, test := range tests {
		if got := matchesETag(test.header, `"a"`); got != test.want {
			t.Errorf("matchesETag(%q): got %v, want %v", test.header, got, test.want)
		}
	}
}

func TestAcceptsGzip(t *testing.T) {
	tests := []struct {
		header string
		want   bool
	}{
		{"gzip", true},
		{"deflate, gzip;q=0.5, br", true},
		{"GZIP", true},
		{"gzip; q=0", false},
		{"gzip;q=x", false},
		{"deflate", false},
		{"", false},
	}
	for _, test := range tests {
		if got := acceptsGzip(test.header); got != test.want {
			t.Errorf("acceptsGzip(%q): got %v, want %v", test.header, got, test.want)
		}
	}
}
