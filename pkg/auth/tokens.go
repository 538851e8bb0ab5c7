// Package auth authenticates tokens and authorizes requests: it maps a token to a User,
// and decides whether that User may perform a verb on a resource. It does not depend on
// HTTP.
package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Well-known names, as in k8s.io/apiserver's user package.
const (
	// Anonymous is the user of a request without a token.
	Anonymous = "system:anonymous"
	// AllAuthenticated is the group of every authenticated user.
	AllAuthenticated = "system:authenticated"
	// AllUnauthenticated is the group of Anonymous.
	AllUnauthenticated = "system:unauthenticated"
	// SystemPrivilegedGroup is the group that may do everything.
	SystemPrivilegedGroup = "system:masters"
)

// User is the user a request acts for. UID and Groups may be empty.
type User struct {
	Name, UID string
	Groups    []string
	// Extra is what else is known of the user, such as its project, by keys in lower case; nil
	// is nothing.
	Extra map[string][]string
}

// Identity is one proof of who a user is, such as a token. All requests with that proof share it,
// so its fields must not be changed.
type Identity struct {
	User User
	// ID tells whose rate limits apply: those of a token of a file, by its SHA-256, or those of a
	// user who can have as many tokens as they like. The token itself is not kept.
	ID [sha256.Size]byte
	// Valid ends once the proof is no longer accepted, or no longer with this User. A reload
	// that leaves the user as it is keeps the Identity.
	Valid context.Context
	// Expires is when Valid ends by itself; zero: it does not.
	Expires time.Time

	revoke context.CancelFunc // ends Valid
}

// Expired reports whether the time of the identity is over. It asks the clock, too: Valid, which
// does not, ends late if the clock was set forward or the machine slept.
func (i *Identity) Expired() bool {
	return !i.Expires.IsZero() && (i.Valid.Err() != nil || !time.Now().Before(i.Expires))
}

var (
	errNoToken = errors.New("the token is empty")
	errNoName  = errors.New("the user name is empty")
)

// tokenSet is never modified once it is in use.
type tokenSet map[[sha256.Size]byte]*Identity

// Tokens is the set of currently valid tokens. Its methods are safe for concurrent use;
// Authenticate never waits for a Load. Create it with NewTokens.
type Tokens struct {
	replacing sync.Mutex // held while a new set takes over from the old one
	current   atomic.Pointer[tokenSet]
	remarks   atomic.Pointer[Remarks]
}

// NewTokens returns an empty set.
func NewTokens() *Tokens {
	t := &Tokens{}
	t.current.Store(&tokenSet{})
	t.remarks.Store(&Remarks{})
	return t
}

// Remarks returns the remarks on the file that Load read last.
func (t *Tokens) Remarks() Remarks { return *t.remarks.Load() }

// Load replaces the set with the tokens of a file in kube-apiserver's CSV format (see
// parseTokens). After an error the set is unchanged. The error contains the path, the
// line and the reason, never a token.
//
// A token whose user, uid, groups and expiry are as before keeps its Identity; the other
// identities of the old set end.
func (t *Tokens) Load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("token file: %w", err) // err names the path
	}
	defer f.Close()
	records, remarks, err := parseTokens(f, time.Now())
	if err != nil {
		return fmt.Errorf("token file %s: %w", path, err)
	}
	t.replace(records)
	t.remarks.Store(&remarks)
	return nil
}

// Set makes token the only one of the set and u its user, who is added to the group
// system:authenticated as in Load. An empty token or user name is an error, and leaves
// the set unchanged.
func (t *Tokens) Set(token string, u User) error {
	switch {
	case token == "":
		return errNoToken
	case u.Name == "":
		return errNoName
	}
	t.replace(map[[sha256.Size]byte]tokenRecord{sha256.Sum256([]byte(token)): {user: u}})
	return nil
}

