package consumers

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/test/harness"
)

const zone = "default.svc.cluster.local."

// coredns has what deploy/coredns/Corefile needs of it: the whole program has hundreds of dependencies more.
var coredns = program{name: "coredns", module: "github.com/coredns/coredns", version: "v1.15.0", source: `package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func init() { dnsserver.Directives = []string{"bind", "ready", "errors", "kubernetes"} }
func main() { coremain.Run() }
`}

// nameServer is a CoreDNS that reads from a server.
type nameServer struct {
	address string
	pid     int
}

// startCoreDNS starts CoreDNS as deploy/coredns/Corefile has it, for a user who may view everything.
func startCoreDNS(t *testing.T, s *server) *nameServer {
	t.Helper()
	program, dir, access := coredns.build(t), t.TempDir(), grantAccess(t, s)
	address, ready := freeAddress(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	corefile := filepath.Join(dir, "Corefile")
	substitute(t, "coredns/Corefile", corefile,
		":1053", ":"+port,
		"    errors\n", "    errors\n    bind 127.0.0.1\n",
		"ready :8181", "ready "+ready,
		"https://apiserver:6443", s.URL,
		"/access/", access+"/")
	_, pid := start(t, program, "-conf", corefile)
	client := httpClient(t)
	eventually(t, "CoreDNS is ready", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ready+"/ready", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", resp.Status)
		}
		return nil
	})
	return &nameServer{address, pid}
}

// grantAccess lets the group consumers read everything, and returns the directory of a client certificate
// of one of them, as docker-compose.consumers.yml makes it.
func grantAccess(t *testing.T, s *server) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "access")
	certificate := exec.CommandContext(t.Context(), binary, "certificate", "create", "--data-dir="+s.data(""), "--out="+dir,
		"--user=consumers", "--group=consumers", "--group=system:monitoring")
	if out, err := certificate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "consumers"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "consumers"}},
	}
	must[*rbacv1.ClusterRoleBinding](t, "bind")(s.client(t).RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}))
	return dir
}

// substitute copies a file of deploy with other words, each of which must be there.
func substitute(t *testing.T, from, to string, pairs ...string) {
	t.Helper()
	text := harness.ReadFile(t, filepath.Join(harness.Root(), "deploy", from))
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("deploy/%s has no %q", from, pairs[i])
		}
	}
	harness.WriteFile(t, to, strings.NewReplacer(pairs...).Replace(text))
}

// freeAddress returns an address whose port was free a moment ago, for TCP and UDP.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 10 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", tcp.Addr().String())
		tcp.Close()
		if err == nil {
			udp.Close()
			return tcp.Addr().String()
		}
	}
	t.Fatal("no port is free for both TCP and UDP")
	return ""
}

// look asks for records and returns what they say, sorted; or the only word NXDOMAIN, SERVFAIL or the
// like. The name ends with a dot, or else is one of the zone.
func (n *nameServer) look(ctx context.Context, kind uint16, name string) ([]string, error) {
	if !strings.HasSuffix(name, ".") {
		name += "." + zone
	}
	question := new(dns.Msg).SetQuestion(name, kind).SetEdns0(dns.DefaultMsgSize, false)
	answer, _, err := (&dns.Client{Timeout: 5 * time.Second}).ExchangeContext(ctx, question, n.address)
	if err != nil {
		return nil, err
	}
	if answer.Rcode != dns.RcodeSuccess {
		return []string{dns.RcodeToString[answer.Rcode]}, nil
	}
	found := []string{}
	for _, record := range answer.Answer {
		switch record := record.(type) {
		case *dns.A:
			found = append(found, record.A.String())
		case *dns.AAAA:
			found = append(found, record.AAAA.String())
		case *dns.PTR:
			found = append(found, strings.TrimSuffix(record.Ptr, "."+zone))
		case *dns.SRV:
			found = append(found, fmt.Sprint(record.Port, " ", strings.TrimSuffix(record.Target, "."+zone)))
		default:
			return nil, fmt.Errorf("%s has %s", name, record)
		}
	}
	slices.Sort(found)
	return found, nil
}

// await waits until an answer is as wanted.
func (n *nameServer) await(t *testing.T, kind uint16, name string, want ...string) {
	t.Helper()
	want = slices.Sorted(slices.Values(want))
	eventually(t, name, func(ctx context.Context) error {
		got, err := n.look(ctx, kind, name)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%s is %q, want %q", dns.TypeToString[kind], got, want)
		}
		return err
	})
}
