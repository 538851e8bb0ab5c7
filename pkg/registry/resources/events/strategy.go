package events

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

// free is what both strategies do not do: every field of an event is the client's.
type free struct{}

func (free) Default(runtime.Object)                      {}
func (free) PrepareForCreate(runtime.Object)             {}
func (free) PrepareForUpdate(_, _ runtime.Object)        {}
func (free) Warnings(_, _ runtime.Object) (all []string) { return nil }

// coreStrategy is the registry.Strategy of core/v1, which has always taken nearly anything. Its
// objects are *corev1.Event.
type coreStrategy struct{ free }

// strategy is the registry.Strategy of events.k8s.io/v1. Its objects are *eventsv1.Event.
type strategy struct{ free }

var (
	_ registry.Strategy = coreStrategy{}
	_ registry.Strategy = strategy{}
)

// Validate returns the faults of a new event; those of its metadata where there are no others.
func (coreStrategy) Validate(obj runtime.Object) field.ErrorList {
	event := obj.(*corev1.Event)
	if errs := validateEvent(event, "reportingComponent"); len(errs) > 0 {
		return errs
	}
	return objectmeta.ValidateAny(&event.ObjectMeta, true)
}

// ValidateUpdate returns every fault of obj as the successor of old.
func (coreStrategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	event, stored := obj.(*corev1.Event), old.(*corev1.Event)
	errs := objectmeta.ValidateAnyUpdate(&event.ObjectMeta, &stored.ObjectMeta, true)
	return append(errs, validateEvent(event, "reportingComponent")...)
}

// Validate returns every fault of a new event. They name the fields of core/v1, except one.
func (strategy) Validate(obj runtime.Object) field.ErrorList {
	event := store(obj.(*eventsv1.Event))
	errs := validateEvent(event, "reportingController")
	errs = append(errs, objectmeta.Validate(&event.ObjectMeta, true, validation.NameIsDNSSubdomain)...)
	return append(errs, validateNew(event)...)
}

// ValidateUpdate returns every fault of obj as the successor of old, of which only the series and
// the metadata may change.
func (strategy) ValidateUpdate(obj, old runtime.Object) field.ErrorList {
	event, stored := store(obj.(*eventsv1.Event)), store(old.(*eventsv1.Event))
	errs := objectmeta.ValidateAnyUpdate(&event.ObjectMeta, &stored.ObjectMeta, true)
	errs = append(errs, validateEvent(event, "reportingController")...)
	errs = append(errs, objectmeta.ValidateFinalizerNames(event.Finalizers)...)
	return append(errs, validateChange(event, stored)...)
}
