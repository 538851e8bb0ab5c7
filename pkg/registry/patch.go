package registry

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
	"github.com/berth-project/berth/pkg/registry/patch"
	"github.com/berth-project/berth/pkg/yamljson"
)

// Patch changes an object or its subresource by a patch of one of the four types of
// Kubernetes. An apply of the object itself also creates. opts.FieldManager must not be
// empty.
//
// Errors: BadRequest for a malformed patch, NotFound, Invalid where the outcome is not a
// valid object, Conflict where the patch names a version that has passed or an apply
// meets another manager's field, and those of Create.
func (s *Store) Patch(ctx context.Context, namespace, name, subresource string, patchType types.PatchType, data []byte, opts *metav1.PatchOptions) (patched *object.Object, created bool, warnings []string, err error) {
	part, err := s.part(subresource)
	if err != nil {
		return nil, false, nil, err
	}
	p := &patcher{store: s, part: part, namespace: namespace, name: name, opts: opts}
	change := p.apply
	if patchType == types.ApplyYAMLPatchType {
		p.config, p.faults, err = patch.DecodeApply(data)
		p.creates = subresource == ""
	} else {
		change = p.patchJSON
		p.patch, err = patch.Parse(patchType, data, s.New())
	}
	if err != nil {
		return nil, false, nil, err
	}
	return s.modify(ctx, namespace, name, part, isDryRun(opts.DryRun), change)
}

// patcher applies one patch to an object, again where the object was changed meanwhile.
type patcher struct {
	store           *Store
	part            *part
	namespace, name string
	opts            *metav1.PatchOptions

	patch *patch.Patch // nil for an apply

	config  *unstructured.Unstructured // what an apply applies
	faults  error                      // fields that it has twice
	creates bool
}

// patchJSON is the change that a patch of the object's JSON makes.
func (p *patcher) patchJSON(before *object.Object, current runtime.Object) (runtime.Object, []string, error) {
	s := p.store
	if current == nil {
		return nil, nil, apierrors.NewNotFound(s.GroupResource(), p.name)
	}
	after, err := p.patch.Apply(before.JSON())
	if err == nil { // the rest costs more than what it is about
		err = s.checkSize(len(after), len(before.JSON()))
	}
	if err != nil {
		return nil, nil, err
	}
	next, unknown, err := s.objects.DecodeStrict(after)
	if err == nil {
		err = p.sameKind(next)
	}
	if err != nil {
		return nil, nil, patch.Invalid(after, err)
	}
	warnings, err := p.judge(append(p.patch.Faults[:len(p.patch.Faults):len(p.patch.Faults)], unknown...))
	if err != nil {
		return nil, nil, patch.Invalid(after, err)
	}
	if err := carryOver(next, current); err != nil {
		return nil, nil, err
	}
	more, err := p.complete(next)
	if err != nil {
		return nil, nil, err
	}
	if err := p.part.owners.Update(current, next, p.opts.FieldManager); err != nil {
		return nil, nil, err
	}
	return next, append(warnings, more...), nil
}

// judge returns fields that are unknown or given twice as warnings, or under strict
// validation as an error.
func (p *patcher) judge(faults []error) (warnings []string, err error) {
	switch {
	case len(faults) == 0, p.opts.FieldValidation == metav1.FieldValidationIgnore:
		return nil, nil
	case p.opts.FieldValidation == metav1.FieldValidationStrict:
		return nil, runtime.NewStrictDecodingError(faults)
	}
	for _, fault := range faults {
		warnings = append(warnings, yamljson.Faults(fault)...)
	}
	return warnings, nil
}

// complete makes sure that the outcome of a patch is the object that the path names, and
// fills in what a client may leave out.
func (p *patcher) complete(next runtime.Object) (warnings []string, err error) {
	accessor, err := meta.Accessor(next)
	if err != nil {
		return nil, err
	}
	if err := p.store.matchNamespace(p.namespace, accessor); err != nil {
		return nil, err
	}
	if err := matchName(accessor, p.name); err != nil {
		return nil, err
	}
	p.store.Strategy.Default(next)
	return objectmeta.DropDuplicateOwners(accessor), nil
}

// sameKind refuses a patch that makes another kind of object of it.
func (p *patcher) sameKind(next runtime.Object) error {
	if got, want := next.GetObjectKind().GroupVersionKind(), p.store.GroupVersionKind(); got != want {
		return fmt.Errorf("a %s cannot become a %s", want.Kind, got)
	}
	return nil
}

// apply is the change that a server-side apply makes.
func (p *patcher) apply(_ *object.Object, current runtime.Object) (runtime.Object, []string, error) {
	s := p.store
	if current == nil && !p.creates {
		return nil, nil, apierrors.NewNotFound(s.GroupResource(), p.name)
	}
	next, err := p.part.owners.Apply(current, p.config, p.opts.FieldManager, p.opts.Force != nil && *p.opts.Force)
	if err == nil && current != nil {
		err = carryOver(next, current)
	}
	if err != nil {
		return nil, nil, err
	}
	var warnings []string
	if p.faults != nil {
		if warnings, err = p.judge([]error{p.faults}); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", p.faults))
		}
	}
	accessor, err := meta.Accessor(next)
	if err != nil {
		return nil, warnings, err
	}
	if current == nil && accessor.GetUID() != "" {
		return nil, warnings, apierrors.NewConflict(s.GroupResource(), p.name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", accessor.GetUID()))
	}
	more, err := p.complete(next)
	if err != nil {
		return nil, warnings, err
	}
	return next, append(warnings, more...), nil
}
