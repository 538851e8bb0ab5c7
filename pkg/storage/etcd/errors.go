package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/berth-project/berth/pkg/storage"
)

// readError translates the error of a read bounded by ctx; nil stays nil.
func readError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	err = rpctypes.Error(err)
	kind := storage.ErrUnavailable
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		kind = storage.ErrCompacted
	case errors.Is(err, rpctypes.ErrFutureRev):
		kind = storage.ErrFutureRevision
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w: %w", storage.ErrTimeout, ctx.Err(), err)
	case isTimeout(err):
		kind = storage.ErrTimeout
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// writeError translates the error of a transaction that was passed to clientv3. Only a
// transaction that was not sent, or that etcd rejected before proposing it, is certain not
// to be written; every other error leaves the outcome open. size and others are as in TooLargeError;
// nil stays nil.
func writeError(size, others int, err error) error {
	if err == nil {
		return nil
	}
	err = rpctypes.Error(err)
	kind := storage.ErrUnknownOutcome
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		kind = storage.ErrNoSpace
	case errors.Is(err, rpctypes.ErrRequestTooLarge), isMessageTooLarge(err):
		return fmt.Errorf("%w: %w", &storage.TooLargeError{Size: size, Others: others}, err)
	case errors.Is(err, rpctypes.ErrTooManyOps):
		kind = storage.ErrTooManyWrites
	case isRefusal(err):
		kind = storage.ErrUnavailable
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// isRefusal reports whether a transaction was not sent, or rejected by etcd before it was
// proposed. etcd's errors with the codes Unavailable, Canceled and DeadlineExceeded can
// arise at any time, those with other codes only before; ErrNoLeader comes from the check
// that WithRequireLeader requests.
func isRefusal(err error) bool {
	if _, unsent := errors.AsType[*notSentError](err); unsent || errors.Is(err, rpctypes.ErrNoLeader) {
		return true
	}
	e, ok := errors.AsType[rpctypes.EtcdError](err)
	if !ok {
		return false
	}
	switch e.Code() {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.ResourceExhausted, codes.OutOfRange, codes.DataLoss:
		return true
	}
	return false
}

// isMessageTooLarge reports whether gRPC, on either side, rejected a request for its size.
func isMessageTooLarge(err error) bool {
	s, ok := status.FromError(err)
	return ok && s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "larger than max")
}

func isTimeout(err error) bool {
	for _, t := range []error{
		context.DeadlineExceeded, context.Canceled, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail,
		rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrTimeoutWaitAppliedIndex,
	} {
		if errors.Is(err, t) {
			return true
		}
	}
	code := status.Code(err)
	return code == codes.DeadlineExceeded || code == codes.Canceled
}

// notSentError is the error of a request that never reached a connection. clientv3 passes
// errors with its code on unchanged and does not retry them.
type notSentError struct{ cause error }

func (e *notSentError) Error() string { return "not sent to etcd: " + e.cause.Error() }
func (e *notSentError) Unwrap() error { return e.cause }

func (e *notSentError) GRPCStatus() *status.Status {
	return status.New(codes.FailedPrecondition, e.Error())
}

// DialOption belongs in clientv3.Config.DialOptions of every client passed to New. Without
// it a Store is still correct but less precise:
//
//   - While etcd refuses connections, requests fail at once with ErrUnavailable. clientv3
//     lets them wait for the whole timeout and then hides that they were never sent, which
//     makes them ErrUnknownOutcome for a write.
//   - A transaction is sent at most once. clientv3 itself retries only transactions that
//     are certain not to be written, with one exception: answers with code Canceled or
//     DeadlineExceeded while the request's own context is alive, from a proxy, or from
//     etcd itself just before the context ends.
func DialOption() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if !strings.HasPrefix(method, "/etcdserverpb.KV/") {
			return invoke(ctx, method, req, reply, conn, opts...)
		}
		var p peer.Peer // set by gRPC once the request has a stream on a connection
		err := invoke(ctx, method, req, reply, conn, append(opts, grpc.WaitForReady(false), grpc.Peer(&p))...)
		if err == nil {
			return nil
		}
		code := status.Code(err)
		cutOff := code == codes.Canceled || code == codes.DeadlineExceeded
		switch {
		case p.Addr == nil && (cutOff || code == codes.Unavailable):
			return &notSentError{err}
		case cutOff && ctx.Err() == nil && method == "/etcdserverpb.KV/Txn":
			return status.Error(codes.Unknown, "the transaction was cut off: "+status.Convert(err).Message())
		}
		return err
	})
}
