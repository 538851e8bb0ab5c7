package resources

import (
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/registry/ownership"
)

// eachResource runs the test for every resource of the catalogue.
func eachResource(t *testing.T, test func(t *testing.T, resource *registry.Resource)) {
	t.Helper()
	for _, resource := range All() {
		t.Run(resource.GroupResource().String(), func(t *testing.T) { test(t, resource) })
	}
}

// Without its schema no field of a resource is tracked, and every apply fails.
func TestEveryResourceHasItsSchema(t *testing.T) {
	eachResource(t, func(t *testing.T, resource *registry.Resource) {
		if resource.NoObjects != "" {
			return
		}
		manager, err := ownership.New(ownership.Config{
			Kind: resource.GroupVersionKind(), Scheme: Scheme(), Converter: TypeConverter(),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := manager.Check(); err != nil {
			t.Errorf("%v; run `make fix-generated`", err)
		}
	})
}

// The Go types of a resource are those that its group has under its kind.
func TestEveryResourceHasItsTypes(t *testing.T) {
	eachResource(t, func(t *testing.T, resource *registry.Resource) {
		kind := resource.GroupVersionKind()
		got, err := Scheme().New(kind)
		if err != nil || reflect.TypeOf(got) != reflect.TypeOf(resource.New()) {
			t.Errorf("%s is a %T (%v), want a %T", kind, got, err, resource.New())
		}
		list, err := Scheme().New(kind.GroupVersion().WithKind(kind.Kind + "List"))
		if err != nil {
			t.Fatal(err)
		}
		if err := meta.SetList(list, []runtime.Object{resource.New()}); err != nil {
			t.Errorf("a %T is no list of it: %v", list, err)
		}
	})
}

// A table has a cell for each column, one of which is the name, whatever an object lacks.
func TestEveryResourceHasItsTable(t *testing.T) {
	eachResource(t, func(t *testing.T, resource *registry.Resource) {
		cells := resource.Cells(resource.New())
		named := slices.ContainsFunc(resource.Columns, func(column metav1.TableColumnDefinition) bool { return column.Format == registry.NameColumn.Format })
		if len(cells) != len(resource.Columns) || !named {
			t.Errorf("%d cells for the columns %v", len(cells), resource.Columns)
		}
	})
}

// The documents are those of the groups and versions of the list, and of the reviews that
// pkg/server answers, and no others.
func TestDocumentsAreThoseOfTheResources(t *testing.T) {
	want := []string{"api", "apis", "apis/authentication.k8s.io", "apis/authentication.k8s.io/v1", "apis/authorization.k8s.io", "apis/authorization.k8s.io/v1", "version"}
	for _, resource := range All() {
		path := "api/" + resource.API.Version
		if resource.API.Group != "" {
			want = append(want, "apis/"+resource.API.Group)
			path = "apis/" + resource.API.Group + "/" + resource.API.Version
		}
		want = append(want, path)
	}
	slices.Sort(want)
	var got []string
	err := fs.WalkDir(OpenAPI(), "v3", func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(path, ".json.gz"); ok {
			got = append(got, strings.TrimPrefix(name, "v3/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if want = slices.Compact(want); !slices.Equal(got, want) {
		t.Errorf("got documents %q, want %q; run `make fix-generated`", got, want)
	}
}
