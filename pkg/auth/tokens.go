package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// Names that have a meaning of their own, as in k8s.io/apiserver's user package.
const (
	// Anonymous is the user of a request that carries no token.
	Anonymous = "system:anonymous"
	// AllAuthenticated is the group of every user that has authenticated.
	AllAuthenticated = "system:authenticated"
	// AllUnauthenticated is the group of Anonymous.
	AllUnauthenticated = "system:unauthenticated"
	// SystemPrivilegedGroup is the group that may do everything.
	SystemPrivilegedGroup = "system:masters"
)

// User is who a request acts for. UID and Groups may be empty.
type User struct {
	Name, UID string
	Groups    []string
}

// Identity is one token of a user. It is shared by all requests with that token:
// read its fields, never change them.
type Identity struct {
	User User
	// ID is the token's SHA-256. The token itself is not kept.
	ID [sha256.Size]byte

	// lastAddr is shared with the Identity that takes this one's place at a reload,
	// so that requests that are still under way with either keep one memory.
	lastAddr *atomic.Pointer[netip.Addr]
}

// SeenFrom reports whether addr is the address that Saw was last told. A server
// that refuses an address because too many guesses came from it can so make an
// exception for a token that is in use from there. An IPv4-mapped IPv6 address is
// the IPv4 address; the zero Addr has never been seen.
func (id *Identity) SeenFrom(addr netip.Addr) bool {
	last := id.lastAddr.Load()
	return last != nil && *last == addr.Unmap()
}

// Saw remembers addr as the last one that this token authenticated from, in place of
// the one before. The zero Addr is ignored.
func (id *Identity) Saw(addr netip.Addr) {
	if !addr.IsValid() || id.SeenFrom(addr) {
		return
	}
	addr = addr.Unmap()
	id.lastAddr.Store(&addr)
}

// tokenSet is never changed once it is in use.
type tokenSet map[[sha256.Size]byte]*Identity

// Tokens is the set of tokens that are valid now. Its methods may be called at the
// same time; Authenticate never waits for a Load. Use NewTokens.
type Tokens struct {
	replacing sync.Mutex // held while a new set takes over what the old one remembers
	current   atomic.Pointer[tokenSet]
}

// NewTokens returns a set without any token.
func NewTokens() *Tokens {
	t := &Tokens{}
	t.current.Store(&tokenSet{})
	return t
}

// Load replaces the set by the tokens of a file in kube-apiserver's CSV form (see
// parseTokens). After an error the set is what it was before. An error tells the
// path, the line and the reason, never a token.
//
// A user that keeps a token keeps what that token remembers of addresses.
func (t *Tokens) Load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("token file: %w", err) // err names the path
	}
	defer f.Close()
	set, err := parseTokens(f)
	if err != nil {
		return fmt.Errorf("token file %s: %w", path, err)
	}
	t.replace(set)
	return nil
}

// Set makes token the only one of the set and u its user, who is put into the group
// system:authenticated as Load does it. An empty token or user name is an error,
// and the set then stays as it was.
func (t *Tokens) Set(token string, u User) error {
	switch {
	case token == "":
		return errors.New("the token is empty")
	case u.Name == "":
		return errors.New("the user name is empty")
	}
	id := newIdentity(token, u)
	t.replace(tokenSet{id.ID: id})
	return nil
}

func (t *Tokens) replace(set tokenSet) {
	t.replacing.Lock()
	defer t.replacing.Unlock()
	old := *t.current.Load()
	for hash, id := range set {
		if before, ok := old[hash]; ok && before.User.Name == id.User.Name {
			id.lastAddr = before.lastAddr
		}
	}
	t.current.Store(&set)
}

// Authenticate returns the identity that token belongs to, and whether there is one.
//
// How long it takes tells nothing about the tokens of the set. The time of hashing
// depends on what the caller sent alone. The lookup compares SHA-256 values, and a
// caller who wanted to learn one bit by bit would have to send tokens whose hashes
// agree with it in ever more bits: finding them is as hard as inverting the hash,
// and a known hash still is no token. The last comparison is of all 32 bytes
// whatever they hold, so that the answer does not rest on how a map compares keys.
func (t *Tokens) Authenticate(token string) (*Identity, bool) {
	hash := hashToken(token)
	id, ok := (*t.current.Load())[hash]
	if !ok || subtle.ConstantTimeCompare(id.ID[:], hash[:]) != 1 {
		return nil, false
	}
	return id, true
}

func newIdentity(token string, u User) *Identity {
	u.Groups = withAuthenticated(u)
	return &Identity{User: u, ID: hashToken(token), lastAddr: &atomic.Pointer[netip.Addr]{}}
}

func hashToken(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// withAuthenticated returns a copy of u's groups with system:authenticated added, by
// the rule of k8s.io/apiserver's AuthenticatedGroupAdder.
func withAuthenticated(u User) []string {
	groups := slices.Clone(u.Groups)
	if u.Name == Anonymous || slices.Contains(groups, AllAuthenticated) || slices.Contains(groups, AllUnauthenticated) {
		return groups
	}
	return append(groups, AllAuthenticated)
}

// GenerateToken returns a new secret token: 256 bits from crypto/rand as 43
// characters that need no quoting in a URL, a header or the CSV form.
func GenerateToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails, by its documentation
	return base64.RawURLEncoding.EncodeToString(b[:])
}
