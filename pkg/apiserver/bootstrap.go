package apiserver

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth/rbac/bootstrap"
	"github.com/berth-project/berth/pkg/registry"
)

// bootstrapAttempts is how often an object is tried while others change it: the servers that
// start at the same time are few.
const bootstrapAttempts = 10

// bootstrapRoles creates the roles and bindings that a server begins with, and adds what those
// lack that are there.
func (a *access) bootstrapRoles(ctx context.Context) error {
	if a.mode != ModeRBAC {
		return nil
	}
	ctx = internal(ctx)
	for _, want := range bootstrap.ClusterRoles() {
		if err := a.reconcile(ctx, a.store("clusterroles"), want, func(is registry.APIObject) (registry.APIObject, bool) {
			if next := bootstrap.Role(is.(*rbacv1.ClusterRole), want); next != nil {
				return next, false
			}
			return nil, false
		}); err != nil {
			return err
		}
	}
	for _, want := range bootstrap.ClusterRoleBindings() {
		if err := a.reconcile(ctx, a.store("clusterrolebindings"), want, func(is registry.APIObject) (registry.APIObject, bool) {
			if next, replace := bootstrap.Binding(is.(*rbacv1.ClusterRoleBinding), want); next != nil {
				return next, replace
			}
			return nil, false
		}); err != nil {
			return err
		}
	}
	return nil
}

// reconcile creates want, or makes of the object that is there what successor returns: nil leaves
// it, and replace has it deleted before its successor is created.
func (a *access) reconcile(ctx context.Context, store *registry.Store, want registry.APIObject, successor func(is registry.APIObject) (next registry.APIObject, replace bool)) error {
	name := want.GetName()
	var err error
	for range bootstrapAttempts {
		err = a.reconcileOnce(ctx, store, want, successor)
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", store.APIResource().Name, name, err)
	}
	return nil
}

func (a *access) reconcileOnce(ctx context.Context, store *registry.Store, want registry.APIObject, successor func(registry.APIObject) (registry.APIObject, bool)) error {
	create := func(obj registry.APIObject) error {
		_, _, err := store.Create(ctx, "", obj, &metav1.CreateOptions{FieldManager: bootstrap.Manager})
		return err
	}
	name := want.GetName()
	found, err := store.Get(ctx, "", name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return create(want.DeepCopyObject().(registry.APIObject))
	}
	if err != nil {
		return err
	}
	decoded, err := found.Decode()
	if err != nil {
		return err
	}
	is := decoded.(registry.APIObject)
	if bootstrap.IsProtected(is) {
		return nil
	}
	next, replace := successor(is)
	switch {
	case next == nil:
		return nil
	case replace:
		uid := is.GetUID()
		if _, _, err := store.Delete(ctx, "", name, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
			return err
		}
		return create(next)
	}
	_, _, _, err = store.Update(ctx, "", name, "", next, &metav1.UpdateOptions{FieldManager: bootstrap.Manager})
	return err
}
