// Package mirror shows Endpoints as EndpointSlices, and EndpointSlices written by hand as
// Endpoints. It is pure: what it is given decides what it returns.
//
// The first direction follows the endpointslicemirroring controller of Kubernetes, whose
// slices consumers know, except that it mirrors every address, however many there are, and
// sets of ports that no slice can hold. The other direction has no model there.
package mirror

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// ManagedBy is the value of discoveryv1.LabelManagedBy of slices that mirror Endpoints, as
	// Kubernetes' mirror has it.
	ManagedBy = "endpointslicemirroring-controller.k8s.io"

	// DerivedLabel is the label of the Endpoints that are made of slices, with the value DerivedBy.
	DerivedLabel = "endpoints.kubernetes.io/managed-by"
	// DerivedBy is that value.
	DerivedBy = "endpointslices.berth"

	// leaderAnnotation is on Endpoints that are only the lock of a leader election.
	leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"
)

// MaxEndpoints is how many endpoints the slices that mirror one Endpoints, or how many
// addresses the Endpoints that shows slices, may have altogether. Small objects can ask for
// very many: ports and addresses of several subsets multiply.
const MaxEndpoints = 100_000

// ErrTooMany is returned where there would be more than MaxEndpoints.
var ErrTooMany = errors.New("too many endpoints to mirror")

// Mirrors reports whether e is to be mirrored by what e itself says; whether it has a Service,
// and one without a selector, is for the caller to find out. It says no of an e that is not to
// be mirrored by its label, that is the lock of a leader election, that is derived from
// slices, or the name of which cannot be a label's value, as the slices would need it.
func Mirrors(e *corev1.Endpoints) bool {
	_, lock := e.Annotations[leaderAnnotation]
	return !lock && e.Labels[discoveryv1.LabelSkipMirror] != "true" && !IsDerived(labels.Set(e.Labels)) &&
		len(validation.IsValidLabelValue(e.Name)) == 0
}

// IsMirror reports whether the EndpointSlice with these labels mirrors an Endpoints.
func IsMirror(set labels.Labels) bool { return set.Get(discoveryv1.LabelManagedBy) == ManagedBy }

// IsDerived reports whether the Endpoints with these labels was made by Endpoints.
func IsDerived(set labels.Labels) bool { return set.Get(DerivedLabel) == DerivedBy }
