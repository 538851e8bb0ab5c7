package events

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/registry"
)

var columns = func() []metav1.TableColumnDefinition {
	docs := corev1.Event{}.SwaggerDoc()
	name := registry.NameColumn
	name.Priority = 1
	return []metav1.TableColumnDefinition{
		{Name: "Last Seen", Type: "string", Description: docs["lastTimestamp"]},
		{Name: "Type", Type: "string", Description: docs["type"]},
		{Name: "Reason", Type: "string", Description: docs["reason"]},
		{Name: "Object", Type: "string", Description: docs["involvedObject"]},
		{Name: "Subobject", Type: "string", Priority: 1, Description: corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]},
		{Name: "Source", Type: "string", Priority: 1, Description: docs["source"]},
		{Name: "Message", Type: "string", Description: docs["message"]},
		{Name: "First Seen", Type: "string", Priority: 1, Description: docs["firstTimestamp"]},
		{Name: "Count", Type: "string", Priority: 1, Description: docs["count"]},
		name,
	}
}()

func cells(event *corev1.Event) []any {
	first := registry.Since(event.FirstTimestamp.Time)
	if event.FirstTimestamp.IsZero() {
		first = registry.Since(event.EventTime.Time)
	}
	last, count := registry.Since(event.LastTimestamp.Time), event.Count
	if event.LastTimestamp.IsZero() {
		last = first
	}
	if event.Series != nil {
		last, count = registry.Since(event.Series.LastObservedTime.Time), event.Series.Count
	} else if count == 0 {
		count = 1 // an event that is not counted has happened once
	}
	about := strings.ToLower(event.InvolvedObject.Kind)
	if event.InvolvedObject.Name != "" {
		about += "/" + event.InvolvedObject.Name
	}
	return []any{
		last, event.Type, event.Reason, about, event.InvolvedObject.FieldPath, source(event), strings.TrimSpace(event.Message),
		first, int64(count), event.Name,
	}
}

// source is who has reported the event, and where.
func source(event *corev1.Event) string {
	who, where := cmp.Or(event.Source.Component, event.ReportingController), cmp.Or(event.Source.Host, event.ReportingInstance)
	if where == "" {
		return who
	}
	return who + ", " + where
}
