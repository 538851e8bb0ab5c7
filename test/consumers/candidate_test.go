package consumers

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// The times of the elections, and the longest that client-go waits between two tries to lead.
const (
	leaseDuration = 3 * time.Second
	renewDeadline = 2 * time.Second
	retryPeriod   = time.Second
	longestRetry  = retryPeriod * 22 / 10
)

const leaseName = "controller"

// asCandidate is the environment variable that makes the test binary stand for election by the name
// that it has.
const asCandidate = "BERTH_TEST_AS_CANDIDATE"

// standForElection is the whole program of a candidate. It prints when it begins and ends to lead,
// and gives up at SIGTERM.
func standForElection(name, kubeconfig string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.Timeout = renewDeadline / 2 // as controllers do, so that a dead server costs one try
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	var printing sync.Mutex
	say := func(what string) {
		printing.Lock()
		defer printing.Unlock()
		fmt.Fprintln(os.Stdout, what, time.Now().UnixNano())
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: leaseName},
		Client:    client.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: name},
	}
	for ctx.Err() == nil { // one that has lost the lease stands again, as a restarted process would
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock:          releasing{lock, func() { say("stops") }},
			LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					if ctx.Err() == nil { // it runs beside the election, and may come late
						say("leads")
					}
				},
				OnStoppedLeading: func() { say("stops") },
			},
		})
	}
	return nil
}

// releasing is a lock that says so before it releases the lease: client-go calls OnStoppedLeading
// after that, when another may lead already.
type releasing struct {
	resourcelock.Interface
	say func()
}

func (r releasing) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if record.HolderIdentity == "" {
		r.say()
	}
	return r.Interface.Update(ctx, record)
}

// candidate is a process that stands for election.
type candidate struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and all that it said is known
}

// term is a time in which a candidate led.
type term struct {
	name       string
	begin, end time.Time // no end: it leads
}

// election observes candidates.
type election struct {
	server *server

	mu      sync.Mutex
	terms   []*term
	changed chan struct{} // closed, and made anew, at each change
}

// join starts a candidate, which is killed when the test ends.
func (e *election) join(t *testing.T, name string) *candidate {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &candidate{name: name, cmd: exec.Command(self, e.server.kubeconfig()), done: make(chan struct{})}
	// With the race detector a process would otherwise sleep for a second at its end.
	c.cmd.Env = append(os.Environ(), asCandidate+"="+name, "GORACE=atexit_sleep_ms=0")
	said, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			what, at, _ := strings.Cut(lines.Text(), " ")
			if nanoseconds, err := strconv.ParseInt(at, 10, 64); err == nil {
				e.note(name, what == "leads", time.Unix(0, nanoseconds))
			}
		}
		_ = c.cmd.Wait() // however it ends
		e.note(name, false, time.Now())
	}()
	t.Cleanup(func() { c.end(syscall.SIGKILL) })
	return c
}

// end sends the signal and waits until the process has ended.
func (c *candidate) end(signal syscall.Signal) {
	_ = c.cmd.Process.Signal(signal) // an error says that it has ended
	<-c.done
}

func (e *election) note(name string, leads bool, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if leads {
		e.terms = append(e.terms, &term{name: name, begin: at})
	} else {
		for _, term := range e.terms {
			if term.name == name && term.end.IsZero() {
				term.end = at
			}
		}
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// leaders are those that lead now, by their own words.
func (e *election) leaders() (names []string, changed <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, term := range e.terms {
		if term.end.IsZero() {
			names = append(names, term.name)
		}
	}
	return names, e.changed
}

// await waits until just one leads that is not the named one, and returns its name.
func (e *election) await(t *testing.T, not string) (leader string) {
	t.Helper()
	e.until(t, func(leaders []string) bool {
		if len(leaders) != 1 || leaders[0] == not {
			return false
		}
		leader = leaders[0]
		return true
	})
	return leader
}

// until waits until the condition holds for those that lead.
func (e *election) until(t *testing.T, condition func(leaders []string) bool) {
	t.Helper()
	late := time.After(patience)
	for {
		names, changed := e.leaders()
		if condition(names) {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%q lead", names)
		}
	}
}

// check fails where two led at once.
func (e *election) check(t *testing.T) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	slices.SortFunc(e.terms, func(a, b *term) int { return a.begin.Compare(b.begin) })
	for i := range len(e.terms) - 1 {
		if before, next := e.terms[i], e.terms[i+1]; before.end.IsZero() || before.end.After(next.begin) {
			t.Errorf("%s led until %v, but %s from %v on", before.name, before.end, next.name, next.begin)
		}
	}
}
