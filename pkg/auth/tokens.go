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

	revoke context.CancelFunc // ends Valid
}

// tokenSet is never modified once it is in use.
type tokenSet map[[sha256.Size]byte]*Identity

// Tokens is the set of currently valid tokens. Its methods are safe for concurrent use;
// Authenticate never waits for a Load. Create it with NewTokens.
type Tokens struct {
	replacing sync.Mutex // held while a new set takes over from the old one
	current   atomic.Pointer[tokenSet]
	short     atomic.Pointer[[]int]
}

// NewTokens returns an empty set.
func NewTokens() *Tokens {
	t := &Tokens{}
	t.current.Store(&tokenSet{})
	t.short.Store(&[]int{})
	return t
}

// ShortTokens returns the lines of the file that Load read last which begin a token of less
// than MinTokenLength characters.
func (t *Tokens) ShortTokens() []int { return *t.short.Load() }

// Load replaces the set with the tokens of a file in kube-apiserver's CSV format (see
// parseTokens). After an error the set is unchanged. The error contains the path, the
// line and the reason, never a token.
//
// A token whose user, uid and groups are as before keeps its Identity; the other identities of
// the old set end.
func (t *Tokens) Load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("token file: %w", err) // err names the path
	}
	defer f.Close()
	set, short, err := parseTokens(f)
	if err != nil {
		return fmt.Errorf("token file %s: %w", path, err)
	}
	t.replace(set)
	t.short.Store(&short)
	return nil
}

// Set makes token the only one of the set and u its user, who is added to the group
// system:authenticated as in Load. An empty token or user name is an error, and leaves
// the set unchanged.
func (t *Tokens) Set(token string, u User) error {
	id, err := newIdentity(token, u)
	if err != nil {
		return err
	}
	t.replace(tokenSet{id.ID: id})
	return nil
}

func (t *Tokens) replace(set tokenSet) {
	t.replacing.Lock()
	defer t.replacing.Unlock()
	old := *t.current.Load()
	for hash, id := range set {
		if before, ok := old[hash]; ok && sameUser(before.User, id.User) {
			set[hash] = before
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
		if id.User.Name == user {
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
	if !ok || subtle.ConstantTimeCompare(id.ID[:], hash[:]) != 1 {
		return nil, false, nil
	}
	return id, true, nil
}

func newIdentity(token string, u User) (*Identity, error) {
	if token == "" {
		return nil, errors.New("the token is empty")
	}
	id, _, err := NewIdentity(sha256.Sum256([]byte(token)), u)
	return id, err
}

// NewIdentity returns an identity of u, who is added to the group system:authenticated, and what
// ends it. An empty user name is an error.
func NewIdentity(id [sha256.Size]byte, u User) (identity *Identity, revoke context.CancelFunc, err error) {
	if u.Name == "" {
		return nil, nil, errors.New("the user name is empty")
	}
	u.Groups = withAuthenticated(u)
	valid, revoke := context.WithCancel(context.Background())
	return &Identity{User: u, ID: id, Valid: valid, revoke: revoke}, revoke, nil
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
