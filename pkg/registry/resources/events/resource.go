// Package events holds the rules for Events, which tell what became of an object: core/v1 and
// events.k8s.io/v1 are two views of the same. The rules are kube-apiserver's, down to the texts
// and the order of faults.
package events

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
)

// share is the part of all that may be stored that events may take, one in share: whoever may
// report anything can report much.
const share = 8

// Resources describes core/v1 Event, as which events are stored, and events.k8s.io/v1 Event.
func Resources() []*registry.Resource {
	core := &registry.Resource{
		API:         describe("", "v1"),
		New:         func() registry.APIObject { return &corev1.Event{} },
		AddToScheme: corev1.AddToScheme,
		Strategy:    coreStrategy{},
		Share:       share,
		Fields: []string{
			"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
			"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
			"reason", "reportingComponent", "source", "type",
		},
		FieldPaths: map[string][]string{"source": {"source.component", "reportingComponent"}},
		Columns:    columns,
		Cells:      func(obj runtime.Object) []any { return cells(obj.(*corev1.Event)) },
	}
	synonyms := map[string]string{"reportingController": "reportingComponent"}
	for _, name := range []string{"kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"} {
		synonyms["regarding."+name] = "involvedObject." + name
	}
	view := &registry.Resource{
		API:         describe(eventsv1.GroupName, "v1"),
		New:         func() registry.APIObject { return &eventsv1.Event{} },
		AddToScheme: eventsv1.AddToScheme,
		Strategy:    strategy{},
		ViewOf: &registry.View{
			Of:    core,
			Show:  func(obj registry.APIObject) registry.APIObject { return show(obj.(*corev1.Event)) },
			Store: func(obj registry.APIObject) registry.APIObject { return store(obj.(*eventsv1.Event)) },
		},
		Fields:        []string{"reason", "type"},
		FieldSynonyms: synonyms,
		Columns:       columns,
		Cells:         func(obj runtime.Object) []any { return cells(store(obj.(*eventsv1.Event))) },
	}
	return []*registry.Resource{core, view}
}

func describe(group, version string) metav1.APIResource {
	return metav1.APIResource{
		Group: group, Version: version, Kind: "Event", Name: "events", SingularName: "event", Namespaced: true,
		ShortNames: []string{"ev"}, StorageVersionHash: "r2yiGXH7wu8=",
	}
}

// show returns an event as events.k8s.io/v1 has it.
func show(event *corev1.Event) *eventsv1.Event {
	shown := &eventsv1.Event{
		ObjectMeta: event.ObjectMeta, EventTime: event.EventTime, ReportingController: event.ReportingController,
		ReportingInstance: event.ReportingInstance, Action: event.Action, Reason: event.Reason, Regarding: event.InvolvedObject,
		Related: event.Related, Note: event.Message, Type: event.Type, DeprecatedSource: event.Source,
		DeprecatedFirstTimestamp: event.FirstTimestamp, DeprecatedLastTimestamp: event.LastTimestamp, DeprecatedCount: event.Count,
	}
	if event.Series != nil {
		shown.Series = &eventsv1.EventSeries{Count: event.Series.Count, LastObservedTime: event.Series.LastObservedTime}
	}
	return shown
}

// store returns an event as core/v1 has it.
func store(event *eventsv1.Event) *corev1.Event {
	stored := &corev1.Event{
		ObjectMeta: event.ObjectMeta, EventTime: event.EventTime, ReportingController: event.ReportingController,
		ReportingInstance: event.ReportingInstance, Action: event.Action, Reason: event.Reason, InvolvedObject: event.Regarding,
		Related: event.Related, Message: event.Note, Type: event.Type, Source: event.DeprecatedSource,
		FirstTimestamp: event.DeprecatedFirstTimestamp, LastTimestamp: event.DeprecatedLastTimestamp, Count: event.DeprecatedCount,
	}
	if event.Series != nil {
		stored.Series = &corev1.EventSeries{Count: event.Series.Count, LastObservedTime: event.Series.LastObservedTime}
	}
	return stored
}
