package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// serverTimeout is what requests give the server, clientTimeout what the client waits.
	serverTimeout = 2 * time.Second
	clientTimeout = 4 * time.Second
	noAnswer      = 0 // the code of a request without an answer
	notSent       = 1 // and of one that was certainly not sent
)

// server is where requests go; the address changes never.
type server struct {
	name, url string
	http      *http.Client
}

// answers counts answers by their codes, and collects those that no document has.
type answers struct {
	token    *atomic.Pointer[string]
	rotating *atomic.Bool // a 401 is in order

	mu           sync.Mutex
	codes        map[int]int
	undocumented []error
}

func (a *answers) fault(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.undocumented = append(a.undocumented, err)
}

// reasons are the documented errors that faults of machines, and of other writers, may lead to.
var reasons = map[int][]metav1.StatusReason{
	http.StatusUnauthorized:       {metav1.StatusReasonUnauthorized},
	http.StatusNotFound:           {metav1.StatusReasonNotFound},
	http.StatusConflict:           {metav1.StatusReasonConflict, metav1.StatusReasonAlreadyExists},
	http.StatusGone:               {metav1.StatusReasonExpired},
	http.StatusTooManyRequests:    {metav1.StatusReasonTooManyRequests},
	http.StatusServiceUnavailable: {metav1.StatusReasonServiceUnavailable},
	http.StatusGatewayTimeout:     {metav1.StatusReasonTimeout},
}

// documented returns an error unless a Status is one of those that documents have.
func documented(code int, body []byte) error {
	var status metav1.Status
	if err := json.Unmarshal(body, &status); err != nil || status.Kind != "Status" {
		return fmt.Errorf("answered with %d and no Status: %.300s", code, body)
	}
	for _, reason := range reasons[code] {
		if status.Reason == reason && int(status.Code) == code {
			return nil
		}
	}
	return fmt.Errorf("answered with %d, which is not documented: %.300s", code, body)
}

// send sends a request and returns the answer's code, or noAnswer or notSent, and an object.
func (a *answers) send(ctx context.Context, s *server, method, path string, body any) (int, corev1.Endpoints) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	encoded := []byte(nil)
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			a.fault(err)
			return notSent, corev1.Endpoints{}
		}
	}
	code, data := a.checked(ctx, s, method, path, "application/json", encoded, false)
	var object corev1.Endpoints
	if code >= 200 && code < 300 && method != http.MethodDelete {
		if err := json.Unmarshal(data, &object); err != nil {
			a.fault(fmt.Errorf("%s %s at %s: %w: %.300s", method, path, s.name, err, data))
		}
	}
	return code, object
}

// checked sends a request, and returns the answer's code, or noAnswer or notSent, and its body. It notes
// answers that no document has. forbidden says that a 403 is in order.
func (a *answers) checked(ctx context.Context, s *server, method, path, contentType string, body []byte, forbidden bool) (code int, answer []byte) {
	rotating := a.rotating.Load()
	code, data, err := a.exchange(ctx, s, method, path, contentType, body)
	switch {
	case code == http.StatusForbidden && forbidden:
	case err != nil && code > notSent:
		a.fault(fmt.Errorf("%s %s at %s: %w", method, path, s.name, err))
	case code == http.StatusUnauthorized && !rotating && !a.rotating.Load():
		a.fault(fmt.Errorf("%s %s at %s: 401, but no token was replaced", method, path, s.name))
	case code >= 300:
		if err := documented(code, data); err != nil {
			a.fault(fmt.Errorf("%s %s at %s: %w", method, path, s.name, err))
		}
	}
	a.mu.Lock()
	a.codes[code]++
	a.mu.Unlock()
	return code, data
}

func (a *answers) exchange(ctx context.Context, s *server, method, path, contentType string, body []byte) (code int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Auth-Token", *a.token.Load())
	req.Header.Set("Content-Type", contentType)
	resp, err := s.http.Do(req)
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial":
		return notSent, nil, err
	case err != nil:
		return noAnswer, nil, err
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		return noAnswer, nil, err
	}
	return resp.StatusCode, answer, nil
}

// report returns how many answers there were of each code.
func (a *answers) report() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for code := range 600 {
		if n := a.codes[code]; n > 0 {
			name := fmt.Sprint(code)
			switch code {
			case noAnswer:
				name = "no answer"
			case notSent:
				name = "not connected"
			}
			all = append(all, fmt.Sprintf("%s: %d", name, n))
		}
	}
	return strings.Join(all, ", ")
}
