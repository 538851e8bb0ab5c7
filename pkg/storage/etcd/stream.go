package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/berth-project/berth/pkg/storage"
)

const (
	// resumePause is the wait before a watch whose stream broke opens another one. It
	// doubles up to maxResumePause until etcd confirms the watch.
	resumePause    = 10 * time.Millisecond
	maxResumePause = time.Second
)

// watchOptions have a new stream wait for a connection rather than fail without one.
var watchOptions = append(slices.Clip(callOptions), grpc.WaitForReady(true))

// newWatchService returns etcd's watch service. What clientv3 wraps around it shares a
// stream among watches, and takes each event through three goroutines more.
func newWatchService(client *clientv3.Client) etcdserverpb.WatchClient {
	if inProcess, ok := client.Watcher.(interface {
		Service() etcdserverpb.WatchClient
	}); ok {
		return inProcess.Service()
	}
	return etcdserverpb.NewWatchClient(client.ActiveConnection())
}

// follow takes in what etcd sends, over one stream after another, and returns why the watch
// ends: at the latest when ctx does, or when the client is closed.
func (w *watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, leaderRequired))
	defer cancel()
	defer context.AfterFunc(w.store.client.Ctx(), cancel)()
	for {
		if err := w.receive(ctx); err != nil {
			return err
		}
		select {
		case <-time.After(w.pause):
		case <-ctx.Done():
			return fmt.Errorf("%w: etcd's client was closed", storage.ErrUnavailable)
		}
		w.pause = min(2*w.pause, maxResumePause)
	}
}

// receive takes in what one stream brings. It returns nil where the stream broke and another
// one may go on.
func (w *watcher) receive(ctx context.Context) error {
	var sending sync.WaitGroup
	defer sending.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.store.watches.Watch(ctx, watchOptions...)
	if err != nil {
		return streamError(err)
	}
	create, asked := w.request(), make(chan struct{}, 1)
	sending.Go(func() { send(ctx, stream, create, asked) })
	defer w.store.streams.leave(asked)
	for created := false; ; {
		resp, err := stream.Recv()
		switch {
		case err != nil:
			return streamError(err)
		case resp.CompactRevision != 0:
			return fmt.Errorf("%w: up to revision %d", storage.ErrCompacted, resp.CompactRevision)
		case resp.Canceled:
			return fmt.Errorf("%w: etcd ended the watch: %s", storage.ErrUnavailable, resp.CancelReason)
		case resp.Created:
			created, w.pause = true, resumePause
			w.store.streams.enter(asked)
		case created || len(resp.Events) > 0: // a report from before is not about this watch
			if err := w.take(resp); err != nil {
				return err
			}
		}
	}
}

// request creates the watch on a stream.
func (w *watcher) request() *etcdserverpb.WatchRequest {
	return &etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
		CreateRequest: &etcdserverpb.WatchCreateRequest{
			Key:            []byte(w.prefix),
			RangeEnd:       []byte(clientv3.GetPrefixRangeEnd(w.prefix)),
			StartRevision:  w.last + 1,
			ProgressNotify: true,
		},
	}}
}

// send sends what creates the watch and, whenever it is asked, what has etcd report the
// watch's progress. It returns when the stream has ended; why, its other side learns.
func send(ctx context.Context, stream etcdserverpb.Watch_WatchClient, create *etcdserverpb.WatchRequest, asked <-chan struct{}) {
	for request := create; stream.Send(request) == nil; {
		select {
		case <-asked:
		case <-ctx.Done():
			return
		}
		request = &etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_ProgressRequest{
			ProgressRequest: &etcdserverpb.WatchProgressRequest{},
		}}
	}
}

// streamError is what the end of a stream means for its watch, nil where that may go on. As
// clientv3 has it, Unavailable passes, and Internal is a stream that was cut in the middle;
// EOF and Canceled are a member that goes away, if not ctx or the client.
func streamError(err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.Internal, codes.Canceled, codes.DeadlineExceeded:
		return nil
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, rpctypes.Error(err))
}
