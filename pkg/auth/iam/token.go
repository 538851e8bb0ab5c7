package iam

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// TokenPrefix begins every token, so that scanners for secrets find them.
	TokenPrefix = "berth_"
	// tokenBytes is what is random of a token: 256 bits.
	tokenBytes = 32
	// keyPrefix is where etcd has the tokens: the rest of a key is a token's SHA-256.
	keyPrefix = "/berth/iam/tokens/"
)

// ID is that of a user, a project or a role: 32 hexadecimal digits.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

func parseID(text string) (id ID, ok bool) {
	n, err := hex.Decode(id[:], []byte(text[:min(len(text), 2*len(id))]))
	return id, err == nil && n == len(id) && id.String() == text
}

// IsID reports whether the text has the form of an ID.
func IsID(text string) bool {
	_, ok := parseID(text)
	return ok
}

// deriveID returns the id of a name, the same on every replica.
func deriveID(domain, kind, name string) string {
	sum := sha256.Sum256([]byte("berth iam\x00" + domain + "\x00" + kind + "\x00" + name))
	return hex.EncodeToString(sum[:16])
}

// Methods are the methods by which a token was issued.
type Methods uint8

// The methods.
const (
	Password Methods = 1 << iota
	Token
)

// Names returns the names of the methods.
func (m Methods) Names() []string {
	names := []string{}
	if m&Password != 0 {
		names = append(names, "password")
	}
	if m&Token != 0 {
		names = append(names, "token")
	}
	return names
}

// scopeKind is what a token is scoped to.
type scopeKind uint8

const (
	unscoped scopeKind = iota
	projectScope
	domainScope
)

// scope is what a token is scoped to, by the project's id if it is one.
type scope struct {
	kind    scopeKind
	project ID
}

// auditID is public: it names a token in logs without giving it away.
type auditID [16]byte

func newAuditID() (id auditID) {
	rand.Read(id[:]) // documented never to fail
	return id
}

// hash is the SHA-256 of a token.
type hash [sha256.Size]byte

func (h hash) key() string { return keyPrefix + hex.EncodeToString(h[:]) }

func hashOfKey(key string) (h hash, ok bool) {
	text, ok := strings.CutPrefix(key, keyPrefix)
	n, err := hex.Decode(h[:], []byte(text[:min(len(text), 2*len(h))]))
	return h, ok && err == nil && n == len(h) && len(text) == 2*len(h)
}

// newToken returns a new secret token.
func newToken() string {
	var b [tokenBytes]byte
	rand.Read(b[:]) // documented never to fail
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// hashOf returns the hash of what has the form of a token.
func hashOf(token string) (h hash, ok bool) {
	random, ok := strings.CutPrefix(token, TokenPrefix)
	if !ok || len(random) != base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return hash{}, false
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(random); err != nil {
		return hash{}, false
	}
	return sha256.Sum256([]byte(token)), true
}

// record is what etcd has of a token.
type record struct {
	user     ID
	password fingerprint // of the user's hash when the chain of tokens began
	scope    scope
	methods  Methods
	audit    [2]auditID // the token's own, and that of the first of its chain or zero
	issued   int64      // in microseconds since 1970, as expires
	expires  int64
}

func (r *record) expired(now time.Time) bool { return now.UnixMicro() >= r.expires }

// storedRecord is a record as JSON. A later form has another version.
type storedRecord struct {
	Version  int      `json:"version"`
	User     string   `json:"user"`
	Password string   `json:"password"`
	Project  string   `json:"project,omitempty"`
	Domain   bool     `json:"domain,omitempty"`
	Methods  []string `json:"methods"`
	Audit    []string `json:"auditIDs"`
	Issued   int64    `json:"issuedMicros"`
	Expires  int64    `json:"expiresMicros"`
}

const recordVersion = 1

func (r *record) encode() ([]byte, error) {
	stored := storedRecord{
		Version: recordVersion, User: r.user.String(), Password: hex.EncodeToString(r.password[:]),
		Domain: r.scope.kind == domainScope, Methods: r.methods.Names(), Audit: r.auditIDs(),
		Issued: r.issued, Expires: r.expires,
	}
	if r.scope.kind == projectScope {
		stored.Project = r.scope.project.String()
	}
	return json.Marshal(stored)
}

// auditIDs returns the audit ids as clients see them.
func (r *record) auditIDs() []string {
	ids := []string{base64.RawURLEncoding.EncodeToString(r.audit[0][:])}
	if r.audit[1] != (auditID{}) {
		ids = append(ids, base64.RawURLEncoding.EncodeToString(r.audit[1][:]))
	}
	return ids
}

// decodeRecord reads what encode has written. The error does not contain the value.
func decodeRecord(value []byte) (*record, error) {
	var stored storedRecord
	if err := json.Unmarshal(value, &stored); err != nil {
		return nil, errors.New("it is not JSON of the expected form")
	}
	if stored.Version != recordVersion {
		return nil, fmt.Errorf("it is of version %d, and this server reads version %d", stored.Version, recordVersion)
	}
	r := &record{issued: stored.Issued, expires: stored.Expires}
	var valid bool
	if r.user, valid = parseID(stored.User); !valid {
		return nil, errors.New("the user is not an id")
	}
	if password, err := hex.DecodeString(stored.Password); err != nil || copy(r.password[:], password) != len(r.password) {
		return nil, errors.New("the fingerprint of the password is missing")
	}
	switch {
	case stored.Domain:
		r.scope.kind = domainScope
	case stored.Project != "":
		r.scope.kind = projectScope
		if r.scope.project, valid = parseID(stored.Project); !valid {
			return nil, errors.New("the project is not an id")
		}
	}
	for _, method := range stored.Methods {
		switch method {
		case "password":
			r.methods |= Password
		case "token":
			r.methods |= Token
		}
	}
	if len(stored.Audit) < 1 || len(stored.Audit) > len(r.audit) {
		return nil, errors.New("it must have one or two audit ids")
	}
	for i, text := range stored.Audit {
		id, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || copy(r.audit[i][:], id) != len(r.audit[i]) {
			return nil, errors.New("an audit id is malformed")
		}
	}
	return r, nil
}
