// Package apierr words what clients are told of failures, as API errors.
package apierr

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/storage"
)

// caused is what a client is told of a failure of the server, whose cause is for the log.
type caused struct {
	*apierrors.StatusError
	cause error
}

// Unwrap returns the cause.
func (c *caused) Unwrap() error { return c.cause }

// FromStorage turns what the storage said into what a client is told. Errors that it does
// not know stay as they are: the server answers them with 500 and logs them. Where it is the
// server or etcd that failed, the error wraps err.
func FromStorage(err error) error {
	var tooLarge *storage.TooLargeError
	var nearlyFull *storage.NearlyFullError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		limit := fmt.Sprintf("the limit is %d", tooLarge.Limit)
		if tooLarge.Limit == 0 {
			limit = "more than it accepts in one request"
		}
		what := "the object takes"
		if tooLarge.Others > 0 {
			what = fmt.Sprintf("the object and the %d others that are written with it take", tooLarge.Others)
		}
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("%s %d bytes in etcd, %s", what, tooLarge.Size, limit))
	case errors.Is(err, storage.ErrTooManyWrites):
		return apierrors.NewRequestEntityTooLargeError("the object and the EndpointSlices that mirror it take more writes than etcd accepts in one transaction (its --max-txn-ops)")
	case errors.Is(err, storage.ErrCompacted):
		return apierrors.NewResourceExpired("The provided resource version is too old: etcd has compacted it.")
	case errors.Is(err, storage.ErrUnknownOutcome):
		// Without a time after which to try again: clients would do so, and that can do harm.
		return &caused{apierrors.NewTimeoutError("The connection to etcd ended while the request was under way: it may or may not have taken effect. Read the object before trying again.", 0), err}
	case errors.Is(err, storage.ErrTimeout):
		return &caused{apierrors.NewTimeoutError("etcd did not answer within the time allotted to the request.", 1), err}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return apierrors.NewTimeoutError("The time allotted to the request ended before etcd was asked.", 1)
	case errors.As(err, &nearlyFull):
		return noRoom(fmt.Sprintf("etcd's database is nearly full: %d bytes of %d are in use, and this write may not go beyond %d. "+
			"Delete objects: an embedded etcd has room again within seconds. Or raise the quota (--quota-backend-bytes)", nearlyFull.InUse, nearlyFull.Quota, nearlyFull.Limit), 10, err)
	case errors.Is(err, storage.ErrNoSpace):
		return noRoom("etcd's database is full: nothing can be written until space is made. Delete objects that have no finalizers, which still works; "+
			"an embedded etcd then makes space by itself, and an external one needs compaction, etcdctl defrag and etcdctl alarm disarm, or a larger quota", 10, err)
	case errors.Is(err, storage.ErrUnavailable):
		return &caused{unavailable("etcd cannot be reached.", 1), err}
	}
	return err
}

// maxFaults bounds how many faults of one object a client is told: a body of nothing but
// faults must not make an answer many times its size.
const maxFaults = 256

// EnoughFaults is how many faults of one object need be found. Invalid takes more of them for a
// part of those that there are.
const EnoughFaults = 1000

// Invalid is the 422 for the faults of an object. One that is there twice is told once.
func Invalid(kind schema.GroupKind, name string, faults field.ErrorList) error {
	told, more := distinct(faults)
	if len(more) > 0 {
		atLeast := ""
		if len(faults) >= EnoughFaults {
			atLeast = "at least "
		}
		told = append(told, field.InternalError(field.NewPath(more[0].Field), fmt.Errorf("and %s%d more faults, this one and those behind it", atLeast, len(more))))
	}
	return apierrors.NewInvalid(kind, name, told)
}

// distinct returns the first maxFaults that differ, and those behind them, which are not looked at:
// the text of a fault may be as long as the object.
func distinct(faults field.ErrorList) (first, more field.ErrorList) {
	seen := map[string]bool{}
	for i, fault := range faults {
		text := fault.Error()
		if seen[text] {
			continue
		}
		if len(first) == maxFaults {
			return first, faults[i:]
		}
		seen[text] = true
		first = append(first, fault)
	}
	return first, nil
}

// TimedOut is the 504 of a request whose context has ended while the server itself was at work;
// nil while it has not ended. while continues
// "ended while".
func TimedOut(ctx context.Context, while string) error {
	if ctx.Err() == nil {
		return nil
	}
	return apierrors.NewTimeoutError("The time allotted to the request ended while "+while+".", 1)
}

// RetryTimeout is the 504 of a write that did not fit what etcd holds by now.
func RetryTimeout() error {
	return apierrors.NewTimeoutError("The time allotted to the request ended before it could be tried again on the newest state of the object.", 1)
}

// unavailable is a 503 that says when it is worth trying again.
func unavailable(message string, retryAfterSeconds int32) *apierrors.StatusError {
	err := apierrors.NewServiceUnavailable(message)
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: retryAfterSeconds}
	return err
}

// CauseNoRoom is the cause in the Status of a write that is refused since too much is stored.
const CauseNoRoom metav1.CauseType = "StorageFull"

// noRoom is a 503 for a write that has no room; 0: another try does not help by itself.
func noRoom(message string, retryAfterSeconds int32, cause error) error {
	err := apierrors.NewServiceUnavailable(message + ".")
	err.ErrStatus.Details = &metav1.StatusDetails{
		RetryAfterSeconds: retryAfterSeconds, Causes: []metav1.StatusCause{{Type: CauseNoRoom, Message: message}},
	}
	return &caused{err, cause}
}

var errStoredLimit = errors.New("all objects together take as much as --max-stored-bytes allows")

// TooMuchStored is the 503 for a write that adds bytes to what is stored beyond the limit.
func TooMuchStored(stored, adds, limit int64) error {
	return noRoom(fmt.Sprintf("the stored objects take %d bytes and this write would add %d, but the limit of all together is %d (--max-stored-bytes). "+
		"Delete objects or make them smaller, which still works, or raise the limit", stored, adds, limit), 0, errStoredLimit)
}

// ShareStored is the 503 for a write that adds bytes beyond what the objects of one resource may
// take together, or with a namespace those in it.
func ShareStored(resource, namespace string, stored, adds, limit int64) error {
	where := ""
	if namespace != "" {
		where = fmt.Sprintf(" in the namespace %q", namespace)
	}
	return noRoom(fmt.Sprintf("the stored %s%s take %d bytes and this write would add %d, but their limit is %d, a part of --max-stored-bytes. "+
		"There is room again when some are deleted or expire", resource, where, stored, adds, limit), 0, errStoredLimit)
}

// TooLargeVersion is a 504 for a version that is not there yet.
func TooLargeVersion(asked, current int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type:    metav1.CauseTypeResourceVersionTooLarge,
		Message: "Too large resource version",
	}}
	return err
}

// BadVersion is the 400 for a malformed resourceVersion.
func BadVersion(value, why string) error {
	return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: resourceVersion: Invalid value: %q: %s", value, why))
}

// IsRefusal reports whether a write is refused for what it asks for.
func IsRefusal(err error) bool {
	var refusal apierrors.APIStatus
	return errors.As(err, &refusal) && refusal.Status().Code < http.StatusInternalServerError
}
