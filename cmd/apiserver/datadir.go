package main

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

// dataDir is the path of the data directory. Its methods return the paths of its content.
type dataDir string

func (d dataDir) etcd() string          { return filepath.Join(string(d), "etcd") }
func (d dataDir) etcdSocket() string    { return filepath.Join(string(d), "etcd.sock") }
func (d dataDir) database() string      { return filepath.Join(d.etcd(), "member", "snap", "db") }
func (d dataDir) pki() certificates.Dir { return certificates.Dir(filepath.Join(string(d), "pki")) }
func (d dataDir) token() string         { return filepath.Join(string(d), "token") }
func (d dataDir) kubeconfig() string    { return filepath.Join(string(d), "kubeconfig") }

// lock creates the directory, with mode 0700, if it does not exist, and locks it until lock is
// closed or the process ends. It fails if another process holds the lock, or if other users
// could have changed what the server trusts in it.
func (d dataDir) lock() (lock io.Closer, err error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made: %w", d, err)
	}
	if err := files.CheckPrivate(string(d), "lock", "token", "kubeconfig", "pki", "etcd"); err != nil {
		return nil, err
	}
	return files.LockDir(string(d))
}

// ensureToken returns the token of the data directory, and creates one if there is none.
func (d dataDir) ensureToken() (string, error) {
	data, err := os.ReadFile(d.token())
	if errors.Is(err, fs.ErrNotExist) {
		token := auth.GenerateToken()
		return token, files.Write(d.token(), []byte(token+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	// The token must be usable as $(cat token) in a header.
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s contains no valid token; remove it to have a new one made", d.token())
	}
	return token, nil
}
