package discovery_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/server/discovery"
)

// served are resources of the core and of two groups, one of them in two versions.
func served() []metav1.APIResource {
	return []metav1.APIResource{
		{Version: "v1", Kind: "Namespace", Name: "namespaces", SingularName: "namespace", ShortNames: []string{"ns"}, Verbs: metav1.Verbs{"get", "list"}},
		{Version: "v1", Kind: "Namespace", Name: "namespaces/status", Verbs: metav1.Verbs{"get", "update"}},
		{Version: "v1", Kind: "Namespace", Name: "namespaces/finalize", Verbs: metav1.Verbs{"update"}},
		{Version: "v1", Kind: "Endpoints", Name: "endpoints", Namespaced: true, Verbs: metav1.Verbs{"get"}},
		{Group: "example.io", Version: "v1beta1", Kind: "Berth", Name: "berths", SingularName: "berth"},
		{Group: "a.example.io", Version: "v1", Kind: "Quay", Name: "quays", Namespaced: true},
		{Group: "a.example.io", Version: "v1", Kind: "Quay", Name: "quays/status", Namespaced: true, Verbs: metav1.Verbs{"get"}},
		{Group: "a.example.io", Version: "v1", Kind: "Quay", Name: "quays-old", Namespaced: true}, // sorts between the two
		{Group: "example.io", Version: "v1", Kind: "Berth", Name: "berths", SingularName: "berth", Categories: []string{"all"}},
		{Group: "example.io", Version: "v1", Kind: "Anchor", Name: "anchors", Verbs: metav1.Verbs{"get", "list"}},
	}
}

func documents(t *testing.T, resources []metav1.APIResource) map[string]discovery.Document {
	t.Helper()
	all, err := discovery.Documents(resources)
	if err != nil {
		t.Fatal(err)
	}
	byPath := make(map[string]discovery.Document)
	for _, document := range all {
		if _, twice := byPath[document.Path]; twice {
			t.Errorf("%s is there twice", document.Path)
		}
		if document.Plain == nil && document.Versions == nil {
			t.Errorf("%s is empty", document.Path)
		}
		byPath[document.Path] = document
	}
	return byPath
}

func TestPaths(t *testing.T) {
	all := documents(t, served())
	for _, path := range []string{"/api", "/apis", "/api/v1", "/apis/example.io", "/apis/example.io/v1", "/apis/example.io/v1beta1", "/apis/a.example.io", "/apis/a.example.io/v1"} {
		if _, ok := all[path]; !ok {
			t.Errorf("there is no %s", path)
		}
		if got, want := all[path].Aggregated != nil, path == "/api" || path == "/apis"; got != want {
			t.Errorf("%s has an aggregated form: %v", path, got)
		}
		delete(all, path)
	}
	if len(all) > 0 {
		t.Errorf("there are also %v", all)
	}
}

func TestVersions(t *testing.T) {
	got := documents(t, served())["/api"].Versions("10.0.0.1:6443")
	want := &metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: "10.0.0.1:6443"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A resource's description is all that its group needs to appear: groups in the order of
// their first resource, the preferred version first.
func TestGroups(t *testing.T) {
	all := documents(t, served())
	versions := []metav1.GroupVersionForDiscovery{
		{GroupVersion: "example.io/v1", Version: "v1"}, {GroupVersion: "example.io/v1beta1", Version: "v1beta1"},
	}
	quays := metav1.GroupVersionForDiscovery{GroupVersion: "a.example.io/v1", Version: "v1"}
	want := &metav1.APIGroupList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"},
		Groups: []metav1.APIGroup{
			{Name: "example.io", Versions: versions, PreferredVersion: versions[0]},
			{Name: "a.example.io", Versions: []metav1.GroupVersionForDiscovery{quays}, PreferredVersion: quays},
		},
	}
	if diff := cmp.Diff(want, all["/apis"].Plain); diff != "" {
		t.Errorf("/apis (-want +got)\n%s", diff)
	}
	group := want.Groups[0]
	group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	if diff := cmp.Diff(&group, all["/apis/example.io"].Plain); diff != "" {
		t.Errorf("/apis/example.io (-want +got)\n%s", diff)
	}
}

// The hashes are those that kube-apiserver shows.
func TestResources(t *testing.T) {
	all := documents(t, served())
	for path, want := range map[string]*metav1.APIResourceList{
		"/api/v1": {
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList"}, GroupVersion: "v1",
			APIResources: []metav1.APIResource{
				{Name: "endpoints", Namespaced: true, Kind: "Endpoints", Verbs: metav1.Verbs{"get"}, StorageVersionHash: "fWeeMqaN/OA="},
				{Name: "namespaces", SingularName: "namespace", Kind: "Namespace", Verbs: metav1.Verbs{"get", "list"}, ShortNames: []string{"ns"}, StorageVersionHash: "Q3oi5N2YM8M="},
				{Name: "namespaces/finalize", Kind: "Namespace", Verbs: metav1.Verbs{"update"}},
				{Name: "namespaces/status", Kind: "Namespace", Verbs: metav1.Verbs{"get", "update"}},
			},
		},
		"/apis/example.io/v1": {
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "example.io/v1",
			APIResources: []metav1.APIResource{
				{Name: "anchors", Kind: "Anchor", Verbs: metav1.Verbs{"get", "list"}, StorageVersionHash: "+4pmDqhcgoI="},
				{Name: "berths", SingularName: "berth", Kind: "Berth", Categories: []string{"all"}, StorageVersionHash: "AHeVCg3vQHs="},
			},
		},
	} {
		if diff := cmp.Diff(want, all[path].Plain); diff != "" {
			t.Errorf("%s (-want +got)\n%s", path, diff)
		}
	}
}

