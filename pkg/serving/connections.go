package serving

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"
)

const (
	// evictionSample is how many idle connections are considered for eviction. They are
	// random, so an address with many is likely to be among them.
	evictionSample = 64
	// logPeriod is the minimum time between log lines of the same kind.
	logPeriod = 10 * time.Second
)

// connections is the set of open connections of all listeners of a server. It bounds their
// total number, and those from one address to half of that, unless it is a trusted proxy's,
// since one proxy may carry all clients. Where connections begin with a header of the PROXY
// protocol, the address is the client's that the header names.
//
// When there is no room for a new connection, an idle one is closed for it, at the address
// that has the most. So a client that leaves connections idle, from any number of addresses,
// cannot keep others out. HTTP clients reopen a closed idle connection by themselves.
type connections struct {
	limit, share  int
	trusted       []netip.Prefix
	proxyProtocol bool
	maxExpected   int64 // see headerShare

	addressLog, totalLog, headerLog, evictionLog, acceptLog zerolog.Logger

	refused *prometheus.CounterVec // by reason
	evicted prometheus.Counter

	failedHandshakes prometheus.Counter

	expected atomic.Int64 // connections whose PROXY header is yet to come; they are not in open

	mu        sync.Mutex
	open      map[*conn]struct{}
	byAddress map[netip.Prefix]int // how many of open
}

// conn is a connection that is counted until it is closed.
type conn struct {
	net.Conn
	owner   *connections
	address netip.Prefix // that it counts for
	proxy   bool         // whether that is a trusted proxy's
	// idleSince is when the last answer ended, in Unix nanoseconds, or when the connection was
	// opened if there was none yet. It is 0 while a request is in progress.
	idleSince atomic.Int64
}

// newConnections returns a set of at most cfg.MaxConnections connections. It panics if
// cfg.Metrics already has these metrics.
func newConnections(cfg Config) *connections {
	sampled := func() zerolog.Logger {
		return cfg.Logger.Sample(&zerolog.BurstSampler{Burst: 1, Period: logPeriod})
	}
	factory := promauto.With(cfg.Metrics)
	limit, expected := cfg.MaxConnections, 0
	if cfg.ProxyProtocol {
		expected = max(limit/headerShare, 1)
		limit = max(limit-expected, 1)
	}
	cs := &connections{
		limit: limit, share: max(limit/2, 1),
		trusted: cfg.TrustedProxies, proxyProtocol: cfg.ProxyProtocol, maxExpected: int64(expected),
		addressLog: sampled(), totalLog: sampled(), headerLog: sampled(), evictionLog: sampled(), acceptLog: sampled(),
		refused: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_connections_refused_total",
			Help: "Connections closed as soon as they were accepted, by the reason: too many from one address (address), too many in all and none of them idle (total), or no valid PROXY header from a trusted proxy (proxy-header).",
		}, []string{"reason"}),
		evicted: factory.NewCounter(prometheus.CounterOpts{
			Name: "berth_connections_evicted_total",
			Help: "Idle connections closed to make room for new ones.",
		}),
		failedHandshakes: factory.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_tls_handshake_errors_total",
			Help: "TLS handshakes that have failed.",
		}),
		open:      map[*conn]struct{}{},
		byAddress: map[netip.Prefix]int{},
	}
	for _, reason := range []string{"address", "total", "proxy-header"} {
		cs.refused.WithLabelValues(reason) // shown as 0
	}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "berth_connections",
		Help: "Connections that are open now.",
	}, func() float64 { return float64(cs.count()) })
	return cs
}

// admit adds an accepted connection, or, if it must begin with a PROXY header, prepares it for
// readHeader, which adds it. If there is no room for it, admit closes it and returns nil.
func (cs *connections) admit(accepted net.Conn) *conn {
	c := &conn{Conn: accepted, owner: cs}
	c.address, c.proxy = cs.addressOf(accepted.RemoteAddr())
	if cs.proxyProtocol && c.proxy {
		return cs.expectHeader(c)
	}
	return cs.enter(c)
}

// enter adds c. If there is no room for it, enter closes it and returns nil.
func (cs *connections) enter(c *conn) *conn {
	c.idleSince.Store(time.Now().UnixNano())
	victim, refusal := cs.add(c)
	if refusal != "" {
		cs.refuse(c, refusal)
		return nil
	}
	if victim != nil {
		cs.evicted.Inc()
		victim.Conn.Close()
		cs.evictionLog.Warn().Stringer("address", victim.address).Int("limit", cs.limit).
			Msg("closed an idle connection: too many are open, and a new one needs room")
	}
	return c
}

