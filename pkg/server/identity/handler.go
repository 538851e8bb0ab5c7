// Package identity serves the token service of pkg/auth/iam by OpenStack's Identity API v3, as
// much of it as the openstack command, gophercloud and Huawei Cloud's SDKs need. Its errors have
// Keystone's form, never that of a Status.
package identity

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/iam"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// Prefix is the path that the API is at and below.
const Prefix = "/v3"

// Limits that a request may meet, as in the metrics of rejected requests.
const (
	AnonymousLimit = "anonymous-rate"
	ProbeLimit     = "probe-rate"
	LoginLimit     = "login-rate"
)

// Handler answers requests for Prefix and below.
type Handler struct {
	Service *iam.Service
	Limiter Limiter
}

// Limiter decides which requests are admitted, as ratelimit.Limiter does.
type Limiter interface {
	Allow(now time.Time, s ratelimit.Subject, class ratelimit.Class, n int) time.Duration
	AllowAnonymous(now time.Time, addr netip.Addr) time.Duration
	AnonymousWait(now time.Time, addr netip.Addr) time.Duration
	AllowProbe(now time.Time, addr netip.Addr, path string) time.Duration
}

// Outcome is what the server's log and metrics tell of a request beside its answer.
type Outcome struct {
	Identity *auth.Identity // whose request it was; nil: nobody's
	Refused  bool           // whether what it has shown was not right
	Refusal  error          // why a log-in was refused, for the log alone; nil: none was
	Limit    string         // that it has met; "": none
	Cause    error          // that the client was not told; nil: none
}

// exchange is one request and its answer.
type exchange struct {
	*Handler
	w       http.ResponseWriter
	req     *http.Request
	client  netip.Addr
	began   time.Time
	session *iam.Session // of X-Auth-Token
	outcome Outcome
}

// Serve answers a request of a client at the address, or the zero Addr. Reading the body must be
// bounded in time.
func (h *Handler) Serve(w http.ResponseWriter, req *http.Request, client netip.Addr) Outcome {
	x := &exchange{Handler: h, w: w, req: req, client: client, began: time.Now()}
	w.Header().Add("Vary", "X-Auth-Token")
	x.route()
	return x.outcome
}

// method is what answers a request with a method.
type method struct {
	name  string
	serve func(*exchange)
}

// route answers by the request's path and method.
func (x *exchange) route() {
	segments := strings.Split(strings.Trim(strings.TrimPrefix(x.req.URL.Path, Prefix), "/"), "/")
	get := func(serve func(*exchange)) []method {
		return []method{{http.MethodGet, authenticated(serve)}, {http.MethodHead, authenticated(serve)}}
	}
	var methods []method
	switch path := strings.Join(segments, "/"); {
	case path == "":
		methods = []method{{http.MethodGet, (*exchange).version}, {http.MethodHead, (*exchange).version}}
	case path == "auth/tokens":
		methods = []method{
			{http.MethodPost, (*exchange).logIn}, {http.MethodGet, authenticated((*exchange).showToken)},
			{http.MethodHead, authenticated((*exchange).showToken)}, {http.MethodDelete, authenticated((*exchange).revokeToken)},
		}
	case path == "auth/projects":
		methods = get((*exchange).ownProjects)
	case path == "auth/domains":
		methods = get((*exchange).ownDomains)
	case path == "auth/catalog":
		methods = get((*exchange).showCatalog)
	case path == "projects":
		methods = get((*exchange).listProjects)
	case segments[0] == "projects" && len(segments) == 2:
		methods = get(func(x *exchange) { x.showProject(segments[1]) })
	case segments[0] == "users" && len(segments) == 2:
		methods = get(func(x *exchange) { x.showUser(segments[1]) })
	case segments[0] == "users" && len(segments) == 3 && segments[2] == "projects":
		methods = get(func(x *exchange) { x.userProjects(segments[1]) })
	default:
		x.public(func() { x.fail(http.StatusNotFound, "The path could not be found.") })
		return
	}
	for _, m := range methods {
		if m.name == x.req.Method {
			m.serve(x)
			return
		}
	}
	x.public(func() { x.notAllowed(methods) })
}

func (x *exchange) notAllowed(methods []method) {
	names := []string{http.MethodOptions}
	for _, m := range methods {
		names = append(names, m.name)
	}
	slices.Sort(names)
	x.w.Header().Set("Allow", strings.Join(names, ", "))
	if x.req.Method == http.MethodOptions {
		x.w.WriteHeader(http.StatusOK)
		return
	}
	x.fail(http.StatusMethodNotAllowed, "The method is not allowed for the requested URL.")
}

// public answers what needs no token, within what an address may ask for.
func (x *exchange) public(serve func()) {
	if wait := x.Limiter.AllowProbe(x.began, x.client, "v3"); wait > 0 {
		x.tooMany(ProbeLimit, "The limit for "+Prefix+" from this address is reached.", wait)
		return
	}
	serve()
}

