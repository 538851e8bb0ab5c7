package ownership_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/applyconfigurations"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

var (
	scheme    = clientscheme.Scheme
	converter = applyconfigurations.NewTypeConverter(scheme)

	endpointsKind = corev1.SchemeGroupVersion.WithKind("Endpoints")
	sliceKind     = discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice")
	serviceKind   = corev1.SchemeGroupVersion.WithKind("Service")
	namespaceKind = corev1.SchemeGroupVersion.WithKind("Namespace")
)

// random makes objects and configurations of few values, so that two of them often agree.
type random struct{ *rand.Rand }

func newRandom(seed, part uint64) random { return random{rand.New(rand.NewPCG(seed, part))} }

func (r random) one(n int) bool { return r.IntN(n) == 0 }

// object returns an object of the kind as JSON, which may hold anything that a client can
// send: empty lists, null, other types, unknown fields and lists with repetitions.
func (r random) object(kind schema.GroupVersionKind) map[string]any {
	metadata := map[string]any{"name": "e"}
	for i := range 3 {
		r.put(metadata, "labels", fmt.Sprint("l", i))
		r.put(metadata, "annotations", fmt.Sprint("a", i))
		if r.one(4) {
			finalizers, _ := metadata["finalizers"].([]any)
			metadata["finalizers"] = append(finalizers, fmt.Sprint("example.com/f", i))
		}
		if r.one(5) {
			owners, _ := metadata["ownerReferences"].([]any)
			metadata["ownerReferences"] = append(owners, map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": fmt.Sprint(r.IntN(3))})
		}
	}
	if r.one(8) {
		r.put(metadata, "annotations", corev1.LastAppliedConfigAnnotation)
	}
	object := map[string]any{"apiVersion": kind.GroupVersion().String(), "kind": kind.Kind, "metadata": metadata}
	switch kind {
	case endpointsKind:
		r.list(object, "subsets", func() any {
			subset := map[string]any{}
			r.list(subset, "addresses", r.address)
			r.list(subset, "notReadyAddresses", r.address)
			r.list(subset, "ports", r.port)
			return subset
		})
	case sliceKind:
		object["addressType"] = []any{"IPv4", "IPv6"}[r.IntN(2)]
		r.list(object, "endpoints", func() any {
			endpoint := map[string]any{}
			r.list(endpoint, "addresses", func() any { return fmt.Sprint("10.0.0.", r.IntN(2)) })
			r.put(endpoint, "deprecatedTopology", "a")
			if r.one(3) {
				endpoint["conditions"] = map[string]any{"ready": r.one(2)}
			}
			return endpoint
		})
		r.list(object, "ports", r.port)
	case serviceKind:
		spec := map[string]any{"clusterIP": "None"}
		r.list(spec, "ports", r.port)
		r.put(spec, "selector", "a")
		object["spec"] = spec
	}
	return object
}

// put sets a key of a map, with one of two values, sometimes.
func (r random) put(object map[string]any, name, key string) {
	if !r.one(3) {
		return
	}
	values, _ := object[name].(map[string]any)
	if values == nil {
		values = map[string]any{}
		object[name] = values
	}
	values[key] = fmt.Sprint(r.IntN(2))
}

// list sets a list of up to two elements, or something odd.
func (r random) list(object map[string]any, name string, element func() any) {
	switch r.IntN(24) {
	case 0:
		object[name] = nil
	case 1:
		object[name] = []any{}
	case 2:
		object[name] = []any{nil}
	case 3:
		object[name] = []any{map[string]any{}}
	case 4:
		object[name] = []any{map[string]any{}, map[string]any{}}
	case 5, 6, 7, 8, 9, 10, 11, 12, 13, 14:
		list := []any{}
		for range 1 + r.IntN(2) {
			list = append(list, element())
		}
		object[name] = list
	case 15:
		object[name] = []any{"x", map[string]any{"ip": int64(1)}, []any{map[string]any{"unknown": "x"}}, map[string]any{}, int64(5), []any{}}[r.IntN(6)]
	}
}

func (r random) address() any {
	address := map[string]any{"ip": fmt.Sprint("10.0.0.", r.IntN(2))}
	switch r.IntN(12) {
	case 0:
		address["nodeName"] = nil
	case 1:
		address["nodeName"] = ""
	case 2:
		address["targetRef"] = map[string]any{}
	case 3:
		address["targetRef"] = map[string]any{"name": fmt.Sprint(r.IntN(2))}
	case 4:
		address["unknown"] = "x"
	}
	return address
}

func (r random) port() any {
	port := map[string]any{"port": int64(80 + r.IntN(2))}
	switch r.IntN(10) {
	case 0:
		port["protocol"] = "TCP"
	case 1:
		port["name"] = "a"
	case 2:
		port["port"] = 80.0
	case 3:
		port["port"] = 80.5
	case 4:
		port["port"] = int64(1) << 40
	case 5:
		port["port"] = "80"
	case 6:
		port["appProtocol"] = nil
	}
	return port
}

// typedOf returns what a decoder makes of an object, nil where it makes nothing of it.
func typedOf(kind schema.GroupVersionKind, object map[string]any) runtime.Object {
	data, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	obj, err := scheme.New(kind)
	if err != nil {
		panic(err)
	}
	if json.Unmarshal(data, obj) != nil {
		return nil
	}
	return obj
}

// setDefault gives ports a protocol, as the strategies do.
func setDefault(obj runtime.Object) {
	tcp := corev1.ProtocolTCP
	switch obj := obj.(type) {
	case *corev1.Endpoints:
		for i := range obj.Subsets {
			for j := range obj.Subsets[i].Ports {
				obj.Subsets[i].Ports[j].Protocol = tcp
			}
		}
	case *discoveryv1.EndpointSlice:
		for i := range obj.Ports {
			obj.Ports[i].Protocol = &tcp
		}
	case *corev1.Service:
		for i := range obj.Spec.Ports {
			obj.Spec.Ports[i].Protocol = tcp
		}
	}
}

// shape is an object in a form to compare: as JSON, in which times of now are one.
func shape(obj runtime.Object) string {
	obj = obj.DeepCopyObject()
	accessor, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	entries := accessor.GetManagedFields()
	for i := range entries {
		if at := entries[i].Time; at != nil && time.Since(at.Time) < time.Hour {
			entries[i].Time = &metav1.Time{Time: time.Unix(2_000_000_000, 0).UTC()}
		}
	}
	sortEntries(entries)
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	data, err := json.Marshal(obj)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// sortEntries puts entries in the order of operation, time and manager.
func sortEntries(entries []metav1.ManagedFieldsEntry) {
	slices.SortStableFunc(entries, func(a, b metav1.ManagedFieldsEntry) int {
		key := func(e metav1.ManagedFieldsEntry) string {
			at := int64(0)
			if e.Time != nil {
				at = e.Time.Unix()
			}
			return fmt.Sprintf("%s %12d %s %s", e.Operation, at, e.Manager, e.APIVersion)
		}
		return strings.Compare(key(a), key(b))
	})
}

// errorLines is an error in a form to compare: the library ranges over maps.
func errorLines(err error) string {
	if err == nil {
		return ""
	}
	lines := strings.Split(fmt.Sprintf("%s: %v", reflect.TypeOf(err), err), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