// refuse closes c, which has not been added, and says why.
func (cs *connections) refuse(c *conn, reason string) {
	switch reason {
	case "address":
		cs.addressLog.Warn().Stringer("address", c.address).Int("limit", cs.share).
			Msg("refused a connection: too many are open from its address")
	case "total":
		cs.totalLog.Warn().Stringer("address", c.address).Int("limit", cs.limit).
			Msg("refused a connection: too many are open, and none can be closed for it")
	case "proxy-header":
		cs.headerLog.Warn().Stringer("address", c.address).
			Msg("refused a connection of a trusted proxy: it did not begin with a valid header of the PROXY protocol")
	}
	cs.refused.WithLabelValues(reason).Inc()
	c.Conn.Close()
}

// add counts c, instead of victim if that is not nil, or returns the limit that forbids it.
func (cs *connections) add(c *conn) (victim *conn, refusal string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	count := cs.byAddress[c.address]
	switch {
	case c.proxy:
		count-- // a proxy may have all connections: then one of its own makes room
	case count >= cs.share:
		return nil, "address"
	}
	if len(cs.open) >= cs.limit {
		if victim = cs.findIdle(count); victim == nil {
			return nil, "total"
		}
		cs.forget(victim)
	}
	cs.open[c] = struct{}{}
	cs.byAddress[c.address]++
	return victim, ""
}

// findIdle returns the idle connection to close for a new one from an address with count
// connections: the one idle for the longest, of the address with the most. It returns nil if
// no address with an idle connection has more than count. cs.mu must be held.
func (cs *connections) findIdle(count int) *conn {
	var found *conn
	most, oldest, seen := 0, int64(0), 0
	for c := range cs.open { // in random order
		since, n := c.idleSince.Load(), cs.byAddress[c.address]
		if since == 0 || n <= count {
			continue
		}
		if found == nil || n > most || (n == most && since < oldest) {
			found, most, oldest = c, n, since
		}
		if seen++; seen == evictionSample {
			break
		}
	}
	return found
}

// forget stops counting c. cs.mu must be held.
func (cs *connections) forget(c *conn) {
	if _, counts := cs.open[c]; !counts {
		return
	}
	delete(cs.open, c)
	if cs.byAddress[c.address]--; cs.byAddress[c.address] == 0 {
		delete(cs.byAddress, c.address)
	}
}

func (cs *connections) count() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.open)
}

type connKey struct{}

// connContext is for http.Server: it lets markBusy find the connection of a request.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, belowTLS(nc))
}

// markBusy returns a handler that calls next with the request's connection marked as busy. The
// connection is not busy before, while the header is received, which may never end.
func markBusy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if c, ok := req.Context().Value(connKey{}).(*conn); ok {
			c.idleSince.Store(0)
		}
		next.ServeHTTP(w, req)
	})
}

// connState is for http.Server: a connection is idle again when the answers to all its
// requests are written. A hijacked connection stays busy.
func connState(nc net.Conn, state http.ConnState) {
	if c, ok := belowTLS(nc).(*conn); ok && state == http.StateIdle {
		c.idleSince.Store(time.Now().UnixNano())
	}
}

func belowTLS(nc net.Conn) net.Conn {
	if secured, ok := nc.(*tls.Conn); ok {
		return secured.NetConn()
	}
	return nc
}

// Read lets other goroutines run before it returns. A connection that always has more to read,
// such as one that is flooded with frames, would otherwise start requests faster than they are
// handled, and keep its core for a whole time slice.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	runtime.Gosched()
	return n, err
}

// Close closes the connection, which then is no longer counted.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	c.owner.forget(c)
	return err
}

// CloseWrite closes the writing side, if the network supports that. net/http does so before it
// closes a connection whose last answer the peer may still be reading.
func (c *conn) CloseWrite() error {
	below := c.Conn
	if proxied, ok := below.(*proxyproto.Conn); ok {
		below = proxied.Raw()
	}
	if half, ok := below.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// addressOf returns what counts as the address of a client: an IPv4 address, or an IPv6 /64
// network, all of which one client may have. It is the zero Prefix for an address that is not
// an IP address. A trusted proxy is its address alone.
func (cs *connections) addressOf(remote net.Addr) (address netip.Prefix, proxy bool) {
	addrPort, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return netip.Prefix{}, false
	}
	addr := addrPort.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	proxy = slices.ContainsFunc(cs.trusted, func(network netip.Prefix) bool { return network.Contains(addr) })
	if addr.Is6() && !proxy {
		bits = 64
	}
	address, _ = addr.Prefix(bits) // bits are in range
	return address, proxy
}
