// Package websocket carries the answer to a watch over a WebSocket, as kube-apiserver does for
// browsers and other clients that ask for one: each event is one message.
package websocket

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// maxReceived bounds a message of the client, in bytes. None is expected: they are read for
	// the control messages between them, and dropped.
	maxReceived = 4 << 10
	// pingPeriod is how often the client is asked for a sign of life, which also keeps proxies
	// from closing the connection, and pongTimeout how long it may stay silent.
	pingPeriod  = 30 * time.Second
	pongTimeout = 2*pingPeriod + 10*time.Second
	// maxMessages bounds how many messages, pings and pongs the client may send in each pingPeriod:
	// the limits of requests do not count them.
	maxMessages = 100
	// controlTimeout bounds the writing of a ping or of the end.
	controlTimeout = 5 * time.Second
	// lengthSize is that of what precedes a message in the framed body of a watch.
	lengthSize = 4
)

// bearerPrefix begins the subprotocol that carries a token, which browsers can send in no header.
const bearerPrefix = "base64url.bearer.authorization.k8s.io."

// Requested reports whether the client wants to go on with a WebSocket.
func Requested(req *http.Request) bool { return websocket.IsWebSocketUpgrade(req) }

// Token returns the token among the subprotocols that the client names, or "". As for
// kube-apiserver there may be one, with another subprotocol beside it for the server to choose.
func Token(req *http.Request) string {
	token, others := "", 0
	for _, protocol := range websocket.Subprotocols(req) {
		encoded, ok := strings.CutPrefix(protocol, bearerPrefix)
		if !ok {
			others++
			continue
		}
		decoded, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil || !utf8.Valid(decoded) || token != "" {
			return ""
		}
		token = string(decoded)
	}
	if others == 0 {
		return ""
	}
	return token
}

// Conn is the http.ResponseWriter of a watch over a WebSocket. It is for one goroutine.
type Conn struct {
	http.ResponseWriter // which is hijacked, and still sets deadlines

	conn    *websocket.Conn
	timeout time.Duration
	framed  bool           // whether events have their length before them, and else a line each
	message io.WriteCloser // of the event that is being sent; nil: none is
	length  []byte         // of a framed event, as much as there is of it
	left    int            // how many bytes of a framed event are yet to come

	closed  chan struct{}
	running sync.WaitGroup
}

// Upgrade answers with the protocol's switch. framed says that what is written has the length of
// each event in four bytes before it, which goes out in binary messages without them; otherwise
// each line is a text message. A message that the client does not take within timeout ends the
// connection. gone is called once the client has gone or broken the protocol. Close must be
// called.
//
// An error with a Status is for the client; after any other one the connection is closed.
func Upgrade(w http.ResponseWriter, req *http.Request, framed bool, timeout time.Duration, gone func()) (*Conn, error) {
	var refusal error
	upgrader := websocket.Upgrader{
		HandshakeTimeout: controlTimeout,
		CheckOrigin:      hasOrigin,
		Error: func(_ http.ResponseWriter, _ *http.Request, code int, reason error) {
			if refusal = apierrors.NewBadRequest(reason.Error()); code == http.StatusForbidden {
				refusal = errOrigin
			}
		},
	}
	header := http.Header{}
	for _, protocol := range websocket.Subprotocols(req) {
		if !strings.HasPrefix(protocol, bearerPrefix) {
			header.Set("Sec-Websocket-Protocol", protocol)
			break
		}
	}
	if id := w.Header().Get("Audit-Id"); id != "" {
		header.Set("Audit-Id", id)
	}
	conn, err := upgrader.Upgrade(w, req, header)
	switch {
	case refusal != nil:
		return nil, refusal
	case err != nil:
		return nil, err
	}
	c := &Conn{ResponseWriter: w, conn: conn, framed: framed, timeout: timeout, closed: make(chan struct{})}
	c.running.Go(func() { c.receive(gone) })
	c.running.Go(c.ping)
	return c, nil
}

