package leases

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry"
)

// lease is valid, except for what edit makes of it.
func lease(edit func(*coordinationv1.Lease)) *coordinationv1.Lease {
	holder := "a"
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "lock", Namespace: "default", ResourceVersion: "7"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder},
	}
	edit(l)
	return l
}

func TestValidation(t *testing.T) {
	seconds := func(n int32) func(*coordinationv1.Lease) {
		return func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = &n }
	}
	transitions := func(n int32) func(*coordinationv1.Lease) {
		return func(l *coordinationv1.Lease) { l.Spec.LeaseTransitions = &n }
	}
	tests := []struct {
		name string
		edit func(*coordinationv1.Lease)
		want []string // how the faults begin
	}{
		{"plain", func(*coordinationv1.Lease) {}, nil},
		{"no spec", func(l *coordinationv1.Lease) { l.Spec = coordinationv1.LeaseSpec{} }, nil},
		{"one second", seconds(1), nil},
		{"no time at all", seconds(0), []string{`spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0`}},
		{"negative duration", seconds(-15), []string{`spec.leaseDurationSeconds: Invalid value: -15: must be greater than 0`}},
		{"no transitions yet", transitions(0), nil},
		{"negative transitions", transitions(-1), []string{`spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0`}},
		{"name of dots", func(l *coordinationv1.Lease) { l.Name = "a.b-1" }, nil},
		{"several faults", func(l *coordinationv1.Lease) {
			l.Name = "A"
			seconds(0)(l)
			transitions(-1)(l)
		}, []string{`metadata.name: Invalid value: "A"`, `spec.leaseDurationSeconds`, `spec.leaseTransitions`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := lease(test.edit)
			checkFaults(t, strategy{}.Validate(l), test.want)
			checkFaults(t, strategy{}.ValidateUpdate(l, l.DeepCopy()), test.want)
		})
	}
}

func checkFaults(t *testing.T, got field.ErrorList, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %v, want %q", got, want)
	}
	for i, fault := range got {
		if !strings.HasPrefix(fault.Error(), want[i]) {
			t.Errorf("got %q, want %q", fault, want[i])
		}
	}
}

// The fields of a feature that is off are dropped, and nothing else is.
func TestCoordinatedElectionIsDropped(t *testing.T) {
	want := lease(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"a": "b"} })
	given := want.DeepCopy()
	given.Spec.Strategy, given.Spec.PreferredHolder = new(coordinationv1.CoordinatedLeaseStrategy), new(string)
	created, updated := given.DeepCopy(), given.DeepCopy()
	strategy{}.PrepareForCreate(created)
	strategy{}.PrepareForUpdate(updated, want)
	for _, got := range []*coordinationv1.Lease{created, updated} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestTable(t *testing.T) {
	cells := Resource().Cells
	for holder, l := range map[string]*coordinationv1.Lease{
		"a": lease(func(*coordinationv1.Lease) {}), "": lease(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }),
	} {
		if diff := cmp.Diff([]any{"lock", holder, registry.Age}, cells(l)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}
