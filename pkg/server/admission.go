package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/server/identity"
	"github.com/berth-project/berth/pkg/server/metrics"
	"github.com/berth-project/berth/pkg/server/share"
)

// What one user may have of what all share: of the requests in progress a quarter, of memory
// a half, since one large object may need that much.
const (
	inFlightShare = 4
	memoryShare   = 2
)

const (
	// maxUploadBytes bounds the bodies that are being received or worked on, in bytes beyond
	// the first largeBody of each.
	maxUploadBytes = 128 << 20
	// defaultMemory bounds what decoding and encoding need at once, in bytes, where Go's
	// memory limit does not say what there is.
	defaultMemory = 128 << 20
	// maxOldVersions bounds the old versions of objects that the answers of one user hold, in
	// bytes: its lists of exact versions, half of what the registry has for all, together with
	// what it has been reading for longer than writeTimeout.
	maxOldVersions = 64 << 20
	// memoryWait is how long a request waits for memory before it is refused.
	memoryWait = 10 * time.Second
	// decodedSize is about how many times as large as its JSON an object is while it is
	// written: decoded, beside its owners' fields and its former state.
	decodedSize = 16
	// largeMemory is from how many bytes on a request waits for memory.
	largeMemory = 1 << 20
	// answerOverhead and listedOverhead are what a large answer holds while it is written, and
	// what each object that it lists adds to that, in bytes.
	answerOverhead = 192 << 10
	listedOverhead = 16
)

// What a token pays for, in bytes if not said otherwise. One of the bucket for reads is about a millisecond's work,
// one of that for writes, which is refilled a tenth as fast, about ten.
const (
	readBytes        = 1 << 20   // of plain JSON in the answer to a read
	writeAnswerBytes = 16 << 20  // of plain JSON in the answer to a write
	writeBytes       = 256 << 10 // of a body or the objects that it changes, whichever is larger
	comparisons      = 20_000    // of objects with the requirements of selectors
)

// requirementsPerPlace is how many requirements of its selectors give a watch one more of the
// places that watches have: each change is compared with all of them.
const requirementsPerPlace = 10

// pools are what all users share.
type pools struct {
	readOnly, mutating, watches pool // requests in progress
	uploads, memory, old        pool // bytes
	// reserved is as much memory again, for administrators: they wait for each other, and not for
	// users.
	reserved pool
}

// pool is one of them, with its name in the metrics and in what clients are told.
type pool struct {
	*share.Pool
	limit, what string
}

// all returns each of them.
func (p *pools) all() []pool {
	return []pool{p.readOnly, p.mutating, p.watches, p.uploads, p.memory, p.reserved, p.old}
}

func newPools(cfg *Config) pools {
	memory := int64(defaultMemory)
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		memory = max(limit/4, 2*maxBodyBytes)
	}
	inFlight := func(limit int) *share.Pool {
		return share.New(int64(limit), int64(limit+inFlightShare-1)/inFlightShare)
	}
	return pools{
		readOnly: pool{inFlight(cfg.MaxRequestsInFlight), "reads-in-progress", "reads in progress"},
		mutating: pool{inFlight(cfg.MaxMutatingRequestsInFlight), "writes-in-progress", "writes in progress"},
		watches:  pool{share.New(int64(cfg.MaxWatches), int64(cfg.MaxWatchesPerUser)), "watches", "open watches"},
		uploads:  pool{share.New(maxUploadBytes, maxUploadBytes/inFlightShare), "body-bytes", "bytes of large bodies"},
		memory:   pool{share.New(memory, memory/memoryShare), "memory", "memory"},
		reserved: pool{share.New(memory, memory/memoryShare), "memory-reserved", "memory for administrators"},
		old:      pool{share.New(0, maxOldVersions), "old-versions", "memory for old versions"},
	}
}

