package consumers

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/test/harness"
)

// backendAddresses are for documents alone (RFC 5737): nobody else has them.
var backendAddresses = []string{"192.0.2.11", "192.0.2.12"}

// discoveringProxies are the programs that deploy has a configuration for by which they find servers.
var discoveringProxies = []struct {
	program, versionFlag string
	configure            func(t *testing.T, dir, listen string, backendPort int, names *nameServer) (args []string)
	// needsDNS reports whether it finds no server while CoreDNS is down.
	needsDNS bool
}{
	{"haproxy", "-v", configureHAProxy, false},
	{"nginx", "-v", configureNginx, true},
}

func configureHAProxy(t *testing.T, dir, listen string, _ int, names *nameServer) []string {
	t.Helper()
	path := filepath.Join(dir, "haproxy.cfg")
	substitute(t, "haproxy/discovery.cfg", path,
		"bind :8080", "bind "+listen,
		"nameserver coredns 127.0.0.1:1053", "nameserver coredns "+names.address,
		// Who runs the test may be nobody who could become another user.
		"    user haproxy\n    group haproxy\n", "")
	return []string{"-db", "-f", path}
}

// configureNginx puts the server's block into the least of a configuration around it.
func configureNginx(t *testing.T, dir, listen string, backendPort int, names *nameServer) []string {
	t.Helper()
	substitute(t, "nginx/discovery.conf", filepath.Join(dir, "discovery.conf"),
		"listen 8080", "listen "+listen,
		"resolver 127.0.0.1:1053", "resolver "+names.address,
		":9100", ":"+strconv.Itoa(backendPort))
	main := "daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		main += kind + "_temp_path " + kind + ";\n"
	}
	harness.WriteFile(t, filepath.Join(dir, "nginx.conf"), main+"include discovery.conf;\n}\n")
	return []string{"-p", dir, "-e", "stderr", "-c", "nginx.conf"}
}

// TestProxies has Debian's HAProxy and nginx find their servers as the files in deploy have it.
func TestProxies(t *testing.T) {
	port := startBackends(t)
	for _, proxy := range discoveringProxies {
		t.Run(proxy.program, func(t *testing.T) {
			program, err := exec.LookPath(proxy.program)
			if err != nil {
				t.Skipf("%s is not installed", proxy.program)
			}
			version, err := exec.CommandContext(t.Context(), program, proxy.versionFlag).CombinedOutput()
			if err != nil {
				t.Fatal(err)
			}
			s := startServer(t)
			names, listen := startCoreDNS(t, s), freeAddress(t)
			start(t, program, proxy.configure(t, t.TempDir(), listen, port, names)...)
			seen := testProxy(t, s, "http://"+listen, int32(port))
			if !proxy.needsDNS {
				testWithoutDNS(t, names, "http://"+listen)
			}
			proven.add(proxy.program, versionNumber.FindString(string(version)), "traffic follows registrations", seen)
		})
	}
}

var versionNumber = regexp.MustCompile(`\d+\.\d+\.\d+`)

// testProxy registers servers and takes them out again, and returns how long each change took until the
// traffic followed.
func testProxy(t *testing.T, s *server, url string, number int32) (seen []time.Duration) {
	c, client := s.client(t), httpClient(t)
	follows := func(what string, servers ...string) {
		t.Helper()
		began := time.Now()
		awaitTraffic(t, client, url, what, servers)
		seen = append(seen, time.Since(began))
	}
	sliceAPI := c.DiscoveryV1().EndpointSlices("default")
	update := func(slice *discoveryv1.EndpointSlice) {
		t.Helper()
		must[*discoveryv1.EndpointSlice](t, "update")(sliceAPI.Update(t.Context(), slice, metav1.UpdateOptions{}))
	}
	one, other := backendAddresses[0], backendAddresses[1]
	http := port{"http", number}

	follows("nothing is registered")
	must[*corev1.Service](t, "create")(c.CoreV1().Services("default").Create(t.Context(), newService("web", http), metav1.CreateOptions{}))
	must[*discoveryv1.EndpointSlice](t, "create")(sliceAPI.Create(t.Context(), newSlice("web", []string{one}, http), metav1.CreateOptions{}))
	follows("one is registered", one)
	update(newSlice("web", backendAddresses, http))
	follows("two are registered", one, other)
	s.Kill(t)
	awaitTraffic(t, client, url, "the server is down", backendAddresses)
	s.Restart(t)
	update(newSlice("web", []string{other}, http))
	follows("the first is removed", other)
	both := newSlice("web", backendAddresses, http)
	both.Endpoints[1].Conditions.Ready = new(false)
	update(both)
	follows("the second is not ready", one)
	update(newSlice("web", nil, http))
	follows("none is left")
	update(newSlice("web", []string{other}, http))
	follows("one is back", other)
	if err := c.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	follows("the Service is deleted")
	must[*corev1.Service](t, "create")(c.CoreV1().Services("default").Create(t.Context(), newService("web", http), metav1.CreateOptions{}))
	follows("the Service is back", other)
	return seen
}

// testWithoutDNS kills CoreDNS, and looks for several times as long as a proxy keeps an answer whether
// its requests are still answered.
func testWithoutDNS(t *testing.T, names *nameServer, url string) {
	if err := syscall.Kill(names.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	client, end, tick := httpClient(t), time.After(6*time.Second), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		if answer, err := answerOf(t.Context(), client, url); err != nil || answer != backendAddresses[1] {
			t.Fatalf("without CoreDNS: %q, %v", answer, err)
		}
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}

// awaitTraffic waits until requests are answered by these servers and no other, or if there are none by
// the proxy itself with an error.
func awaitTraffic(t *testing.T, client *http.Client, url, what string, servers []string) {
	t.Helper()
	eventually(t, what, func(ctx context.Context) error {
		got := []string{}
		for range 6 {
			answer, err := answerOf(ctx, client, url)
			if err != nil {
				return err
			}
			got = append(got, answer)
		}
		slices.Sort(got)
		got = slices.Compact(got)
		if none := slices.Equal(got, []string{"502"}) || slices.Equal(got, []string{"503"}); none && len(servers) == 0 {
			return nil
		}
		if !slices.Equal(got, servers) {
			return fmt.Errorf("%q answer, want %q", got, servers)
		}
		return nil
	})
}

// answerOf returns which server has answered, or the status code of another answer than 200.
func answerOf(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return strconv.Itoa(resp.StatusCode), err
	}
	return string(body), nil
}

// startBackends gives this machine addresses that are not of its loopback network, which a slice may not
// have, and starts on each a server that answers with its address. It returns their port.
func startBackends(t *testing.T) int {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may add addresses to this machine")
	}
	number := 0
	for _, address := range backendAddresses {
		if out, err := exec.CommandContext(t.Context(), "ip", "address", "add", address+"/32", "dev", "lo").CombinedOutput(); err != nil {
			t.Skipf("this machine gets no address: %v %s", err, out)
		}
		t.Cleanup(func() {
			// The test's context has ended.
			if out, err := exec.Command("ip", "address", "delete", address+"/32", "dev", "lo").CombinedOutput(); err != nil {
				t.Errorf("%v %s", err, out)
			}
		})
		listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(number)))
		if err != nil {
			t.Fatal(err)
		}
		number = listener.Addr().(*net.TCPAddr).Port
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, address) })
		mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			fmt.Fprintln(w, "requests_total 1")
		})
		server := &http.Server{Handler: mux}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(listener) // until it is closed
		}()
		t.Cleanup(func() {
			server.Close()
			<-served
		})
	}
	return number
}
