package attack

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/berth-project/berth/test/harness"
)

// attacker is a client that means harm. Its methods may be called by many goroutines.
type attacker struct {
	ctx       context.Context // done when the attack ends
	url       string          // of the server
	token     string          // "" for an attack without one
	namespace string          // of its own
	client    *http.Client
	dialer    *net.Dialer
	config    *tls.Config
	answers   answers
}

// answers counts what the attacker was answered.
type answers struct {
	mu     sync.Mutex
	counts map[int]int // by HTTP status; 0: no answer
}

func (a *answers) add(code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[code]++
}

// String lists the statuses, each with how often it came.
func (a *answers) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, code := range slices.Sorted(maps.Keys(a.counts)) {
		name := fmt.Sprint(code)
		if code == 0 {
			name = "none"
		}
		all = append(all, fmt.Sprintf("%s: %d", name, a.counts[code]))
	}
	return strings.Join(all, ", ")
}

// newAttacker returns the attacker that the orders are for.
func newAttacker(o orders) (*attacker, error) {
	trusting, err := harness.NewClient(o.CAFile)
	if err != nil {
		return nil, err
	}
	a := &attacker{url: o.URL, token: o.Token, namespace: o.Namespace, dialer: &net.Dialer{}, answers: answers{counts: map[int]int{}}}
	if !o.attack().near {
		a.dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}
	}
	a.config = trusting.Transport.(*http.Transport).TLSClientConfig
	a.config.ServerName = "127.0.0.1"
	a.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: a.config.Clone(), DialContext: a.dialer.DialContext, ForceAttemptHTTP2: true, DisableCompression: true,
	}}
	return a, nil
}

// run calls what attacks, or what prepares an attack, which ends with ctx.
func (a *attacker) run(ctx context.Context, run func(*attacker)) {
	defer a.client.CloseIdleConnections()
	a.ctx = ctx
	run(a)
}

// do sends a request, reads the answer, and counts its status; 0 if there was none.
func (a *attacker) do(method, path, body string, headers ...string) {
	code, _, err := exchange(a.ctx, a.client, a.url, a.token, method, path, body, headers...)
	if err != nil {
		code = 0
	}
	if a.ctx.Err() == nil || code != 0 {
		a.answers.add(code)
	}
}

func (a *attacker) get(path string, headers ...string) {
	a.do(http.MethodGet, path, "", headers...)
}

// create sends the object to the attacker's namespace.
func (a *attacker) create(body string, headers ...string) {
	a.do(http.MethodPost, endpointsIn(a.namespace), body, headers...)
}

// patch sends a patch of the kind to the object that is named object.
func (a *attacker) patch(kind, body string) {
	path := endpointsIn(a.namespace) + "/object?fieldManager=attacker"
	if kind == applyPatch {
		path += "&force=true"
	}
	a.do(http.MethodPatch, path, body, "Content-Type", "application/"+kind)
}

// parallel runs do in that many goroutines, each again and again until the attack ends: as
// often as the server takes what is expensive, but not faster if it refuses it. n counts the
// calls of one goroutine.
func (a *attacker) parallel(workers int, do func(worker, n int)) {
	a.paced(workers, 500, do)
}

// paced is parallel with at most perSecond calls a second in all: the attacker's own work
// must not take the cores that it shares with the server.
func (a *attacker) paced(workers int, perSecond rate.Limit, do func(worker, n int)) {
	limiter := rate.NewLimiter(perSecond, 1)
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			for n := 0; limiter.Wait(a.ctx) == nil; n++ {
				do(worker, n)
			}
		})
	}
	all.Wait()
}

// hold runs do once in each of that many goroutines, and waits for the end of the attack.
func (a *attacker) hold(workers int, do func(worker int)) {
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() { do(worker) })
	}
	all.Wait()
	<-a.ctx.Done()
}

// dial opens a connection that ends with the attack, or returns nil.
func (a *attacker) dial() net.Conn {
	conn, err := a.dialer.DialContext(a.ctx, "tcp", strings.TrimPrefix(a.url, "https://"))
	if err != nil {
		a.answers.add(0)
		return nil
	}
	context.AfterFunc(a.ctx, func() { conn.Close() })
	return conn
}

// dialTLS opens a connection for a protocol of HTTP, or returns nil.
func (a *attacker) dialTLS(protocol string) net.Conn {
	conn := a.dial()
	if conn == nil {
		return nil
	}
	config := a.config.Clone()
	config.NextProtos = []string{protocol}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(a.ctx); err != nil {
		conn.Close()
		return nil
	}
	return secure
}

// head is the beginning of a request of HTTP/1.1.
func (a *attacker) head(method, path string, headers ...string) string {
	lines := []string{method + " " + path + " HTTP/1.1", "Host: berth", "Authorization: Bearer " + a.token}
	return strings.Join(append(lines, headers...), "\r\n") + "\r\n"
}

// trickle writes a byte of the text a time, each after a pause, until the attack or the
// connection ends.
func (a *attacker) trickle(conn net.Conn, text string, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-a.ctx.Done():
			return
		case <-tick.C:
			if _, err := conn.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
		}
	}
}

// exchange sends a request and returns the whole answer. headers are names and values in turn;
// a body without a type is JSON.
func exchange(ctx context.Context, client *http.Client, url, token, method, path, body string, headers ...string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	// Of a large answer nobody looks at more than the beginning.
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	return resp.StatusCode, data, err
}