// replace makes records, whose users have names, the set.
func (t *Tokens) replace(records map[[sha256.Size]byte]tokenRecord) {
	t.replacing.Lock()
	defer t.replacing.Unlock()
	old := *t.current.Load()
	set := make(tokenSet, len(records))
	for hash, record := range records {
		record.user.Groups = withAuthenticated(record.user)
		if before, ok := old[hash]; ok && sameUser(before.User, record.user) && before.Expires.Equal(record.expires) {
			set[hash] = before
		} else {
			set[hash] = newIdentity(hash, record.user, record.expires)
		}
	}
	t.current.Store(&set)
	// Only now: whoever still got an old identity finds that it has ended.
	for hash, before := range old {
		if set[hash] != before {
			before.revoke()
		}
	}
}

// sameUser reports whether a and b have the same name, uid and groups, in any order.
func sameUser(a, b User) bool {
	sorted := func(u User) []string { return slices.Sorted(slices.Values(u.Groups)) }
	return a.Name == b.Name && a.UID == b.UID && slices.Equal(sorted(a), sorted(b))
}

// Of returns the identities of a user, in the order of their ids; nil: the user has no token.
func (t *Tokens) Of(user string) []*Identity {
	var found []*Identity
	for _, id := range *t.current.Load() {
		if id.User.Name == user && !id.Expired() {
			found = append(found, id)
		}
	}
	slices.SortFunc(found, func(a, b *Identity) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return found
}

// Authenticate returns the identity that token belongs to, and reports whether there is
// one. The error is always nil.
//
// Its timing reveals nothing about the tokens of the set: hashing depends on the caller's
// input alone, and what a lookup could reveal is a hash, which is not a token. The final
// comparison always covers all 32 bytes.
func (t *Tokens) Authenticate(_ context.Context, token string) (identity *Identity, ok bool, err error) {
	hash := sha256.Sum256([]byte(token))
	id, ok := (*t.current.Load())[hash]
	if !ok || subtle.ConstantTimeCompare(id.ID[:], hash[:]) != 1 || id.Expired() {
		return nil, false, nil
	}
	return id, true, nil
}

// NewIdentity is NewIdentityUntil without an end.
func NewIdentity(id [sha256.Size]byte, u User) (identity *Identity, revoke context.CancelFunc, err error) {
	return NewIdentityUntil(id, u, time.Time{})
}

// NewIdentityUntil returns an identity of u, who is added to the group system:authenticated, and
// what ends it before it expires by itself, which it never does if expires is zero. revoke must be
// called once nobody needs the identity. An empty user name is an error.
func NewIdentityUntil(id [sha256.Size]byte, u User, expires time.Time) (identity *Identity, revoke context.CancelFunc, err error) {
	if u.Name == "" {
		return nil, nil, errNoName
	}
	u.Groups = withAuthenticated(u)
	identity = newIdentity(id, u, expires)
	return identity, identity.revoke, nil
}

func newIdentity(id [sha256.Size]byte, u User, expires time.Time) *Identity {
	identity := &Identity{User: u, ID: id, Expires: expires}
	if expires.IsZero() {
		identity.Valid, identity.revoke = context.WithCancel(context.Background())
	} else {
		identity.Valid, identity.revoke = context.WithDeadline(context.Background(), expires)
	}
	return identity
}

// withAuthenticated returns a copy of u's groups with system:authenticated added, as in
// k8s.io/apiserver's AuthenticatedGroupAdder.
func withAuthenticated(u User) []string {
	groups := slices.Clone(u.Groups)
	if u.Name == Anonymous || slices.Contains(groups, AllAuthenticated) || slices.Contains(groups, AllUnauthenticated) {
		return groups
	}
	return append(groups, AllAuthenticated)
}

// GenerateToken returns a new secret token: 256 bits from crypto/rand as 43 characters
// that need no quoting in a URL, a header or the CSV format.
func GenerateToken() string {
	var b [32]byte
	rand.Read(b[:]) // documented never to fail
	return base64.RawURLEncoding.EncodeToString(b[:])
}