// Limiter decides which requests are admitted. A ratelimit.Limiter does so for this server alone.
type Limiter interface {
	identity.Limiter
	Owe(now time.Time, s ratelimit.Subject, class ratelimit.Class, n int)
	State(now time.Time, s ratelimit.Subject, class ratelimit.Class) (ratelimit.State, bool)
	AllowLine(now time.Time, token [32]byte, addr netip.Addr) (omitted int, ok bool)
}

// charge takes tokens from the bucket that the request's token has for its class. It may come
// long after the request, whose body can take a while. weight is added to the words of a
// refusal.
func (s *Server) charge(rec *record, tokens int, weight string) error {
	subject, class := rec.bucket()
	wait := s.cfg.Limiter.Allow(time.Now(), subject, class, tokens)
	if wait == 0 {
		return nil
	}
	detail := s.reject(rec, rateLimit(class), "user")
	if state, limited := s.cfg.Limiter.State(time.Now(), subject, class); limited {
		detail += fmt.Sprintf(": %v a second, burst %d", state.QPS, state.Burst)
		if state.Alone {
			detail += "; of which this server has a share until etcd answers again"
		}
	}
	return tooManyRequests("the limit for "+class.String()+" requests is reached"+weight, wait, detail)
}

// owe charges what the request has cost already: to refuse it would save nothing.
func (s *Server) owe(rec *record, tokens int) {
	if tokens > 0 {
		subject, class := rec.bucket()
		s.cfg.Limiter.Owe(time.Now(), subject, class, tokens)
	}
}

// bucket tells whose bucket a request is charged to, and which.
func (r *record) bucket() (ratelimit.Subject, ratelimit.Class) {
	class := ratelimit.Write
	if isReadOnly(r.req) {
		class = ratelimit.Read
	}
	return subjectOf(r.identity), class
}

func subjectOf(identity *auth.Identity) ratelimit.Subject {
	return ratelimit.Subject{Token: identity.ID, User: identity.User.Name, Groups: identity.User.Groups}
}

// rateLimit names the bucket of a class.
func rateLimit(class ratelimit.Class) string { return class.String() + "-rate" }

// chargeSize charges what a call weighs beside the token that each one costs. size is that of
// its objects as plain JSON.
func (s *Server) chargeSize(c *call, size int) error {
	tokens := c.output.Work(size) / readBytes
	if !isReadOnly(c.req) {
		tokens = max(size/writeBytes, c.output.Work(size)/writeAnswerBytes)
	}
	return s.chargeWeight(c, tokens, "its size and form")
}

// chargeWeight charges tokens beside the one that each request costs, if there are any. why
// continues "because of".
func (s *Server) chargeWeight(c *call, tokens int, why string) error {
	if tokens == 0 {
		return nil
	}
	return s.charge(c.rec, tokens, fmt.Sprintf(": this one counts as %d because of %s", tokens+1, why))
}

// reject counts a request that a limit turns away; of is whose limit it is: user, address or
// all. It returns which limit that is, and of whom, in words.
func (s *Server) reject(rec *record, limit, of string) string {
	rec.counted = rec.counted || limit != anonymousLimit // guesses are no requests yet
	resource := ""                                       // which a client cannot make up
	if rec.resource != nil {
		resource = rec.resource.Name
	}
	s.metrics.Reject(limit, of, resource)
	if of == "address" {
		return limit + " of address " + rec.client.String()
	}
	return limit + " of user " + strconv.Quote(rec.user())
}

// tooManyRequests is a 429 that says exactly how long to wait, and by detail which limit was met.
func tooManyRequests(why string, wait time.Duration, detail string) error {
	seconds := ratelimit.RetryAfterSeconds(wait)
	return apierrors.NewTooManyRequests(fmt.Sprintf("Too many requests: %s; try again in %d s (%s)", why, seconds, detail), seconds)
}

