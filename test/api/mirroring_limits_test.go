package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/test/apitest"
)

const multiple = 900

// multiplied is the JSON of Endpoints of one address that have a slice for each of their multiple ports.
func multiplied(name string, annotation int) string {
	var all []string
	for i := range multiple {
		all = append(all, fmt.Sprintf(`{"name":"x","port":%d}`, i+1))
	}
	return `{"metadata":{"name":"` + name + `","annotations":{"a":"` + strings.Repeat("x", annotation) + `"}},` +
		`"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[` + strings.Join(all, ",") + `]}]}`
}

// Among the names that are made up for the slices of one write there may be equal ones.
func TestEqualNamesAreMadeUp(t *testing.T) {
	v := newViews(t, shared)
	v.service("web", "")
	seed := int64(0)
	for found := false; !found; {
		seed++
		rand.Seed(seed)
		names := map[string]bool{}
		for range multiple {
			name := rand.String(5)
			found = found || names[name]
			names[name] = true
		}
	}
	rand.Seed(seed)
	v.do(http.MethodPost, "endpoints", "", multiplied("web", 1), http.StatusCreated, "")
	v.check("the slices", fmt.Sprint(multiple), len(v.slices("web")))
}

// What a write makes of others is bounded, and costs tokens where it is many times the object.
func TestMirrorsMayNotMultiply(t *testing.T) {
	v := newViews(t, shared)
	v.service("web", "")
	v.do(http.MethodPost, "endpoints", "", multiplied("web", 100_000), http.StatusRequestEntityTooLarge,
		`the EndpointSlices that mirror the Endpoints \"web\" would take more than 33554432 bytes as JSON`)
	v.check("the slices", "0", len(v.slices("web")))
	v.do(http.MethodPost, "endpoints", "", multiplied("web", 10_000), http.StatusRequestEntityTooLarge, "the object and the 900 others that are written with it take 1")
	as := func(method, contentType, body string, code int, contains string) {
		t.Helper()
		checkCode(t, send(t, shared.Client, newRequest(t, shared, method, v.path("endpoints", "web"), []byte(body), "Content-Type", contentType, "X-Auth-Token", slowToken)), code, contains)
	}
	v.do(http.MethodPost, "endpoints", "", multiplied("web", 5000), http.StatusCreated, "")
	as(http.MethodPut, "application/json", multiplied("web", 5001), http.StatusOK, "") // for the whole bucket
	as(http.MethodPut, "application/json", multiplied("web", 5002), http.StatusTooManyRequests, "try again in")
	as(http.MethodPatch, "application/merge-patch+json", `{"metadata":{"labels":{"a":"b"}}}`, http.StatusTooManyRequests, "")
}

// What another server has left of a Service that cannot be read goes with it, and finalizers do not
// keep what is made of others.
func TestLeftMirrors(t *testing.T) {
	v := newViews(t, shared)
	v.service("web", "")
	v.do(http.MethodPost, "endpoints", "", v.endpointsBody("web", "", "10.0.0.1"), http.StatusCreated, "")
	if err := shared.PutInEtcd(t.Context(), "/registry/services/"+v.namespace+"/web", "x"); err != nil {
		t.Fatal(err)
	}
	v.do(http.MethodDelete, "services", "web?ignoreStoreReadErrorWithClusterBreakingPotential=true", "", http.StatusOK, "")
	v.check("without the Service", "", v.addresses("web"))

	const held = `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"%[1]s","namespace":"%[2]s","uid":"u","finalizers":["a.example/b"],` +
		`"labels":{"kubernetes.io/service-name":"web","endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io"}},"addressType":"IPv4","endpoints":[],"ports":[]}`
	for _, name := range []string{"one", "two"} {
		if err := shared.PutInEtcd(t.Context(), "/registry/endpointslices/"+v.namespace+"/"+name, fmt.Sprintf(held, name, v.namespace)); err != nil {
			t.Fatal(err)
		}
	}
	v.do(http.MethodDelete, "endpointslices", "one", "", http.StatusOK, "")
	v.do(http.MethodGet, "endpointslices", "one", "", http.StatusNotFound, "")
	checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodDelete, "/api/v1/namespaces/"+v.namespace, nil)), http.StatusOK, "")
	eventually(t, "the namespace is deleted", func() bool {
		return send(t, shared.Client, newRequest(t, shared, http.MethodGet, "/api/v1/namespaces/"+v.namespace, nil)).code == http.StatusNotFound
	})
}

