package etcd

import (
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/berth-project/berth/pkg/storage/etcd/unary"
)

// What every write sends and gets back is written and read here field by field: protobuf's
// reflection costs a write several microseconds and two dozen allocations. The numbers are
// those of etcd's rpc.proto, and its enumerations come from the generated package.
const (
	txnCompare = 1
	txnSuccess = 2
	txnFailure = 3

	compareTarget      = 2
	compareKey         = 3
	compareModRevision = 6

	opRange       = 1
	opPut         = 2
	opDeleteRange = 3

	operationKey = 1 // of a range, a put and a deletion
	putValue     = 2

	responseHeader    = 1
	responseSucceeded = 2
	headerRevision    = 3
)

// message is request as the message of a unary call.
func (t *txn) message() []byte {
	b := unary.NewRequest(len(t.value) + 4*len(t.key) + 256)
	b = appendCompare(b, t.key, t.expect)
	if t.guard != nil {
		b = appendCompare(b, t.guard.Key, existing(t.guard.ModRevision))
	}
	switch t.do {
	case doPut:
		size := fieldSize(len(t.key))
		if len(t.value) > 0 {
			size += fieldSize(len(t.value))
		}
		b = appendOp(b, txnSuccess, opPut, size)
		b = appendString(b, operationKey, t.key)
		if len(t.value) > 0 {
			b = appendHead(b, putValue, len(t.value))
			b = append(b, t.value...)
		}
	case doDelete:
		b = appendOp(b, txnSuccess, opDeleteRange, fieldSize(len(t.key)))
		b = appendString(b, operationKey, t.key)
	}
	b = appendGet(b, t.key)
	if t.guard != nil {
		b = appendGet(b, t.guard.Key)
	}
	return b
}

// appendCompare appends the condition that the key has the ModRevision. What is to be equal
// is left out: EQUAL is 0.
func appendCompare(b []byte, key string, modRevision int64) []byte {
	const varintTag = 1
	target := uint64(etcdserverpb.Compare_MOD)
	size := varintTag + protowire.SizeVarint(target) + fieldSize(len(key)) + varintTag + protowire.SizeVarint(uint64(modRevision))
	b = appendHead(b, txnCompare, size)
	b = protowire.AppendTag(b, compareTarget, protowire.VarintType)
	b = protowire.AppendVarint(b, target)
	b = appendString(b, compareKey, key)
	b = protowire.AppendTag(b, compareModRevision, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(modRevision))
}

// appendGet appends the read of a key for when the conditions do not hold.
func appendGet(b []byte, key string) []byte {
	b = appendOp(b, txnFailure, opRange, fieldSize(len(key)))
	return appendString(b, operationKey, key)
}

// appendOp appends the beginning of an operation whose fields come to the size in bytes.
func appendOp(b []byte, branch, kind protowire.Number, size int) []byte {
	b = appendHead(b, branch, fieldSize(size))
	return appendHead(b, kind, size)
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	return append(appendHead(b, field, len(s)), s...)
}

func appendHead(b []byte, field protowire.Number, size int) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

// fieldSize is what a field of the size takes, whose number is below 16.
func fieldSize(size int) int { return 1 + protowire.SizeBytes(size) }

// committed returns the revision of a transaction that did what it was for. false: it did
// not, or the response cannot be read here.
func committed(response []byte) (revision int64, ok bool) {
	wellFormed := eachField(response, func(field protowire.Number, number uint64, data []byte) bool {
		switch {
		case field == responseSucceeded && data == nil:
			ok = number != 0
		case field == responseHeader && data != nil:
			return eachField(data, func(field protowire.Number, number uint64, data []byte) bool {
				if field == headerRevision && data == nil {
					revision = int64(number)
				}
				return true
			})
		}
		return true
	})
	return revision, ok && wellFormed
}

// eachField calls visit with each field of a message that is a number or, with data other
// than nil, has bytes. false: the message is malformed, has other fields, or visit says so.
func eachField(message []byte, visit func(field protowire.Number, number uint64, data []byte) bool) bool {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return false
		}
		message = message[n:]
		var number uint64
		var data []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(message)
		default:
			return false
		}
		if n < 0 || !visit(field, number, data) {
			return false
		}
		message = message[n:]
	}
	return true
}
