package iam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/berth-project/berth/pkg/storage"
)

// Login is what a client shows to get a token, and the scope that it wants. At least one method
// must be there; if both are, both must hold for the same user.
type Login struct {
	Password *PasswordLogin
	Token    *string
	// Project is the scope, or Domain; neither: no scope.
	Project *ProjectRef
	Domain  *DomainRef
}

// PasswordLogin names a user by id, or by name and domain.
type PasswordLogin struct {
	UserID, UserName string
	Domain           DomainRef // of UserName
	Password         string
}

// DomainRef names a domain by id or, if that is empty, by name. The zero value is the user's.
type DomainRef struct{ ID, Name string }

// ProjectRef names a project by id, or by name and domain.
type ProjectRef struct {
	ID, Name string
	Domain   DomainRef // of Name
}

// names reports whether the reference is to the domain.
func (r DomainRef) names(d ref) bool {
	switch {
	case r.ID != "":
		return r.ID == d.id
	case r.Name != "":
		return r.Name == d.name
	}
	return true
}

// LogIn issues a token to whoever shows what it takes. Its errors are *RefusedError, ErrNotFound for a token that is not a living one, *BusyError and
// *UnavailableError. address is the client's.
func (s *Service) LogIn(ctx context.Context, address netip.Addr, login Login) (secret string, session *Session, err error) {
	secret, session, err = s.logIn(ctx, network(address), login)
	outcome := outcomeFailed
	var busy *BusyError
	refused, _ := errors.AsType[*RefusedError](err)
	switch {
	case err == nil:
		outcome = outcomeSuccess
	case refused != nil && refused.Reason == reasonLocked:
		outcome = outcomeLocked
	case refused != nil, errors.Is(err, ErrNotFound):
		outcome = outcomeRefused
	case errors.As(err, &busy):
		outcome = outcomeLimited
	}
	s.metrics.logins.WithLabelValues(outcome).Inc()
	return secret, session, err
}

// network returns the address that counts: a host may have all of an IPv6 /64.
func network(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if !address.Is6() {
		return address
	}
	prefix, _ := address.Prefix(64) // it has as many bits
	return prefix.Addr()
}

// RefusedError is an ErrUnauthorized with the reason, which is for the server's log: whoever logs in
// must not learn which users there are, or what was wrong.
type RefusedError struct {
	User   string // of the configuration; "": there is no such user, and what was sent may be a password
	Reason string
}

const (
	reasonUser     = "no such user"
	reasonLocked   = "the user is locked out at this address"
	reasonPassword = "wrong password"
	reasonDisabled = "the user is disabled"
	reasonOther    = "the token is of another user"
	reasonMethod   = "unsupported method or scope, or no credentials"
	reasonScope    = "no such project or domain"
	reasonRole     = "no role in the project or on the domain, or the project is disabled"
)

func (e *RefusedError) Error() string {
	if e.User == "" {
		return e.Reason
	}
	return fmt.Sprintf("user %q: %s", e.User, e.Reason)
}

// Is reports whether the target is ErrUnauthorized.
func (e *RefusedError) Is(target error) bool { return target == ErrUnauthorized }

// ErrUnsupported refuses a log-in by a method, or for a scope, that there is not.
var ErrUnsupported error = &RefusedError{Reason: reasonMethod}

func (s *Service) logIn(ctx context.Context, address netip.Addr, login Login) (string, *Session, error) {
	d := s.current()
	now := time.Now()
	r := record{audit: [2]auditID{newAuditID()}, issued: now.UnixMicro(), expires: now.Add(d.config.lifetime).UnixMicro()}
	var u *user
	if login.Token != nil {
		from, err := s.session(ctx, *login.Token)
		if err != nil {
			return "", nil, err
		}
		if from == nil {
			return "", nil, ErrNotFound
		}
		if u = d.users[from.record.user]; u == nil {
			return "", nil, &RefusedError{Reason: reasonUser} // the file has changed just now
		}
		r.methods, r.expires, r.password = from.record.methods|Token, from.record.expires, from.record.password
		if r.audit[1] = from.record.audit[1]; r.audit[1] == (auditID{}) {
			r.audit[1] = from.record.audit[0]
		}
	}
	if login.Password != nil {
		named, err := s.checkPassword(ctx, d, address, login.Password)
		if err != nil {
			return "", nil, err
		}
		if u != nil && u != named {
			return "", nil, &RefusedError{named.name, reasonOther}
		}
		u, r.password = named, named.fingerprint
		r.methods |= Password
	}
	if u == nil {
		return "", nil, ErrUnsupported
	}
	r.user = u.id
	var ok bool
	if r.scope, ok = d.findScope(login); !ok {
		return "", nil, &RefusedError{u.name, reasonScope}
	}
	if _, state := d.grant(&r); state != alive {
		return "", nil, &RefusedError{u.name, reasonRole}
	}
	if err := s.mayIssue(now, d, u); err != nil {
		return "", nil, err
	}
	return s.issue(ctx, r)
}

