// Package iam is a token service: it checks the passwords of the users in a file and issues
// tokens, which it accepts until they expire, are revoked, or lose what they were issued for. The
// tokens are in the store, as hashes, so that every server on it knows them. It does not depend
// on HTTP; pkg/server/identity speaks OpenStack's Identity API v3 for it.
package iam

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/storage"
)

var (
	// ErrUnauthorized: whoever asks has not shown who they are. It tells nothing more on purpose.
	ErrUnauthorized = errors.New("the request requires authentication")
	// ErrNotFound: the token that is asked about, or logged in with, is not a living one.
	ErrNotFound = errors.New("the token is not known")
)

// BusyError says that a log-in is refused for now: it may be tried again after Wait.
type BusyError struct {
	Wait   time.Duration
	Reason string
}

func (e *BusyError) Error() string { return e.Reason }

// UnavailableError says that the store has not done what was asked of it.
type UnavailableError struct {
	Wait   time.Duration // until it may be worth another try
	Reason string        // for clients
	cause  error
}

func (e *UnavailableError) Error() string { return e.Reason + ": " + e.cause.Error() }

// Status implements apierrors.APIStatus, for the Kubernetes API.
func (e *UnavailableError) Status() metav1.Status {
	status := apierrors.NewServiceUnavailable("the token cannot be checked: " + e.Reason).Status()
	status.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(e.Wait / time.Second)}
	return status
}

// Unwrap returns the store's error.
func (e *UnavailableError) Unwrap() error { return e.cause }

// unavailable wraps an error of the store.
func unavailable(err error) error {
	e := &UnavailableError{time.Second, "etcd does not answer", err}
	if _, nearly := errors.AsType[*storage.NearlyFullError](err); nearly || errors.Is(err, storage.ErrNoSpace) {
		e.Wait, e.Reason = 10*time.Second, "etcd's database is full"
	}
	return e
}

// Service issues tokens and accepts them. Create it with New, Load the file, and Run it. Its
// methods are safe for concurrent use.
type Service struct {
	logger   zerolog.Logger
	metrics  *metrics
	checks   *checks
	lockouts *lockouts
	follower follower

	mu sync.RWMutex
	// directory is nil until the file is loaded.
	directory *directory
	loaded    chan struct{} // closed and replaced with directory
	tokens    map[hash]*token
	perUser   map[ID]int // how many of tokens
	// subjects are the users of the Kubernetes API that tokens of directory have been used as: many
	// tokens are of the same.
	subjects map[subject]auth.User
	logins   map[ID]*rate.Limiter
	// revision is the store's up to which tokens has all changes; 0 until they are read.
	revision int64
	advance  chan struct{} // closed and replaced when revision grows
}

// subject is a user in a scope.
type subject struct {
	user  ID
	scope scope
}

// token is what the service remembers of a token.
type token struct {
	record
	revision int64 // of the write that created it
	// revoked says that it will never be accepted again, deleted that it is no longer in the store.
	revoked, deleted bool

	// Of a token that was used since it was issued, or since its user has changed; else nil.
	identity *auth.Identity
	end      func() // ends the identity
}

// New returns a service without users.
func New(logger zerolog.Logger) *Service {
	s := &Service{
		logger: logger, checks: newChecks(), lockouts: newLockouts(),
		tokens: map[hash]*token{}, perUser: map[ID]int{}, subjects: map[subject]auth.User{}, logins: map[ID]*rate.Limiter{}, advance: make(chan struct{}), loaded: make(chan struct{}),
		follower: follower{ask: make(chan struct{}, 1), progress: make(chan struct{}, 1), sweep: make(chan struct{}, 1)},
	}
	s.metrics = newMetrics(s)
	return s
}

// Load reads the configuration file. After an error, which names the file, the lines and the
// fields, the one before stays in force.
//
// Tokens whose user is removed, disabled, has another password or no role left in the scope end
// for good, also on the other servers of the store. Those of a project that is disabled end until
// it is enabled again. Identities of the others end if their user has changed, and are made anew.
func (s *Service) Load(path string) error {
	c, err := readConfig(path)
	if err != nil {
		return fmt.Errorf("IAM configuration: %w", err)
	}
	d := newDirectory(c)
	if weak := d.weakHashes(); len(weak) > 0 {
		s.logger.Warn().Str("path", path).Int("users", len(weak)).Strs("first", weak[:min(len(weak), 20)]).
			Msg("password hashes are quick to guess; make new ones by apiserver iam password")
	}
	s.setDirectory(d)
	return nil
}

