package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/yamljson"
)

// Patch changes an object by a patch of one of the four types of Kubernetes. An apply
// patch also creates. opts.FieldManager must not be empty.
//
// Errors: BadRequest for a patch that is none, NotFound, Invalid where the outcome is no
// valid object, Conflict where the patch names a version that has passed or an apply
// meets another manager's field, and those of Create.
func (s *Store) Patch(ctx context.Context, namespace, name string, patchType types.PatchType, patch []byte, opts *metav1.PatchOptions) (patched runtime.Object, created bool, warnings []string, err error) {
	change, err := s.patch(namespace, name, patchType, patch, opts)
	if err != nil {
		return nil, false, nil, err
	}
	return s.modify(ctx, namespace, name, isDryRun(opts.DryRun), change)
}

// patch is the change that a patch of an object is.
func (s *Store) patch(namespace, name string, patchType types.PatchType, patch []byte, opts *metav1.PatchOptions) (change, error) {
	p := patcher{store: s, patch: patch, patchType: patchType, opts: opts}
	apply := p.typed
	switch patchType {
	case types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType:
	case types.ApplyYAMLPatchType:
		apply = p.apply
	default:
		return nil, fmt.Errorf("no patch type %q", patchType)
	}
	return func(stored *object, current runtime.Object) (runtime.Object, []string, error) {
		if current == nil && patchType != types.ApplyYAMLPatchType {
			if _, err := p.parse(); err != nil {
				return nil, nil, err
			}
			return nil, nil, apierrors.NewNotFound(s.GroupResource(), name)
		}
		next, warnings, err := apply(stored, current)
		if err != nil {
			return nil, warnings, err
		}
		accessor, err := meta.Accessor(next)
		if err != nil {
			return nil, warnings, err
		}
		if current == nil && accessor.GetUID() != "" {
			return nil, warnings, apierrors.NewConflict(s.GroupResource(), name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", accessor.GetUID()))
		}
		if patchType == types.ApplyYAMLPatchType && accessor.GetName() == "" {
			accessor.SetName(name)
		}
		if err := s.matchNamespace(namespace, accessor); err != nil {
			return nil, warnings, err
		}
		if err := matchName(accessor, name); err != nil {
			return nil, warnings, err
		}
		s.Strategy.Default(next)
		return next, append(warnings, dropDuplicateOwners(accessor)...), nil
	}, nil
}

// patcher applies one patch to an object, again where the object was changed meanwhile.
type patcher struct {
	store     *Store
	patch     []byte
	patchType types.PatchType
	opts      *metav1.PatchOptions
}

// strict says whether unknown and repeated fields matter.
func (p *patcher) strict() bool { return p.opts.FieldValidation != metav1.FieldValidationIgnore }

// document is a patch of a JSON document.
type document struct {
	apply        func(before []byte) (patched []byte, err error)
	faults       []error // fields that are given twice
	metadataOnly bool    // it neither reads nor changes anything but the metadata
}

// parse reads a patch of a JSON document.
func (p *patcher) parse() (document, error) {
	if err := checkNesting(p.patch); err != nil {
		return document{}, err
	}
	switch p.patchType {
	case types.JSONPatchType:
		return p.jsonPatch()
	case types.MergePatchType:
		return p.mergePatch()
	default:
		return p.strategicPatch()
	}
}

// typed is a change by a patch of the object's JSON. Where the patch tells by itself what
// the outcome is, no JSON is made of the object.
func (p *patcher) typed(stored *object, current runtime.Object) (runtime.Object, []string, error) {
	var warnings []string
	next, ok := p.mergePlain(stored, current)
	if !ok {
		var err error
		if next, warnings, err = p.patchDocument(stored, current); err != nil {
			return nil, nil, err
		}
	}
	if err := carryOver(next, current); err != nil {
		return nil, nil, err
	}
	return p.store.owners.update(current, next, p.opts.FieldManager), warnings, nil
}

func (p *patcher) patchDocument(stored *object, current runtime.Object) (runtime.Object, []string, error) {
	doc, err := p.parse()
	if err != nil {
		return nil, nil, err
	}
	if next, ok := p.patchMetadata(&doc, stored, current); ok {
		return next, nil, nil
	}
	if doc.metadataOnly { // applying a strategic patch may change it
		if doc, err = p.parse(); err != nil {
			return nil, nil, err
		}
	}
	patched, err := doc.apply(stored.json)
	if err == nil { // the rest costs more than what it is about
		err = p.store.checkSize(len(patched)-len(stored.json)+stored.size(), stored.size())
	}
	if err != nil {
		return nil, nil, err
	}
	next, unknown, err := p.store.decodeStrict(patched)
	if err == nil {
		err = p.sameKind(next)
	}
	if err != nil {
		return nil, nil, invalidPatch(patched, err)
	}
	var warnings []string
	if faults := append(doc.faults, unknown...); len(faults) > 0 && p.strict() {
		if p.opts.FieldValidation == metav1.FieldValidationStrict {
			return nil, nil, invalidPatch(patched, runtime.NewStrictDecodingError(faults))
		}
		for _, fault := range faults {
			warnings = append(warnings, fault.Error())
		}
	}
	return next, warnings, nil
}

// sameKind refuses a patch that makes another kind of object of it.
func (p *patcher) sameKind(next runtime.Object) error {
	if got, want := next.GetObjectKind().GroupVersionKind(), p.store.GroupVersionKind(); got != want {
		return fmt.Errorf("a %s cannot become a %s", want.Kind, got)
	}
	return nil
}

// invalidPatch is the 422 for a patch whose outcome is no object of its kind.
func invalidPatch(patched []byte, cause error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{
		field.Invalid(field.NewPath("patch"), shorten(patched), cause.Error()),
	})
}

