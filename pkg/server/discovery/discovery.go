// Package discovery makes the documents by which clients learn what the server serves:
// groups, versions and resources, plain and aggregated.
package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// discovered is a group and version with its resources, as discovery shows them.
type discovered struct {
	schema.GroupVersion
	resources []metav1.APIResource
}

// discover puts the resources that are served under their groups and versions: groups in
// the order of their first resource, the versions of a group with the preferred one first,
// resources by name.
func discover(resources []metav1.APIResource) []discovered {
	var all []discovered
	order := make(map[string]int) // of the groups
	for _, resource := range resources {
		gv := schema.GroupVersion{Group: resource.Group, Version: resource.Version}
		i := slices.IndexFunc(all, func(d discovered) bool { return d.GroupVersion == gv })
		if i < 0 {
			i, all = len(all), append(all, discovered{GroupVersion: gv})
		}
		if _, known := order[gv.Group]; !known {
			order[gv.Group] = len(order)
		}
		stored := !strings.Contains(resource.Name, "/") && !slices.Equal(resource.Verbs, metav1.Verbs{"create"})
		if resource.StorageVersionHash == "" && stored {
			resource.StorageVersionHash = storageVersionHash(gv.WithKind(resource.Kind))
		}
		all[i].resources = append(all[i].resources, resource)
	}
	for _, d := range all {
		slices.SortFunc(d.resources, func(a, b metav1.APIResource) int { return cmp.Compare(a.Name, b.Name) })
	}
	slices.SortFunc(all, func(a, b discovered) int {
		return cmp.Or(cmp.Compare(order[a.Group], order[b.Group]), version.CompareKubeAwareVersionStrings(b.Version, a.Version))
	})
	return all
}

// storageVersionHash is the hash by which kube-apiserver tells the kind that is stored.
func storageVersionHash(kind schema.GroupVersionKind) string {
	sum := sha256.Sum256([]byte(kind.Group + "/" + kind.Version + "/" + kind.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// Document is one document of discovery.
type Document struct {
	// Path is where it is served, without a final slash.
	Path string
	// Plain is the document; nil for Versions.
	Plain runtime.Object
	// Versions is the document of /api, which tells the address at which the client has
	// reached the server; nil for every other one.
	Versions func(serverAddress string) runtime.Object
	// Aggregated is all groups of the root in one document, of AggregatedKind, and ETag its
	// entity tag; nil where there is none.
	Aggregated runtime.Object
	ETag       string
}

// AggregatedKind is the kind of aggregated documents.
var AggregatedKind = apidiscoveryv2.SchemeGroupVersion.WithKind("APIGroupDiscoveryList")

// Documents are the documents about the resources, subresources among them, in whose order
// groups are listed. The core group is under /api, all others are under /apis; kinds have no
// apiVersion where kube-apiserver gives them none.
func Documents(resources []metav1.APIResource) ([]Document, error) {
	all := discover(resources)
	core := slices.DeleteFunc(slices.Clone(all), func(d discovered) bool { return d.Group != "" })
	named := slices.DeleteFunc(all, func(d discovered) bool { return d.Group == "" })
	groups := apiGroups(named)
	documents := []Document{
		{Path: "/api", Versions: versions(core)},
		{Path: Groups, Plain: &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: groups}},
	}
	for i, served := range [][]discovered{core, named} {
		var err error
		if documents[i].Aggregated, documents[i].ETag, err = aggregate(served); err != nil {
			return nil, err
		}
	}
	for _, group := range groups {
		group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		documents = append(documents, Document{Path: "/apis/" + group.Name, Plain: &group})
	}
	for _, d := range slices.Concat(core, named) {
		documents = append(documents, Document{Path: Prefix(d.GroupVersion), Plain: d.list()})
	}
	return documents, nil
}

// CustomResourceDefinitions is the list of them, of which there are none. Before kubectl says that
// it does not know a kind, it looks there for one that a definition makes.
var CustomResourceDefinitions = Document{
	Path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
	Plain: &metav1.PartialObjectMetadataList{
		TypeMeta: metav1.TypeMeta{Kind: "CustomResourceDefinitionList", APIVersion: "apiextensions.k8s.io/v1"},
		Items:    []metav1.PartialObjectMetadata{},
	},
}

// Groups is the path of the list of API groups.
const Groups = "/apis"

// Prefix is the path of an API group and version.
func Prefix(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

func versions(core []discovered) func(serverAddress string) runtime.Object {
	return func(serverAddress string) runtime.Object {
		versions := &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{}}
		for _, d := range core {
			versions.Versions = append(versions.Versions, d.Version)
		}
		versions.ServerAddressByClientCIDRs = []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: serverAddress}}
		return versions
	}
}

