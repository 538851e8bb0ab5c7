package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// MaxCertificates is how many certificates a client may present: its own and those of the CAs
	// between it and one of the server's.
	MaxCertificates = 4
	// maxHintBytes bounds the names of CAs that clients are told at each handshake.
	maxHintBytes = 16 << 10
	// maxKnown bounds the certificates that are not verified again at each request.
	maxKnown = 10_000
	// maxRefused bounds those of which it is known that they are invalid, for refusedFor.
	maxRefused = 1_000
	refusedFor = time.Minute
	// credentialID is the key of a user's extra that names the certificate, as in kube-apiserver.
	credentialID = "authentication.kubernetes.io/credential-id"
)

// userUID is the type of the attribute of a certificate's subject that is the user's UID, as in
// kube-apiserver.
var userUID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

// UserID returns the Identity.ID that all proofs of a user share who can have as many as they
// like. No token has it as its SHA-256, since none can have the first byte in a header.
func UserID(name string) [sha256.Size]byte { return sha256.Sum256([]byte("\x00" + name)) }

// Certificates tells whose a client certificate is, by the CAs of a file. Its methods are safe
// for concurrent use. Create it with NewCertificates.
//
// A certificate is verified once, and known from then on until its chain expires or its CA is no
// longer in the file: a request costs a SHA-256.
type Certificates struct {
	mu    sync.RWMutex
	trust *trust
	known map[[sha256.Size]byte]knownCertificate // by the SHA-256 of the client's certificate
	// refused are the errors of whole chains, by their SHA-256. It is emptied when it is full and
	// when it is old.
	refused      map[[sha256.Size]byte]error
	refusedSince time.Time
}

// trust is the CAs of a file, and is never modified.
type trust struct {
	pool, hint *x509.CertPool                          // hint is nil if the names of the CAs are too many to send
	cas        map[[sha256.Size]byte]*x509.Certificate // by their SHA-256
}

type knownCertificate struct {
	identity *Identity
	ca       [sha256.Size]byte // at the end of its chain
}

// NewCertificates returns one that trusts no CA.
func NewCertificates() *Certificates {
	return &Certificates{trust: &trust{}, known: map[[sha256.Size]byte]knownCertificate{}}
}

// Load has the CAs of a PEM file trusted, and no others. After an error the CAs are as before.
// Identities end whose certificates were verified by a CA that is not in the file.
func (c *Certificates) Load(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	trusted, err := parseCAs(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trust, c.refused = trusted, nil
	for leaf, known := range c.known {
		if _, ok := trusted.cas[known.ca]; !ok {
			c.forget(leaf)
		}
	}
	return nil
}

// parseCAs reads the certificates of a PEM file, which must have one at least. Whatever is
// outside of the blocks is ignored, and so are blocks of another type.
func parseCAs(data []byte) (*trust, error) {
	t := &trust{pool: x509.NewCertPool(), cas: map[[sha256.Size]byte]*x509.Certificate{}}
	begun, read, names := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")), 0, 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		read++
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", read, err)
		}
		names += len(ca.RawSubject)
		t.pool.AddCert(ca)
		t.cas[sha256.Sum256(ca.Raw)] = ca
	}
	switch {
	case read < begun:
		return nil, fmt.Errorf("%d of its %d certificates are damaged", begun-read, begun)
	case read == 0:
		return nil, errors.New("it has no certificate in PEM form")
	}
	if names <= maxHintBytes {
		t.hint = t.pool
	}
	return t, nil
}

// ClientCAs returns the CAs that clients are to be told of, or nil if there are none or too many.
func (c *Certificates) ClientCAs() *x509.CertPool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.trust.hint
}

// ExpiredCAs returns the subjects of the trusted CAs that are not valid at a time, in order.
func (c *Certificates) ExpiredCAs(now time.Time) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var subjects []string
	for _, ca := range c.trust.cas {
		if now.After(ca.NotAfter) {
			subjects = append(subjects, ca.Subject.String())
		}
	}
	slices.Sort(subjects)
	return subjects
}

// Authenticate returns the identity of a client that has proved to have the key of the first
// certificate of chain; the others may lead from there to a CA. The user's name is the common
// name, its groups are the organizations. It returns nil if the certificate names nobody, which
// counts as none, and why it is invalid as an error. A nil Certificates knows nobody.
func (c *Certificates) Authenticate(chain []*x509.Certificate) (*Identity, error) {
	if c == nil || len(chain) == 0 || chain[0].Subject.CommonName == "" {
		return nil, nil
	}
	leaf := sha256.Sum256(chain[0].Raw)
	c.mu.RLock()
	known, ok := c.known[leaf]
	c.mu.RUnlock()
	if ok && !known.identity.Expired() {
		return known.identity, nil
	}
	return c.verify(leaf, chain)
}

