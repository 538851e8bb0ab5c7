package media_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/media"
	"github.com/berth-project/berth/pkg/server/stream"
)

var policies = []metav1.IncludeObjectPolicy{"", metav1.IncludeMetadata, metav1.IncludeObject, metav1.IncludeNone}

// tableOf is the table of the objects in a version of meta.k8s.io, as the library has it.
func tableOf(version string, meta metav1.ListMeta, items []corev1.Endpoints, include metav1.IncludeObjectPolicy) *metav1.Table {
	table := &metav1.Table{ListMeta: meta, ColumnDefinitions: endpointsType.Columns, Rows: []metav1.TableRow{}}
	table.SetGroupVersionKind(metaKind(version, "Table"))
	for i := range items {
		age := "<unknown>"
		if !items[i].CreationTimestamp.IsZero() {
			age = "3d"
		}
		row := metav1.TableRow{Cells: endpointsType.Cells(&items[i])}
		row.Cells[slices.Index(row.Cells, any(object.Age))] = age
		switch include {
		case metav1.IncludeNone:
		case metav1.IncludeObject:
			one := items[i].DeepCopy()
			one.TypeMeta = metav1.TypeMeta{Kind: "Endpoints", APIVersion: "v1"}
			row.Object.Object = one
		default:
			row.Object.Object = &partialList(&corev1.EndpointsList{Items: items[i : i+1]}, version).Items[0]
		}
		table.Rows = append(table.Rows, row)
	}
	return table
}

// TestTablesAgree holds tables of lists and of objects to what apimachinery makes of them.
func TestTablesAgree(t *testing.T) {
	scheme := newScheme(t)
	c := media.New(scheme)
	for accept, options := range map[string]json.SerializerOptions{
		plainJSON:               {},
		plainJSON + ";pretty=1": {Pretty: true},
		yamlType:                {Yaml: true},
	} {
		encoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, options)
		for _, n := range []int{0, 1, 600} {
			for _, version := range metaVersions {
				testTables(t, c, n, accept+";as=Table;g=meta.k8s.io;v="+version, version, encoder)
			}
		}
	}
}

// testTables compares the tables of n objects.
func testTables(t *testing.T, c *media.Codecs, n int, accept, version string, encoder runtime.Encoder) {
	t.Helper()
	finished, typed := list(t, n)
	for _, include := range policies {
		for _, gzip := range []bool{false, true} {
			got := answer(t, c, request(accept, gzip), func(out media.Output, w *stream.Writer) error {
				return out.List(t.Context(), w, finished, include)
			})
			if want := encode(t, encoder, tableOf(version, typed.ListMeta, typed.Items, include)); got != want {
				t.Errorf("%s, %d rows, include %q, gzip %v (-want +got)\n%s", accept, n, include, gzip, cmp.Diff(head(want), head(got)))
			}
		}
		if n != 1 {
			continue
		}
		got := answer(t, c, request(accept, false), func(out media.Output, w *stream.Writer) error {
			return out.Object(t.Context(), w, finished.Objects[0], include)
		})
		meta := metav1.ListMeta{ResourceVersion: typed.Items[0].ResourceVersion, SelfLink: typed.Items[0].SelfLink}
		if want := encode(t, encoder, tableOf(version, meta, typed.Items, include)); got != want {
			t.Errorf("%s of one object, include %q (-want +got)\n%s", accept, include, cmp.Diff(want, got))
		}
	}
}

// Every event of a watch is a table, of which only the first has columns. A bookmark shows
// its metadata, whatever the client includes.
func TestTableEventsAgree(t *testing.T) {
	scheme := newScheme(t)
	c := media.New(scheme)
	encoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{})
	finished, typed := list(t, 3)
	status := &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Code: 410}
	line := func(eventType watch.EventType, obj runtime.Object) string {
		return `{"type":"` + string(eventType) + `","object":` + strings.TrimSuffix(encode(t, encoder, obj), "\n") + "}\n"
	}
	eventTypes := []watch.EventType{watch.Added, watch.Deleted, watch.Bookmark}
	test := func(accept, version string, include metav1.IncludeObjectPolicy) {
		want := ""
		for i, eventType := range eventTypes {
			shown := include
			if eventType == watch.Bookmark && include == metav1.IncludeNone {
				shown = metav1.IncludeMetadata
			}
			table := tableOf(version, metav1.ListMeta{ResourceVersion: typed.Items[i].ResourceVersion, SelfLink: typed.Items[i].SelfLink}, typed.Items[i:i+1], shown)
			if i > 0 {
				table.ColumnDefinitions = nil
			}
			want += line(eventType, table)
		}
		want += line("ERROR", status)
		for _, gzip := range []bool{false, true} {
			got := answer(t, c, request(accept, gzip), func(out media.Output, w *stream.Writer) error {
				w.Expect(stream.Unbounded)
				events, err := c.Events(out, include)
				if err != nil {
					return err
				}
				for i, eventType := range eventTypes {
					if err := events.Write(w, object.Event{Type: eventType, Object: finished.Objects[i]}); err != nil {
						return err
					}
				}
				return events.WriteError(w, status)
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, include %q, gzip %v (-want +got)\n%s", accept, include, gzip, diff)
			}
		}
	}
	for _, include := range policies {
		test(plainJSON+asTable, "v1", include)
		test(plainJSON+";pretty=1"+asTable, "v1", include)
		test(plainJSON+asTable+"beta1", "v1beta1", include)
	}
}

// Rows that cannot be encoded are an error in every format.
func TestTablesThatFail(t *testing.T) {
	c := media.New(newScheme(t))
	finished, _ := list(t, 1)
	finished.Objects[0].Type = &object.Type{
		Kind: endpointsType.Kind, New: endpointsType.New, Cells: func(runtime.Object) []any { return []any{func() {}} },
	}
	for _, accept := range []string{plainJSON, plainJSON + ";pretty=1", yamlType} {
		out, err := c.Negotiate(request(accept+asTable, false))
		if err != nil {
			t.Fatal(err)
		}
		w := stream.To(io.Discard)
		if err := out.List(t.Context(), w, finished, ""); err == nil {
			t.Errorf("%s: no error", accept)
		}
		w.Release()
	}
}
