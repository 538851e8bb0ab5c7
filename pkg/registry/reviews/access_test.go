package reviews

import (
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Everybody may ask, so that a selector that is asked about must not be work without an end. One that
// is too long is ignored as if it could not be parsed, and one with too much in it is refused.
func TestSelectorsAreBounded(t *testing.T) {
	long := strings.Repeat("aaaa=b,", 400_000)
	spec := &authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
		FieldSelector: &authorizationv1.FieldSelectorAttributes{RawSelector: long}, LabelSelector: &authorizationv1.LabelSelectorAttributes{RawSelector: long},
	}}
	began := time.Now()
	_, fault := attributes(spec)
	want := "spec.resourceAttributes.fieldSelector ignored due to parse error, spec.resourceAttributes.labelSelector ignored due to parse error"
	if took := time.Since(began); fault != want || took > 100*time.Millisecond {
		t.Errorf("%q after %v", fault, took)
	}
	requirement := metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpIn, Values: []string{"!", "!"}}
	for _, tc := range []struct {
		requirements, values, faults int
		says                         string
	}{
		{2, 2, 4, "a valid label must be"},
		{101, 1, 1, "must have at most 100 items"},
		{2, 300, 1, "must have at most 500 values together"},
		{0, 0, 1, "requirements or rawSelector is required"},
	} {
		selector := &authorizationv1.LabelSelectorAttributes{}
		for range tc.requirements {
			requirement.Values = make([]string, tc.values)
			for i := range requirement.Values {
				requirement.Values[i] = "!"
			}
			selector.Requirements = append(selector.Requirements, requirement)
		}
		faults := validateAttributes(&authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{LabelSelector: selector}})
		if len(faults) != tc.faults || !strings.Contains(faults.ToAggregate().Error(), tc.says) {
			t.Errorf("%d requirements of %d values: %v", tc.requirements, tc.values, faults)
		}
	}
}