// A server that brings views in step keeps within the memory that it may take.
func TestSettlingKeepsTheLimit(t *testing.T) {
	first := startServer(t, apitest.Config{})
	v := newViews(t, first)
	for i := range 4 {
		v.do(http.MethodPost, "endpoints", "", multiplied(fmt.Sprint("web-", i), 1000), http.StatusCreated, "")
	}
	v.server = startServer(t, apitest.Config{Peer: first, Mirroring: apiserver.MirrorAll, MaxStoredBytes: 5 << 20})
	eventually(t, "it is said", func() bool {
		return len(logs.lines("bringing the Endpoints and EndpointSlices of "+v.namespace+"/web-3 in step: the stored objects take")) > 0
	})
	total := 0
	for i := range 4 {
		total += len(v.slices(fmt.Sprint("web-", i)))
	}
	if total == 0 || total > 1800 {
		t.Errorf("%d slices", total)
	}
}

// What is too large to be kept in step can be deleted, and is in step again once it is small enough.
func TestTooLargeIsDeleted(t *testing.T) {
	v := newViews(t, shared)
	put := func(name, labels, endpoints string) {
		t.Helper()
		if err := shared.PutInEtcd(t.Context(), "/registry/endpointslices/"+v.namespace+"/"+name, `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"`+
			name+`","namespace":"`+v.namespace+`","uid":"u","labels":{`+labels+`}},"addressType":"IPv4","endpoints":[`+endpoints+`],"ports":[]}`); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"web", "db"} {
		v.service(name, "")
		v.do(http.MethodPost, "endpoints", "", v.endpointsBody(name, "", "10.0.0.1"), http.StatusCreated, "")
	}
	for i := range 101 {
		var endpoints []string
		for j := range 1000 {
			endpoints = append(endpoints, fmt.Sprintf(`{"addresses":["10.%d.%d.%d"]}`, i, j/250, j%250))
		}
		put(fmt.Sprint("web-", i), `"kubernetes.io/service-name":"web"`, strings.Join(endpoints, ","))
	}
	for i := range 1100 {
		put(fmt.Sprint("db-", i), `"kubernetes.io/service-name":"db","endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io"`, "")
	}
	v.do(http.MethodGet, "endpointslices", "db-1099", "", http.StatusOK, "")
	v.do(http.MethodDelete, "endpoints", "web", "", http.StatusOK, "")
	v.do(http.MethodGet, "endpoints", "web", "", http.StatusNotFound, "")
	v.do(http.MethodPatch, "endpointslices", "web-0", `{"metadata":{"labels":{"a":"b"}}}`, http.StatusRequestEntityTooLarge, "would have more than 100000 endpoints")
	v.do(http.MethodDelete, "endpointslices", "web-0", "", http.StatusOK, "")
	v.check("the addresses", "100000", len(v.endpoints("web").Subsets[0].Addresses))

	v.do(http.MethodDelete, "endpoints", "db", "", http.StatusRequestEntityTooLarge, "take more writes than etcd accepts in one transaction")
	v.do(http.MethodDelete, "endpointslices", "db-0", "", http.StatusOK, "")
	v.do(http.MethodGet, "endpointslices", "db-0", "", http.StatusNotFound, "")
	checkCode(t, send(t, shared.Client, newRequest(t, shared, http.MethodDelete, "/api/v1/namespaces/"+v.namespace, nil)), http.StatusOK, "")
	eventually(t, "the namespace is deleted", func() bool {
		return send(t, shared.Client, newRequest(t, shared, http.MethodGet, "/api/v1/namespaces/"+v.namespace, nil)).code == http.StatusNotFound
	})
}

// The slices of a Service are deleted together, except those that are held: what is shown is written
// a few times, not as often as there are slices.
func TestSlicesAreDeletedTogether(t *testing.T) {
	v := newViews(t, shared)
	v.service("web", "")
	v.do(http.MethodPost, "endpointslices", "", strings.Replace(v.sliceBody("held", "web", "10.0.1.1"), `"metadata":{`, `"metadata":{"finalizers":["a.example/b"],`, 1), http.StatusCreated, "")
	for i := range 120 {
		v.do(http.MethodPost, "endpointslices", "", v.sliceBody(fmt.Sprint("web-", i), "web", fmt.Sprint("10.0.0.", i+1)), http.StatusCreated, "")
	}
	before, err := shared.Storage.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v.do(http.MethodDelete, "endpointslices", "?dryRun=All", "", http.StatusOK, "")
	v.check("the slices after a dry run", "121", len(v.slices("web")))
	v.do(http.MethodDelete, "endpointslices", "", "", http.StatusOK, "")
	v.check("the rest", "10.0.1.1", v.addresses("web"))
	v.check("what shows it", "1", len(v.endpoints("web").Subsets[0].Addresses))
	after, err := shared.Storage.Revision(t.Context())
	if err != nil || after > before+10 {
		t.Errorf("%d revisions, %v", after-before, err)
	}
}
