package media

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/yamljson"
)

// Decode reads data of the media type, one that Input returned, into a new object of the
// type. Fields that are unknown or given twice are an error under Strict, warnings under Warn
// (the default), and nothing under Ignore; names are case-sensitive. The error is a BadRequest
// that says what is wrong, or says that it is too large. The object keeps nothing of data,
// whose elements Weigh has bounded.
func (c *Codecs) Decode(data []byte, mediaType string, t *object.Type, fieldValidation string) (obj runtime.Object, warnings []string, err error) {
	known := c.named(mediaType)
	if known == nil {
		return nil, nil, Unsupported(c.Types(), "")
	}
	return known.decode(data, t, fieldValidation)
}

func (k kinds) decodeJSON(data []byte, t *object.Type, fieldValidation string) (runtime.Object, []string, error) {
	return k.decodeStrict(data, data, nil, t, fieldValidation)
}

func (k kinds) decodeYAML(data []byte, t *object.Type, fieldValidation string) (runtime.Object, []string, error) {
	asJSON, duplicates, err := yamljson.Convert(data)
	switch {
	case errors.Is(err, yamljson.ErrTooLarge):
		return nil, nil, apierrors.NewRequestEntityTooLargeError(err.Error())
	case err != nil:
		return nil, nil, unrecognized(t.Kind, err, data)
	}
	return k.decodeStrict(asJSON, data, duplicates, t, fieldValidation)
}

// decodeStrict decodes what was sent as original. duplicates, nil where there are none, are
// faults of strictness that it has beside those of its JSON.
func (k kinds) decodeStrict(asJSON, original []byte, duplicates error, t *object.Type, fieldValidation string) (obj runtime.Object, warnings []string, err error) {
	var faults []error
	if duplicates != nil {
		faults = append(faults, duplicates)
	}
	if yamljson.IsDeeper(asJSON, yamljson.MaxNesting) {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("the body is nested more than %d levels deep, the limit", yamljson.MaxNesting))
	}
	obj, unknown, err := t.DecodeStrict(asJSON)
	if err != nil {
		return nil, nil, k.explain(asJSON, original, t.Kind, err)
	}
	faults = append(faults, unknown...)
	if err := k.check(obj.GetObjectKind().GroupVersionKind(), t.Kind); err != nil {
		return nil, nil, err
	}
	if warnings, err = yamljson.Judge(faults, fieldValidation); err != nil {
		return nil, nil, cannotBeHandled(t.Kind, t.Kind, err)
	}
	return obj, warnings, nil
}

// kinds are those that the server knows.
type kinds struct{ scheme *runtime.Scheme }

// check refuses an object that says it is something else. What it leaves out is inferred
// from the path.
func (k kinds) check(got, want schema.GroupVersionKind) error {
	given := got
	if got.Kind == "" {
		got.Kind = want.Kind
	}
	if given.Group == "" && given.Version == "" {
		got.Group, got.Version = want.Group, want.Version
	}
	switch {
	case got == want || acceptedOptions(got, want):
		return nil
	case !k.scheme.Recognizes(got):
		return cannotBeHandled(got, want, fmt.Errorf("no kind %q is registered for version %q", got.Kind, got.GroupVersion()))
	case got.Kind != want.Kind:
		return cannotBeHandled(got, want, fmt.Errorf("converting (%s.%s) to (%s.%s): unknown conversion", got.Version, got.Kind, internalPackage(want.Group), want.Kind))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), want.GroupVersion()))
}

// internalPackage is the Go package in which kube-apiserver has its own types of a group,
// which its errors name.
func internalPackage(group string) string {
	if group == "" {
		return "core"
	}
	name, _, _ := strings.Cut(group, ".")
	return name
}

// acceptedOptions reports whether got is the options kind that is wanted, under whatever
// version: clients send v1, meta.k8s.io/v1 or that of the resource's own group, and
// kube-apiserver knows options by their kind alone.
func acceptedOptions(got, want schema.GroupVersionKind) bool {
	return strings.HasSuffix(want.Kind, "Options") && got.Kind == want.Kind
}

// explain finds the most telling error for JSON that could not be decoded: that it is not
// JSON, that it is another kind of object, or which field has the wrong type.
func (k kinds) explain(asJSON, original []byte, want schema.GroupVersionKind, cause error) error {
	got, err := json.DefaultMetaFactory.Interpret(asJSON)
	if err != nil {
		return unrecognized(want, err, original)
	}
	if err := k.check(*got, want); err != nil {
		return err
	}
	return cannotBeHandled(want, want, cause)
}

// cannotBeHandled and unrecognized use kube-apiserver's words.
func cannotBeHandled(got, want schema.GroupVersionKind, cause error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want.Kind, cause))
}

func unrecognized(want schema.GroupVersionKind, cause error, data []byte) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, cause, summarize(data)))
}

// summarize shows how data begins: as text where it looks like JSON, else in hex.
func summarize(data []byte) string {
	const most = 30
	if len(data) == 0 {
		return "<empty>"
	}
	rest := ""
	show := data
	if len(show) > most {
		show, rest = show[:most], " ..."
	}
	if data[0] == '{' {
		return string(show) + rest
	}
	return hex.EncodeToString(show) + rest
}