// shorten keeps an error from repeating a large object.
func shorten(data []byte) string {
	const most = 1024
	if len(data) <= most {
		return string(data)
	}
	return string(data[:most]) + " ..."
}

func (p *patcher) mergePatch() (document, error) {
	var decoded map[string]any
	faults, err := kjson.UnmarshalStrict(p.patch, &decoded)
	if err != nil {
		return document{}, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	apply := func(before []byte) ([]byte, error) {
		patched, err := jsonpatch.MergePatch(before, p.patch)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return patched, nil
	}
	return document{apply: apply, faults: faults, metadataOnly: onlyMetadata(decoded)}, nil
}

// onlyMetadata says whether a patch that is merged names the metadata and nothing else.
func onlyMetadata(patch map[string]any) bool {
	_, ok := patch["metadata"]
	return ok && len(patch) == 1
}

// apply is a server-side apply.
func (p *patcher) apply(_ *object, current runtime.Object) (runtime.Object, []string, error) {
	live := current
	if live == nil {
		live = p.store.New()
	}
	applied, ok := p.applyPlain(live)
	if !ok {
		return p.applyByLibrary(live, current)
	}
	if current == nil {
		return applied, nil, nil
	}
	return applied, nil, carryOver(applied, current)
}

func (p *patcher) force() bool { return p.opts.Force != nil && *p.opts.Force }

func (p *patcher) applyByLibrary(live, current runtime.Object) (runtime.Object, []string, error) {
	patch, fault, err := p.decodeApply()
	switch {
	case errors.Is(err, yamljson.ErrTooLarge):
		return nil, nil, apierrors.NewRequestEntityTooLargeError(err.Error())
	case err != nil:
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	applied, err := p.store.owners.Apply(live, patch, p.opts.FieldManager, p.force())
	if err == nil {
		p.store.Strategy.Default(applied)
		keepTimes(live, applied)
	}
	if err == nil && current != nil {
		err = carryOver(applied, current)
	}
	if err != nil {
		var known apierrors.APIStatus
		if errors.As(err, &known) {
			return nil, nil, err
		}
		// What is left is a patch that the schema does not allow, an unknown field for one.
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	switch {
	case fault == nil || !p.strict():
		return applied, nil, nil
	case p.opts.FieldValidation == metav1.FieldValidationStrict:
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: %v", fault))
	}
	return applied, []string{fault.Error()}, nil
}

// decodeApply decodes an applied object; fault tells of fields that are given twice. JSON,
// which most programs send, is not put through the YAML decoder: that takes many times
// longer.
func (p *patcher) decodeApply() (patch *unstructured.Unstructured, fault, err error) {
	patch = &unstructured.Unstructured{}
	data := p.patch
	if !json.Valid(data) {
		if data, fault, err = yamljson.Convert(data); err != nil {
			return nil, nil, fmt.Errorf("error converting YAML to JSON: %w", err)
		}
		if fault != nil {
			fault = fmt.Errorf("error converting YAML to JSON: %w", fault)
		}
	}
	if err := checkNesting(data); err != nil {
		return nil, nil, err
	}
	strict, err := kjson.UnmarshalStrict(data, &patch.Object)
	if err != nil {
		return nil, nil, fmt.Errorf("error unmarshaling JSON: %w", err)
	}
	return patch, errors.Join(append(strict, fault)...), nil
}
