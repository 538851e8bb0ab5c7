package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
)

// exampleBody is the request body of the example in the API's documentation.
const exampleBody = `{
  "apiVersion": "v1",
  "kind": "Endpoints",
  "metadata": {"name": "test-endpoint", "namespace": "default"},
  "subsets": [{
    "addresses": [{
      "ip": "192.168.226.222",
      "targetRef": {
        "kind": "Pod",
        "name": "nginx-686bccd6f-ccsqb",
        "namespace": "default",
        "resourceVersion": "262055491",
        "uid": "ae417968-4f69-40da-9228-2434671e9c66"
      }
    }],
    "ports": [{"name": "service0", "port": 80, "protocol": "TCP"}]
  }]
}`

// banner is the text printed when the server is ready.
type banner struct {
	access     datadir.Access
	caFile     string // empty means the system's CAs
	tokenFile  string // empty if --token-auth-file is set
	noToken    bool   // the kubeconfig has no token, which the user must give
	kubeconfig string // an absolute path: a shell may change its directory
	insecure   string // URL without TLS; empty if there is no such port
}

// print writes the address and commands that can be pasted into a shell in the server's
// working directory.
func (b banner) print(w io.Writer) error {
	var s strings.Builder
	fmt.Fprintf(&s, "Berth %s is ready at %s\n", binaryVersion(), b.access.Server)
	if b.insecure != "" {
		fmt.Fprintf(&s, "without TLS, on this machine only: %s\n", b.insecure)
	}
	if b.noToken {
		s.WriteString("\nThe token file has only hashes, so have a token of it in the variable TOKEN first.\n")
	}
	fmt.Fprintf(&s, "\nCreate an Endpoints with curl:\n\n%s\n", b.curl())
	option := ""
	if b.noToken {
		option = ` --token="$TOKEN"`
	}
	fmt.Fprintf(&s, "\nSee it with kubectl:\n\nexport KUBECONFIG=%s\nkubectl%s get endpoints -A\n\n", cli.ShellQuote(b.kubeconfig), option)
	_, err := io.WriteString(w, s.String())
	return err
}

func (b banner) curl() string {
	base, resolve := b.access.Server, ""
	if u, err := url.Parse(base); err == nil && b.access.ServerName != "" {
		// curl verifies the name in the URL, so connect that name to the address here.
		base = "https://" + net.JoinHostPort(b.access.ServerName, u.Port())
		resolve = fmt.Sprintf(" \\\n  --connect-to %s", cli.ShellQuote("::"+net.JoinHostPort(u.Hostname(), u.Port())))
	}
	cacert := ""
	if b.caFile != "" {
		cacert = " --cacert " + cli.ShellQuote(b.caFile)
	}
	return fmt.Sprintf(`curl%s%s \
  -H "X-Auth-Token: %s" \
  -H 'Content-Type: application/json' \
  %s -d '%s'`,
		cacert, resolve, b.token(),
		cli.ShellQuote(base+"/api/v1/namespaces/default/endpoints"), exampleBody)
}

// token returns what a shell replaces by the token in double quotes: the token itself must not
// appear in collected output.
func (b banner) token() string {
	switch {
	case b.noToken:
		return "$TOKEN"
	case b.tokenFile != "":
		return "$(cat " + cli.ShellQuote(b.tokenFile) + ")"
	}
	return `$(sed -n 's/^ *token: //p' ` + cli.ShellQuote(b.kubeconfig) + ` | tr -d "\"'")`
}
