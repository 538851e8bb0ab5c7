// Package endpoints holds the rules for core/v1 Endpoints. They are kube-apiserver's, down
// to the texts and the order of faults.
package endpoints

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

// Strategy is the registry.Strategy of Endpoints. Its objects are *corev1.Endpoints.
type Strategy struct{}

var _ registry.Strategy = Strategy{}

// Default sets the protocol of ports that have none to TCP.
func (Strategy) Default(obj runtime.Object) {
	subsets := obj.(*corev1.Endpoints).Subsets
	for i := range subsets {
		ports := subsets[i].Ports
		for j := range ports {
			if ports[j].Protocol == "" {
				ports[j].Protocol = corev1.ProtocolTCP
			}
		}
	}
}

// PrepareForCreate does nothing: every field of Endpoints is the client's.
func (Strategy) PrepareForCreate(runtime.Object) {}

// PrepareForUpdate does nothing: every field of Endpoints may change.
func (Strategy) PrepareForUpdate(_, _ runtime.Object) {}

// Validate returns every fault of new Endpoints. Valid addresses and ports cost no
// memory, however many they are.
func (Strategy) Validate(obj runtime.Object) field.ErrorList {
	endpoints := obj.(*corev1.Endpoints)
	errs := objectmeta.Validate(&endpoints.ObjectMeta, true, validation.NameIsDNSSubdomain)
	return append(errs, validateSubsets(endpoints.Subsets)...)
}

// ValidateUpdate returns every fault of obj as the successor of old. Subsets that are
// faulty are tolerated as long as they stay what they were: they were valid when an older
// version stored them, and their owner must be able to change labels and finalizers.
func (Strategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	endpoints, stored := obj.(*corev1.Endpoints), old.(*corev1.Endpoints)
	errs := objectmeta.ValidateUpdate(&endpoints.ObjectMeta, &stored.ObjectMeta, true, validation.NameIsDNSSubdomain)
	faults := validateSubsets(endpoints.Subsets)
	if len(faults) > 0 && equality.Semantic.DeepEqual(stored.Subsets, endpoints.Subsets) {
		return errs
	}
	return append(errs, faults...)
}
