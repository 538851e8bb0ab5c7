package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/iam"
	"github.com/berth-project/berth/pkg/auth/rbac"
	"github.com/berth-project/berth/pkg/registry"
	"github.com/berth-project/berth/pkg/storage"
)

// The modes of authorization.
const (
	// ModeRBAC decides by roles and bindings.
	ModeRBAC = "RBAC"
	// ModeAlwaysAllow lets everybody who has a token do everything.
	ModeAlwaysAllow = "AlwaysAllow"
)

// modeKey marks a store that RBAC has been in force for: without a flag it stays so. It is in
// the store, and not in the data directory, so that a snapshot carries it and replicas agree.
const modeKey = "/registry/berth/authorization-mode"

// settleMode returns the mode in force. Where none is given, new data are under RBAC, and so are
// those that once were; data of a release that did not have RBAC stay open to every token.
func settleMode(ctx context.Context, store storage.Interface, cfg *Config) (string, error) {
	if cfg.AuthorizationMode == ModeAlwaysAllow {
		return ModeAlwaysAllow, nil
	}
	// In this order: another server that starts at the same time writes the mark before anything else, so
	// what it has written is not taken for data without one.
	anything, err := store.List(ctx, "/registry/", storage.ListOptions{Limit: 1})
	if err != nil {
		return "", err
	}
	marked, err := store.Get(ctx, modeKey, storage.GetOptions{})
	if err != nil {
		return "", err
	}
	if marked.KV != nil {
		return ModeRBAC, nil
	}
	if cfg.AuthorizationMode == "" && len(anything.KVs) > 0 {
		cfg.Logger.Warn().Msg("the stored objects are of a release without RBAC, so every token may do everything; give rights by roles and bindings, and start with --authorization-mode=RBAC from then on; --authorization-mode=AlwaysAllow keeps it as it is, without this warning")
		return ModeAlwaysAllow, nil
	}
	// Another server that starts at the same time writes the same.
	_, err = store.Put(ctx, modeKey, []byte(ModeRBAC), storage.PutOptions{})
	if err != nil && cfg.AuthorizationMode != "" {
		cfg.Logger.Error().Err(err).Msg("cannot remember that RBAC is in force: without --authorization-mode=RBAC the next start may do without it")
		err = nil
	}
	return ModeRBAC, err
}

// access is who may do what.
type access struct {
	mode       string
	authorizer auth.Authorizer
	roles      *rbac.Authorizer
	aggregator *aggregator
	stores     []*registry.Store // of roles and bindings
}

func newAccess(mode string, cfg *Config) *access {
	a := &access{mode: mode, roles: rbac.New(), aggregator: newAggregator(cfg.Logger)}
	switch {
	case cfg.Authorizer != nil:
		a.authorizer = cfg.Authorizer
	case mode == ModeRBAC:
		a.authorizer = a.roles
	case cfg.IAM != nil:
		a.authorizer = &iam.ScopeAuthorizer{Service: cfg.IAM, Next: auth.AlwaysAllow{}}
	default:
		a.authorizer = auth.AlwaysAllow{}
	}
	return a
}

// observers feed the authorizer and the aggregator.
func (a *access) observers() map[schema.GroupResource]registry.Observer {
	feed := func(kind string) registry.Observer { return &feed{kind, a.roles} }
	return map[schema.GroupResource]registry.Observer{
		rbacv1.Resource("roles"):               feed(rbac.KindRole),
		rbacv1.Resource("rolebindings"):        feed(rbac.KindRoleBinding),
		rbacv1.Resource("clusterroles"):        observers{feed(rbac.KindClusterRole), a.aggregator},
		rbacv1.Resource("clusterrolebindings"): feed(rbac.KindClusterRoleBinding),
	}
}

// use tells where the objects are.
func (a *access) use(objects *registry.Registry) {
	for _, store := range objects.Stores() {
		if store.APIResource().Group != rbacv1.GroupName {
			continue
		}
		a.stores = append(a.stores, store)
		if store.APIResource().Name == "clusterroles" {
			a.aggregator.store = store
		}
	}
}

