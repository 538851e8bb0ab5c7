// Package views has clients write Endpoints, Services and EndpointSlices of the same names, and checks
// at every revision of what a store holds that the views of each name agree.
package views

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/storage"
)

// Checker follows what a store holds, revision by revision, and says where Endpoints and
// EndpointSlices do not agree. It has the rules in its own words, for objects whose addresses have
// no targets and always have ports with names.
type Checker struct {
	// All says that Endpoints and slices are kept in step without a Service, too.
	All bool
	// Mirrored and Derived are how many revisions had Endpoints with mirrors, and Endpoints made of slices.
	Mirrored, Derived int

	services  map[string]*corev1.Service // by namespace/name
	endpoints map[string]*corev1.Endpoints
	slices    map[string]*discoveryv1.EndpointSlice
	keys      map[string]bool  // units that have a key that tells of writes of their slices
	revisions map[string]int64 // of the latest writes, by key
}

// NewChecker returns a checker of a store that has nothing of what will be checked.
func NewChecker() *Checker {
	return &Checker{
		services: map[string]*corev1.Service{}, endpoints: map[string]*corev1.Endpoints{}, slices: map[string]*discoveryv1.EndpointSlice{},
		keys: map[string]bool{}, revisions: map[string]int64{},
	}
}

// maxFaults is how many faults are enough.
const maxFaults = 10

// Check checks all revisions of a store's history, of which none below /registry/ may be missing. It
// returns some of the faults that it finds.
func (c *Checker) Check(events []storage.Event) (faults []error) {
	for len(events) > 0 && len(faults) < maxFaults {
		revision, n := events[0].KV.ModRevision, 1
		for n < len(events) && events[n].KV.ModRevision == revision {
			n++
		}
		touched := map[string]bool{}
		for _, event := range events[:n] {
			if err := c.apply(event, touched); err != nil {
				faults = append(faults, err)
			}
		}
		for unit := range touched {
			for _, fault := range c.check(unit, revision) {
				faults = append(faults, fmt.Errorf("revision %d: %s: %s", revision, unit, fault))
			}
		}
		events = events[n:]
	}
	if len(faults) == 0 {
		if err := c.checkKeys(); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

// apply applies a change and adds the units that it may change to touched.
func (c *Checker) apply(event storage.Event, touched map[string]bool) (err error) {
	kind, at, _ := strings.Cut(strings.TrimPrefix(event.KV.Key, "/registry/"), "/")
	c.revisions[event.KV.Key] = event.KV.ModRevision
	switch kind {
	case "services":
		err = put(c.services, at, event)
		touched[at] = true
	case "endpoints":
		err = put(c.endpoints, at, event)
		touched[at] = true
	case "endpointslices":
		namespace, _, _ := strings.Cut(at, "/")
		if before := c.slices[at]; before != nil {
			touched[namespace+"/"+before.Labels[discoveryv1.LabelServiceName]] = true
		}
		err = put(c.slices, at, event)
		if after := c.slices[at]; after != nil {
			touched[namespace+"/"+after.Labels[discoveryv1.LabelServiceName]] = true
		}
	case "berth":
		if unit, ok := strings.CutPrefix(at, "endpointslices/"); ok {
			delete(c.keys, unit)
			if !event.Deleted {
				c.keys[unit] = true
			}
		}
	}
	return err
}

func put[T any](objects map[string]*T, at string, event storage.Event) error {
	if event.Deleted {
		delete(objects, at)
		return nil
	}
	obj := new(T)
	if err := json.Unmarshal(event.KV.Value, obj); err != nil {
		return fmt.Errorf("%s at %d: %w", event.KV.Key, event.KV.ModRevision, err)
	}
	objects[at] = obj
	return nil
}

// check returns where the unit is at fault.
func (c *Checker) check(unit string, revision int64) (faults []string) {
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
	inStep := c.All
	if service != nil {
		inStep = len(service.Spec.Selector) == 0
	}
	if inStep && endpoints != nil && !made && endpoints.Labels[discoveryv1.LabelSkipMirror] != "true" {
		c.Mirrored++
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
		c.Derived++
		if fault := compare("the Endpoints", flattenSlices(written, nil), flatten(endpoints)); fault != "" {
			faults = append(faults, fault)
		}
	case endpoints != nil:
		faults = append(faults, "there are Endpoints that show nothing")
	}
	return faults
}

// checkKeys checks that units have a key that tells of writes of their slices as long as they have such.
func (c *Checker) checkKeys() error {
	want := map[string]bool{}
	for at, slice := range c.slices {
		namespace, _, _ := strings.Cut(at, "/")
		if slice.Labels[discoveryv1.LabelManagedBy] != "endpointslicemirroring-controller.k8s.io" {
			want[namespace+"/"+slice.Labels[discoveryv1.LabelServiceName]] = true
		}
	}
	if fault := compare("the keys", want, c.keys); fault != "" {
		return errors.New(fault)
	}
	return nil
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
