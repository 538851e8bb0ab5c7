package lifecycle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rest is what is left in a namespace once all that can be deleted is. Its zero value is nothing.
type Rest struct {
	objects    map[string]int // by resource and group, as conditions name them
	finalizers map[string]int // how many objects each holds
}

// Add adds an object that finalizers hold. resource is its resource and group, with a dot between.
func (r *Rest) Add(resource string, finalizers []string) {
	if r.objects == nil {
		r.objects, r.finalizers = map[string]int{}, map[string]int{}
	}
	r.objects[resource]++
	for _, finalizer := range finalizers {
		r.finalizers[finalizer]++
	}
}

// conditions are those by which kube-apiserver's namespace controller says why a namespace is
// still there, in its words. failure is why not everything could be deleted; nil: it could.
func (r *Rest) conditions(failure error) []corev1.NamespaceCondition {
	condition := func(of corev1.NamespaceConditionType, reason, message string) corev1.NamespaceCondition {
		return corev1.NamespaceCondition{Type: of, Status: corev1.ConditionFalse, Reason: reason, Message: message}
	}
	all := []corev1.NamespaceCondition{
		condition(corev1.NamespaceDeletionDiscoveryFailure, "ResourcesDiscovered", "All resources successfully discovered"),
		condition(corev1.NamespaceDeletionGVParsingFailure, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
		condition(corev1.NamespaceDeletionContentFailure, "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
		condition(corev1.NamespaceContentRemaining, "ContentRemoved", "All content successfully removed"),
		condition(corev1.NamespaceFinalizersRemaining, "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
	}
	fail := func(i int, reason, message string) {
		all[i].Status, all[i].Reason, all[i].Message = corev1.ConditionTrue, reason, message
	}
	if failure != nil {
		if apierrors.ReasonForError(failure) == metav1.StatusReasonUnknown { // not for clients
			failure = errors.New("an internal error, which the server's log tells")
		}
		fail(2, "ContentDeletionFailed", fmt.Sprintf("Failed to delete all resource types, 1 remaining: %v", failure))
	}
	if len(r.objects) > 0 {
		fail(3, "SomeResourcesRemain", "Some resources are remaining: "+counted(r.objects, "%s has %d resource instances"))
	}
	if len(r.finalizers) > 0 {
		fail(4, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+counted(r.finalizers, "%s in %d resource instances"))
	}
	return all
}

// maxCounted is how many names a condition counts, since clients choose finalizers.
const maxCounted = 20

func counted(counts map[string]int, format string) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if len(texts) == maxCounted {
			texts = append(texts, fmt.Sprintf("and %d more", len(counts)-maxCounted))
			break
		}
		texts = append(texts, fmt.Sprintf(format, name, counts[name]))
	}
	return strings.Join(texts, ", ")
}

// setConditions sets conditions of the namespace, beside those of others, and reports whether that
// changes anything.
func setConditions(status *corev1.NamespaceStatus, conditions []corev1.NamespaceCondition, now metav1.Time) (changed bool) {
	for _, condition := range conditions {
		i := slices.IndexFunc(status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == condition.Type })
		if i < 0 {
			i, status.Conditions = len(status.Conditions), append(status.Conditions, corev1.NamespaceCondition{})
		}
		before := status.Conditions[i]
		condition.LastTransitionTime = before.LastTransitionTime
		if condition.Status != before.Status {
			condition.LastTransitionTime = now
		}
		changed = changed || condition != before
		status.Conditions[i] = condition
	}
	return changed
}