func (s *Service) setDirectory(d *directory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.directory
	s.directory, s.subjects = d, map[subject]auth.User{}
	close(s.loaded)
	s.loaded = make(chan struct{})
	if old == nil || old.config.limits != d.config.limits {
		s.logins = map[ID]*rate.Limiter{}
	}
	for id := range s.logins {
		if d.users[id] == nil {
			delete(s.logins, id)
		}
	}
	// Many tokens are of the same user in the same scope.
	type proof struct {
		subject
		password fingerprint
	}
	changes := map[proof]change{}
	for _, t := range s.tokens {
		key := proof{subject{t.user, t.scope}, t.password}
		c, known := changes[key]
		if !known {
			c = compare(old, d, &t.record)
			changes[key] = c
		}
		t.revoked = t.revoked || c.ends
		if (c.ends || c.changes) && t.identity != nil {
			t.forget()
		}
	}
	s.follower.wakeSweep()
}

// change is what another version of the file does to a token: end it for good, or change its
// user.
type change struct{ ends, changes bool }

// compare returns what happens to a token when the directory before is replaced by now. before
// is nil at the start. What was not accepted before does not end: it may be of another server,
// which has the newer file already.
func compare(before, now *directory, r *record) change {
	newGrant, newState := now.grant(r)
	if u := now.users[r.user]; u != nil && !u.enabled {
		return change{ends: true}
	}
	if before == nil {
		return change{changes: true}
	}
	oldGrant, oldState := before.grant(r)
	if newState == dead {
		return change{ends: oldState != dead, changes: true}
	}
	if oldState != alive || newState != alive {
		return change{changes: true}
	}
	return change{changes: !reflect.DeepEqual(before.kubernetesUser(oldGrant), now.kubernetesUser(newGrant))}
}

// forget ends the identity. The service's lock must be held.
func (t *token) forget() {
	if t.identity != nil {
		t.end()
		t.identity, t.end = nil, nil
	}
}

// Authenticate implements auth.Authenticator. Of a token that this server has not seen it asks
// the store; what has not the form of a token is refused at once. An error says that the
// store has not answered.
func (s *Service) Authenticate(ctx context.Context, secret string) (*auth.Identity, bool, error) {
	session, err := s.session(ctx, secret)
	if session == nil || err != nil {
		return nil, false, err
	}
	return session.Identity, true, nil
}

// Of implements auth.Authenticator: it returns one identity of a user who has living tokens, since
// all of them share its limits.
func (s *Service) Of(user string) []*auth.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.directory.userNames[user]
	if u == nil {
		return nil
	}
	for _, t := range s.tokens {
		if t.user != u.id {
			continue
		}
		if session := s.use(hash{}, t); session != nil {
			return []*auth.Identity{session.Identity}
		}
	}
	return nil
}

// session returns what a living token gives, nil if it is not one.
func (s *Service) session(ctx context.Context, secret string) (*Session, error) {
	h, ok := hashOf(secret)
	if !ok {
		return nil, nil
	}
	session, known := s.look(h)
	if known {
		return session, nil
	}
	if err := s.catchUp(ctx); err != nil {
		return nil, unavailable(err)
	}
	session, _ = s.look(h)
	return session, nil
}

// look returns what a token gives by what is in memory, nil if it is not a living one, and whether
// it is known here at all.
func (s *Service) look(h hash) (session *Session, known bool) {
	s.mu.RLock()
	t := s.tokens[h]
	if t != nil && t.identity != nil && t.identity.Valid.Err() == nil && !t.revoked && !t.expired(time.Now()) {
		session = &Session{Identity: t.identity, hash: h, record: t.record, revision: t.revision, directory: s.directory}
	}
	s.mu.RUnlock()
	if session != nil || t == nil {
		return session, t != nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t = s.tokens[h]
	if t == nil {
		return nil, false
	}
	return s.use(h, t), true
}

// use returns what a token gives, with an identity, which it makes if there is none; nil if it is
// not accepted. s.mu must be held.
func (s *Service) use(h hash, t *token) *Session {
	if t.revoked || t.expired(time.Now()) {
		return nil
	}
	grant, state := s.directory.grant(&t.record)
	if state != alive {
		return nil
	}
	if t.identity == nil {
		key := subject{t.user, t.scope}
		user, known := s.subjects[key]
		if !known {
			user = s.directory.kubernetesUser(grant)
			s.subjects[key] = user
		}
		var err error
		t.identity, t.end, err = auth.NewIdentityUntil(grant.user.identityID(), user, time.UnixMicro(t.expires))
		if err != nil {
			return nil // no user of the file is without a name
		}
	}
	return &Session{Identity: t.identity, hash: h, record: t.record, revision: t.revision, directory: s.directory}
}

// URL returns the server's URL as the file has it, "" if it has none.
func (s *Service) URL() string { return s.current().config.url }

// count returns how many tokens there are.
func (s *Service) count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.tokens)
}

var _ auth.Authenticator = (*Service)(nil)
