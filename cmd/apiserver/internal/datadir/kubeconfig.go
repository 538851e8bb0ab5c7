package datadir

import (
	"fmt"
	"os"

	clientcmdv1 "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"

	"github.com/berth-project/berth/pkg/files"
)

// kubeconfigName is the name of the cluster and the context in the kubeconfig.
const kubeconfigName = "berth"

// Access is what a client needs to reach the server as a user.
type Access struct {
	Server     string // https://host:port
	ServerName string // to verify the certificate by; empty means the host
	CAPEM      []byte // nil means the system's CAs
	User       string
	Token      string // may be empty, and then the next two are there instead
	CertPEM    []byte // a client certificate
	KeyPEM     []byte
}

// WriteKubeconfig replaces the kubeconfig at path. The new one refers to no other file.
func WriteKubeconfig(path string, a Access) error {
	data, err := yaml.Marshal(clientcmdv1.Config{
		APIVersion: "v1",
		Kind:       "Config",
		Clusters: []clientcmdv1.NamedCluster{{
			Name: kubeconfigName,
			Cluster: clientcmdv1.Cluster{
				Server:                   a.Server,
				TLSServerName:            a.ServerName,
				CertificateAuthorityData: a.CAPEM,
			},
		}},
		AuthInfos: []clientcmdv1.NamedAuthInfo{{
			Name:     a.User,
			AuthInfo: clientcmdv1.AuthInfo{Token: a.Token, ClientCertificateData: a.CertPEM, ClientKeyData: a.KeyPEM},
		}},
		Contexts: []clientcmdv1.NamedContext{{
			Name:    kubeconfigName,
			Context: clientcmdv1.Context{Cluster: kubeconfigName, AuthInfo: a.User},
		}},
		CurrentContext: kubeconfigName,
	})
	if err != nil {
		return err
	}
	return files.Write(path, data, 0o600)
}

// ReadKubeconfig reads a kubeconfig that WriteKubeconfig wrote.
func ReadKubeconfig(path string) (Access, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Access{}, err
	}
	var c clientcmdv1.Config
	if err := yaml.Unmarshal(data, &c); err != nil {
		return Access{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(c.Clusters) != 1 || len(c.AuthInfos) != 1 {
		return Access{}, fmt.Errorf("%s: not a kubeconfig that the server wrote", path)
	}
	cluster := c.Clusters[0].Cluster
	return Access{
		Server:     cluster.Server,
		ServerName: cluster.TLSServerName,
		CAPEM:      cluster.CertificateAuthorityData,
		User:       c.AuthInfos[0].Name,
		Token:      c.AuthInfos[0].AuthInfo.Token,
	}, nil
}
