package unary

import (
	"encoding/binary"
	"net/url"
	"strconv"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// prefixBytes precede a message of gRPC: whether it is compressed, and its length.
const prefixBytes = 5

// maxResponse is the largest response that is taken, in bytes. What etcd answers to a
// transaction on two keys carries two values at most, each of 1.5 MiB by its default.
const maxResponse = 64 << 20

var errTooLarge = status.Error(codes.ResourceExhausted, "the response is larger than it may be, or than it says")

// encode returns the message with its prefix.
func encode(m proto.Message) ([]byte, error) {
	data := make([]byte, prefixBytes, prefixBytes+proto.Size(m))
	data, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(data, m)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(data[1:], uint32(len(data)-prefixBytes))
	return data, nil
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

// decode reads the message from its bytes with the prefix, which nothing may follow.
func decode(data []byte, m proto.Message) error {
	if len(data) < prefixBytes || data[0] != 0 || int(binary.BigEndian.Uint32(data[1:])) != len(data)-prefixBytes {
		return status.Errorf(codes.Internal, "the response of %d bytes is not one uncompressed message", len(data))
	}
	if err := proto.Unmarshal(data[prefixBytes:], m); err != nil {
		return status.Errorf(codes.Internal, "cannot decode the response: %v", err)
	}
	return nil
}

// outcome is how a call went by the headers of its response; last: they end it, and must
// say so. The rules are those of gRPC over HTTP/2
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func outcome(fields []hpack.HeaderField, last bool) error {
	var code, message string
	for _, f := range fields {
		switch f.Name {
		case ":status":
			if f.Value != "200" {
				return status.Errorf(codes.Unavailable, "the server answered with HTTP status %s", f.Value)
			}
		case "grpc-status":
			code = f.Value
		case "grpc-message":
			message = f.Value
		}
	}
	if !last || code == "0" {
		return nil
	}
	number, err := strconv.ParseUint(code, 10, 32)
	if err != nil || number == 0 {
		return status.Errorf(codes.Internal, "the response ends with status %q", code)
	}
	if decoded, err := url.PathUnescape(message); err == nil {
		message = decoded
	}
	return status.Error(codes.Code(number), message)
}