// enter takes n of a pool for the request, such as one place among those in progress, until the
// caller gives it back. Administrators take nothing: they must get through when all is taken.
func (s *Server) enter(rec *record, pool pool, n int) (share.Taken, error) {
	if rec.isAdmin() {
		return share.Taken{}, nil
	}
	taken, err := pool.TryTake(rec.identity.User.Name, int64(n))
	switch {
	case errors.Is(err, share.ErrUser):
		detail := s.reject(rec, pool.limit, "user")
		err = tooManyRequests(fmt.Sprintf("the limit of %s, %d for each user, is reached", pool.what, pool.PerUser()), time.Second, detail)
	case errors.Is(err, share.ErrTotal):
		detail := s.reject(rec, pool.limit, "all")
		err = tooManyRequests(fmt.Sprintf("the limit of %s, %d in all, is reached", pool.what, pool.Total()), time.Second, detail)
	}
	return taken, err
}

// isAdmin reports whether an administrator makes the request.
func (r *record) isAdmin() bool {
	return slices.Contains(r.identity.User.Groups, auth.SystemPrivilegedGroup)
}

// memoryOf is where the call takes memory from to decode and encode.
func (s *Server) memoryOf(c *call) pool {
	if c.rec.isAdmin() {
		return s.pools.reserved
	}
	return s.pools.memory
}

// takeBytes takes memory for the call, for which it waits a while.
func (s *Server) takeBytes(c *call, pool pool, n int, when string) (share.Taken, error) {
	ctx, cancel := context.WithTimeout(c.ctx, memoryWait)
	defer cancel()
	taken, err := pool.Take(ctx, c.rec.identity.User.Name, int64(n))
	if err == nil {
		return taken, nil
	}
	if err := c.timedOut("while it waited for memory " + when); err != nil {
		return taken, err
	}
	of := "all"
	if errors.Is(err, share.ErrUser) {
		of = "user"
	}
	detail := s.reject(c.rec, pool.limit, of)
	return taken, tooManyRequests(fmt.Sprintf("the memory %s is in use, of which one user may have %d bytes", when, pool.PerUser()), time.Second, detail)
}

// begin takes what a call needs to begin with, once its body is there: tokens for its weight,
// and a place among the requests in progress. The call's end gives the place back.
func (s *Server) begin(c *call, bodySize int) (err error) {
	if isReadOnly(c.req) {
		if c.place, err = s.enter(c.rec, s.pools.readOnly, 1); err == nil {
			c.enter(&s.metrics.ReadOnly)
		}
		return err
	}
	c.weight = c.resource.Weight(c.namespace, c.name)
	if err := s.chargeSize(c, max(bodySize, c.weight)); err != nil {
		return err
	}
	if c.place, err = s.enter(c.rec, s.pools.mutating, 1); err == nil {
		c.enter(&s.metrics.Mutating)
	}
	return err
}

// enter counts the call among the requests in progress, administrators' too, until leave.
func (c *call) enter(inFlight *metrics.InFlight) {
	c.inFlight = inFlight
	inFlight.Enter()
}

// leave ends what begin has begun. Further calls do nothing.
func (c *call) leave() {
	c.place.GiveBack()
	if c.inFlight != nil {
		c.inFlight.Leave()
		c.inFlight = nil
	}
}

// weighBody takes the memory that decoding the body takes, and tokens for what makes that more
// work than its size tells. It returns the error of one that has too much in it. t is the type of the
// object that is decoded or patched.
func (s *Server) weighBody(c *call, body *body, mediaType string, t *object.Type) error {
	memory, work, err := s.codecs.Weigh(body.bytes(), mediaType, t)
	if err != nil {
		return err
	}
	if err := s.chargeWeight(c, (work-len(body.bytes()))/writeBytes, "its size and form"); err != nil {
		return err
	}
	return s.takeMemory(c, int(memory))
}

// takeMemory takes the memory that a write takes: so many bytes, and what the object needs as it
// is now. The call's end gives it back.
func (s *Server) takeMemory(c *call, bytes int) (err error) {
	if bytes += c.weight * decodedSize; bytes >= largeMemory {
		c.memory, err = s.takeBytes(c, s.memoryOf(c), bytes, "to decode objects")
	}
	return err
}

