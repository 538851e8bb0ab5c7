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

// readError translates the error of a read that ctx bounded.
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

// writeError translates the error of a transaction that was handed to clientv3. Only what
// was not sent, or what etcd says before it proposes the transaction, is certain not to be
// written; every other error leaves the outcome open. size is that of the value.
func writeError(size int, err error) error {
	if err == nil {
		return nil
	}
	err = rpctypes.Error(err)
	kind := storage.ErrUnknownOutcome
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		kind = storage.ErrNoSpace
	case errors.Is(err, rpctypes.ErrRequestTooLarge), isMessageTooLarge(err):
		return fmt.Errorf("%w: %w", &storage.TooLargeError{Size: size}, err)
	case isRefusal(err):
		kind = storage.ErrUnavailable
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// isRefusal reports whether a transaction was not sent, or refused by etcd before it was
// proposed. etcd's errors with the codes Unavailable, Canceled and DeadlineExceeded arise
// at any time, those with other codes only then; ErrNoLeader comes from the check that
// WithRequireLeader asks for.
func isRefusal(err error) bool {
	var unsent *notSentError
	if errors.Is(err, rpctypes.ErrNoLeader) || errors.As(err, &unsent) {
		return true
	}
	var e rpctypes.EtcdError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.ResourceExhausted, codes.OutOfRange, codes.DataLoss:
		return true
	}
	return false
}

// isMessageTooLarge reports whether gRPC, on either side, refused a request for its size.
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
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code() == codes.DeadlineExceeded || e.Code() == codes.Canceled
	}
	s, ok := status.FromError(err)
	return ok && (s.Code() == codes.DeadlineExceeded || s.Code() == codes.Canceled)
}

// notSentError is the error of a request that never reached a connection. Its code is one
// that clientv3 passes on as it is and does not repeat the request for.
type notSentError struct{ cause error }

func (e *notSentError) Error() string { return "not sent to etcd: " + e.cause.Error() }
func (e *notSentError) Unwrap() error { return e.cause }

func (e *notSentError) GRPCStatus() *status.Status {
	return status.New(codes.FailedPrecondition, e.Error())
}

// DialOption belongs into clientv3.Config.DialOptions of every client that is handed to
// New. Without it a Store is as correct but knows less:
//
//   - While etcd refuses connections, requests fail at once with ErrUnavailable. clientv3
//     has them wait for the whole timeout and then hides that they were never sent, which
//     makes it ErrUnknownOutcome for a write.
//   - A transaction goes out at most once. clientv3 itself sends it again only where it is
//     certain not to be written, with one exception: an answer with code Canceled or
//     DeadlineExceeded while the request's own context lives, be it a proxy's, or etcd's
//     own a moment before the context ends.
func DialOption() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if !strings.HasPrefix(method, "/etcdserverpb.KV/") {
			return invoke(ctx, method, req, reply, conn, opts...)
		}
		var p peer.Peer // gRPC sets it once the request has a stream on a connection
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
