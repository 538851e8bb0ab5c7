package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// dataFiles names what the server keeps in its data directory.
type dataFiles struct{ dir string }

func (d dataFiles) lock() string       { return filepath.Join(d.dir, "lock") }
func (d dataFiles) etcd() string       { return filepath.Join(d.dir, "etcd") }
func (d dataFiles) pki() string        { return filepath.Join(d.dir, "pki") }
func (d dataFiles) caCert() string     { return filepath.Join(d.dir, "pki", "ca.crt") }
func (d dataFiles) caKey() string      { return filepath.Join(d.dir, "pki", "ca.key") }
func (d dataFiles) cert() string       { return filepath.Join(d.dir, "pki", "apiserver.crt") }
func (d dataFiles) key() string        { return filepath.Join(d.dir, "pki", "apiserver.key") }
func (d dataFiles) token() string      { return filepath.Join(d.dir, "token") }
func (d dataFiles) kubeconfig() string { return filepath.Join(d.dir, "kubeconfig") }

// lockDataDir makes the data directory, with mode 0700, where it does not exist, and
// holds it until unlock is called or the process ends. It fails at once where another
// process holds it.
func lockDataDir(files dataFiles) (unlock func(), err error) {
	if err := os.MkdirAll(files.dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data directory: %w", err)
	}
	lock, err := fileutil.TryLockFile(files.lock(), os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another process", files.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock the data directory: %w", err)
	}
	return func() { lock.Close() }, nil
}

// writeFile replaces path by data in one step: after a crash the file is the old one or
// the new one, whole. Only one caller at a time may write a path; the lock of the data
// directory sees to that between processes.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	dir, base := filepath.Split(path)
	tmp := filepath.Join(dir, "."+base+".tmp")
	defer func() {
		if err != nil {
			_ = os.Remove(tmp) // what is left is overwritten by the next try
		}
	}()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	// One that an earlier crash left behind keeps its mode when it is opened.
	_, err = f.Write(data)
	err = errors.Join(f.Chmod(mode), err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the entries of dir survive a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// parseCertificates returns the certificates of a PEM file, at least one.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return certs, nil
}

// encodeCertificates is the PEM form of certs.
func encodeCertificates(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, cert := range certs {
		// Writing to memory does not fail.
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	return out.Bytes()
}
