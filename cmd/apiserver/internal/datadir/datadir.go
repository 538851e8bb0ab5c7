// Package datadir is the data directory: what is where in it, its lock, its token, and the
// kubeconfig.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/pkg/files"
)

// Default is the data directory unless --data-dir names another.
const Default Dir = "./berth.data"

// Dir is the path of the data directory.
type Dir string

// Etcd returns the path of the embedded etcd's directory.
func (d Dir) Etcd() string { return filepath.Join(string(d), "etcd") }

// EtcdSocket returns the path of the socket that snapshots are taken through.
func (d Dir) EtcdSocket() string { return filepath.Join(string(d), "etcd.sock") }

// Database returns the path of the embedded etcd's database.
func (d Dir) Database() string { return filepath.Join(d.Etcd(), "member", "snap", "db") }

// PKI returns the directory of the certificates.
func (d Dir) PKI() certificates.Dir { return certificates.Dir(filepath.Join(string(d), "pki")) }

// Token returns the path of the administrator's token.
func (d Dir) Token() string { return filepath.Join(string(d), "token") }

// Kubeconfig returns the path of the administrator's kubeconfig.
func (d Dir) Kubeconfig() string { return filepath.Join(string(d), "kubeconfig") }

// Lock creates the directory, with mode 0700, if it does not exist, and locks it until lock is
// closed or the process ends. It fails if another process holds the lock, or if other users
// could have changed what the server trusts in it.
func (d Dir) Lock() (lock io.Closer, err error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made: %w", d, err)
	}
	if err := files.CheckPrivate(string(d), "lock", "token", "kubeconfig", "pki", "etcd"); err != nil {
		return nil, err
	}
	return files.LockDir(string(d))
}

// EnsureToken returns the token of the data directory, and creates one if there is none.
func (d Dir) EnsureToken() (string, error) {
	data, err := os.ReadFile(d.Token())
	if errors.Is(err, fs.ErrNotExist) {
		token := auth.GenerateToken()
		return token, files.Write(d.Token(), []byte(token+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	// The token must be usable as $(cat token) in a header.
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s contains no valid token; remove it to have a new one made", d.Token())
	}
	return token, nil
}