// weighEffects takes tokens and memory for what a write of the object makes of others, as far as
// begin did not.
func (s *Server) weighEffects(c *call, obj runtime.Object) (err error) {
	size := c.resource.Effects(c.namespace, obj) - c.weight
	if size <= 0 {
		return nil
	}
	if err := s.chargeWeight(c, size/writeBytes, "what else it changes"); err != nil {
		return err
	}
	if bytes := int(c.memory.Size()) + size*decodedSize; bytes >= largeMemory {
		c.memory.GiveBack() // nobody waits for more with some of it
		c.memory, err = s.takeBytes(c, s.memoryOf(c), bytes, "to decode objects")
	}
	return err
}

// beginWatch takes what a watch costs: tokens for its beginning, and places for its selectors.
func (s *Server) beginWatch(c *call, cost object.WatchCost) (err error) {
	s.owe(c.rec, cost.Comparisons/comparisons)
	if places := cost.Requirements / requirementsPerPlace; places > 0 {
		watches := s.pools.watches
		watches.what = fmt.Sprintf("%s (this one counts as %d because of its selectors)", watches.what, places+1)
		if c.selecting, err = s.enter(c.rec, watches, places); err != nil {
			return err
		}
	}
	return s.chargeSize(c, cost.Bytes)
}

// takeOld takes memory for the old versions that a list of opts may hold. Beyond their share
// the lists of a user wait for each other, and not the others for them.
func (s *Server) takeOld(c *call, opts *metav1.ListOptions) (err error) {
	if bytes := c.resource.OldVersions(opts); bytes > 0 {
		c.old, err = s.takeBytes(c, s.pools.old, int(bytes), "for lists of old versions")
	}
	return err
}

// holdOld takes for an answer that lasts, with so many bytes of objects, what it may hold of old
// versions: as much of its user's share, or all of it if that is less, beside what the call has
// of it already. An administrator's counts as well. The error says that the share is used up.
func (s *Server) holdOld(c *call, bytes int) (share.Taken, error) {
	pool := s.pools.old
	taken, err := pool.TryTake(c.rec.user(), max(0, min(int64(bytes), pool.PerUser())-c.old.Size()))
	if err != nil {
		err = fmt.Errorf("the answer lasts too long for what its user holds of old versions: %w", os.ErrDeadlineExceeded)
	}
	return taken, err
}

// end gives back all that the call has.
func (c *call) end() {
	c.leave()
	for _, taken := range []*share.Taken{&c.watching, &c.selecting, &c.memory, &c.old, &c.rec.answer.old} {
		taken.GiveBack()
	}
}

// beginAnswer takes what writing the answer to a read needs.
func (s *Server) beginAnswer(c *call, res result) error {
	switch {
	case !isReadOnly(c.req), res.etag != "": // whose handler has done so
		return nil
	case res.object != nil:
		return s.beginObjects(c, []*object.Object{res.object})
	case res.list != nil:
		return s.beginObjects(c, res.list.Objects)
	}
	return nil
}

// beginObjects takes what it needs to answer with objects: tokens for their weight, and memory.
func (s *Server) beginObjects(c *call, objects []*object.Object) (err error) {
	total, largest := 0, 0
	for _, o := range objects {
		size := o.Size()
		total, largest = total+size, max(largest, size)
	}
	if err := s.chargeSize(c, total); err != nil || total < largeBody {
		return err
	}
	c.memory.GiveBack() // what decoding the body has taken: nobody waits for more with some of it
	memory := answerOverhead + len(objects)*listedOverhead
	if c.output.IsMade() {
		memory += largest * decodedSize
	}
	c.memory, err = s.takeBytes(c, s.memoryOf(c), memory, "to encode objects")
	return err
}