func (x *exchange) version() {
	x.public(func() { x.write(http.StatusOK, map[string]any{"version": x.Version(x.req)}) })
}

// authenticated has serve called for requests with a living token in X-Auth-Token, within the
// limits of its user.
func authenticated(serve func(*exchange)) func(*exchange) {
	return func(x *exchange) {
		session, err := x.Service.Session(x.req.Context(), x.req.Header.Get("X-Auth-Token"))
		switch {
		case err != nil:
			x.failWith(err)
			return
		case session == nil:
			x.refuse(http.StatusUnauthorized, unauthorized)
			return
		}
		x.session, x.outcome.Identity = session, session.Identity
		class, limit := ratelimit.Read, "read-rate"
		if x.req.Method == http.MethodDelete {
			class, limit = ratelimit.Write, "write-rate"
		}
		user := &session.Identity.User
		subject := ratelimit.Subject{Token: session.Identity.ID, User: user.Name, Groups: user.Groups}
		if wait := x.Limiter.Allow(x.began, subject, class, 1); wait > 0 {
			x.tooMany(limit, "The limit for requests of this user is reached.", wait)
			return
		}
		serve(x)
	}
}

// Index returns the server's index with the versions of the API beside its paths.
func (h *Handler) Index(req *http.Request, paths []string) []byte {
	index := map[string]any{"paths": slices.Sorted(slices.Values(append(paths, Prefix))), "versions": map[string]any{"values": []any{h.Version(req)}}}
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		panic(err) // of types that can always be encoded
	}
	return data
}

// base returns the server's URL as the client knows it.
func (x *exchange) base() string { return x.url(x.req) }

// url returns the URL of the file, or else the scheme and the host that the request was sent to.
func (h *Handler) url(req *http.Request) string {
	if url := h.Service.URL(); url != "" {
		return url
	}
	scheme := "https"
	if req.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + strings.Map(func(r rune) rune {
		if r <= ' ' || r == '"' || r == '\\' || r >= 0x7f {
			return -1
		}
		return r
	}, req.Host)
}

// Keystone's words, which clients compare.
const (
	unauthorized = "The request you have made requires authentication."
	forbidden    = "You are not authorized to perform the requested action: identity:"
)

// write answers with JSON.
func (x *exchange) write(code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		panic(err) // of types that can always be encoded
	}
	x.w.Header().Set("Content-Type", "application/json")
	x.w.WriteHeader(code)
	_, _ = x.w.Write(data) // a client that has gone needs no answer
}

// fail answers with an error.
func (x *exchange) fail(code int, message string) {
	if code == http.StatusUnauthorized {
		x.w.Header().Set("WWW-Authenticate", `Keystone uri="`+x.base()+Prefix+`"`)
	}
	x.write(code, map[string]any{"error": map[string]any{"code": code, "message": message, "title": http.StatusText(code)}})
}

// refuse answers with an error of somebody who has not shown who they are. It takes from what
// their address may do, and is another error once there is nothing left.
func (x *exchange) refuse(code int, message string) {
	x.outcome.Refused = code == http.StatusUnauthorized || code == http.StatusNotFound
	if wait := x.Limiter.AllowAnonymous(x.began, x.client); wait > 0 {
		x.tooManyFailures(wait)
		return
	}
	x.fail(code, message)
}

func (x *exchange) tooManyFailures(wait time.Duration) {
	x.tooMany(AnonymousLimit, "The limit for requests without a valid token from this address is reached.", wait)
}

func (x *exchange) tooMany(limit, message string, wait time.Duration) {
	x.outcome.Limit = limit
	x.retryLater(http.StatusTooManyRequests, message, wait)
}

func (x *exchange) retryLater(code int, message string, wait time.Duration) {
	x.w.Header().Set("Retry-After", strconv.Itoa(ratelimit.RetryAfterSeconds(wait)))
	x.fail(code, message)
}

// failWith answers with an error of the service.
func (x *exchange) failWith(err error) {
	var busy *iam.BusyError
	var down *iam.UnavailableError
	if refused, ok := errors.AsType[*iam.RefusedError](err); ok {
		x.outcome.Refusal = refused
	}
	switch {
	case errors.Is(err, iam.ErrUnauthorized):
		x.refuse(http.StatusUnauthorized, unauthorized)
	case errors.Is(err, iam.ErrNotFound):
		x.refuse(http.StatusNotFound, noSuchToken)
	case errors.As(err, &busy):
		x.tooMany(LoginLimit, sentence(busy.Reason), busy.Wait)
	case errors.As(err, &down):
		x.outcome.Cause = err
		x.retryLater(http.StatusServiceUnavailable, sentence(down.Reason), down.Wait)
	default:
		x.outcome.Cause = err
		x.fail(http.StatusInternalServerError, "An unexpected error prevented the server from fulfilling your request.")
	}
}

// sentence writes a reason as Keystone writes messages.
func sentence(reason string) string { return strings.ToUpper(reason[:1]) + reason[1:] + "." }
