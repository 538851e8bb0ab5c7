package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/apitest"
)

// views are Endpoints and EndpointSlices of a namespace.
type views struct {
	*testing.T
	server    *apitest.Server
	namespace string
}

func newViews(t *testing.T, server *apitest.Server) *views {
	return &views{t, server, newNamespace(t, server)}
}

func (v *views) path(resource, name string) string {
	root := "/api/v1/namespaces/"
	if resource == "endpointslices" {
		root = "/apis/discovery.k8s.io/v1/namespaces/"
	}
	return strings.TrimSuffix(root+v.namespace+"/"+resource+"/"+name, "/")
}

// do sends a request for an object, whose answer must have the code, which is 200 or 201 if it is 0,
// and contain the text.
func (v *views) do(method, resource, name, body string, code int, contains string) *answer {
	v.Helper()
	contentType := "application/json"
	if method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	a := send(v.T, v.server.Client, newRequest(v.T, v.server, method, v.path(resource, name), []byte(body), "Content-Type", contentType))
	if code == 0 && (a.code == http.StatusOK || a.code == http.StatusCreated) {
		code = a.code
	}
	checkCode(v.T, a, code, contains)
	return a
}

func (v *views) service(name, selector string) {
	v.Helper()
	v.do(http.MethodPut, "services", name, `{"metadata":{"name":"`+name+`"},"spec":{"clusterIP":"None"`+selector+`,"ports":[{"port":80}]}}`, 0, "")
}

func (v *views) endpointsBody(name, metadata, ip string) string {
	return `{"metadata":{"name":"` + name + `"` + metadata + `},"subsets":[{"addresses":[{"ip":"` + ip + `"}],"ports":[{"name":"http","port":80}]}]}`
}

func (v *views) sliceBody(name, service, ip string) string {
	return `{"metadata":{"name":"` + name + `","labels":{"kubernetes.io/service-name":"` + service + `"}},"addressType":"IPv4",` +
		`"endpoints":[{"addresses":["` + ip + `"]}],"ports":[{"name":"http","port":80}]}`
}

// slices returns the slices of a Service: name, addresses.
func (v *views) slices(service string) []discoveryv1.EndpointSlice {
	v.Helper()
	var list discoveryv1.EndpointSliceList
	a := v.do(http.MethodGet, "endpointslices", "?labelSelector=kubernetes.io/service-name="+service, "", http.StatusOK, "")
	if err := json.Unmarshal(a.body, &list); err != nil {
		v.Fatal(err)
	}
	return list.Items
}

