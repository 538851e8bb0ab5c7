package commands

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
)

// newKubeconfig is the flags of commands that write a kubeconfig for a user of a server.
type newKubeconfig struct {
	path   string // "": none is written
	dir    datadir.Dir
	server string // a URL; "": the one in the kubeconfig of the data directory
}

func (k *newKubeconfig) addFlags(flags *pflag.FlagSet, usage string) {
	flags.StringVar(&k.path, "kubeconfig", k.path, usage)
	k.dir = datadir.Default
	addServerFlags(flags, &k.dir, &k.server)
}

func (k *newKubeconfig) validate() error {
	fault := func(flag, text string, args ...any) error {
		return &cli.FlagError{Flag: flag, Err: fmt.Errorf(text, args...)}
	}
	if k.server != "" && k.path == "" {
		return fault("server", "requires --kubeconfig")
	}
	if u, err := url.Parse(k.server); k.server != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		return fault("server", "%q is not a URL with https, such as https://127.0.0.1:6443", k.server)
	}
	if k.path == "" {
		return nil
	}
	// It may have much else in it.
	if _, err := os.Lstat(k.path); !errors.Is(err, fs.ErrNotExist) {
		return fault("kubeconfig", "%s exists already, and would be replaced", k.path)
	}
	return nil
}

// write writes the kubeconfig: how to reach the server, as the server's own kubeconfig has it, and
// what client has to show who the user is.
func (k *newKubeconfig) write(server, client datadir.Access) error {
	client.Server, client.ServerName, client.CAPEM = server.Server, server.ServerName, server.CAPEM
	if k.server != "" {
		client.Server = k.server
	}
	return datadir.WriteKubeconfig(k.path, client)
}
