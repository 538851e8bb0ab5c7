package registry

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// packAbove is the size in bytes above which a value is compressed in etcd: below it,
	// the CPU is worth more than the space. Without it, an Endpoints of 20,000 addresses
	// would not fit under etcd's request limit of 1.5 MiB.
	packAbove = 256 << 10
	// maxUnpacked bounds what a stored value may decompress to, in bytes: many times what
	// any request can bring.
	maxUnpacked = 256 << 20
)

// zstdMagic is how a compressed value begins, and no JSON does (RFC 8878, 3.1.1).
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// Both are made when they are first needed: they take some megabytes.
var (
	packer = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	})
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxUnpacked))
	})
)

// pack returns a value as it goes into etcd: as it is, or compressed where it is large.
func pack(value []byte) ([]byte, error) {
	if len(value) <= packAbove {
		return value, nil
	}
	encoder, err := packer()
	if err != nil {
		return nil, err
	}
	return encoder.EncodeAll(value, nil), nil
}

// unpack undoes pack.
func unpack(stored []byte) ([]byte, error) {
	if !bytes.HasPrefix(stored, zstdMagic) {
		return stored, nil
	}
	decoder, err := unpacker()
	if err != nil {
		return nil, err
	}
	value, err := decoder.DecodeAll(stored, nil)
	if err != nil {
		return nil, fmt.Errorf("a compressed value cannot be read: %w", err)
	}
	return value, nil
}
