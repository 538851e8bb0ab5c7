package clients

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// The tests of this file follow test/e2e/apimachinery/table_conversion.go.

const tableAccept = "application/json;as=Table;v=v1;g=meta.k8s.io"

// getTable lists the namespace's Endpoints as a table.
func getTable(t *testing.T, client *kubernetes.Clientset, namespace string, opts metav1.ListOptions, include metav1.IncludeObjectPolicy) *metav1.Table {
	t.Helper()
	table := &metav1.Table{}
	request := client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("endpoints").
		VersionedParams(&opts, scheme.ParameterCodec).SetHeader("Accept", tableAccept)
	if include != "" {
		request = request.Param("includeObject", string(include))
	}
	data, err := request.Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, table); err != nil {
		t.Fatal(err)
	}
	return table
}

// “Servers with support for Table transformation should return pod details”.
func TestTable(t *testing.T) {
	t.Parallel()
	client, namespace, endpoints := sharedNamespace(t)
	created := mustCreate(t, endpoints, newEndpoints("object", "app", "x"))
	table := getTable(t, client, namespace, metav1.ListOptions{}, "")
	columns := []string{}
	for _, column := range table.ColumnDefinitions {
		columns = append(columns, column.Name+" "+column.Type)
	}
	if diff := cmp.Diff([]string{"Name string", "Endpoints string", "Age string"}, columns); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if len(table.Rows) != 1 || table.ResourceVersion == "" {
		t.Fatalf("table of %d rows at version %q, want one row", len(table.Rows), table.ResourceVersion)
	}
	if diff := cmp.Diff([]any{"object", "10.0.0.1:80"}, table.Rows[0].Cells[:2]); diff != "" {
		t.Errorf("cells (-want +got):\n%s", diff)
	}
	for include, want := range map[metav1.IncludeObjectPolicy]string{
		"": "PartialObjectMetadata", metav1.IncludeMetadata: "PartialObjectMetadata", metav1.IncludeObject: "Endpoints", metav1.IncludeNone: "",
	} {
		row := getTable(t, client, namespace, metav1.ListOptions{}, include).Rows[0]
		var got metav1.PartialObjectMetadata
		if len(row.Object.Raw) > 0 {
			if err := json.Unmarshal(row.Object.Raw, &got); err != nil {
				t.Fatal(err)
			}
		}
		if got.Kind != want || want != "" && got.UID != created.UID {
			t.Errorf("includeObject=%q: a row has a %q of uid %q, want %q of uid %q", include, got.Kind, got.UID, want, created.UID)
		}
	}
	if empty := getTable(t, client, namespace, metav1.ListOptions{LabelSelector: "app=none"}, ""); len(empty.Rows) != 0 || len(empty.ColumnDefinitions) != 3 {
		t.Errorf("an empty table has %d rows and %d columns", len(empty.Rows), len(empty.ColumnDefinitions))
	}
}

// “Servers with support for Table transformation should return chunks of table results for
// list calls”.
func TestTableChunks(t *testing.T) {
	t.Parallel()
	client, namespace, endpoints := sharedNamespace(t)
	for i := range 20 {
		mustCreate(t, endpoints, newEndpoints(fmt.Sprintf("object-%02d", i)))
	}
	first := getTable(t, client, namespace, metav1.ListOptions{Limit: 11}, "")
	if len(first.Rows) != 11 || first.Continue == "" || first.RemainingItemCount == nil || *first.RemainingItemCount != 9 {
		t.Fatalf("the first page has %d rows, token %q and %v remain", len(first.Rows), first.Continue, first.RemainingItemCount)
	}
	second := getTable(t, client, namespace, metav1.ListOptions{Continue: first.Continue}, "")
	if len(second.Rows) != 9 || second.Continue != "" || second.ResourceVersion != first.ResourceVersion {
		t.Errorf("the second page has %d rows and token %q at version %s, want the last 9 at %s", len(second.Rows), second.Continue, second.ResourceVersion, first.ResourceVersion)
	}
}

// “Servers with support for Table transformation should return a 406 for a backend which
// does not implement metadata”: what is no resource has no table.
func TestTableWhereNoneIs(t *testing.T) {
	t.Parallel()
	client, namespace, endpoints := sharedNamespace(t)
	err := client.Discovery().RESTClient().Get().AbsPath("/apis").SetHeader("Accept", tableAccept).Do(t.Context()).Error()
	checkStatus(t, "discovery as a table", err, 406, metav1.StatusReasonNotAcceptable)
	err = client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("endpoints").
		SetHeader("Accept", "application/json;as=Table;v=v1alpha1;g=meta.k8s.io").Do(t.Context()).Error()
	checkStatus(t, "a table of an unknown version", err, 406, metav1.StatusReasonNotAcceptable)

	// A client that also takes the object as it is gets that.
	mustCreate(t, endpoints, newEndpoints("object"))
	data, err := client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("endpoints").Name("object").
		SetHeader("Accept", "application/json;as=Table;v=v1alpha1;g=meta.k8s.io, application/json").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var got metav1.PartialObjectMetadata
	if err := json.Unmarshal(data, &got); err != nil || got.Kind != "Endpoints" {
		t.Errorf("got a %q and error %v, want Endpoints", got.Kind, err)
	}
}
