package registry

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/berth-project/berth/pkg/registry/mirror"
)

// multiple is by how much larger the slices that mirror Endpoints may be than those for the weight to
// be like that of themselves.
const multiple = 4

// weight returns what a write of a Service, or of a slice with those labels, reads and writes of its
// unit, in bytes of JSON. That of Endpoints is like themselves, unless the slices are many times as large.
func (m *mirroring) weight(s *Store, namespace, name string, set labels.Labels) int {
	switch {
	case m == nil, s != m.services && s != m.slices && s != m.endpoints:
		return 0
	case s == m.slices:
		name = set.Get(discoveryv1.LabelServiceName)
	}
	total := 0
	if e := m.endpoints.known(namespace, name); e != nil && s == m.endpoints {
		total = -multiple * e.Size()
	} else if e != nil {
		total = e.Size()
	}
	entries, _, err := m.slices.cache.Indexed(namespace + "/" + name)
	if name == "" || err != nil {
		return 0 // whoever writes finds out
	}
	for _, entry := range entries {
		total += entry.Value.size()
	}
	return max(0, total)
}

// effectsWeight is weight for an object that a client sent.
func (m *mirroring) effectsWeight(s *Store, namespace string, obj APIObject) int {
	e, ok := obj.(*corev1.Endpoints)
	switch {
	case m == nil:
		return 0
	case !ok:
		return m.weight(s, namespace, obj.GetName(), labels.Set(obj.GetLabels()))
	case !m.all && m.services.known(namespace, e.Name) == nil:
		return 0
	}
	own, mirrored := mirror.Weight(e)
	return max(0, mirrored-multiple*own)
}
