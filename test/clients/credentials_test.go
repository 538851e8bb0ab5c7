package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/transport"
)

// client-go looks at certificate files every five minutes unless a test wants it sooner.
func init() { transport.CertCallbackRefreshDuration = 200 * time.Millisecond }

// tokenFilePatience is more than client-go takes to read a token file again, which is a minute.
const tokenFilePatience = 3 * time.Minute

// apiserver runs another command of the server's binary, and returns what it prints.
func apiserver(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), endAtOnce), &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("apiserver %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(stdout))
}

// expectUser waits until the server takes the client for a user.
func expectUser(t *testing.T, client kubernetes.Interface, want string, patience time.Duration) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		review, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if last = err; err == nil && review.Status.UserInfo.Username != want {
			last = fmt.Errorf("the client is %q, want %q", review.Status.UserInfo.Username, want)
		}
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}

// startInformer starts an informer of a namespace, and returns what waits until it knows an object.
func startInformer(t *testing.T, client kubernetes.Interface, namespace string) (expect func(name string)) {
	t.Helper()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().Endpoints().Informer()
	ctx, cancel := context.WithCancel(context.Background())
	factory.StartWithContext(ctx)
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
	})
	if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
		t.Fatal("the informer has not begun")
	}
	return func(name string) {
		t.Helper()
		eventually(t, "the informer knows "+name, func(context.Context) error {
			_, found, err := informer.GetStore().GetByKey(namespace + "/" + name)
			if err == nil && !found {
				err = fmt.Errorf("%d others", len(informer.GetStore().ListKeys()))
			}
			return err
		})
	}
}

// withoutCredentials is a configuration of a server's client without a token.
func withoutCredentials(t *testing.T, s *server) *rest.Config {
	t.Helper()
	config := s.config(t)
	config.BearerToken = ""
	return config
}

// A client with a token file goes on when the file has another token and the server no longer
// takes the first.
func TestTokenFileThatRotates(t *testing.T) {
	if testing.Short() {
		t.Skip("client-go reads a token file once a minute")
	}
	t.Parallel()
	dir := t.TempDir()
	tokens, file := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "token")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	const admin = "an-administrator's-token"
	write(tokens, admin+",admin,,system:masters\n")
	write(file, apiserver(t, "token", "create", "--user=ann", "--group=system:masters", "--file="+tokens))
	s := startServer(t, "--token-auth-file="+tokens)
	administrator := s.client(t)
	config := withoutCredentials(t, s)
	config.BearerTokenFile = file
	client := newClient(t, config)
	expectUser(t, client, "ann", patience)
	namespace := makeNamespace(t, administrator)
	endpoints := administrator.CoreV1().Endpoints(namespace)
	known := startInformer(t, client, namespace)
	mustCreate(t, endpoints, newEndpoints("first"))
	known("first")

	write(file, apiserver(t, "token", "create", "--user=bob", "--group=system:masters", "--file="+tokens))
	expectUser(t, client, "bob", tokenFilePatience)
	data, err := os.ReadFile(tokens)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	write(tokens, lines[0]+"\n"+lines[2]+"\n")
	mustCreate(t, endpoints, newEndpoints("second"))
	known("second")
	expectUser(t, client, "bob", patience)
}

// A client with certificate files, as CoreDNS has them, goes on when they are replaced and the
// first certificate expires.
func TestCertificateFilesThatRotate(t *testing.T) {
	t.Parallel()
	administrator, namespace, endpoints := sharedNamespace(t)
	// client-go looks at the files for as long as the process lives, so they stay until its end.
	dir, err := os.MkdirTemp(filepath.Dir(shared.dataDir), "credentials-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	const ttl = 4 * time.Second
	create := func(user string, ttl time.Duration) {
		t.Helper()
		apiserver(t, "certificate", "create", "--data-dir="+shared.dataDir, "--user="+user, "--group=system:masters", "--ttl="+ttl.String(), "--out="+dir)
	}
	create("ann", ttl)
	expired := time.After(ttl)
	config := withoutCredentials(t, shared)
	config.TLSClientConfig = rest.TLSClientConfig{
		CAFile: filepath.Join(dir, "ca.crt"), CertFile: filepath.Join(dir, "client.crt"), KeyFile: filepath.Join(dir, "client.key"),
	}
	client := newClient(t, config)
	expectUser(t, client, "ann", patience)
	known := startInformer(t, newClient(t, protobuf(config)), namespace)
	mustCreate(t, endpoints, newEndpoints("first"))
	known("first")

	create("bob", time.Hour)
	expectUser(t, client, "bob", patience)
	<-expired
	mustCreate(t, endpoints, newEndpoints("second"))
	known("second")
	if _, err := administrator.CoreV1().Endpoints(namespace).Get(t.Context(), "second", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// kubectl works by a certificate, and one that has expired does no harm beside a token.
func TestKubectlByCertificate(t *testing.T) {
	t.Parallel()
	k := newKubectl(t)
	dir := t.TempDir()
	create := func(file, user string, args ...string) string {
		t.Helper()
		path := filepath.Join(dir, file)
		apiserver(t, append([]string{"certificate", "create", "--data-dir=" + shared.dataDir, "--user=" + user, "--kubeconfig=" + path}, args...)...)
		return path
	}
	k.env = []string{"KUBECONFIG=" + create("valid", "ann", "--group=dev,system:masters", "--uid=u-1")}
	k.run("auth", "whoami").contains("ann", "u-1", "[dev system:masters system:authenticated]", "X509SHA256=")
	k.run("apply", "--server-side", "-f", k.manifest("web", "10.0.0.1")).ok("endpoints/web serverside-applied")
	w := k.start("get", "endpoints", "--watch")
	w.printed("web")
	k.run("label", "endpoints", "web", "a=b").ok("endpoints/web labeled")
	k.run("delete", "endpoints", "web").contains(`endpoints "web" deleted`)

	k.env = []string{"KUBECONFIG=" + create("expired", "ann", "--group=system:masters", "--ttl=1ns")}
	if r := k.run("get", "endpoints"); r.code == 0 || !strings.Contains(r.stderr, "certificate has expired") {
		t.Errorf("by an expired certificate: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	k.run("--token="+shared.config(t).BearerToken, "auth", "whoami").contains("admin")
}
