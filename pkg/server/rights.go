package server

import (
	"context"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/server/metrics"
	"github.com/berth-project/berth/pkg/server/requestinfo"
)

// impersonate has the request made as another user, if it asks for that and its own user may.
func (s *Server) impersonate(rec *record) error {
	as, ok, err := requestinfo.Impersonated(rec.req.Header)
	if !ok || err != nil {
		return err
	}
	rec.as = &as
	impersonated, err := s.impersonated(rec)
	if err != nil {
		return err
	}
	rec.impersonated, rec.attrs.User = impersonated, impersonated.User
	rec.audit.Impersonate(impersonated.User, impersonated.Constraint)
	return nil
}

// impersonated returns who the request is made as, or Forbidden.
func (s *Server) impersonated(rec *record) (*auth.Impersonated, error) {
	attrs := rec.attrs
	attrs.User = &rec.identity.User
	impersonated, refused, reason, err := s.impersonators.Impersonate(rec.req.Context(), s.cfg.Authorizer, attrs, *rec.as)
	if refused != nil {
		return nil, forbidden(*refused, reason)
	}
	return impersonated, err
}

// authorise refuses what the user may not do.
func (s *Server) authorise(rec *record, attrs auth.Attributes) error {
	began := time.Now()
	allowed, reason, err := s.cfg.Authorizer.Authorize(rec.req.Context(), attrs)
	rec.audit.Authorize(allowed, reason, err)
	switch {
	case err != nil:
		s.metrics.Authorized(metrics.Error, began)
		return err
	case allowed:
		s.metrics.Authorized(metrics.Allowed, began)
		return nil
	}
	s.metrics.Authorized(metrics.NoOpinion, began)
	return forbidden(attrs, reason)
}

// forbidden is the 403 for what was refused.
func forbidden(attrs auth.Attributes, reason string) error {
	return apierrors.NewForbidden(groupResource(attrs), attrs.Name, errors.New(auth.ForbiddenMessage(attrs, reason)))
}

// rightsPeriod is how often the rights of open watches are looked at again while they change.
const rightsPeriod = 200 * time.Millisecond

// openWatches are those whose rights may end. The zero value is empty.
type openWatches struct {
	mutex sync.Mutex
	open  map[*watching]struct{}
}

// add has the rights of a watch followed until remove is called.
func (o *openWatches) add(w *watching) (remove func()) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if o.open == nil {
		o.open = map[*watching]struct{}{}
	}
	o.open[w] = struct{}{}
	return func() {
		o.mutex.Lock()
		defer o.mutex.Unlock()
		delete(o.open, w)
	}
}

func (o *openWatches) all() []*watching {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	all := make([]*watching, 0, len(o.open))
	for w := range o.open {
		all = append(all, w)
	}
	return all
}

// followRights ends the watches whose users may no longer have them, until the streams end.
func (s *Server) followRights(authorizer auth.Changing) {
	for {
		changed := authorizer.Changed()
		for _, w := range s.openWatches.all() {
			w.checkRight()
		}
		select {
		case <-changed:
		case <-s.streams.Done():
			return
		}
		select {
		case <-time.After(rightsPeriod):
		case <-s.streams.Done():
			return
		}
	}
}

// followRight has the watch end once its right does, until remove is called.
func (o *watching) followRight() (remove func()) {
	remove = o.s.openWatches.add(o)
	o.checkRight() // it may have ended since the watch was allowed
	return remove
}

// checkRight ends the watch if its user may not have it.
func (o *watching) checkRight() {
	err := o.s.mayStill(o.rec)
	if apierrors.IsForbidden(err) && o.refused.CompareAndSwap(nil, &err) {
		o.hurryAway()
	}
}

// withdrawn is why the user may no longer have the watch; nil: it may.
func (o *watching) withdrawn() error {
	if o.rec.identity.Valid.Err() != nil {
		return errRevoked
	}
	if refused := o.refused.Load(); refused != nil {
		return *refused
	}
	return nil
}

// hurryAway ends the watch, however slow its client is. The watch may be ending, or have ended: a
// token's end waits for no handler.
func (o *watching) hurryAway() {
	o.pauses.hurry(revokedTimeout)
	o.cancel()
}

// mayStill asks again whether the request is allowed.
func (s *Server) mayStill(rec *record) error {
	if rec.as != nil {
		if _, err := s.impersonated(rec); err != nil {
			return err
		}
	}
	allowed, reason, err := s.cfg.Authorizer.Authorize(context.WithoutCancel(rec.req.Context()), rec.attrs)
	if err != nil || allowed {
		return err
	}
	return forbidden(rec.attrs, reason)
}
