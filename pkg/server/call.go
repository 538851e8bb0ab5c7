package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
)

// call is one call to a resource, authorised and with its answer's form settled.
type call struct {
	ctx             context.Context // ends with the request or its timeout
	rec             *record
	req             *http.Request
	resource        Resource
	namespace, name string
	query           url.Values
	output          output
	warnings        []string // for the client, repeated ones once
}

// result is what a handler answers.
type result struct {
	code   int
	object runtime.Object
}

// warn adds warnings that the answer will carry.
func (c *call) warn(warnings ...string) { c.warnings = append(c.warnings, warnings...) }

// timedOut returns the error of a call whose context has ended, nil while it has not. when
// continues "its time ended".
func (c *call) timedOut(when string) error {
	if c.ctx.Err() == nil {
		return nil
	}
	return errTimedOut(when)
}

// errTimedOut is a 504 that tells where the time went: etcd is not to blame for what it was
// never asked.
func errTimedOut(when string) error {
	return apierrors.NewTimeoutError("request did not complete within the allotted timeout: its time ended "+when, 1)
}

// serve is the adapter between HTTP and the handlers: it authorises, bounds the time,
// negotiates the form of the answer, and renders what the handler returns. The order of
// the checks is kube-apiserver's.
func (s *Server) serve(rec *record, resource Resource, run handler) {
	req := rec.req
	if err := s.authorise(rec, req); err != nil {
		s.renderError(rec, req, err)
		return
	}
	c := &call{
		rec: rec, req: req, resource: resource,
		namespace: rec.attrs.Namespace, name: rec.attrs.Name,
	}
	if req.URL.RawQuery != "" {
		c.query = req.URL.Query()
	}
	timeout, err := s.timeout(c)
	if err != nil {
		s.renderError(rec, req, err)
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), timeout)
	defer cancel()
	c.ctx = ctx
	if c.output, err = s.codecs.negotiate(req); err != nil {
		s.renderError(rec, req, err)
		return
	}
	res, err := run(s, c)
	if errors.Is(err, errAnswered) {
		return
	}
	addWarnings(rec.Header(), c.warnings)
	if err == nil {
		res.object, err = c.convert(res.object)
	}
	if err != nil {
		s.renderError(rec, req, err)
		return
	}
	s.render(rec, res, c.output)
}

// errAnswered is what a handler returns that has answered by itself.
var errAnswered = errors.New("the request has been answered")

// timeout is how long the call may take: what the client asks for, within the server's
// bounds.
func (s *Server) timeout(c *call) (time.Duration, error) {
	limit := s.cfg.RequestTimeout
	if !isReadOnly(c.req) {
		limit = min(limit, maxMutationTimeout)
	}
	value := c.query.Get("timeout")
	if value == "" {
		return limit, nil
	}
	asked, err := time.ParseDuration(value)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid timeout specified in the request URL - %s", err))
	}
	if asked > 0 {
		limit = min(limit, asked)
	}
	return limit, nil
}
