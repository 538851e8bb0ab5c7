package events

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
)

// fill sets every field below v to something that is not its zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Interface().(type) {
	case metav1.Time, metav1.MicroTime:
		v.FieldByName("Time").Set(reflect.ValueOf(time.Unix(1, 0)))
		return
	case metav1.TypeMeta:
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.String:
		v.SetString("x")
	case reflect.Int32, reflect.Int64:
		v.SetInt(3)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Map, reflect.Slice: // of the metadata, which is carried over whole
	default:
		t.Fatalf("a %s", v.Type())
	}
}

// No field is lost from one version to the other.
func TestConversion(t *testing.T) {
	var core corev1.Event
	fill(t, reflect.ValueOf(&core).Elem())
	if diff := cmp.Diff(&core, store(show(&core))); diff != "" {
		t.Errorf("there and back (-before +after)\n%s", diff)
	}
	var event eventsv1.Event
	fill(t, reflect.ValueOf(&event).Elem())
	if diff := cmp.Diff(&event, show(store(&event))); diff != "" {
		t.Errorf("there and back (-before +after)\n%s", diff)
	}
}

func decode[T any](t *testing.T, data string) *T {
	t.Helper()
	obj := new(T)
	if err := json.Unmarshal([]byte(data), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

func checkFaults(t *testing.T, name string, got field.ErrorList, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %v, want %q", name, got, want)
		return
	}
	for i, fault := range got {
		if !strings.HasPrefix(fault.Error(), want[i]) {
			t.Errorf("%s: got %q, want %q", name, fault, want[i])
		}
	}
}

const newEvent = `"eventTime":"2026-11-26T14:00:00.000000Z","reportingInstance":"i","action":"a","reason":"r","type":"Normal"`

func TestCoreValidation(t *testing.T) {
	long := strings.Repeat("x", 129)
	for name, tc := range map[string]struct {
		event string
		want  []string
	}{
		"next to nothing":         {`{"metadata":{"name":"` + long + `","namespace":"ns"},"involvedObject":{"namespace":"ns"},"type":"Alarm","reason":"` + long + `"}`, nil},
		"of nothing":              {`{"metadata":{"name":"e","namespace":"default"}}`, nil},
		"of nothing, elsewhere":   {`{"metadata":{"name":"e","namespace":"ns"}}`, []string{`involvedObject.namespace: Invalid value: "": does not match event.namespace`}},
		"of another namespace":    {`{"metadata":{"name":"A","namespace":"ns"},"involvedObject":{"namespace":"default"}}`, []string{`involvedObject.namespace: Invalid value: "default"`}},
		"metadata come last":      {`{"metadata":{"name":"a/b","namespace":"ns","finalizers":["any"]},"involvedObject":{"namespace":"ns"}}`, []string{`metadata.name: Invalid value: "a/b": may not contain '/'`}},
		"new":                     {`{"metadata":{"name":"e","namespace":"ns"},"involvedObject":{"namespace":"other"},"reportingComponent":"a/b",` + newEvent + `}`, nil},
		"new, without its fields": {`{"metadata":{"name":"e","namespace":"ns"},"eventTime":"2026-11-26T14:00:00.000000Z"}`, []string{`involvedObject.namespace`, `reportingComponent: Required value`, `reportingComponent: Invalid value: "": name part must be non-empty`, `reportingComponent: Invalid value: ""`, `reportingInstance: Required value`, `action: Required value`, `reason: Required value`}},
		"new, and long":           {`{"metadata":{"name":"e","namespace":"kube-system"},"eventTime":"2026-11-26T14:00:00.000000Z","reportingComponent":"c","reportingInstance":"` + long + `","action":"` + long + `","reason":"` + long + `","message":"` + strings.Repeat("x", 1025) + `"}`, []string{`reportingInstance: Invalid value: "": can have at most 128 characters`, `action`, `reason`, `message: Invalid value: "": can have at most 1024 characters`}},
	} {
		event := decode[corev1.Event](t, tc.event)
		checkFaults(t, name, coreStrategy{}.Validate(event), tc.want)
		if event.ResourceVersion = "1"; name != "metadata come last" {
			checkFaults(t, name+", updated", coreStrategy{}.ValidateUpdate(event, event.DeepCopy()), tc.want)
		}
	}
}

func TestNewValidation(t *testing.T) {
	const head = `{"metadata":{"name":"e","namespace":"ns","resourceVersion":"1"},"regarding":{"namespace":"ns"},"reportingController":"c",`
	for name, tc := range map[string]struct {
		event string
		want  []string
	}{
		"valid":      {head + newEvent + `}`, nil},
		"no time":    {`{"metadata":{"name":"A","namespace":"ns"},"regarding":{"namespace":"ns"}}`, []string{`metadata.name: Invalid value: "A"`, `eventTime: Required value`, `type: Invalid value: "": has invalid value: `}},
		"old fields": {head + newEvent + `,"deprecatedCount":1,"deprecatedSource":{"host":"h"},"deprecatedFirstTimestamp":"2026-11-26T14:00:00Z","deprecatedLastTimestamp":"2026-11-26T14:00:00Z"}`, []string{`firstTimestamp: Invalid value: "": needs to be unset`, `lastTimestamp`, `count`, `source`}},
		"series":     {head + newEvent + `,"series":{"count":1,"lastObservedTime":null}}`, []string{`series.count: Invalid value: "": should be at least 2`, `series.lastObservedTime: Required value`}},
		"controller": {`{"metadata":{"name":"e","namespace":"ns"},"regarding":{"namespace":"ns"},"reportingController":"a b",` + newEvent + `}`, []string{`reportingController: Invalid value: "a b"`}},
	} {
		checkFaults(t, name, strategy{}.Validate(decode[eventsv1.Event](t, tc.event)), tc.want)
	}
	old := decode[eventsv1.Event](t, head+newEvent+`}`)
	changed := old.DeepCopy()
	changed.Series = &eventsv1.EventSeries{Count: 2, LastObservedTime: metav1.NowMicro()}
	changed.Labels = map[string]string{"a": "b"}
	checkFaults(t, "a series", strategy{}.ValidateUpdate(changed, old), nil)
	changed = old.DeepCopy()
	changed.Regarding.Name, changed.Reason, changed.Note, changed.Type, changed.Action, changed.ReportingInstance = "x", "x", "x", "Warning", "x", "x"
	changed.Related, changed.DeprecatedCount, changed.DeprecatedSource.Host = &corev1.ObjectReference{}, 1, "h"
	changed.EventTime = metav1.NowMicro()
	checkFaults(t, "all else", strategy{}.ValidateUpdate(changed, old), []string{
		`involvedObject: Invalid value: {"Kind":"","Namespace":"ns","Name":"x","UID":"",`, `reason`, `message: Invalid value: "x": field is immutable`,
		`source: Invalid value: {"Component":"","Host":"h"}`, `count`, `type`, `eventTime`, `action`, `related: Invalid value: {"Kind":""`, `reportingInstance`,
	})
	finer := old.DeepCopy()
	finer.EventTime.Time = finer.EventTime.Add(time.Nanosecond)
	checkFaults(t, "digits that are not stored", strategy{}.ValidateUpdate(finer, old), nil)
}

func TestTable(t *testing.T) {
	at := func(seconds int64) registry.Since { return registry.Since(time.Unix(seconds, 0)) }
	first, last, micro := metav1.Unix(1, 0), metav1.Unix(2, 0), metav1.NewMicroTime(time.Unix(3, 0))
	for name, tc := range map[string]struct {
		event corev1.Event
		want  []any
	}{
		"nothing": {corev1.Event{}, []any{registry.Since{}, "", "", "", "", "", "", registry.Since{}, int64(1), ""}},
		"old": {
			corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}, FirstTimestamp: first, LastTimestamp: last, Count: 4, Type: "Normal", Reason: "R", Message: " m\n", InvolvedObject: corev1.ObjectReference{Kind: "Service", Name: "web", FieldPath: "spec"}, Source: corev1.EventSource{Component: "c", Host: "h"}, ReportingController: "other", ReportingInstance: "x"},
			[]any{at(2), "Normal", "R", "service/web", "spec", "c, h", "m", at(1), int64(4), "e"},
		},
		"new": {
			corev1.Event{EventTime: micro, ReportingController: "c", ReportingInstance: "i", Series: &corev1.EventSeries{Count: 7, LastObservedTime: metav1.NewMicroTime(time.Unix(5, 0))}},
			[]any{at(5), "", "", "", "", "c, i", "", at(3), int64(7), ""},
		},
		"new, once": {corev1.Event{EventTime: micro, ReportingController: "c"}, []any{at(3), "", "", "", "", "c", "", at(3), int64(1), ""}},
	} {
		got := cells(&tc.event)
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
	if got := Resources()[1].Cells(&eventsv1.Event{Note: "n"}); got[6] != "n" {
		t.Errorf("the view shows %v", got)
	}
}