// store returns the one of the resource of that name.
func (a *access) store(name string) *registry.Store {
	i := slices.IndexFunc(a.stores, func(s *registry.Store) bool { return s.APIResource().Name == name })
	return a.stores[i]
}

// feed tells the authorizer of the objects of a kind.
type feed struct {
	kind string
	to   *rbac.Authorizer
}

func (f *feed) Replace(objs []registry.APIObject) {
	all := make([]metav1.Object, len(objs))
	for i, obj := range objs {
		all[i] = obj
	}
	f.to.Replace(f.kind, all)
}

func (f *feed) Set(obj registry.APIObject)    { f.to.Set(obj) }
func (f *feed) Delete(namespace, name string) { f.to.Delete(f.kind, namespace, name) }

// observers are several of one resource. None of them changes the objects.
type observers []registry.Observer

func (all observers) Replace(objs []registry.APIObject) {
	for _, one := range all {
		one.Replace(objs)
	}
}

func (all observers) Set(obj registry.APIObject) {
	for _, one := range all {
		one.Set(obj)
	}
}

func (all observers) Delete(namespace, name string) {
	for _, one := range all {
		one.Delete(namespace, name)
	}
}

var errNoUser = errors.New("a write of nobody")

// Admit refuses to grant what the user does not hold, and to create by an update what he may
// not create: neither shows in a request's path. It is a registry.Admission.
func (a *access) Admit(ctx context.Context, w registry.Write) error {
	grants := a.mode == ModeRBAC && w.Resource.Group == rbacv1.GroupName
	createsByUpdate := w.Old == nil && w.Name != ""
	if !grants && !createsByUpdate {
		return nil
	}
	user := auth.UserFrom(ctx)
	if user == nil {
		return errNoUser
	}
	if grants && !slices.Contains(user.Groups, auth.SystemPrivilegedGroup) {
		if err := a.checkGrant(ctx, user, w); err != nil {
			return err
		}
	}
	if !createsByUpdate {
		return nil
	}
	attrs := auth.Attributes{
		User: user, Verb: "create", ResourceRequest: true, APIGroup: w.Resource.Group, APIVersion: w.Resource.Version,
		Resource: w.Resource.Name, Namespace: w.Namespace, Name: w.Name,
	}
	allowed, reason, err := a.authorizer.Authorize(ctx, attrs)
	if err != nil || allowed {
		return err
	}
	resource := schema.GroupResource{Group: w.Resource.Group, Resource: w.Resource.Name}
	return apierrors.NewForbidden(resource, w.Name, errors.New(auth.ForbiddenMessage(attrs, reason)))
}

// checkGrant refuses a role or a binding by which the user would grant more than he holds. It
// looks at roles and bindings that are as new as the request.
func (a *access) checkGrant(ctx context.Context, user *auth.User, w registry.Write) error {
	var waiting sync.WaitGroup
	errs := make([]error, len(a.stores))
	for i, store := range a.stores {
		waiting.Go(func() { errs[i] = store.Fresh(ctx) })
	}
	waiting.Wait()
	if err := firstError(errs); err != nil {
		return err
	}
	write := rbac.Write{User: user, Namespace: w.Namespace, Name: w.Name, New: w.Object}
	if w.Old != nil {
		write.Old = w.Old
	}
	err := a.roles.CheckWrite(ctx, write)
	if err != nil && errors.Is(err, ctx.Err()) {
		return apierrors.NewTimeoutError("request did not complete within the allotted timeout: its time ended while rules were being compared", 1)
	}
	return err
}

// firstError returns the first error.
func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// internal is the context of what the server does by itself.
func internal(ctx context.Context) context.Context {
	return auth.WithUser(ctx, &auth.User{Name: "system:apiserver", Groups: []string{auth.SystemPrivilegedGroup}})
}

// checkMode refuses a mode that there is not.
func checkMode(mode string) error {
	if mode != "" && mode != ModeRBAC && mode != ModeAlwaysAllow {
		return fmt.Errorf("apiserver: the authorization mode %q is neither %s nor %s", mode, ModeRBAC, ModeAlwaysAllow)
	}
	return nil
}