// errOrigin is the refusal of a request without an Origin, which kube-apiserver requires.
var errOrigin = apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("a WebSocket needs the address of a page, or of anything else, in the header Origin"))

// hasOrigin allows every origin, as kube-apiserver does: a page can send a token only if it has
// one, since browsers add none by themselves.
func hasOrigin(req *http.Request) bool {
	_, err := url.ParseRequestURI(req.Header.Get("Origin"))
	return err == nil
}

// receive drops what the client sends, until the connection ends or that is too much.
func (c *Conn) receive(gone func()) {
	defer gone()
	begun, messages := time.Now(), 0
	count := func() error {
		if now := time.Now(); now.Sub(begun) > pingPeriod {
			begun, messages = now, 0
		}
		if messages++; messages > maxMessages {
			return errTooMany
		}
		return nil
	}
	alive := func(string) error { return errors.Join(count(), c.conn.SetReadDeadline(time.Now().Add(pongTimeout))) }
	pong := c.conn.PingHandler()
	c.conn.SetReadLimit(maxReceived)
	c.conn.SetPongHandler(alive)
	c.conn.SetPingHandler(func(data string) error {
		if err := count(); err != nil {
			return err
		}
		return pong(data)
	})
	err := alive("")
	for err == nil {
		var message io.Reader
		if _, message, err = c.conn.NextReader(); err == nil {
			_, err = io.Copy(io.Discard, message)
			err = errors.Join(err, count())
		}
	}
}

var errTooMany = errors.New("the client sends too many messages")

func (c *Conn) ping() {
	ticker := time.NewTicker(pingPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-c.closed:
			return
		case <-ticker.C:
			// receive notices where nobody answers
			_ = c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(controlTimeout))
		}
	}
}

// WriteHeader does nothing: the header is out.
func (c *Conn) WriteHeader(int) {}

// FlushError does nothing: whole messages are sent as they are written.
func (c *Conn) FlushError() error { return nil }

// Unwrap lets http.ResponseController reach the connection.
func (c *Conn) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Write sends p, each event as a message of its own.
func (c *Conn) Write(p []byte) (int, error) {
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.timeout)) // never fails
	for rest := p; len(rest) > 0; {
		n, skip, ends := c.cut(rest)
		if err := c.send(rest[:n], ends); err != nil {
			return 0, err
		}
		rest = rest[n+skip:]
	}
	return len(p), nil
}

// cut tells how many bytes at the beginning of p belong to the event, how many after them to none,
// and whether they end it.
func (c *Conn) cut(p []byte) (n, skip int, ends bool) {
	if !c.framed {
		if n = bytes.IndexByte(p, '\n'); n < 0 {
			return len(p), 0, false
		}
		return n, 1, true
	}
	if c.left == 0 {
		n := min(lengthSize-len(c.length), len(p))
		if c.length = append(c.length, p[:n]...); len(c.length) == lengthSize {
			c.left, c.length = int(binary.BigEndian.Uint32(c.length)), c.length[:0]
		}
		return 0, n, false
	}
	n = min(c.left, len(p))
	c.left -= n
	return n, 0, c.left == 0
}

// send sends a part of an event.
func (c *Conn) send(part []byte, ends bool) (err error) {
	if c.message == nil && len(part) > 0 {
		kind := websocket.TextMessage
		if c.framed {
			kind = websocket.BinaryMessage
		}
		if c.message, err = c.conn.NextWriter(kind); err != nil {
			return err
		}
	}
	if len(part) > 0 {
		_, err = c.message.Write(part)
	}
	if ends && err == nil && c.message != nil {
		err, c.message = c.message.Close(), nil
	}
	return err
}

// Close tells the client that the watch has ended, closes the connection and waits for what runs
// on it.
func (c *Conn) Close() error {
	close(c.closed)
	end := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	err := errors.Join(c.conn.WriteControl(websocket.CloseMessage, end, time.Now().Add(controlTimeout)), c.conn.Close())
	c.running.Wait()
	return err
}
