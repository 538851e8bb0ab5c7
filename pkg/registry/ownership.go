package registry

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
)

// NewTypeConverter builds the schema by which field ownership is tracked. It takes some
// 100 ms of CPU: build it beside other slow work.
func NewTypeConverter(scheme *runtime.Scheme) managedfields.TypeConverter {
	return applyconfigurations.NewTypeConverter(scheme)
}

// newFieldManager returns what keeps metadata.managedFields of the resource's objects.
func newFieldManager(r *Resource, scheme *runtime.Scheme, converter managedfields.TypeConverter) (*managedfields.FieldManager, error) {
	gvk := r.GroupVersionKind()
	manager, err := managedfields.NewDefaultFieldManager(converter, scheme, scheme, scheme, gvk, gvk.GroupVersion(), "", nil)
	if err != nil {
		return nil, fmt.Errorf("field ownership of %s: %w", r.API.Name, err)
	}
	return manager, nil
}

// dropDuplicateOwners removes repeated owner references, as kube-apiserver does since
// 1.20, and returns the warning that it gives for that.
func dropDuplicateOwners(accessor metav1.Object) []string {
	owners := accessor.GetOwnerReferences()
	var kept []metav1.OwnerReference
	var duplicates []string
	for _, owner := range owners {
		if containsOwner(kept, owner) {
			duplicates = append(duplicates, string(owner.UID))
			continue
		}
		kept = append(kept, owner)
	}
	if len(duplicates) == 0 {
		return nil
	}
	accessor.SetOwnerReferences(kept)
	return []string{".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: " + strings.Join(duplicates, ", ")}
}

func containsOwner(owners []metav1.OwnerReference, owner metav1.OwnerReference) bool {
	for i := range owners {
		if owners[i].UID == owner.UID && equality.Semantic.DeepEqual(owners[i], owner) {
			return true
		}
	}
	return false
}
