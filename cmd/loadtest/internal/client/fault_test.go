package client

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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestAnswered(t *testing.T) {
	c := &Client{Tokens: NewTokens(testTokens("secret"))}
	long := strings.Repeat("ä", maxMessage)
	for name, test := range map[string]struct {
		code int
		body string
		want Fault
	}{
		"a Status":            {409, `{"kind":"Status","reason":"Conflict","message":"changed\n meanwhile"}`, Fault{409, "409 Conflict", "changed meanwhile"}},
		"a Status's reason":   {422, `{"reason":"Invalid","message":"m"}`, Fault{422, "422 Invalid", "m"}},
		"no reason":           {500, `{"message":"m"}`, Fault{500, "500 Internal Server Error", "m"}},
		"no Status":           {502, "<html>bad gateway", Fault{502, "502 Bad Gateway", "<html>bad gateway"}},
		"escapes":             {500, `{"reason":"\u001b[31mR","message":"\u001b]0;m\u0007\u009b2J"}`, Fault{500, "500 [31mR", "]0;m 2J"}},
		"escapes, no Status":  {500, "\x1b[2Jm\xff", Fault{500, "500 Internal Server Error", "[2Jm"}},
		"a hidden token":      {500, "a sec\x00ret or secret\x1b", Fault{500, "500 Internal Server Error", "a sec ret or #1"}},
		"a token that is cut": {500, `{"message":"` + long[:maxMessage-4] + `secret"}`, Fault{500, "500 Internal Server Error", long[:maxMessage-4] + "#1"}},
		"protobuf":            {409, packStatus(t, "Conflict", "changed\x1b"), Fault{409, "409 Conflict", "changed"}},
		"cut protobuf":        {409, packStatus(t, "Conflict", "changed")[:20], Fault{409, "409 Conflict", "k8s v1 Status"}},
		"nothing":             {404, "", Fault{404, "404 Not Found", ""}},
		"a token":             {403, `{"reason":"Not secret","message":"secret may not"}`, Fault{403, "403 Not #1", "#1 may not"}},
		"a Status cut in two": {500, `{"message":"m`, Fault{500, "500 Internal Server Error", `{"message":"m`}},
		"much":                {500, `{"message":"` + long + `"}`, Fault{500, "500 Internal Server Error", long[:maxMessage] + "…"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.Answered(test.code, []byte(test.body), 0); *got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// packStatus returns a Status in protobuf.
func packStatus(t *testing.T, reason, message string) string {
	t.Helper()
	raw, err := (&metav1.Status{Reason: metav1.StatusReason(reason), Message: message}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "Status"}, Raw: raw}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(protobufMagic) + string(envelope)
}

// Of several tokens, the one that was refused is named by where it was given.
func TestAnsweredNamesToken(t *testing.T) {
	c := &Client{Tokens: NewTokens(testTokens("secret", "line"))}
	for code, want := range map[int]string{
		401: "token #1 (#2 1 of #1.csv): no", 403: "token #1 (#2 1 of #1.csv): no", 404: "no",
	} {
		if got := c.Answered(code, []byte("no"), 0); got.Message != want {
			t.Errorf("%d: got %q, want %q", code, got.Message, want)
		}
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
		"other": {errors.New("something")},
	} {
		for _, err := range errs {
			if got := brokenKind(err); got != want {
				t.Errorf("%v is %q, want %q", err, got, want)
			}
		}
	}
	c := &Client{Tokens: NewTokens(testTokens("secret"))}
	got := c.Broken(fmt.Errorf("the header %q is wrong", "Bearer secret"))
	if got.Message != `the header "Bearer #1" is wrong` {
		t.Errorf("got %+v", got)
	}
}
