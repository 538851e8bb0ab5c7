package attack

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// connections are opened, and then used slowly or not at all.
var connections = []attack{
	{name: "uploads of a byte a second", short: 7 * time.Second, run: func(a *attacker) {
		a.paced(420, 100, func(int, int) { a.slowUpload("Content-Length: 1000") })
	}},
	{name: "uploads of a byte a second, in chunks", short: time.Second, run: func(a *attacker) {
		a.paced(420, 100, func(int, int) { a.slowUpload("Transfer-Encoding: chunked") })
	}},
	{name: "uploads that wait to be asked", short: time.Second, run: func(a *attacker) {
		a.paced(420, 100, func(int, int) { a.slowUpload("Content-Length: 1000", "Expect: 100-continue") })
	}},
	{name: "headers of a byte a second", run: func(a *attacker) {
		a.hold(1000, func(int) {
			if conn := a.dialTLS("http/1.1"); conn != nil {
				a.trickle(conn, "GET /livez HTTP/1.1\r\nHost: berth\r\nX: "+strings.Repeat("x", 10_000), time.Second)
			}
		})
	}},
	{name: "TLS handshakes of a byte a second", run: func(a *attacker) {
		a.hold(1000, func(int) {
			if conn := a.dial(); conn != nil {
				a.trickle(conn, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("x", 500), time.Second)
			}
		})
	}},
	{name: "TLS handshakes, one after the other", run: func(a *attacker) {
		a.paced(16, 200, func(int, int) {
			if conn := a.dialTLS("h2"); conn != nil {
				conn.Close()
			}
		})
	}},
	{name: "connections opened and closed", run: func(a *attacker) {
		a.paced(16, 1000, func(int, int) {
			if conn := a.dial(); conn != nil {
				conn.Close()
			}
		})
	}},
	{name: "idle connections by the thousand", run: func(a *attacker) {
		a.hold(5000, func(int) { a.dial() })
	}},
	{name: "idle TLS connections by the thousand", run: func(a *attacker) {
		a.paced(32, 500, func(int, int) {
			if conn := a.dialTLS("h2"); conn != nil {
				_, _ = io.WriteString(conn, preface) // a server that has closed it is no fault
			}
		})
	}},
	{name: "requests in a pipeline that nobody reads", run: func(a *attacker) {
		a.hold(50, func(int) {
			if conn := a.dialTLS("http/1.1"); conn != nil {
				_, _ = io.WriteString(conn, strings.Repeat(a.head(http.MethodGet, "/openapi/v2")+"\r\n", 1000)) // until the server reads no more
			}
		})
	}},
}

// slowUpload sends a request and then its body, a byte a second.
func (a *attacker) slowUpload(headers ...string) {
	conn := a.dialTLS("http/1.1")
	if conn == nil {
		return
	}
	defer conn.Close()
	head := a.head(http.MethodPost, endpointsIn(a.namespace), append(headers, "Content-Type: application/json")...)
	if _, err := fmt.Fprintf(conn, "%s\r\n", head); err != nil {
		return
	}
	body := "{"
	if strings.HasPrefix(headers[0], "Transfer-Encoding") {
		body = "1\r\n{\r\n"
	}
	a.trickle(conn, body+strings.Repeat(" ", 1000), time.Second)
}
