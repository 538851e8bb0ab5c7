// Package leases holds the rules for coordination.k8s.io/v1 Lease, by which clients elect a
// leader. They are kube-apiserver's, down to the texts and the order of faults.
package leases

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

// Resource describes coordination.k8s.io/v1 Lease.
func Resource() *registry.Resource {
	return &registry.Resource{
		API: metav1.APIResource{
			Group: coordinationv1.GroupName, Version: "v1", Kind: "Lease", Name: "leases", SingularName: "lease",
			Namespaced: true, StorageVersionHash: "gqkMMb/YqFM=",
		},
		New:            func() registry.APIObject { return &coordinationv1.Lease{} },
		AddToScheme:    coordinationv1.AddToScheme,
		Strategy:       strategy{},
		RequireVersion: true,
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn,
			{Name: "Holder", Type: "string", Description: coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]},
			registry.AgeColumn,
		},
		Cells: func(obj runtime.Object) []any {
			lease, holder := obj.(*coordinationv1.Lease), ""
			if lease.Spec.HolderIdentity != nil {
				holder = *lease.Spec.HolderIdentity
			}
			return []any{lease.Name, holder, registry.Age}
		},
	}
}

// strategy is the registry.Strategy of Lease. Its objects are *coordinationv1.Lease.
type strategy struct{}

var _ registry.Strategy = strategy{}

// Default does nothing: every field is optional, and has no default.
func (strategy) Default(runtime.Object) {}

// PrepareForCreate drops the fields of coordinated leader election, which kube-apiserver does
// not offer by default either.
func (strategy) PrepareForCreate(obj runtime.Object) {
	lease := obj.(*coordinationv1.Lease)
	lease.Spec.Strategy, lease.Spec.PreferredHolder = nil, nil
}

// PrepareForUpdate drops what PrepareForCreate drops.
func (s strategy) PrepareForUpdate(obj, _ runtime.Object) { s.PrepareForCreate(obj) }

// Validate returns every fault of a new lease.
func (strategy) Validate(obj runtime.Object) field.ErrorList {
	lease := obj.(*coordinationv1.Lease)
	errs := objectmeta.Validate(&lease.ObjectMeta, true, validation.NameIsDNSSubdomain)
	return append(errs, validateSpec(&lease.Spec)...)
}

// ValidateUpdate returns every fault of obj as the successor of old.
func (strategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	lease, stored := obj.(*coordinationv1.Lease), old.(*coordinationv1.Lease)
	errs := objectmeta.ValidateUpdate(&lease.ObjectMeta, &stored.ObjectMeta, true, validation.NameIsDNSSubdomain)
	return append(errs, validateSpec(&lease.Spec)...)
}

// Warnings returns nil.
func (strategy) Warnings(_, _ runtime.Object) []string { return nil }

func validateSpec(spec *coordinationv1.LeaseSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if seconds := spec.LeaseDurationSeconds; seconds != nil && *seconds <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *seconds, "must be greater than 0"))
	}
	if transitions := spec.LeaseTransitions; transitions != nil && *transitions < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *transitions, "must be greater than or equal to 0"))
	}
	return errs
}
