package apiserver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth/rbac"
	"github.com/berth-project/berth/pkg/registry"
)

const (
	// aggregationManager is the field manager of rules that are put together, by the name that
	// it has in a cluster.
	aggregationManager = "clusterrole-aggregation-controller"
	// aggregationRetry is the wait after a failure.
	aggregationRetry = 5 * time.Second
	// aggregationRounds bounds how often rules are put together before the start goes on: more
	// than view, edit and admin need, which build on each other.
	aggregationRounds = 5
)

// aggregator writes into the roles with an aggregationRule the rules of the roles that they
// select. Each replica has one: a role is written at the version that the rules are computed of,
// so that whoever is behind fails, and of the same roles all compute the same. It is a
// registry.Observer of ClusterRoles.
type aggregator struct {
	store  *registry.Store
	logger zerolog.Logger
	wake   chan struct{} // has an entry when roles have changed

	mu    sync.Mutex
	roles map[string]*rbacv1.ClusterRole // by name; never changed
}

func newAggregator(logger zerolog.Logger) *aggregator {
	return &aggregator{logger: logger, wake: make(chan struct{}, 1), roles: map[string]*rbacv1.ClusterRole{}}
}

// Replace makes objs all roles that there are.
func (a *aggregator) Replace(objs []registry.APIObject) {
	roles := make(map[string]*rbacv1.ClusterRole, len(objs))
	for _, obj := range objs {
		roles[obj.GetName()] = obj.(*rbacv1.ClusterRole)
	}
	a.change(func() { a.roles = roles })
}

// Set takes a role in.
func (a *aggregator) Set(obj registry.APIObject) {
	a.change(func() { a.roles[obj.GetName()] = obj.(*rbacv1.ClusterRole) })
}

// Delete removes a role.
func (a *aggregator) Delete(_, name string) { a.change(func() { delete(a.roles, name) }) }

func (a *aggregator) change(apply func()) {
	a.mu.Lock()
	apply()
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// run keeps the roles up to date until ctx ends.
func (a *aggregator) run(ctx context.Context) {
	for {
		var retry <-chan time.Time
		if _, err := a.aggregate(ctx); err != nil && ctx.Err() == nil {
			a.logger.Error().Err(err).Msg("cannot put the rules of a cluster role together")
			retry = time.After(aggregationRetry)
		}
		select {
		case <-a.wake:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

// settle brings all roles up to date, except where one builds on another more than a few times.
func (a *aggregator) settle(ctx context.Context) error {
	for range aggregationRounds {
		if err := a.store.Fresh(ctx); err != nil {
			return err
		}
		if written, err := a.aggregate(ctx); err != nil || !written {
			return err
		}
	}
	return nil
}

// aggregate goes through the roles once, and reports whether it has written one. The error is
// that of the last role that could not be.
func (a *aggregator) aggregate(ctx context.Context) (written bool, failed error) {
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.roles))
	a.mu.Unlock()
	for _, role := range all {
		if role.AggregationRule == nil || role.DeletionTimestamp != nil {
			continue
		}
		rules, changed := rbac.Aggregate(role, all)
		if !changed {
			continue
		}
		next := role.DeepCopy()
		next.Rules = slices.Clone(rules)
		_, _, _, err := a.store.Update(internal(ctx), "", next.Name, "", next, &metav1.UpdateOptions{FieldManager: aggregationManager})
		switch {
		case err == nil:
			written = true
		case !apierrors.IsConflict(err) && !apierrors.IsNotFound(err): // else the change is yet to come
			failed = err
		}
	}
	return written, failed
}
