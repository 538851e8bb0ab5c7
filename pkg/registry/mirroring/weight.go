package mirroring

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/mirror"
)

// multiple is by how much larger the slices that mirror Endpoints may be than those for the weight to
// be like that of themselves.
const multiple = 4

// Weight returns what a write of a Service, or of a slice with those labels, reads and writes of its
// unit, in bytes of JSON, as far as the caches know. That of Endpoints is like themselves, unless the slices
// are many times as large.
func (m *Mirroring) Weight(s Store, namespace, name string, set labels.Labels) int {
	switch {
	case m == nil:
		return 0
	case s == m.Slices:
		name = set.Get(discoveryv1.LabelServiceName)
	}
	total := 0
	if e := known(m.Endpoints, namespace, name); e != nil && s == m.Endpoints {
		total = -multiple * e.Size()
	} else if e != nil {
		total = e.Size()
	}
	found, _, err := m.Slices.OfUnit(namespace + "/" + name)
	if name == "" || err != nil {
		return 0 // whoever writes finds out
	}
	for _, slice := range found {
		total += slice.Size()
	}
	return max(0, total)
}

// known returns the object that the cache has; nil: it has none that can be read.
func known(s Store, namespace, name string) *object.Object {
	o, _, err := s.Cached(s.Key(namespace, name))
	if err != nil {
		return nil
	}
	return o
}

// WeightOf is Weight for an object that a client sent.
func (m *Mirroring) WeightOf(s Store, namespace string, obj APIObject) int {
	e, ok := obj.(*corev1.Endpoints)
	switch {
	case m == nil:
		return 0
	case !ok:
		return m.Weight(s, namespace, obj.GetName(), labels.Set(obj.GetLabels()))
	case m.Mode != All && known(m.Services, namespace, e.Name) == nil:
		return 0
	}
	own, mirrored := mirror.Weight(e)
	return max(0, mirrored-multiple*own)
}
