package certificates

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// etcdClient is the name of the certificate that servers show to etcd.
const etcdClient = "client"

// EnsureEtcd creates what TLS between the members of an etcd, and with their clients, needs: the CA,
// a pair NAME.crt and NAME.key for each member, which is valid for that host name and for the machine
// itself, and the pair client.crt and client.key for the servers that store in it. It keeps and
// replaces them as Ensure does.
func (d Dir) EnsureEtcd(members []string, now time.Time) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("cannot make the directory of the certificates: %w", err)
	}
	ca, err := d.ensureCA("berth-etcd-ca", now)
	if err != nil {
		return err
	}
	path := func(name, suffix string) string { return filepath.Join(string(d), name+suffix) }
	leaves := []leaf{{commonName: "berth-etcd-client", usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, cert: path(etcdClient, ".crt"), key: path(etcdClient, ".key")}}
	for _, member := range members {
		leaves = append(leaves, leaf{
			commonName: member,
			names:      []string{member, "localhost", "127.0.0.1", "::1"},
			// A member is also a client, of the other members and of itself.
			usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			cert:  path(member, ".crt"),
			key:   path(member, ".key"),
		})
	}
	for _, want := range leaves {
		if _, err := d.ensureLeaf(ca, want, now); err != nil {
			return err
		}
	}
	return nil
}
