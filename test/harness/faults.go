package harness

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Faults renders faults as a Status shows its causes; it is never nil.
func Faults(errs field.ErrorList) []string {
	out := []string{}
	for _, err := range errs {
		out = append(out, fmt.Sprintf("%s %s: %s", string(err.Type), err.Field, err.ErrorBody()))
	}
	return out
}
