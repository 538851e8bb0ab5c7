// Package api tests the whole server over real HTTPS, from the client's side.
package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/ratelimit"
	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/test/apitest"
)

// secret is in every token, and in what the tests write into bodies where the log could
// give it away.
const secret = "s3cr3t"

// The tokens of the shared server; the admin's is apitest.Token.
const (
	aliceToken    = secret + "-alice"
	deniedToken   = secret + "-denied"  // everything is forbidden
	carefulToken  = secret + "-careful" // deleting what cannot be read is forbidden
	slowToken     = secret + "-slow"    // 5 requests a second, reads as well as writes
	slowerToken   = secret + "-slower"  // one request in two seconds
	spentToken    = secret + "-spent"   // one request in 1,000 s
	noToken       = "none"              // stands for no token at all
	unknownToken  = secret + "-unknown" // nobody's
	slowPerSecond = 5
)

// largeToken has 16 KiB, as a cloud's tokens may have.
var largeToken = secret + strings.Repeat("-large", 16<<10/6)

var (
	logs   logBuffer // of every server of this binary
	faults faultyStorage
	shared *apitest.Server
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	shared, err = apitest.Start(apitest.Config{
		Tokens: tokens(), RateLimits: limits(), Authorizer: denier{}, Logger: zerolog.New(&logs), Wrap: faults.wrap,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(shared.Close(), logs.checkSecrets(), goleak.Find(goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func tokens() string {
	var csv strings.Builder
	fmt.Fprintf(&csv, "%s,admin,1,\"%s\"\n", apitest.Token, auth.SystemPrivilegedGroup)
	for i, token := range []string{aliceToken, deniedToken, carefulToken, slowToken, slowerToken, spentToken, largeToken} {
		name, _, _ := strings.Cut(strings.TrimPrefix(token, secret+"-"), "-")
		fmt.Fprintf(&csv, "%s,%s,%d\n", token, name, i+2)
	}
	return csv.String()
}

func limits() *ratelimit.Config {
	none := &ratelimit.Limit{QPS: 1e6, Burst: 1e6}
	limited := func(user string, qps float64, burst int) ratelimit.Override {
		limit := &ratelimit.Limit{QPS: qps, Burst: burst}
		return ratelimit.Override{Users: []string{user}, Read: limit, Write: limit}
	}
	return &ratelimit.Config{
		Defaults:  ratelimit.Defaults{Read: none, Write: none},
		Anonymous: none,
		Overrides: []ratelimit.Override{
			limited("slow", slowPerSecond, slowPerSecond), limited("slower", 0.5, 1), limited("spent", 0.001, 1),
		},
	}
}

// denier allows everything to everybody, except to the users denied and careful.
type denier struct{}

func (denier) Authorize(_ context.Context, a auth.Attributes) (allowed bool, reason string, err error) {
	unsafe := a.User.Name == "careful" && a.Verb == "unsafe-delete-ignore-read-errors"
	return a.User.Name != "denied" && !unsafe, "", nil
}

// logBuffer keeps what servers log.
type logBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

// lines returns the lines that hold text.
func (b *logBuffer) lines(text string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.data.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// checkSecrets fails where a token or a body is in the log of all tests.
func (b *logBuffer) checkSecrets() error {
	if requests := b.lines(`"message":"request"`); len(requests) == 0 {
		return errors.New("no request was logged")
	}
	for _, text := range []string{secret, apitest.Token} {
		if lines := b.lines(text); len(lines) > 0 {
			return fmt.Errorf("%d lines of the log hold a token or a body, the first is %s", len(lines), lines[0])
		}
	}
	return nil
}

// writeFault stands between the registry and the write of one key.
type writeFault func(ctx context.Context, write func() (storage.WriteResponse, error)) (storage.WriteResponse, error)

// faultyStorage is a storage in which tests interfere, each with keys of its own.
type faultyStorage struct {
	storage.Interface
	mu     sync.Mutex
	faults map[string]writeFault
}

func (f *faultyStorage) wrap(store storage.Interface) storage.Interface {
	f.Interface, f.faults = store, map[string]writeFault{}
	return f
}

func (f *faultyStorage) Put(ctx context.Context, key string, value []byte, opts storage.PutOptions) (storage.WriteResponse, error) {
	f.mu.Lock()
	fault := f.faults[key]
	f.mu.Unlock()
	write := func() (storage.WriteResponse, error) { return f.Interface.Put(ctx, key, value, opts) }
	if fault == nil {
		return write()
	}
	return fault(ctx, write)
}

// on has fault decide on writes of the object until the test ends.
func (f *faultyStorage) on(t *testing.T, namespace, name string, fault writeFault) {
	t.Helper()
	key := "/registry/endpoints/" + namespace + "/" + name
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[key] = fault
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.faults, key)
	})
}

// failing is a fault that fails with err.
func failing(err error) writeFault {
	return func(context.Context, func() (storage.WriteResponse, error)) (storage.WriteResponse, error) {
		return storage.WriteResponse{}, err
	}
}
