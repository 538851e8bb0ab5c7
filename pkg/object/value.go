package object

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// A stored value is the object's JSON as it is served, without its resourceVersion: that
// is the store's revision, which nobody knows before the write. kind and apiVersion at its
// head say what it is, so that values outlive the binary that wrote them. A large value is
// compressed, and then carries a checksum.

const (
	// packAbove is the size in bytes above which a value is compressed by S2: to send and to
	// store the whole costs more, and etcd twice as much again. Below it a value can be read
	// with etcdctl.
	packAbove = 32 << 10
	// packTightAbove is the size from which on zstd does it, which takes five times as long
	// for half of the size: without it, an Endpoints of 20,000 addresses would not fit under
	// etcd's request limit of 1.5 MiB.
	packTightAbove = 256 << 10
	// MaxValueBytes bounds what a value may decompress to, in bytes: many times what a write
	// accepts, since older binaries accepted more.
	MaxValueBytes = 256 << 20
)

// checkedS2 begins a value that is a checksum (CRC-32C, little-endian) of the JSON and a
// block of S2. No JSON begins so.
const checkedS2 = 0x01

// zstdMagic is how a value of zstd begins (RFC 8878, 3.1.1). It ends with a checksum.
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChecksum = errors.New("the checksum does not match")

// Both are made when they are first needed: they take some megabytes.
var (
	packer = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	})
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(MaxValueBytes))
	})
)

// Pack returns a value that Encode made as it goes into the store: as it is, or compressed
// where it is large.
func Pack(value []byte) ([]byte, error) {
	if len(value) <= packAbove {
		return value, nil
	}
	if len(value) <= packTightAbove {
		const head = 1 + 4
		packed := make([]byte, head, head+s2.MaxEncodedLen(len(value)))
		packed[0] = checkedS2
		binary.LittleEndian.PutUint32(packed[1:], crc32.Checksum(value, castagnoli))
		return packed[:head+len(s2.Encode(packed[head:cap(packed)], value))], nil
	}
	encoder, err := packer()
	if err != nil {
		return nil, err
	}
	return encoder.EncodeAll(value, nil), nil
}

// unpack undoes Pack. proven: a checksum says that the value is what was packed, which can
// be served; any other value may be anybody's.
func unpack(stored []byte) (value []byte, proven bool, err error) {
	switch {
	case len(stored) > 5 && stored[0] == checkedS2:
		value, err = unpackS2(stored[5:])
		if err == nil && crc32.Checksum(value, castagnoli) != binary.LittleEndian.Uint32(stored[1:]) {
			err = errChecksum
		}
		proven = true
	case len(stored) > 0 && stored[0] >= 0x80:
		// A block of S2 alone, as older binaries wrote it, begins with its size when it is
		// unpacked, as a varint, the first byte of which has its highest bit set from 128 on.
		value, err = unpackS2(stored)
	case bytes.HasPrefix(stored, zstdMagic):
		var decoder *zstd.Decoder
		if decoder, err = unpacker(); err == nil {
			value, err = decoder.DecodeAll(stored, nil)
		}
	default:
		return stored, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("it is compressed and cannot be read: %w", err)
	}
	return value, proven, nil
}

func unpackS2(block []byte) ([]byte, error) {
	size, err := s2.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if size > MaxValueBytes {
		return nil, s2.ErrTooLarge
	}
	return s2.Decode(nil, block)
}
