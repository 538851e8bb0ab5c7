package apierr_test

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/registry/apierr"
)

// A fault is told once, and of many those behind the first are counted.
func TestInvalid(t *testing.T) {
	for _, tc := range []struct {
		distinct, times int
		causes          int
		last            string
	}{
		{1, 2, 1, "Required value: 0"},
		{256, 1, 256, "Required value: 255"},
		{256, 2, 256, "Required value: 255"},
		{300, 1, 257, "Internal error: and 44 more faults, this one and those behind it"},
		{1000, 1, 257, "Internal error: and at least 744 more faults, this one and those behind it"},
	} {
		t.Run(fmt.Sprintf("%d of %d", tc.distinct, tc.times), func(t *testing.T) {
			var faults field.ErrorList
			for range tc.times {
				for i := range tc.distinct {
					faults = append(faults, field.Required(field.NewPath("a"), fmt.Sprint(i)))
				}
			}
			var status *apierrors.StatusError
			if err := apierr.Invalid(schema.GroupKind{Kind: "Endpoints"}, "x", faults); !errors.As(err, &status) {
				t.Fatal(err)
			}
			causes := status.ErrStatus.Details.Causes
			if last := causes[len(causes)-1]; len(causes) != tc.causes || last.Message != tc.last || last.Field != "a" {
				t.Errorf("%d causes, the last is %q of %q", len(causes), last.Message, last.Field)
			}
		})
	}
}
