package registry

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

const (
	// packAbove is the size in bytes above which a value is compressed in etcd, by S2: to
	// send and to store the whole costs more, and etcd twice as much again. Below it a value
	// can be read with etcdctl.
	packAbove = 32 << 10
	// packTightAbove is the size from which on zstd does it, which takes five times as long
	// for half of the size: without it, an Endpoints of 20,000 addresses would not fit under
	// etcd's request limit of 1.5 MiB.
	packTightAbove = 256 << 10
	// DefaultMaxObjectBytes is the limit of an object's JSON where none is given, in bytes.
	DefaultMaxObjectBytes = 8 << 20
	// MaxReadableBytes is the largest value that can be read, uncompressed, in bytes. It is
	// above every limit of what is written, for the sake of values that were stored before
	// there was one.
	MaxReadableBytes = 256 << 20
)

// zstdMagic is how a compressed value begins, and no JSON does (RFC 8878, 3.1.1).
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// Both are made when they are first needed: they take some megabytes.
var (
	packer = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	})
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(MaxReadableBytes))
	})
)

// pack returns a value as it goes into etcd: as it is, or compressed where it is large.
func pack(value []byte) ([]byte, error) {
	if len(value) <= packAbove {
		return value, nil
	}
	if len(value) <= packTightAbove {
		return s2.Encode(nil, value), nil
	}
	encoder, err := packer()
	if err != nil {
		return nil, err
	}
	return encoder.EncodeAll(value, nil), nil
}

// isS2 reports whether a stored value is a block of S2. It begins with its size when it is
// unpacked, as a varint, the first byte of which has its highest bit set from 128 on. No JSON
// begins so, nor what zstd writes.
func isS2(stored []byte) bool { return len(stored) > 0 && stored[0] >= 0x80 }

// unpack undoes pack.
func unpack(stored []byte) (value []byte, err error) {
	switch {
	case isS2(stored):
		var size int
		if size, err = s2.DecodedLen(stored); size > packTightAbove {
			err = s2.ErrTooLarge
		}
		if err == nil {
			value, err = s2.Decode(nil, stored)
		}
	case bytes.HasPrefix(stored, zstdMagic):
		var decoder *zstd.Decoder
		if decoder, err = unpacker(); err == nil {
			value, err = decoder.DecodeAll(stored, nil)
		}
	default:
		return stored, nil
	}
	if err != nil {
		return nil, fmt.Errorf("it cannot be decompressed: %w", err)
	}
	return value, nil
}