func TestAggregated(t *testing.T) {
	all := documents(t, served())
	for path, want := range map[string][]string{
		"/api": {
			"/v1/endpoints Namespaced [get]",
			"/v1/namespaces Cluster [get list]", "/v1/namespaces/finalize [update]", "/v1/namespaces/status [get update]",
		},
		"/apis": {
			"example.io/v1/anchors Cluster [get list]", "example.io/v1/berths Cluster []", "example.io/v1beta1/berths Cluster []",
			"a.example.io/v1/quays Namespaced []", "a.example.io/v1/quays/status [get]", "a.example.io/v1/quays-old Namespaced []",
		},
	} {
		list := all[path].Aggregated.(*apidiscoveryv2.APIGroupDiscoveryList)
		if kind := list.GroupVersionKind(); kind != discovery.AggregatedKind {
			t.Errorf("%s is a %v", path, kind)
		}
		if diff := cmp.Diff(want, summary(t, list)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", path, diff)
		}
	}
}

// summary has a line for each resource and subresource.
func summary(t *testing.T, list *apidiscoveryv2.APIGroupDiscoveryList) []string {
	t.Helper()
	verbs := func(verbs []string) string {
		if len(verbs) == 0 {
			return " []"
		}
		text := ""
		for _, verb := range verbs {
			text += " " + verb
		}
		return " [" + text[1:] + "]"
	}
	var lines []string
	for _, group := range list.Items {
		for _, version := range group.Versions {
			for _, resource := range version.Resources {
				want := metav1.GroupVersionKind{Group: group.Name, Version: version.Version, Kind: resource.ResponseKind.Kind}
				name := group.Name + "/" + version.Version + "/" + resource.Resource
				if *resource.ResponseKind != want {
					t.Errorf("%s is a %v", name, resource.ResponseKind)
				}
				lines = append(lines, name+" "+string(resource.Scope)+verbs(resource.Verbs))
				for _, below := range resource.Subresources {
					if *below.ResponseKind != want {
						t.Errorf("%s/%s is a %v", name, below.Subresource, below.ResponseKind)
					}
					lines = append(lines, name+"/"+below.Subresource+verbs(below.Verbs))
				}
			}
		}
	}
	return lines
}

// A server without groups, or without a core, says so by lists that are there.
func TestEmptyRoots(t *testing.T) {
	for path, resources := range map[string][]metav1.APIResource{
		"/apis": served()[:4],
		"/api":  served()[4:],
	} {
		document := documents(t, resources)[path]
		plain := document.Plain
		if document.Versions != nil {
			plain = document.Versions("")
		}
		for _, form := range []any{plain, document.Aggregated} {
			data, err := json.Marshal(form)
			if err != nil {
				t.Fatal(err)
			}
			var content map[string]any
			if err := json.Unmarshal(data, &content); err != nil {
				t.Fatal(err)
			}
			for _, member := range []string{"groups", "versions", "items"} {
				if value, ok := content[member]; ok && value == nil {
					t.Errorf("%s: %s is null in %s", path, member, data)
				}
			}
		}
	}
}

// The entity tags change with the documents, and only with them.
func TestETags(t *testing.T) {
	first, again := documents(t, served()), documents(t, served())
	changed := served()
	changed[0].Verbs = append(changed[0].Verbs, "watch")
	other := documents(t, changed)
	for _, path := range []string{"/api", "/apis"} {
		if first[path].ETag == "" || first[path].ETag != again[path].ETag {
			t.Errorf("%s: %s became %s", path, first[path].ETag, again[path].ETag)
		}
	}
	if first["/api"].ETag == other["/api"].ETag || first["/apis"].ETag != other["/apis"].ETag {
		t.Errorf("after a change of /api: %s and %s, before %s and %s", other["/api"].ETag, other["/apis"].ETag, first["/api"].ETag, first["/apis"].ETag)
	}
}

// A subresource whose resource is not served is in the plain list alone.
func TestOrphans(t *testing.T) {
	all := documents(t, served()[1:2])
	if got := len(all["/api/v1"].Plain.(*metav1.APIResourceList).APIResources); got != 1 {
		t.Errorf("%d resources", got)
	}
	if got := summary(t, all["/api"].Aggregated.(*apidiscoveryv2.APIGroupDiscoveryList)); len(got) > 0 {
		t.Errorf("aggregated: %v", got)
	}
}

func TestPrefix(t *testing.T) {
	for want, gv := range map[string]schema.GroupVersion{
		"/api/v1":                      {Version: "v1"},
		"/apis/coordination.k8s.io/v1": {Group: "coordination.k8s.io", Version: "v1"},
	} {
		if got := discovery.Prefix(gv); got != want {
			t.Errorf("%v: got %s, want %s", gv, got, want)
		}
	}
}
