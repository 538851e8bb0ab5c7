package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
)

func TestAnswerFault(t *testing.T) {
	tokens := newTokenPool([]string{"secret"})
	long := strings.Repeat("ä", maxMessage)
	for name, test := range map[string]struct {
		code int
		body string
		want fault
	}{
		"a Status":            {409, `{"kind":"Status","reason":"Conflict","message":"changed\n meanwhile"}`, fault{"409 Conflict", "changed meanwhile"}},
		"a Status's reason":   {422, `{"reason":"Invalid","message":"m"}`, fault{"422 Invalid", "m"}},
		"no reason":           {500, `{"message":"m"}`, fault{"500 Internal Server Error", "m"}},
		"no Status":           {502, "<html>bad gateway", fault{"502 Bad Gateway", "<html>bad gateway"}},
		"nothing":             {404, "", fault{"404 Not Found", ""}},
		"a token":             {403, `{"reason":"Not secret","message":"secret may not"}`, fault{"403 Not #1", "#1 may not"}},
		"a Status cut in two": {500, `{"message":"m`, fault{"500 Internal Server Error", `{"message":"m`}},
		"much":                {500, `{"message":"` + long + `"}`, fault{"500 Internal Server Error", long[:maxMessage] + "…"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := answerFault(test.code, []byte(test.body), tokens); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestBrokenKind(t *testing.T) {
	wrapped := func(err error) error { return &url.Error{Op: "Get", URL: "https://x", Err: err} }
	for want, errs := range map[string][]error{
		"timeout":            {context.DeadlineExceeded, wrapped(context.DeadlineExceeded), &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}},
		"canceled":           {wrapped(context.Canceled)},
		"connection refused": {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}},
		"connection closed":  {io.EOF, wrapped(io.ErrUnexpectedEOF), &net.OpError{Op: "read", Err: syscall.ECONNRESET}},
		"certificate":        {wrapped(x509.UnknownAuthorityError{})},
		"unknown host":       {&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}},
		"no more connections on this machine": {
			&net.OpError{Op: "dial", Err: syscall.EMFILE}, &net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL},
		},
		otherFaults: {errors.New("something")},
	} {
		for _, err := range errs {
			if got := brokenKind(err); got != want {
				t.Errorf("%v is %q, want %q", err, got, want)
			}
		}
	}
	got := brokenFault(fmt.Errorf("the header %q is wrong", "Bearer secret"), newTokenPool([]string{"secret"}))
	if got.message != `the header "Bearer #1" is wrong` {
		t.Errorf("got %+v", got)
	}
}
