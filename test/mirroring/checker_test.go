package mirroring

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/storage"
)

// checker follows what a store holds, revision by revision, and says where Endpoints and
// EndpointSlices do not agree. It has the rules in its own words, for objects whose addresses have
// no targets and always have ports with names.
type checker struct {
	services  map[string]*corev1.Service // by namespace/name
	endpoints map[string]*corev1.Endpoints
	slices    map[string]*discoveryv1.EndpointSlice
	revisions map[string]int64 // of the latest writes, by key

	all               bool // whether no Service is needed
	mirrored, derived int  // how many revisions had such a unit
}

func newChecker() *checker {
	return &checker{map[string]*corev1.Service{}, map[string]*corev1.Endpoints{}, map[string]*discoveryv1.EndpointSlice{}, map[string]int64{}, false, 0, 0}
}

// run checks all revisions of a store, of which none may be compacted.
func (c *checker) run(t *testing.T, store storage.Interface) {
	t.Helper()
	now, err := store.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events, err := store.History(t.Context(), "/registry/", 0, now, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	faults := 0
	for len(events) > 0 {
		revision, n := events[0].KV.ModRevision, 1
		for n < len(events) && events[n].KV.ModRevision == revision {
			n++
		}
		touched := map[string]bool{}
		for _, event := range events[:n] {
			c.apply(t, event, touched)
		}
		for unit := range touched {
			for _, fault := range c.check(unit, revision) {
				t.Errorf("revision %d: %s: %s", revision, unit, fault)
				faults++
			}
		}
		if faults > 10 {
			t.FailNow()
		}
		events = events[n:]
	}
	c.checkKeys(t, store)
	t.Logf("%d revisions: mirrored in %d, shown in %d", now, c.mirrored, c.derived)
	if c.mirrored == 0 || c.derived == 0 {
		t.Error("nothing was checked")
	}
}

// apply applies a change and adds the units that it may change to touched.
func (c *checker) apply(t *testing.T, event storage.Event, touched map[string]bool) {
	t.Helper()
	kind, at, _ := strings.Cut(strings.TrimPrefix(event.KV.Key, "/registry/"), "/")
	c.revisions[event.KV.Key] = event.KV.ModRevision
	switch kind {
	case "services":
		put(t, c.services, at, event)
		touched[at] = true
	case "endpoints":
		put(t, c.endpoints, at, event)
		touched[at] = true
	case "endpointslices":
		namespace, _, _ := strings.Cut(at, "/")
		if before := c.slices[at]; before != nil {
			touched[namespace+"/"+before.Labels[discoveryv1.LabelServiceName]] = true
		}
		put(t, c.slices, at, event)
		if after := c.slices[at]; after != nil {
			touched[namespace+"/"+after.Labels[discoveryv1.LabelServiceName]] = true
		}
	}
}

func put[T any](t *testing.T, objects map[string]*T, at string, event storage.Event) {
	t.Helper()
	if event.Deleted {
		delete(objects, at)
		return
	}
	obj := new(T)
	if err := json.Unmarshal(event.KV.Value, obj); err != nil {
		t.Fatalf("%s: %v", event.KV.Key, err)
	}
	objects[at] = obj
}

// check returns where the unit is at fault.
func (c *checker) check(unit string, revision int64) (faults []string) {
	namespace, name, _ := strings.Cut(unit, "/")
	service, endpoints := c.services[unit], c.endpoints[unit]
	var mirrors, written []*discoveryv1.EndpointSlice
	for at, slice := range c.slices {
		if !strings.HasPrefix(at, namespace+"/") || slice.Labels[discoveryv1.LabelServiceName] != name {
			continue
		}
		if slice.Labels[discoveryv1.LabelManagedBy] != "endpointslicemirroring-controller.k8s.io" {
			written = append(written, slice)
			continue
		}
		mirrors = append(mirrors, slice)
		if c.revisions["/registry/endpointslices/"+at] == revision && c.revisions["/registry/endpoints/"+unit] != revision {
			faults = append(faults, "the slice "+slice.Name+" is written without its Endpoints")
		}
	}
	var byHand map[string]bool
	made := endpoints != nil && endpoints.Labels["endpoints.kubernetes.io/managed-by"] == "endpointslices.berth"
	inStep := c.all
	if service != nil {
		inStep = len(service.Spec.Selector) == 0
	}
	if inStep && endpoints != nil && !made && endpoints.Labels[discoveryv1.LabelSkipMirror] != "true" {
		c.mirrored++
		byHand = flatten(endpoints)
	}
	if fault := compare("the mirrors", byHand, flattenSlices(mirrors, &faults)); fault != "" {
		faults = append(faults, fault)
	}
	for _, slice := range mirrors {
		if len(slice.OwnerReferences) != 1 || endpoints == nil || slice.OwnerReferences[0].UID != endpoints.UID {
			faults = append(faults, "the slice "+slice.Name+" has another owner")
		}
	}
	switch {
	case endpoints != nil && !made:
	case inStep && len(written) > 0 && endpoints == nil:
		faults = append(faults, "slices have no Endpoints")
	case inStep && len(written) > 0:
		c.derived++
		if fault := compare("the Endpoints", flattenSlices(written, nil), flatten(endpoints)); fault != "" {
			faults = append(faults, fault)
		}
	case endpoints != nil:
		faults = append(faults, "there are Endpoints that show nothing")
	}
	return faults
}

// checkKeys checks that units have a key that tells of writes of their slices as long as they have such.
func (c *checker) checkKeys(t *testing.T, store storage.Interface) {
	t.Helper()
	const prefix = "/registry/berth/endpointslices/"
	list, err := store.List(t.Context(), prefix, storage.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]bool{}, map[string]bool{}
	for at, slice := range c.slices {
		namespace, _, _ := strings.Cut(at, "/")
		if slice.Labels[discoveryv1.LabelManagedBy] != "endpointslicemirroring-controller.k8s.io" {
			want[namespace+"/"+slice.Labels[discoveryv1.LabelServiceName]] = true
		}
	}
	for _, kv := range list.KVs {
		got[strings.TrimPrefix(kv.Key, prefix)] = true
	}
	if fault := compare("the keys", want, got); fault != "" {
		t.Error(fault)
	}
}

// flatten returns each address with each port, and whether it is ready.
func flatten(e *corev1.Endpoints) map[string]bool {
	all := map[string]bool{}
	for _, subset := range e.Subsets {
		for _, port := range subset.Ports {
			for _, address := range subset.NotReadyAddresses {
				all[pair(address.IP, port.Name, port.Port, port.Protocol)] = false
			}
			for _, address := range subset.Addresses {
				key := pair(address.IP, port.Name, port.Port, port.Protocol)
				if _, known := all[key]; !known {
					all[key] = true
				}
			}
		}
	}
	return all
}

// flattenSlices is flatten for slices. Where faults is not nil, no pair may occur twice.
func flattenSlices(all []*discoveryv1.EndpointSlice, faults *[]string) map[string]bool {
	pairs := map[string]bool{}
	for _, slice := range all {
		if faults != nil && len(slice.Endpoints) == 0 {
			*faults = append(*faults, slice.Name+" is empty")
		}
		for _, port := range slice.Ports {
			for _, endpoint := range slice.Endpoints {
				key := pair(endpoint.Addresses[0], *port.Name, *port.Port, *port.Protocol)
				ready, known := pairs[key]
				if known && faults != nil {
					*faults = append(*faults, key+" is in two slices")
				}
				pairs[key] = ptr.Deref(endpoint.Conditions.Ready, true) && (ready || !known)
			}
		}
	}
	return pairs
}

func pair(ip, name string, port int32, protocol corev1.Protocol) string {
	return fmt.Sprintf("%s %s %d/%s", ip, name, port, protocol)
}

func compare(what string, want, got map[string]bool) string {
	if maps.Equal(want, got) {
		return ""
	}
	return fmt.Sprintf("%s: want %v, got %v", what, sorted(want), sorted(got))
}

func sorted(pairs map[string]bool) []string {
	var all []string
	for key, ready := range pairs {
		all = append(all, fmt.Sprint(key, " ", ready))
	}
	slices.Sort(all)
	return all
}
