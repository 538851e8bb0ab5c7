package rbac_test

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/rbac"
	"github.com/berth-project/berth/pkg/auth/rbac/bootstrap"
)

// TestDecisions holds every decision against what kube-apiserver v1.37.2 decided by the same
// objects and its own.
func TestDecisions(t *testing.T) {
	a := rbac.New()
	for _, role := range bootstrap.ClusterRoles() {
		a.Set(role)
	}
	for _, binding := range bootstrap.ClusterRoleBindings() {
		a.Set(binding)
	}
	set(t, a, "testdata/decisions-objects.json.gz")
	decisions := readDecisions(t)
	if len(decisions) != 2500 {
		t.Fatalf("there are %d decisions", len(decisions))
	}
	allowed := 0
	for i, d := range decisions {
		got, reason, err := a.Authorize(t.Context(), d.attributes())
		if err != nil || got != d.Allowed {
			t.Errorf("%d: allowed %v (%q, %v), want %v: %+v", i, got, reason, err, d.Allowed, d)
		}
		if got {
			allowed++
		}
	}
	if allowed != 860 {
		t.Errorf("%d are allowed, want 860", allowed)
	}
}

// decision is a request and whether it is allowed.
type decision struct {
	User        string
	Groups      []string
	Verb        string
	Path        string
	Group       string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	Allowed     bool
}

func (d *decision) attributes() auth.Attributes {
	attrs := auth.Attributes{User: &auth.User{Name: d.User, Groups: d.Groups}, Verb: d.Verb, Path: d.Path}
	if d.Path == "" {
		attrs.ResourceRequest = true
		attrs.APIGroup, attrs.Resource, attrs.Subresource = d.Group, d.Resource, d.Subresource
		attrs.Namespace, attrs.Name = d.Namespace, d.Name
	}
	return attrs
}

func readDecisions(t testing.TB) (all []decision) {
	t.Helper()
	readJSON(t, "testdata/decisions.json.gz", &all)
	return all
}

// set feeds the roles and bindings of a file.
func set(t testing.TB, a *rbac.Authorizer, file string) {
	t.Helper()
	var all []json.RawMessage
	readJSON(t, file, &all)
	for _, data := range all {
		var kind metav1.TypeMeta
		if err := json.Unmarshal(data, &kind); err != nil {
			t.Fatal(err)
		}
		obj := newOf(kind.Kind)
		if obj == nil {
			continue // a namespace
		}
		if err := json.Unmarshal(data, obj); err != nil {
			t.Fatal(err)
		}
		a.Set(obj)
	}
}

func newOf(kind string) metav1.Object {
	switch kind {
	case rbac.KindRole:
		return &rbacv1.Role{}
	case rbac.KindClusterRole:
		return &rbacv1.ClusterRole{}
	case rbac.KindRoleBinding:
		return &rbacv1.RoleBinding{}
	case rbac.KindClusterRoleBinding:
		return &rbacv1.ClusterRoleBinding{}
	}
	return nil
}

func readJSON(t testing.TB, file string, into any) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(r).Decode(into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
