package events

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	validate "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// How long the texts of an event with an eventTime may be, in bytes.
const (
	maxName = 128 // of reportingInstance, action and reason
	maxNote = 1024
)

// validateEvent returns the faults that an event has in either version. An event without an
// eventTime is of the older form, of which next to nothing is asked. reporter is the name of the
// field that says who reports it.
func validateEvent(event *corev1.Event, reporter string) field.ErrorList {
	about := event.InvolvedObject.Namespace
	elsewhere := field.ErrorList{field.Invalid(field.NewPath("involvedObject", "namespace"), about, "does not match event.namespace")}
	if event.EventTime.IsZero() {
		if about == event.Namespace || about == "" && event.Namespace == metav1.NamespaceDefault {
			return nil
		}
		return elsewhere
	}
	var errs field.ErrorList
	if about == "" && event.Namespace != metav1.NamespaceDefault && event.Namespace != metav1.NamespaceSystem {
		errs = elsewhere
	}
	required := func(name, value string) {
		if value == "" {
			errs = append(errs, field.Required(field.NewPath(name), ""))
		}
	}
	bounded := func(name, value string, most int) {
		if len(value) > most {
			errs = append(errs, field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %d characters", most)))
		}
	}
	required(reporter, event.ReportingController)
	for _, msg := range validation.IsQualifiedName(event.ReportingController) {
		errs = append(errs, field.Invalid(field.NewPath(reporter), event.ReportingController, msg))
	}
	required("reportingInstance", event.ReportingInstance)
	bounded("reportingInstance", event.ReportingInstance, maxName)
	required("action", event.Action)
	bounded("action", event.Action, maxName)
	required("reason", event.Reason)
	bounded("reason", event.Reason, maxName)
	bounded("message", event.Message, maxNote)
	return errs
}

// validateNew returns the faults of a new event of events.k8s.io/v1, which has none of the fields
// that count events in core/v1.
func validateNew(event *corev1.Event) field.ErrorList {
	errs := validateSeries(event.Series)
	if event.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if event.Type != corev1.EventTypeNormal && event.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", event.Type)))
	}
	unset := func(name string, isSet bool) {
		if isSet {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset("firstTimestamp", !event.FirstTimestamp.IsZero())
	unset("lastTimestamp", !event.LastTimestamp.IsZero())
	unset("count", event.Count != 0)
	unset("source", event.Source != corev1.EventSource{})
	return errs
}

func validateSeries(series *corev1.EventSeries) field.ErrorList {
	var errs field.ErrorList
	if series == nil {
		return nil
	}
	if series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// validateChange returns the faults of what an update of events.k8s.io/v1 changes and may not.
func validateChange(event, old *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(event.Series, old.Series) {
		errs = append(errs, validateSeries(event.Series)...)
	}
	immutable := func(name string, is, was any) {
		errs = append(errs, validate.ValidateImmutableField(is, was, field.NewPath(name))...)
	}
	immutable("involvedObject", told(&event.InvolvedObject), told(&old.InvolvedObject))
	immutable("reason", event.Reason, old.Reason)
	immutable("message", event.Message, old.Message)
	immutable("source", toldSource(event.Source), toldSource(old.Source))
	immutable("firstTimestamp", event.FirstTimestamp, old.FirstTimestamp)
	immutable("lastTimestamp", event.LastTimestamp, old.LastTimestamp)
	immutable("count", event.Count, old.Count)
	immutable("type", event.Type, old.Type)
	// Clients may have it with fewer digits than is stored.
	if !event.EventTime.Truncate(time.Microsecond).Equal(old.EventTime.Truncate(time.Microsecond)) {
		immutable("eventTime", event.EventTime, old.EventTime)
	}
	immutable("action", event.Action, old.Action)
	immutable("related", told(event.Related), told(old.Related))
	immutable("reportingController", event.ReportingController, old.ReportingController)
	immutable("reportingInstance", event.ReportingInstance, old.ReportingInstance)
	return errs
}

// toldReference and toldSource are how a client is told of references and sources: as
// kube-apiserver prints its internal forms.
type (
	toldReference struct{ Kind, Namespace, Name, UID, APIVersion, ResourceVersion, FieldPath string }
	toldSource    struct{ Component, Host string }
)

// told returns nil for nil.
func told(to *corev1.ObjectReference) *toldReference {
	if to == nil {
		return nil
	}
	return &toldReference{to.Kind, to.Namespace, to.Name, string(to.UID), to.APIVersion, to.ResourceVersion, to.FieldPath}
}
