package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	clientcmdv1 "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"

	"github.com/berth-project/berth/pkg/files"
)

// kubeconfigName is the name of the cluster and the context in the kubeconfig.
const kubeconfigName = "berth"

// access is what a client needs to reach the server as its administrator.
type access struct {
	server     string // https://host:port
	serverName string // to verify the certificate by; empty means the host
	caPEM      []byte // nil means the system's CAs
	token      string
}

// writeKubeconfig replaces the kubeconfig at path. The new one refers to no other file.
func writeKubeconfig(path string, a access) error {
	data, err := yaml.Marshal(clientcmdv1.Config{
		APIVersion: "v1",
		Kind:       "Config",
		Clusters: []clientcmdv1.NamedCluster{{
			Name: kubeconfigName,
			Cluster: clientcmdv1.Cluster{
				Server:                   a.server,
				TLSServerName:            a.serverName,
				CertificateAuthorityData: a.caPEM,
			},
		}},
		AuthInfos: []clientcmdv1.NamedAuthInfo{{
			Name:     adminUser,
			AuthInfo: clientcmdv1.AuthInfo{Token: a.token},
		}},
		Contexts: []clientcmdv1.NamedContext{{
			Name:    kubeconfigName,
			Context: clientcmdv1.Context{Cluster: kubeconfigName, AuthInfo: adminUser},
		}},
		CurrentContext: kubeconfigName,
	})
	if err != nil {
		return err
	}
	return files.Write(path, data, 0o600)
}

// readKubeconfig reads a kubeconfig that writeKubeconfig wrote.
func readKubeconfig(path string) (access, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return access{}, err
	}
	var c clientcmdv1.Config
	if err := yaml.Unmarshal(data, &c); err != nil {
		return access{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(c.Clusters) != 1 || len(c.AuthInfos) != 1 {
		return access{}, fmt.Errorf("%s: not a kubeconfig that the server wrote", path)
	}
	cluster := c.Clusters[0].Cluster
	return access{
		server:     cluster.Server,
		serverName: cluster.TLSServerName,
		caPEM:      cluster.CertificateAuthorityData,
		token:      c.AuthInfos[0].AuthInfo.Token,
	}, nil
}

// clientHost returns the host by which a client on this machine reaches the server, for the
// kubeconfig: --external-hostname, or else the address the server listens on.
func clientHost(c config) string {
	if c.ExternalHostname != "" {
		return c.ExternalHostname
	}
	addr, _ := netip.ParseAddr(c.BindAddress) // validated
	switch {
	case addr.IsUnspecified() && addr.Is4():
		return loopback
	case addr.IsUnspecified():
		return "::1"
	default:
		return addr.String()
	}
}

// secureURL returns the base URL of the server, without a trailing slash.
func secureURL(host string, port int) string {
	// In a URL a zone's % is itself escaped (RFC 6874).
	return "https://" + net.JoinHostPort(strings.ReplaceAll(host, "%", "%25"), strconv.Itoa(port))
}
