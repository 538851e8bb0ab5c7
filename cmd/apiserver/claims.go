package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/pkg/serving"
)

const (
	// loopback is where --http-port listens, whatever --bind-address is: without TLS a token
	// must not leave the machine.
	loopback = "127.0.0.1"
	// portsTried is how many ports after one that is taken are tried for a suggestion.
	portsTried = 10
)

// claims is what only one process can have.
type claims struct {
	lock     io.Closer // of the data directory
	secure   net.Listener
	insecure net.Listener // nil if --http-port is 0
}

// claim takes the data directory and the ports. close must be called, also after an error.
//
// The directory comes first: who starts a second server on it learns that, and not that the
// port is taken. A directory that does not exist is made last, so that a failure leaves none.
func claim(ctx context.Context, c config) (*claims, error) {
	taken := &claims{}
	_, err := os.Stat(string(c.DataDir))
	isNew := errors.Is(err, fs.ErrNotExist)
	if !isNew {
		if taken.lock, err = c.DataDir.Lock(); err != nil {
			return taken, err
		}
	}
	if taken.secure, err = listen(ctx, c.BindAddress, c.SecurePort); err != nil {
		return taken, &cli.FlagError{Flag: "secure-port", Err: err}
	}
	if c.HTTPPort != 0 {
		if taken.insecure, err = listen(ctx, loopback, c.HTTPPort); err != nil {
			return taken, &cli.FlagError{Flag: "http-port", Err: err}
		}
	}
	if isNew {
		taken.lock, err = c.DataDir.Lock()
	}
	return taken, err
}

func (c *claims) close() {
	for _, taken := range []io.Closer{c.insecure, c.secure, c.lock} {
		if taken != nil {
			_ = taken.Close() // the process gives back the rest when it ends
		}
	}
}

// listen opens a port. If another process has it, the error names one that is free.
func listen(ctx context.Context, address string, port int) (net.Listener, error) {
	l, err := serving.Listen(ctx, address, port)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	for other := port + 1; other <= port+portsTried; other++ {
		if free, otherErr := serving.Listen(ctx, address, other); otherErr == nil {
			_ = free.Close()
			return nil, fmt.Errorf("%w; %d is free", err, other)
		}
	}
	return nil, fmt.Errorf("%w; 0 takes any free port", err)
}

// clientHost returns the host by which a client on this machine reaches the server, for the
// kubeconfig: --external-hostname, or else the address the server listens on.
func clientHost(c config) string {
	if c.ExternalHostname != "" {
		return c.ExternalHostname
	}
	addr, _ := netip.ParseAddr(c.BindAddress) // validated
	switch {
	case addr.IsUnspecified() && addr.Is4():
		return loopback
	case addr.IsUnspecified():
		return "::1"
	default:
		return addr.String()
	}
}

// secureURL returns the base URL of the server, without a trailing slash.
func secureURL(host string, port int) string {
	// In a URL a zone's % is itself escaped (RFC 6874).
	return "https://" + net.JoinHostPort(strings.ReplaceAll(host, "%", "%25"), strconv.Itoa(port))
}
