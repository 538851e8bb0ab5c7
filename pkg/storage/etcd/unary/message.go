package unary

import (
	"encoding/binary"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// prefixBytes precede a message of gRPC: whether it is compressed, and its length.
const prefixBytes = 5

// maxResponse is the largest response that is taken, in bytes. What etcd answers to a
// transaction on two keys carries two values at most, each of 1.5 MiB by its default.
const maxResponse = 64 << 20

var errTooLarge = status.Error(codes.ResourceExhausted, "the response is larger than it may be, or than it says")

// NewRequest returns the beginning of a request, to which its message is to be appended, with
// room for a message of the size in bytes.
func NewRequest(size int) []byte {
	if prefixBytes+size <= smallRequest {
		return requests.Get().(*[smallRequest]byte)[:prefixBytes]
	}
	return make([]byte, prefixBytes, prefixBytes+size)
}

// smallRequest is the capacity of requests that are used again: nearly all have room in it.
const smallRequest = 2 << 10

var requests = sync.Pool{New: func() any { return new([smallRequest]byte) }}

// recycle takes back a request that nobody uses any more.
func recycle(request []byte) {
	if cap(request) == smallRequest {
		requests.Put((*[smallRequest]byte)(request[:smallRequest]))
	}
}

// isTooLarge reports whether a response, as far as it has come, announces too much or has
// more than it announced.
func isTooLarge(data []byte) bool {
	if len(data) < prefixBytes {
		return false
	}
	announced := binary.BigEndian.Uint32(data[1:])
	return announced > maxResponse || len(data)-prefixBytes > int(announced)
}

// messageOf returns what follows the prefix of a response, which must be one message.
func messageOf(data []byte) ([]byte, error) {
	if len(data) < prefixBytes || data[0] != 0 || int(binary.BigEndian.Uint32(data[1:])) != len(data)-prefixBytes {
		return nil, status.Errorf(codes.Internal, "the response of %d bytes is not one uncompressed message", len(data))
	}
	return data[prefixBytes:], nil
}

// fields are what matters of the headers of a response.
type fields struct {
	http, code, message string
	size                int  // of all, as HTTP/2 counts it
	ends                bool // whether they end the response
}

// outcome is how the call went; headers that end it must say so. The rules are those of gRPC
// over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func (f *fields) outcome() error {
	switch {
	case f.http == "" && !f.ends:
		return status.Error(codes.Internal, "the response begins without an HTTP status")
	case strings.HasPrefix(f.http, "1") && !f.ends:
		return nil // the response is still to come
	case f.http != "" && f.http != "200":
		return status.Errorf(codes.Unavailable, "the server answered with HTTP status %s", f.http)
	}
	if !f.ends || f.code == "0" {
		return nil
	}
	number, err := strconv.ParseUint(f.code, 10, 32)
	if err != nil || number == 0 {
		return status.Errorf(codes.Internal, "the response ends with status %q", f.code)
	}
	message := f.message
	if decoded, err := url.PathUnescape(message); err == nil {
		message = decoded
	}
	return status.Error(codes.Code(number), message)
}
