package server

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/munnerz/goautoneg"
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
		if resource.StorageVersionHash == "" {
			resource.StorageVersionHash = storageVersionHash(kindOf(resource))
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

// routeDiscovery serves the documents by which clients learn what the server serves. The
// core group is under /api, all others are under /apis; kinds have no apiVersion where
// kube-apiserver gives them none.
func (s *Server) routeDiscovery(resources []metav1.APIResource) {
	all := discover(resources)
	core := slices.DeleteFunc(slices.Clone(all), func(d discovered) bool { return d.Group != "" })
	named := slices.DeleteFunc(all, func(d discovered) bool { return d.Group == "" })

	s.document("/api", s.aggregated(core), func(req *http.Request) runtime.Object {
		versions := &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}}
		for _, d := range core {
			versions.Versions = append(versions.Versions, d.Version)
		}
		versions.ServerAddressByClientCIDRs = []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: localAddress(req)}}
		return versions
	})
	groups := apiGroups(named)
	s.document("/apis", s.aggregated(named), always(&metav1.APIGroupList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: groups,
	}))
	for _, group := range groups {
		group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		s.document("/apis/"+group.Name, nil, always(&group))
	}
	for _, d := range slices.Concat(core, named) {
		list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList"}, GroupVersion: d.GroupVersion.String()}
		if d.Group != "" {
			list.APIVersion = "v1"
		}
		for _, resource := range d.resources {
			resource.Group, resource.Version = "", "" // the list's own
			list.APIResources = append(list.APIResources, resource)
		}
		s.document(groupPrefix(d.GroupVersion), nil, always(list))
	}
}

// localAddress is the address at which the client has reached the server, "" where the
// connection has none.
func localAddress(req *http.Request) string {
	if addr, ok := req.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return addr.String()
	}
	return ""
}

// always is a document that is the same for everyone.
func always(obj runtime.Object) func(*http.Request) runtime.Object {
	return func(*http.Request) runtime.Object { return obj }
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

// aggregation is all groups of one root in one document, with its entity tag.
type aggregation struct {
	list *apidiscoveryv2.APIGroupDiscoveryList
	etag string
}

// aggregatedKind is the kind of an aggregation.
var aggregatedKind = apidiscoveryv2.SchemeGroupVersion.WithKind("APIGroupDiscoveryList")

func (s *Server) aggregated(all []discovered) *aggregation {
	list := &apidiscoveryv2.APIGroupDiscoveryList{Items: []apidiscoveryv2.APIGroupDiscovery{}}
	list.SetGroupVersionKind(aggregatedKind)
	for _, d := range all {
		if n := len(list.Items); n == 0 || list.Items[n-1].Name != d.Group {
			list.Items = append(list.Items, apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: d.Group}})
		}
		served := apidiscoveryv2.APIVersionDiscovery{Version: d.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		for _, resource := range d.resources {
			served.Resources = append(served.Resources, aggregatedResource(resource))
		}
		group := &list.Items[len(list.Items)-1]
		group.Versions = append(group.Versions, served)
	}
	sum := sha256.New()
	if err := s.codecs.json.encoder.Encode(list, sum); err != nil {
		panic(err) // a document of strings alone
	}
	return &aggregation{list: list, etag: `"` + strings.ToUpper(hex.EncodeToString(sum.Sum(nil))) + `"`}
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

// document serves a document of discovery: what plain returns, or all, where that is not
// nil and the client asks for it.
func (s *Server) document(path string, all *aggregation, plain func(*http.Request) runtime.Object) {
	handler := func(w http.ResponseWriter, req *http.Request) {
		rec := recordOf(w)
		if req.Method != http.MethodGet {
			s.renderError(w, req, methodNotAllowed())
			return
		}
		header := w.Header()
		if all != nil {
			header.Set("Vary", "Accept")
		}
		out, aggregate, err := s.codecs.negotiateDiscovery(req, all != nil)
		switch {
		case err != nil:
			s.renderError(w, req, err)
		case !aggregate:
			s.render(rec, result{http.StatusOK, plain(req)}, out)
		default:
			header.Set("ETag", all.etag)
			header.Set("Cache-Control", "public")
			if matchesETag(req.Header.Get("If-None-Match"), all.etag) {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			out.mediaType += ";g=" + aggregatedKind.Group + ";v=" + aggregatedKind.Version + ";as=" + aggregatedKind.Kind
			s.render(rec, result{http.StatusOK, all.list}, out)
		}
	}
	authorised := s.authorised(http.HandlerFunc(handler))
	s.api.Path(path).Handler(authorised)
	s.api.Path(path + "/").Handler(authorised) // as kube-apiserver does
}

// negotiateDiscovery returns the form in which the client wants a document of discovery,
// and whether it wants the aggregation, if that is offered at all.
func (c *codecs) negotiateDiscovery(req *http.Request, offered bool) (out output, aggregate bool, err error) {
	accept := req.Header.Get("Accept")
	if accept == "" {
		return c.jsonFor(req), false, nil
	}
	if !offersMediaType(accept) {
		return output{}, false, errNotAcceptable
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		out, ok := c.outputFor(req, clause)
		if !ok {
			continue
		}
		switch (schema.GroupVersionKind{Group: clause.Params["g"], Version: clause.Params["v"], Kind: clause.Params["as"]}) {
		case schema.GroupVersionKind{}:
			return out, false, nil
		case aggregatedKind:
			if offered {
				return out, true, nil
			}
		}
	}
	return output{}, false, notAcceptable(strings.Join(mediaTypes, ", "))
}

// matchesETag says whether an If-None-Match header names the entity tag.
func matchesETag(header, etag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		if candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/"); candidate == etag || candidate == "*" {
			return true
		}
	}
	return false
}
