package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// loopback is where --http-port listens, whatever --bind-address says: without TLS a
// token must not leave the machine.
const loopback = "127.0.0.1"

// listeners are the ports that the server has taken.
type listeners struct {
	secure   net.Listener
	insecure net.Listener // nil: --http-port is 0
}

// listen takes the ports of c, or none of them. Connections wait until they are
// served.
func listen(ctx context.Context, c config) (*listeners, error) {
	secure, err := listenOn(ctx, "secure-port", c.BindAddress, c.SecurePort)
	if err != nil {
		return nil, err
	}
	l := &listeners{secure: secure}
	if c.HTTPPort != 0 {
		if l.insecure, err = listenOn(ctx, "http-port", loopback, c.HTTPPort); err != nil {
			secure.Close()
			return nil, err
		}
	}
	return l, nil
}

func listenOn(ctx context.Context, flag, address string, port int) (net.Listener, error) {
	hostPort := net.JoinHostPort(address, strconv.Itoa(port))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", hostPort)
	if err == nil {
		return l, nil
	}
	// The operation and the address that *net.OpError would add are in the line already.
	if opErr, ok := errors.AsType[*net.OpError](err); ok {
		err = opErr.Err
	}
	return nil, &flagError{flag: flag, err: fmt.Errorf("cannot listen on %s: %w", hostPort, err)}
}

func (l *listeners) close() {
	l.secure.Close()
	if l.insecure != nil {
		l.insecure.Close()
	}
}

// securePort is the port that was taken.
func (l *listeners) securePort() int {
	return l.secure.Addr().(*net.TCPAddr).Port
}