// addresses returns what the slices of the Service have, as text.
func (v *views) addresses(service string) string {
	v.Helper()
	var all []string
	for _, slice := range v.slices(service) {
		for _, endpoint := range slice.Endpoints {
			all = append(all, endpoint.Addresses...)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (v *views) endpoints(name string) *corev1.Endpoints {
	v.Helper()
	e := &corev1.Endpoints{}
	if err := json.Unmarshal(v.do(http.MethodGet, "endpoints", name, "", http.StatusOK, "").body, e); err != nil {
		v.Fatal(err)
	}
	return e
}

func (v *views) check(what, want string, got any) {
	v.Helper()
	if fmt.Sprint(got) != want {
		v.Errorf("%s: got %v, want %s", what, got, want)
	}
}

// Endpoints of a Service without a selector have slices of the same revision, whatever came first.
func TestEndpointsAreMirrored(t *testing.T) {
	v := newViews(t, shared)
	v.do(http.MethodPost, "endpoints", "", v.endpointsBody("web", "", "10.0.0.1"), http.StatusCreated, "")
	v.check("without a Service", "", v.addresses("web"))
	v.service("web", "")
	v.check("with a Service", "10.0.0.1", v.addresses("web"))
	made := v.slices("web")[0]
	e := v.endpoints("web")
	v.check("the revision", e.ResourceVersion, made.ResourceVersion)
	v.check("the owner", string(e.UID), made.OwnerReferences[0].UID)
	v.check("the manager", "berth", made.ManagedFields[0].Manager)
	v.check("the generation", "1", made.Generation)

	v.do(http.MethodPut, "endpoints", "web", v.endpointsBody("web", "", "10.0.0.2"), http.StatusOK, "")
	next := v.slices("web")[0]
	v.check("the name of an update", made.Name, next.Name)
	v.check("the uid of an update", string(made.UID), next.UID)
	v.check("the generation of an update", "2", next.Generation)
	v.check("the revision of an update", v.endpoints("web").ResourceVersion, next.ResourceVersion)

	v.service("web", `,"selector":{"app":"web"}`)
	v.check("with a selector", "", v.addresses("web"))
	v.service("web", `,"selector":{}`)
	v.check("without it", "10.0.0.2", v.addresses("web"))
	v.do(http.MethodPut, "endpoints", "web", v.endpointsBody("web", `,"labels":{"endpointslice.kubernetes.io/skip-mirror":"true"}`, "10.0.0.2"), http.StatusOK, "")
	v.check("skipped", "", v.addresses("web"))
	v.do(http.MethodPut, "endpoints", "web", v.endpointsBody("web", "", "10.0.0.3"), http.StatusOK, "")
	v.do(http.MethodPost, "endpoints", "?dryRun=All", v.endpointsBody("dry", "", "10.0.0.3"), http.StatusCreated, "")
	v.check("not skipped", "10.0.0.3", v.addresses("web"))
	v.do(http.MethodDelete, "services", "web", "", http.StatusOK, "")
	v.check("without the Service", "", v.addresses("web"))
	v.service("web", "")
	v.do(http.MethodDelete, "endpoints", "web?dryRun=All", "", http.StatusOK, "")
	v.check("after a dry run", "10.0.0.3", v.addresses("web"))
	v.do(http.MethodDelete, "endpoints", "web", "", http.StatusOK, "")
	v.check("without Endpoints", "", v.addresses("web"))
}

// What is made of something else cannot be edited, and comes back.
func TestMirrorsAreKept(t *testing.T) {
	v := newViews(t, shared)
	v.service("web", "")
	v.do(http.MethodPost, "endpoints", "", v.endpointsBody("web", "", "10.0.0.1"), http.StatusCreated, "")
	made := v.slices("web")[0]
	v.do(http.MethodPatch, "endpointslices", made.Name, `{"metadata":{"labels":{"a":"b"}}}`, http.StatusForbidden, `is forbidden: it mirrors the Endpoints \"web\": change those`)
	v.do(http.MethodPatch, "endpointslices", made.Name, `{"metadata":{"labels":{"kubernetes.io/service-name":"web"}}}`, http.StatusOK, "")
	v.do(http.MethodDelete, "endpointslices", made.Name, "", http.StatusOK, "")
	again := v.slices("web")
	v.check("the slices after one was deleted", "1", len(again))
	v.check("its address", "10.0.0.1", v.addresses("web"))
	if again[0].Name == made.Name {
		t.Error("it came back under the same name")
	}
	body := strings.Replace(v.sliceBody("mine", "web", "10.0.0.9"), `"labels":{`, `"labels":{"endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io",`, 1)
	v.do(http.MethodPost, "endpointslices", "", body, http.StatusForbidden, "is for EndpointSlices that this server makes from Endpoints")
	v.do(http.MethodDelete, "endpointslices", "", "", http.StatusOK, "")
	v.check("the slices after all were deleted", "10.0.0.1", v.addresses("web"))
}

// Slices that somebody wrote appear as Endpoints, until somebody writes those.
func TestSlicesAreShown(t *testing.T) {
	v := newViews(t, shared)
	v.service("web", "")
	v.do(http.MethodPost, "endpointslices", "", v.sliceBody("one", "web", "10.0.0.1"), http.StatusCreated, "")
	e := v.endpoints("web")
	v.check("the subsets", "10.0.0.1", e.Subsets[0].Addresses[0].IP)
	v.check("the revision", v.slices("web")[0].ResourceVersion, e.ResourceVersion)
	v.check("the slices", "10.0.0.1", v.addresses("web"))
	v.do(http.MethodPost, "endpointslices", "", v.sliceBody("two", "web", "10.0.0.2"), http.StatusCreated, "")
	v.check("both", "2", len(v.endpoints("web").Subsets[0].Addresses))
	v.service("db", "")
	v.do(http.MethodPatch, "endpointslices", "two", `{"metadata":{"labels":{"kubernetes.io/service-name":"db"}}}`, http.StatusOK, "")
	v.check("what one of them left", "1", len(v.endpoints("web").Subsets[0].Addresses))
	v.check("where it is now", "10.0.0.2", v.endpoints("db").Subsets[0].Addresses[0].IP)
	v.check("both in one revision", v.endpoints("web").ResourceVersion, v.endpoints("db").ResourceVersion)
	v.do(http.MethodPatch, "services", "db", `{"metadata":{"labels":{"tier":"back"}}}`, http.StatusOK, "")
	v.check("the Service's label", "back", v.endpoints("db").Labels["tier"])

	const forbidden = "is forbidden: it has the label endpoints.kubernetes.io/managed-by=endpointslices.berth"
	v.do(http.MethodPatch, "endpoints", "web", `{"subsets":null}`, http.StatusForbidden, forbidden)
	v.do(http.MethodDelete, "endpoints", "web", "", http.StatusOK, "")
	back := v.endpoints("web")
	if back.UID == e.UID || len(back.Subsets) != 1 {
		t.Errorf("it came back as %+v", back)
	}
	v.do(http.MethodPut, "endpoints", "web", v.endpointsBody("web", "", "10.0.0.7"), http.StatusOK, "")
	v.check("the Endpoints by hand", "10.0.0.7", v.endpoints("web").Subsets[0].Addresses[0].IP)
	v.check("their slices beside the other", "10.0.0.1 10.0.0.7", v.addresses("web"))
	v.do(http.MethodDelete, "endpoints", "web", "", http.StatusOK, "")
	v.check("what is shown without them", "10.0.0.1", v.endpoints("web").Subsets[0].Addresses[0].IP)
	v.check("the slices without them", "10.0.0.1", v.addresses("web"))

	v.service("web", `,"selector":{"app":"web"}`)
	v.do(http.MethodGet, "endpoints", "web", "", http.StatusNotFound, "")
	v.service("web", "")
	v.endpoints("web")
	v.do(http.MethodDelete, "endpointslices", "one", "", http.StatusOK, "")
	v.do(http.MethodGet, "endpoints", "web", "", http.StatusNotFound, "")
	found, err := v.server.Storage.Get(t.Context(), "/registry/berth/endpointslices/"+v.namespace+"/web", storage.GetOptions{})
	if err != nil || found.KV != nil {
		t.Errorf("a key is left behind: %v, %v", found.KV, err)
	}
}

// Nothing keeps a namespace with both views from being deleted.
func TestMirroredNamespaceIsDeleted(t *testing.T) {
	v := newViews(t, shared)
	for _, name := range []string{"a", "b"} {
		v.service(name, "")
	}
	v.do(http.MethodPost, "endpoints", "", v.endpointsBody("a", "", "10.0.0.1"), http.StatusCreated, "")
	v.do(http.MethodPost, "endpointslices", "", v.sliceBody("one", "b", "10.0.0.2"), http.StatusCreated, "")
	checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodDelete, "/api/v1/namespaces/"+v.namespace, nil)), http.StatusOK, "")
	eventually(t, "the namespace is deleted", func() bool {
		return send(t, shared.Client, newRequest(t, shared, http.MethodGet, "/api/v1/namespaces/"+v.namespace, nil)).code == http.StatusNotFound
	})
	v.check("slices", "", v.addresses("a")+v.addresses("b"))
}