// list is the document of one group and version.
func (d discovered) list() *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList"}, GroupVersion: d.GroupVersion.String()}
	if d.Group != "" {
		list.APIVersion = "v1"
	}
	for _, resource := range d.resources {
		resource.Group, resource.Version = "", "" // the list's own
		list.APIResources = append(list.APIResources, resource)
	}
	return list
}

// apiGroups are the groups with their versions, the preferred one first.
func apiGroups(all []discovered) []metav1.APIGroup {
	groups := []metav1.APIGroup{}
	for _, d := range all {
		served := metav1.GroupVersionForDiscovery{GroupVersion: d.GroupVersion.String(), Version: d.Version}
		if n := len(groups); n == 0 || groups[n-1].Name != d.Group {
			groups = append(groups, metav1.APIGroup{Name: d.Group, PreferredVersion: served})
		}
		group := &groups[len(groups)-1]
		group.Versions = append(group.Versions, served)
	}
	return groups
}

// aggregate returns all groups of one root in one document, and its entity tag.
func aggregate(all []discovered) (runtime.Object, string, error) {
	list := &apidiscoveryv2.APIGroupDiscoveryList{Items: []apidiscoveryv2.APIGroupDiscovery{}}
	list.SetGroupVersionKind(AggregatedKind)
	for _, d := range all {
		if n := len(list.Items); n == 0 || list.Items[n-1].Name != d.Group {
			list.Items = append(list.Items, apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: d.Group}})
		}
		served := apidiscoveryv2.APIVersionDiscovery{Version: d.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		for _, resource := range d.resources {
			served.Resources = appendResource(served.Resources, resource)
		}
		group := &list.Items[len(list.Items)-1]
		group.Versions = append(group.Versions, served)
	}
	data, err := json.Marshal(list)
	if err != nil {
		return nil, "", err
	}
	return list, `"` + hashOf(data) + `"`, nil
}

// appendResource appends a resource, or puts a subresource below its resource, which is
// among the resources already.
func appendResource(resources []apidiscoveryv2.APIResourceDiscovery, resource metav1.APIResource) []apidiscoveryv2.APIResourceDiscovery {
	parent, name, below := strings.Cut(resource.Name, "/")
	if !below {
		return append(resources, aggregatedResource(resource))
	}
	i := slices.IndexFunc(resources, func(r apidiscoveryv2.APIResourceDiscovery) bool { return r.Resource == parent })
	if i >= 0 {
		resources[i].Subresources = append(resources[i].Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource:  name,
			ResponseKind: &metav1.GroupVersionKind{Group: resource.Group, Version: resource.Version, Kind: resource.Kind},
			Verbs:        resource.Verbs,
		})
	}
	return resources
}

func aggregatedResource(resource metav1.APIResource) apidiscoveryv2.APIResourceDiscovery {
	scope := apidiscoveryv2.ScopeCluster
	if resource.Namespaced {
		scope = apidiscoveryv2.ScopeNamespace
	}
	return apidiscoveryv2.APIResourceDiscovery{
		Resource:         resource.Name,
		ResponseKind:     &metav1.GroupVersionKind{Group: resource.Group, Version: resource.Version, Kind: resource.Kind},
		Scope:            scope,
		SingularResource: resource.SingularName,
		Verbs:            resource.Verbs,
		ShortNames:       resource.ShortNames,
		Categories:       resource.Categories,
	}
}
