// Package patch applies the patches of Kubernetes to the JSON of objects. It knows neither
// stores nor rules of objects, and bounds what a patch may cost: see Parse.
package patch

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/yamljson"
)

// Patch is a JSON patch, a merge patch or a strategic merge patch. It never changes, and may
// be used by several goroutines at once.
type Patch struct {
	// Faults tells of fields that the patch has twice, in kube-apiserver's words: the last
	// one counts. Whether that matters is up to the caller.
	Faults []error

	concerns members // what of an object the patch may read or change
	apply    func(before []byte) (after []byte, err error)
	weigh    func(before []byte) int // nil: it weighs nothing
}

// members are top-level members of an object, by name.
type members struct {
	all   bool // whatever there is
	names map[string]bool
}

// Parse reads a patch for objects of the Go type of the given one, which it leaves alone.
//
// Errors: BadRequest for a patch that is malformed, or nested more than MaxNesting deep, and
// RequestEntityTooLarge for a JSON patch of more than MaxOperations.
func Parse(patchType types.PatchType, data []byte, of runtime.Object) (*Patch, error) {
	if err := checkNesting(data); err != nil {
		return nil, err
	}
	switch patchType {
	case types.JSONPatchType:
		return parseJSONPatch(data)
	case types.MergePatchType:
		return parseMergePatch(data)
	case types.StrategicMergePatchType:
		return parseStrategicPatch(data, of)
	}
	return nil, fmt.Errorf("%q is not a patch of a JSON document", patchType)
}

// Weigh returns how much work it is to apply the patch to an object's JSON, beside what that and
// the patch take by their size: about as much as to write so many more bytes of JSON. It is 0
// for a patch that Apply refuses.
func (p *Patch) Weigh(before []byte) int {
	if p.weigh == nil {
		return 0
	}
	return p.weigh(before)
}

// concerned returns what of an object the patch may read or change.
func (p *Patch) concerned(before []byte) []byte {
	if p.concerns.all {
		return before
	}
	named, _, err := divide(before, p.concerns.names)
	if err != nil {
		return nil // Apply fails
	}
	return named
}

// Apply returns the outcome of the patch for an object's JSON, which it leaves alone, and of it
// the members that may have changed, for Carry. What the outcome is, and how large, is for the
// caller to check: it has at most the bytes of before, six times those of the patch and
// MaxCopies.
//
// Errors: BadRequest, RequestEntityTooLarge and Invalid (422) for a patch that cannot be
// applied to this object, and any other where before is not a JSON object.
func (p *Patch) Apply(before []byte) (after, changed []byte, err error) {
	if p.concerns.all {
		after, err = p.apply(before)
		return after, after, err
	}
	// The libraries read all that they are given several times: they get what the patch is
	// about, and the rest goes past them.
	concerned, rest, err := divide(before, p.concerns.names)
	if err != nil {
		return nil, nil, err
	}
	if changed, err = p.apply(concerned); err != nil {
		return nil, nil, err
	}
	after, err = join(changed, rest)
	return after, changed, err
}

// Carry completes next, which was decoded from what Apply returned as changed, with all that
// the patch leaves alone: it is not decoded again, but shared with before, which was decoded
// from what Apply was given. Both are of the same Go type.
func (p *Patch) Carry(next, before runtime.Object) {
	if p.concerns.all {
		return
	}
	to, from := reflect.ValueOf(next).Elem(), reflect.ValueOf(before).Elem()
	for i := range to.NumField() {
		if field := to.Type().Field(i); field.Type == reflect.TypeFor[metav1.TypeMeta]() {
			carryKind(next.GetObjectKind(), before.GetObjectKind(), p.concerns.names)
		} else if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); !p.concerns.names[name] {
			to.Field(i).Set(from.Field(i))
		}
	}
}

func carryKind(next, before schema.ObjectKind, changed map[string]bool) {
	version, kind := next.GroupVersionKind().ToAPIVersionAndKind()
	oldVersion, oldKind := before.GroupVersionKind().ToAPIVersionAndKind()
	if !changed["apiVersion"] {
		version = oldVersion
	}
	if !changed["kind"] {
		kind = oldKind
	}
	next.SetGroupVersionKind(schema.FromAPIVersionAndKind(version, kind))
}

func keys(object map[string]any) map[string]bool {
	names := make(map[string]bool, len(object))
	for name := range object {
		names[name] = true
	}
	return names
}

// malformed is the 400 for data that is not a patch of its type.
func malformed(cause error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", cause))
}

// unprocessable is the 422 for a patch that does not fit the object, with the cause if there
// is one to tell.
func unprocessable(cause string) error {
	err := apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", "", 0, false)
	if cause != "" {
		err.ErrStatus.Message += ": " + shorten(cause)
	}
	return err
}

// Invalid is the 422 for an outcome that is not an object of its kind.
func Invalid(after []byte, cause error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{
		field.Invalid(field.NewPath("patch"), shorten(string(after)), cause.Error()),
	})
}

// shorten keeps an error from repeating a large object.
func shorten(text string) string {
	const most = 1024
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " ..."
}

// MaxNesting bounds how deep a patch may be nested, and how far into an object a JSON pointer
// may lead.
const MaxNesting = yamljson.MaxNesting

// checkNesting refuses JSON that is nested too deep.
func checkNesting(data []byte) error {
	if yamljson.IsDeeper(data, MaxNesting) {
		return nestedTooDeep("the patch is nested")
	}
	return nil
}

func nestedTooDeep(what string) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s more than %d levels deep, the limit", what, MaxNesting))
}
