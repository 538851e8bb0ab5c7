package objectmeta_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/registry/objectmeta"
)

func TestDropDuplicateOwners(t *testing.T) {
	yes, no := true, false
	owner := func(uid types.UID, controller, blocks *bool) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: uid, Controller: controller, BlockOwnerDeletion: blocks}
	}
	pointer := func(value bool) *bool { return &value }
	for name, tc := range map[string]struct {
		owners []metav1.OwnerReference
		kept   int
		again  string // the uids that the warning names; "": there is none
	}{
		"one":                    {[]metav1.OwnerReference{owner("a", nil, nil)}, 1, ""},
		"two":                    {[]metav1.OwnerReference{owner("a", nil, nil), owner("b", nil, nil)}, 2, ""},
		"the same":               {[]metav1.OwnerReference{owner("a", nil, nil), owner("b", nil, nil), owner("a", nil, nil), owner("a", nil, nil)}, 2, "a, a"},
		"the same, what it says": {[]metav1.OwnerReference{owner("a", &yes, nil), owner("a", pointer(true), nil)}, 1, "a"},
		"not the same":           {[]metav1.OwnerReference{owner("a", &yes, nil), owner("a", &no, nil), owner("a", nil, nil), owner("a", nil, &no)}, 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			meta := &metav1.ObjectMeta{OwnerReferences: tc.owners}
			warnings := objectmeta.DropDuplicateOwners(meta)
			if len(meta.OwnerReferences) != tc.kept {
				t.Errorf("kept %v", meta.OwnerReferences)
			}
			if len(warnings) > 0 != (tc.again != "") || len(warnings) > 0 && !strings.HasSuffix(warnings[0], ": "+tc.again) {
				t.Errorf("warnings: %q", warnings)
			}
		})
	}
}