func (s *Service) current() *directory {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.directory
}

// checkPassword returns the user whose password it is. It takes as long for users that there are
// not, or that are disabled or locked out.
func (s *Service) checkPassword(ctx context.Context, d *directory, address netip.Addr, login *PasswordLogin) (*user, error) {
	u := d.findUser(login)
	hash := d.decoy(login.UserID + "\x00" + login.UserName)
	if u != nil {
		hash = u.password
	}
	lockout := d.config.lockout
	matches, locked := false, false
	err := s.checks.do(ctx, address, func() {
		matches = hash.matches(login.Password)
		if u == nil || lockout.attempts == 0 {
			return
		}
		// Here, so that those who guess at the same time do not all come before the lock.
		now := time.Now()
		switch locked = s.lockouts.locked(now, u.id, address); {
		case locked:
		case matches:
			s.lockouts.succeeded(u.id, address)
		case s.lockouts.failed(now, lockout, u.id, address):
			s.logger.Warn().Str("user", u.name).Stringer("client", address).Stringer("for", lockout.duration).
				Msg("a user is locked out at an address after wrong passwords")
		}
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, &BusyError{busyWait, "too many passwords are being checked"}
	case err != nil:
		return nil, err
	case u == nil:
		return nil, &RefusedError{Reason: reasonUser}
	case locked:
		return nil, &RefusedError{u.name, reasonLocked}
	case !matches:
		return nil, &RefusedError{u.name, reasonPassword}
	case !u.enabled:
		return nil, &RefusedError{u.name, reasonDisabled}
	}
	return u, nil
}

func (d *directory) findUser(login *PasswordLogin) *user {
	if login.UserID != "" {
		return d.userByID(login.UserID)
	}
	if !login.Domain.names(d.config.domain) {
		return nil
	}
	return d.userNames[login.UserName]
}

// findScope returns the scope that a log-in wants, and whether there is such a one.
func (d *directory) findScope(login Login) (s scope, ok bool) {
	switch p := login.Project; {
	case login.Domain != nil:
		return scope{kind: domainScope}, login.Domain.names(d.config.domain)
	case p == nil:
		return scope{}, true
	case p.ID != "":
		id, ok := parseID(p.ID)
		return scope{projectScope, id}, ok
	default:
		found := d.projectNames[p.Name]
		if found == nil || !p.Domain.names(d.config.domain) {
			return scope{}, false
		}
		return scope{projectScope, found.id}, true
	}
}

// mayIssue bounds how often a user logs in, and how many tokens there are.
func (s *Service) mayIssue(now time.Time, d *directory, u *user) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := d.config.limits
	bucket := s.logins[u.id]
	if bucket == nil {
		bucket = rate.NewLimiter(rate.Limit(limits.loginsQPS), limits.loginsBurst)
		s.logins[u.id] = bucket
	}
	reservation := bucket.ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return &BusyError{wait, "the user logs in too often: a token can be used until it expires"}
	}
	switch {
	case s.perUser[u.id] >= limits.tokensPerUser:
		return &BusyError{s.firstExpiry(now, u.id), fmt.Sprintf("the user has %d tokens, which is the limit: revoke some", limits.tokensPerUser)}
	case len(s.tokens) >= limits.tokens:
		return &BusyError{s.firstExpiry(now, ID{}), fmt.Sprintf("there are %d tokens, which is the limit", limits.tokens)}
	}
	return nil
}

// firstExpiry returns how long it is until a token of the user expires, or, for the zero ID, of
// any. s.mu must be held.
func (s *Service) firstExpiry(now time.Time, user ID) time.Duration {
	first := now.Add(maxTokenLifetime).UnixMicro()
	for _, t := range s.tokens {
		if user == (ID{}) || t.user == user {
			first = min(first, t.expires)
		}
	}
	return max(time.UnixMicro(first).Sub(now)+sweepInterval, time.Second)
}

// issue makes a token.
func (s *Service) issue(ctx context.Context, r record) (string, *Session, error) {
	value, err := r.encode()
	if err != nil {
		return "", nil, err
	}
	secret := newToken()
	h, _ := hashOf(secret) // it has the form
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	response, err := s.follower.store.Put(ctx, h.key(), value, storage.PutOptions{})
	switch {
	case err != nil:
		return "", nil, unavailable(err)
	case !response.Succeeded:
		return "", nil, errors.New("iam: two tokens have one hash")
	}
	s.remember(h, &token{record: r, revision: response.Revision})
	session, _ := s.look(h)
	if session == nil {
		return "", nil, ErrUnauthorized // the file has changed just now
	}
	return secret, session, nil
}

// remember adds a token of this server's, unless the watch has brought it already, and perhaps its
// deletion, too.
func (s *Service) remember(h hash, t *token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.revision > s.revision {
		s.add(h, t)
	}
}
