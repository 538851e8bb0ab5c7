package objectmeta

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DropDuplicateOwners removes repeated owner references, as kube-apiserver does since
// 1.20, and returns the warning that it gives for that.
func DropDuplicateOwners(accessor metav1.Object) []string {
	owners := accessor.GetOwnerReferences()
	if len(owners) < 2 {
		return nil
	}
	seen := make(map[comparableOwner]bool, len(owners))
	var kept []metav1.OwnerReference
	var duplicates []string
	for _, owner := range owners {
		key := comparableOwner{owner, pointee(owner.Controller), pointee(owner.BlockOwnerDeletion)}
		key.Controller, key.BlockOwnerDeletion = nil, nil
		if seen[key] {
			duplicates = append(duplicates, string(owner.UID))
			continue
		}
		seen[key] = true
		kept = append(kept, owner)
	}
	if len(duplicates) == 0 {
		return nil
	}
	accessor.SetOwnerReferences(kept)
	return []string{".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: " + strings.Join(duplicates, ", ")}
}

// comparableOwner is an owner reference with what its pointers point to.
type comparableOwner struct {
	metav1.OwnerReference
	controller, blocks optional
}

type optional struct{ given, value bool }

func pointee(value *bool) optional {
	if value == nil {
		return optional{}
	}
	return optional{true, *value}
}