// verify verifies a chain that is not known.
func (c *Certificates) verify(leaf [sha256.Size]byte, chain []*x509.Certificate) (*Identity, error) {
	if err := boundWork(chain); err != nil {
		return nil, err
	}
	whole := hashOfChain(chain)
	now := time.Now()
	c.mu.RLock()
	trusted, refusal := c.trust, c.refused[whole]
	if now.Sub(c.refusedSince) > refusedFor {
		refusal = nil
	}
	c.mu.RUnlock()
	if refusal != nil {
		return nil, refusal
	}
	if trusted.pool == nil {
		return nil, nil
	}
	made, err := trusted.identify(leaf, chain, now)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.trust == trusted {
			c.refuse(whole, err, now)
		}
		return nil, err
	}
	// Since it was verified the CA may have gone, or another request may have done the same.
	known, ok := c.known[leaf]
	if ok && !known.identity.Expired() {
		made.identity.revoke()
		return known.identity, nil
	}
	if _, stays := c.trust.cas[made.ca]; !stays {
		made.identity.revoke()
		return nil, x509.UnknownAuthorityError{Cert: chain[0]}
	}
	c.forget(leaf)
	c.makeRoom()
	c.known[leaf] = made
	return made.identity, nil
}

// boundWork refuses what would be much work to verify, which anybody can send: many certificates, and
// those that could follow each other in many ways. A repeated certificate does no harm.
func boundWork(chain []*x509.Certificate) error {
	if len(chain) > MaxCertificates {
		return fmt.Errorf("%d certificates were presented, and %d are the most", len(chain), MaxCertificates)
	}
	for i, certificate := range chain {
		for _, other := range chain[:i] {
			if bytes.Equal(certificate.RawSubject, other.RawSubject) && !bytes.Equal(certificate.Raw, other.Raw) {
				return errors.New("two of the certificates that were presented have the same subject")
			}
		}
	}
	return nil
}

func hashOfChain(chain []*x509.Certificate) (hash [sha256.Size]byte) {
	h := sha256.New()
	for _, certificate := range chain {
		h.Write(certificate.Raw) // DER says how long it is
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// identify verifies a chain and makes the identity of it.
func (t *trust) identify(leaf [sha256.Size]byte, chain []*x509.Certificate, now time.Time) (known knownCertificate, err error) {
	intermediates := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots: t.pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return known, err
	}
	uid, err := uidOf(chain[0])
	if err != nil {
		return known, err
	}
	var expires time.Time
	for _, way := range verified {
		end := slices.MinFunc(way, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
		if end.After(expires) {
			expires, known.ca = end, sha256.Sum256(way[len(way)-1].Raw)
		}
	}
	if !now.Before(expires) { // for Verify a certificate is valid at its last moment, too
		return known, x509.CertificateInvalidError{Cert: chain[0], Reason: x509.Expired}
	}
	subject := chain[0].Subject
	known.identity, _, err = NewIdentityUntil(UserID(subject.CommonName), User{
		Name: subject.CommonName, UID: uid, Groups: subject.Organization,
		Extra: map[string][]string{credentialID: {"X509SHA256=" + hex.EncodeToString(leaf[:])}},
	}, expires)
	return known, err
}

// uidOf returns the UID in the subject of a certificate, or "".
func uidOf(certificate *x509.Certificate) (uid string, err error) {
	found := false
	for _, attribute := range certificate.Subject.Names {
		if !attribute.Type.Equal(userUID) {
			continue
		}
		text, isText := attribute.Value.(string)
		if found || !isText || text == "" {
			return "", fmt.Errorf("its subject must have one UID (%s) at most, a text that is not empty", userUID)
		}
		uid, found = text, true
	}
	return uid, nil
}

// refuse remembers an error, except one that the clock will mend or make. c.mu is held.
func (c *Certificates) refuse(whole [sha256.Size]byte, err error, now time.Time) {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return
	}
	if c.refused == nil || len(c.refused) >= maxRefused || now.Sub(c.refusedSince) > refusedFor {
		c.refused, c.refusedSince = map[[sha256.Size]byte]error{}, now
	}
	c.refused[whole] = err
}

// makeRoom makes room for one more certificate: those that have expired go, or else any one,
// whose watches end. c.mu is held.
func (c *Certificates) makeRoom() {
	if len(c.known) < maxKnown {
		return
	}
	for leaf, known := range c.known {
		if known.identity.Expired() {
			c.forget(leaf)
		}
	}
	for leaf := range c.known {
		if len(c.known) < maxKnown {
			return
		}
		c.forget(leaf)
	}
}

// forget ends the identity of a certificate, if it is known. c.mu is held.
func (c *Certificates) forget(leaf [sha256.Size]byte) {
	if known, ok := c.known[leaf]; ok {
		delete(c.known, leaf)
		known.identity.revoke()
	}
}

// Of returns the identities of a user whose certificates are known; they share one ID. A nil
// Certificates has none.
func (c *Certificates) Of(user string) []*Identity {
	if c == nil {
		return nil
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	var found []*Identity
	for _, known := range c.known {
		if known.identity.User.Name == user && !known.identity.Expired() {
			found = append(found, known.identity)
		}
	}
	return found
}
