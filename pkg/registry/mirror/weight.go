package mirror

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// What an address, an endpoint and the slice around endpoints take as JSON beside the text in them,
// in bytes, about.
const (
	addressBytes  = 12
	endpointBytes = 64
	sliceBytes    = 800
)

// Weight returns how many bytes the addresses and the metadata of e take as JSON, and how many its
// slices take at most, roughly, at a cost that does not multiply as they may.
func Weight(e *corev1.Endpoints) (own, mirrored int) {
	metadata := 0
	for _, set := range []map[string]string{e.Labels, e.Annotations} {
		for key, value := range set {
			metadata += len(key) + len(value)
		}
	}
	own = metadata
	inSlices := make([]int, len(e.Subsets))
	for i := range e.Subsets {
		subset := &e.Subsets[i]
		for _, list := range [][]corev1.EndpointAddress{subset.Addresses, subset.NotReadyAddresses} {
			for j := range list {
				text := textBytes(&list[j])
				own += text + addressBytes
				inSlices[i] += text + endpointBytes
			}
		}
	}
	classes := classify(e.Subsets)
	single := repeatsNames(classes)
	for _, c := range classes {
		endpoints, families := 0, 2
		for _, i := range c.subsets {
			endpoints += inSlices[i]
		}
		if single {
			families *= len(c.ports)
			endpoints *= len(c.ports)
		}
		mirrored += endpoints + families*(sliceBytes+metadata)
	}
	return own, mirrored
}

func textBytes(a *corev1.EndpointAddress) int {
	n := len(a.IP) + len(a.Hostname)
	if a.NodeName != nil {
		n += len(*a.NodeName)
	}
	if ref := a.TargetRef; ref != nil {
		n += len(ref.Kind) + len(ref.Namespace) + len(ref.Name) + len(ref.UID) + len(ref.APIVersion) + len(ref.ResourceVersion) + len(ref.FieldPath)
	}
	return n
}

// repeatsNames reports whether two ports have one name, so that each may get a slice of its own.
func repeatsNames(classes []class) bool {
	var names []string
	for _, c := range classes {
		for _, p := range c.ports {
			names = append(names, p.name)
		}
	}
	slices.Sort(names)
	n := len(names)
	return len(slices.Compact(names)) < n
}
