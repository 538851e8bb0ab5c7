package main

import (
	"fmt"
	"net/url"
	"os"

	clientcmdv1 "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"
)

// kubeconfigName names the one cluster and context of the kubeconfig.
const kubeconfigName = "berth"

// access is what a client needs to reach the server as its administrator.
type access struct {
	server     string // https://host:port
	serverName string // by which the certificate is verified; empty: the host
	caPEM      []byte
	token      string
}

// writeKubeconfig replaces the kubeconfig at path by one that needs no other file.
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
	return writeFile(path, data, 0o600)
}

// readKubeconfig returns what writeKubeconfig wrote.
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
		return access{}, fmt.Errorf("%s: it is not the one that the server wrote", path)
	}
	cluster := c.Clusters[0].Cluster
	if _, err := url.Parse(cluster.Server); err != nil {
		return access{}, fmt.Errorf("%s: %w", path, err)
	}
	return access{
		server:     cluster.Server,
		serverName: cluster.TLSServerName,
		caPEM:      cluster.CertificateAuthorityData,
		token:      c.AuthInfos[0].AuthInfo.Token,
	}, nil
}
