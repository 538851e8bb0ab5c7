package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
	"github.com/berth-project/berth/pkg/registry/patch"
	"github.com/berth-project/berth/pkg/yamljson"
)

// Patch returns what changes an object or its subresource by a patch of one of the four types
// of Kubernetes, and how much work that is for the object as the cache has it, as
// patch.Patch.Weigh counts it. An apply of the object itself also creates. opts.FieldManager
// must not be empty.
//
// Errors: BadRequest for a malformed patch; of apply, NotFound, Invalid where the outcome is not
// a valid object, Conflict where the patch names a version that has passed or an apply meets
// another manager's field, and those of Create.
func (s *Store) Patch(namespace, name, subresource string, patchType types.PatchType, data []byte, opts *metav1.PatchOptions) (apply func(context.Context) (patched *object.Object, created bool, warnings []string, err error), weight int, err error) {
	part, err := s.part(subresource)
	if err != nil {
		return nil, 0, err
	}
	p := &patcher{store: s, part: part, namespace: namespace, name: name, opts: opts}
	change := p.apply
	if patchType == types.ApplyYAMLPatchType {
		p.config, p.fault, err = patch.DecodeApply(data)
		p.creates = subresource == ""
	} else {
		change = p.patchJSON
		p.patch, err = patch.Parse(patchType, data, s.resource.New())
	}
	if err != nil {
		return nil, 0, err
	}
	if before := s.known(namespace, name); before != nil && p.patch != nil {
		weight = p.patch.Weigh(before.JSON())
	}
	return func(ctx context.Context) (*object.Object, bool, []string, error) {
		return s.modify(ctx, namespace, name, part, isDryRun(opts.DryRun), change)
	}, weight, nil
}

// patcher applies one patch to an object, again where the object was changed meanwhile.
type patcher struct {
	store           *Store
	part            *part
	namespace, name string
	opts            *metav1.PatchOptions

	patch *patch.Patch // nil for an apply

	config  *unstructured.Unstructured // what an apply applies
	fault   error                      // tells of fields that it has twice
	creates bool
}

// patchJSON is the change that a patch of the object's JSON makes.
func (p *patcher) patchJSON(before *object.Object, current APIObject) (APIObject, []string, error) {
	s := p.store
	if current == nil {
		return nil, nil, apierrors.NewNotFound(s.resource.GroupResource(), p.name)
	}
	after, changed, err := p.patch.Apply(before.JSON())
	if err == nil { // the rest costs more than what it is about
		err = s.checkSize(len(after), len(before.JSON()))
	}
	if err != nil {
		return nil, nil, err
	}
	decoded, unknown, err := s.objects.DecodeStrict(changed)
	if err == nil {
		p.patch.Carry(decoded, current)
		err = p.sameKind(decoded.GetObjectKind())
	}
	if err != nil {
		return nil, nil, patch.Invalid(after, err)
	}
	warnings, err := yamljson.Judge(slices.Concat(p.patch.Faults, unknown), p.opts.FieldValidation)
	if err != nil {
		return nil, nil, patch.Invalid(after, err)
	}
	next := decoded.(APIObject)
	if err := carryOver(next, current); err != nil {
		return nil, warnings, err
	}
	more, err := p.complete(next)
	warnings = append(warnings, more...)
	if err != nil {
		return nil, warnings, err
	}
	if err := p.part.owners.Update(current, next, p.opts.FieldManager); err != nil {
		return nil, warnings, err
	}
	return next, warnings, nil
}

// complete makes sure that the outcome of a patch is the object that the path names, and
// fills in what a client may leave out.
func (p *patcher) complete(next APIObject) (warnings []string, err error) {
	if err := p.store.matchNamespace(p.namespace, next); err != nil {
		return nil, err
	}
	if err := matchName(next, p.name); err != nil {
		return nil, err
	}
	p.store.resource.Strategy.Default(next)
	return objectmeta.DropDuplicateOwners(next), nil
}

// sameKind refuses a patch that makes another kind of object of it. Without a kind it stays what
// it is.
func (p *patcher) sameKind(of schema.ObjectKind) error {
	want, got := p.store.objects.Kind, of.GroupVersionKind()
	switch {
	case got == want:
		return nil
	case got.Kind == "" && got.GroupVersion() == want.GroupVersion():
		of.SetGroupVersionKind(want)
		return nil
	case got.Version == "":
		return errors.New("the patch leaves the object without its apiVersion")
	default:
		return fmt.Errorf("a %s cannot become a %s", want.Kind, got)
	}
}

// apply is the change that a server-side apply makes.
func (p *patcher) apply(_ *object.Object, current APIObject) (APIObject, []string, error) {
	resource := p.store.resource.GroupResource()
	if current == nil && !p.creates {
		return nil, nil, apierrors.NewNotFound(resource, p.name)
	}
	if why := p.store.resource.NoObjects; why != "" {
		return nil, nil, p.store.noObjects(why)
	}
	applied, err := p.part.owners.Apply(current, p.config, p.opts.FieldManager, ptr.Deref(p.opts.Force, false))
	if err != nil {
		return nil, nil, err
	}
	next := applied.(APIObject)
	if current != nil {
		if err := carryOver(next, current); err != nil {
			return nil, nil, err
		}
	}
	var warnings []string
	if p.fault != nil {
		if warnings, err = yamljson.Judge([]error{p.fault}, p.opts.FieldValidation); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", p.fault))
		}
	}
	if uid := next.GetUID(); current == nil && uid != "" {
		return nil, warnings, apierrors.NewConflict(resource, p.name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", uid))
	}
	more, err := p.complete(next)
	if err != nil {
		return nil, warnings, err
	}
	return next, append(warnings, more...), nil
}
