package media

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/yamljson"
)

// Decode reads data of the media type into a new object of the type. Fields that are
// unknown or given twice are an error under Strict, warnings under Warn (the default), and
// nothing under Ignore; names are case-sensitive. The error is a BadRequest that says what
// is wrong. The object keeps nothing of data.
func (c *Codecs) Decode(data []byte, mediaType string, t *object.Type, fieldValidation string) (obj runtime.Object, warnings []string, err error) {
	if mediaType == runtime.ContentTypeProtobuf {
		obj, err = c.proto.decode(data, t)
		return obj, nil, err
	}
	var faults []error // of strictness
	asJSON := data
	if mediaType == runtime.ContentTypeYAML {
		var duplicates error
		asJSON, duplicates, err = yamljson.Convert(data)
		switch {
		case errors.Is(err, yamljson.ErrTooLarge):
			return nil, nil, apierrors.NewRequestEntityTooLargeError(err.Error())
		case err != nil:
			return nil, nil, unrecognized(t.Kind, err, data)
		case duplicates != nil:
			faults = append(faults, duplicates)
		}
	}
	obj, unknown, err := t.DecodeStrict(asJSON)
	if err != nil {
		return nil, nil, c.explain(asJSON, data, t.Kind, err)
	}
	faults = append(faults, unknown...)
	if err := c.checkKind(obj.GetObjectKind().GroupVersionKind(), t.Kind); err != nil {
		return nil, nil, err
	}
	switch {
	case len(faults) == 0, fieldValidation == metav1.FieldValidationIgnore:
		return obj, nil, nil
	case fieldValidation == metav1.FieldValidationStrict:
		return nil, nil, cannotBeHandled(t.Kind, t.Kind, runtime.NewStrictDecodingError(faults))
	}
	for _, fault := range faults {
		warnings = append(warnings, yamljson.Faults(fault)...)
	}
	return obj, warnings, nil
}

// decode takes the message out of its envelope itself: options come under versions that no
// scheme knows them by.
func (p protobufFormat) decode(data []byte, t *object.Type) (runtime.Object, error) {
	want, envelope := t.Kind, &runtime.Unknown{}
	_, got, err := p.serializer.Decode(data, &want, envelope)
	if err != nil {
		return nil, unrecognized(t.Kind, err, data)
	}
	if err := p.kinds.check(*got, t.Kind); err != nil {
		return nil, err
	}
	obj := t.New()
	message, ok := obj.(interface{ Unmarshal(message []byte) error })
	if !ok {
		return nil, cannotBeHandled(*got, t.Kind, errors.New("it has no protobuf form"))
	}
	if err := message.Unmarshal(envelope.Raw); err != nil {
		return nil, cannotBeHandled(*got, t.Kind, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(*got)
	return obj, nil
}

func (c *Codecs) checkKind(got, want schema.GroupVersionKind) error {
	return c.proto.kinds.check(got, want)
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
func (c *Codecs) explain(asJSON, original []byte, want schema.GroupVersionKind, cause error) error {
	got, err := json.DefaultMetaFactory.Interpret(asJSON)
	if err != nil {
		return unrecognized(want, err, original)
	}
	if err := c.checkKind(*got, want); err != nil {
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