// With the flag for it no Service is needed. A server that starts brings in step what one without
// a mirror has left.
func TestMirrorWithoutService(t *testing.T) {
	first := startServer(t, apitest.Config{})
	v := newViews(t, first)
	v.do(http.MethodPost, "endpoints", "", v.endpointsBody("web", "", "10.0.0.1"), http.StatusCreated, "")
	v.do(http.MethodPost, "endpointslices", "", v.sliceBody("one", "db", "10.0.0.2"), http.StatusCreated, "")
	v.check("with a Service only", "", v.addresses("web"))

	v.server = startServer(t, apitest.Config{Peer: first, Mirroring: apiserver.MirrorAll})
	eventually(t, "both are mirrored", func() bool {
		return v.addresses("web") == "10.0.0.1" &&
			send(t, v.server.Client, newRequest(t, v.server, http.MethodGet, v.path("endpoints", "db"), nil)).code == http.StatusOK
	})
	v.do(http.MethodPut, "endpoints", "web", v.endpointsBody("web", "", "10.0.0.3"), http.StatusOK, "")
	v.check("after a change", "10.0.0.3", v.addresses("web"))
	v.service("web", `,"selector":{"app":"web"}`)
	v.check("with a selector", "", v.addresses("web"))
	v.do(http.MethodDelete, "services", "web", "", http.StatusOK, "")
	v.check("without a Service", "10.0.0.3", v.addresses("web"))
	v.check("the revision", v.endpoints("web").ResourceVersion, v.slices("web")[0].ResourceVersion)
	v.do(http.MethodPost, "endpointslices", "", v.sliceBody("two", "No_Name", "10.0.0.2"), http.StatusCreated, "")
}
