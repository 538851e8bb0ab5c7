package iam

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Bounds of the hashes in a file: a check of any of them takes less than two seconds.
const (
	maxBcryptCost  = 14
	weakBcryptCost = 9 // up to which a hash is quick to guess
	// maxArgonMemory is in KiB, maxArgonWork in KiB times passes.
	maxArgonMemory  = 128 << 10
	maxArgonWork    = 1 << 20
	maxArgonThreads = 8
	minArgonBytes   = 8 // of the salt and of the hash
	maxArgonBytes   = 64
)

const (
	// maxBcryptPassword is what bcrypt reads of a password, in bytes.
	maxBcryptPassword = 72
	// newHashCost takes some 100 ms.
	newHashCost = 11
)

// passwordHash checks a password. The zero value accepts none.
type passwordHash struct {
	text  string // as in the file
	argon *argonHash
}

type argonHash struct {
	time, memory uint32
	threads      uint8
	salt, sum    []byte
}

// fingerprint tells one hash from another, without being of use to whoever guesses passwords.
type fingerprint [8]byte

func (h passwordHash) fingerprint() fingerprint {
	sum := sha256.Sum256([]byte("berth password fingerprint\x00" + h.text))
	return fingerprint(sum[:8])
}

// weak reports whether a check is so quick that guessing is, too.
func (h passwordHash) weak() bool {
	if h.argon != nil {
		return h.argon.memory*h.argon.time < 8<<10
	}
	cost, err := bcrypt.Cost([]byte(h.text))
	return err == nil && cost <= weakBcryptCost
}

// matches reports whether password is the one that was hashed. Longer ones than bcrypt reads are
// not: they would match all that begin alike.
func (h passwordHash) matches(password string) bool {
	if a := h.argon; a != nil {
		sum := argon2.IDKey([]byte(password), a.salt, a.time, a.memory, a.threads, uint32(len(a.sum)))
		return subtle.ConstantTimeCompare(sum, a.sum) == 1 && password != ""
	}
	short := password[:min(len(password), maxBcryptPassword)]
	return bcrypt.CompareHashAndPassword([]byte(h.text), []byte(short)) == nil && short == password && password != ""
}

// parseHash reads a hash of bcrypt or argon2id. The error does not contain it.
func parseHash(text string) (passwordHash, error) {
	switch {
	case strings.HasPrefix(text, "$2a$"), strings.HasPrefix(text, "$2b$"), strings.HasPrefix(text, "$2y$"):
		cost, err := bcrypt.Cost([]byte(text))
		switch {
		case err != nil || len(text) != 60:
			return passwordHash{}, errors.New("is not a complete hash of bcrypt, which has 60 characters")
		case cost > maxBcryptCost:
			return passwordHash{}, fmt.Errorf("has a cost of %d, the limit is %d: each check would take seconds", cost, maxBcryptCost)
		}
		return passwordHash{text: text}, nil
	case strings.HasPrefix(text, "$argon2id$"):
		argon, err := parseArgon(text)
		if err != nil {
			return passwordHash{}, err
		}
		return passwordHash{text: text, argon: argon}, nil
	}
	return passwordHash{}, errors.New("must be a hash of bcrypt ($2a$, $2b$ or $2y$) or argon2id ($argon2id$), such as apiserver iam password prints")
}

// parseArgon reads $argon2id$v=19$m=KiB,t=PASSES,p=THREADS$SALT$HASH.
func parseArgon(text string) (*argonHash, error) {
	parts := strings.Split(text, "$")
	a, version := &argonHash{}, 0
	if len(parts) != 6 {
		return nil, errors.New("is not a complete hash of argon2id: $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return nil, fmt.Errorf("is of a version of argon2id other than v=%d", argon2.Version)
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &a.memory, &a.time, &a.threads); err != nil ||
		parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", a.memory, a.time, a.threads) {
		return nil, errors.New("must have the parameters m=…,t=…,p=… of argon2id")
	}
	switch {
	case a.time < 1 || a.threads < 1 || a.threads > maxArgonThreads:
		return nil, fmt.Errorf("must have at least one pass (t) and 1 to %d threads (p)", maxArgonThreads)
	case a.memory < 8*uint32(a.threads) || a.memory > maxArgonMemory || uint64(a.memory)*uint64(a.time) > maxArgonWork:
		return nil, fmt.Errorf("must have 8 KiB of memory (m) for each thread at least, %d at most, and %d at most times the passes (t)", maxArgonMemory, maxArgonWork)
	}
	for i, part := range []*[]byte{&a.salt, &a.sum} {
		var err error
		if *part, err = base64.RawStdEncoding.Strict().DecodeString(parts[4+i]); err != nil || len(*part) < minArgonBytes || len(*part) > maxArgonBytes {
			return nil, fmt.Errorf("must have a salt and a hash of %d to %d bytes in base64 without padding", minArgonBytes, maxArgonBytes)
		}
	}
	return a, nil
}

// HashPassword returns a hash of bcrypt for the configuration file.
func HashPassword(password string) (string, error) {
	switch {
	case password == "":
		return "", errors.New("the password is empty")
	case len(password) > maxBcryptPassword:
		return "", fmt.Errorf("the password has %d bytes, and bcrypt reads %d", len(password), maxBcryptPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), newHashCost)
	return string(hash), err
}
