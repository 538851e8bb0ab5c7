package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
	"github.com/berth-project/berth/pkg/registry/capacity"
	"github.com/berth-project/berth/pkg/registry/mirroring"
	"github.com/berth-project/berth/pkg/registry/objectmeta"
	"github.com/berth-project/berth/pkg/storage"
)

// outcome is how an attempt to change an object ended.
type outcome int

const (
	// done: it is written, or failed in a way that another attempt does not mend.
	done outcome = iota
	// noop: there was nothing to write, or a rule refused it. That is true of the state that
	// was read, and perhaps not of the newest.
	noop
	// conflict: another write came in between.
	conflict
)

// retry attempts to change what key holds, as often as others come in between and ctx allows.
// It begins with the cache's state, which costs nothing and is mostly right: the transaction
// fails if it is not. An outcome that writes nothing is only believed of the newest state.
func (s *Store) retry(ctx context.Context, key string, attempt func(current stored) (outcome, error)) error {
	for fresh := false; ; fresh = true {
		current, err := s.read(ctx, key, fresh)
		if err != nil {
			return err
		}
		outcome, err := attempt(current)
		switch {
		case outcome == done, outcome == noop && fresh:
			return err
		case ctx.Err() != nil:
			return apierr.RetryTimeout()
		}
	}
}

// draft encodes an object that is to be stored under at, whatever revision that has: it has no
// resourceVersion yet, so that its JSON is the value to store. A value may always be as large
// as atLeast, in bytes.
func (s *Store) draft(obj APIObject, at object.Identity, atLeast int) (*object.Object, error) {
	objects := s.owner.objects
	obj = s.toStore(obj)
	obj.SetResourceVersion("")
	obj.SetSelfLink(s.owner.resource.selfLink(at.Namespace, at.Name))
	obj.GetObjectKind().SetGroupVersionKind(objects.Kind)
	value, err := objects.Encode(obj)
	if err != nil {
		return nil, err
	}
	if err := s.checkSize(len(value), atLeast); err != nil {
		return nil, err
	}
	at.Revision = 0
	encoded, err := object.Written(objects, at, value)
	if err == nil {
		err = s.checkReadable(encoded)
	}
	return encoded, err
}

// checkSize refuses a value that exceeds both the limit and atLeast: an object that is too
// large already can still be made smaller.
func (s *Store) checkSize(size, atLeast int) error {
	if size <= max(s.maxObject, atLeast) {
		return nil
	}
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the object takes %d bytes as JSON, the limit is %d", size, s.maxObject))
}

// put commits a draft with its effects in the place of the version that opts expect. adds is by how
// many bytes the object becomes larger, where that is bounded. An outcome that is unknown is looked
// into.
func (s *Store) put(ctx context.Context, d *object.Object, adds int64, opts storage.PutOptions, fx *mirroring.Effects) (storage.WriteResponse, error) {
	packed, err := object.Pack(d.JSON())
	if err == nil {
		err = apierr.TimedOut(ctx, "the object was being validated and encoded")
	}
	if err != nil {
		return storage.WriteResponse{}, err
	}
	if err := s.owner.checkShare(d.Namespace, adds); err != nil {
		return storage.WriteResponse{}, err
	}
	release, err := s.capacity.Reserve(fx.Grows(s.cache, adds))
	if err != nil {
		return storage.WriteResponse{}, err
	}
	opts.TTL, opts.Also = s.lifetime, fx.Also()
	response, err := s.storage.Put(ctx, d.Key, packed, opts)
	if errors.Is(err, storage.ErrUnknownOutcome) {
		response, err = s.settle(ctx, d, packed, opts.Expect, err)
	}
	release(response, opts.DryRun, err)
	s.lost(ctx, d.Namespace, response, err)
	return response, err
}

// ofShare is the part of a resource's share that one namespace may take once half of the share is
// taken, as its reciprocal: whoever fills a namespace does not keep the others from theirs.
const ofShare = 4

// checkShare returns ServiceUnavailable for a write that adds bytes beyond what the objects of the
// resource may take, in all or in the namespace. Writes in progress are not counted, of which
// there are not many.
func (s *Store) checkShare(namespace string, adds int64) error {
	if s.resource.Share == 0 || s.capacity.Limit() == 0 || adds <= 0 {
		return nil
	}
	share, taken := s.capacity.Limit()/int64(s.resource.Share), s.cache.Bytes()
	if taken+adds > share {
		return apierr.ShareStored(s.resource.API.Name, "", taken, adds, share)
	}
	if taken <= share/2 || !s.resource.API.Namespaced {
		return nil
	}
	snapshot, err := s.cache.Snapshot()
	if err != nil {
		return apierr.FromStorage(err)
	}
	inNamespace, most := int64(0), share/ofShare
	snapshot.Ascend(s.resource.prefix(namespace), "", func(entry *cacheEntry) bool {
		inNamespace += int64(entry.Value.size())
		return inNamespace+adds <= most
	})
	if inNamespace+adds > most {
		return apierr.ShareStored(s.resource.API.Name, namespace, inNamespace, adds, most)
	}
	return nil
}

// lost waits after a transaction that failed until the caches show what it met, for those whose
// writes go by the caches.
func (s *Store) lost(ctx context.Context, namespace string, response storage.WriteResponse, err error) {
	if err == nil && !response.Succeeded {
		s.mirroring.CatchUp(ctx, namespace, response.Revision)
	}
}

// settle finds out what became of a put whose outcome is unknown. A create took effect if the
// object has our uid, and an update if our own value stands under a new revision. While the
// state from before stands the write may still take effect.
func (s *Store) settle(ctx context.Context, d *object.Object, packed []byte, expect int64, unknown error) (storage.WriteResponse, error) {
	got, err := s.storage.Get(ctx, d.Key, storage.GetOptions{})
	switch {
	case err != nil, got.KV == nil, got.KV.ModRevision == expect:
		return storage.WriteResponse{}, unknown
	case expect != 0 && bytes.Equal(got.KV.Value, packed):
		return storage.WriteResponse{Succeeded: true, Revision: got.KV.ModRevision}, nil
	case expect != 0:
		return storage.WriteResponse{}, unknown
	}
	if found := s.readValue(got.KV); found.object != nil && found.object.UID() == d.UID() {
		return storage.WriteResponse{Succeeded: true, Revision: got.KV.CreateRevision}, nil
	}
	return storage.WriteResponse{Revision: got.Revision, Current: got.KV}, nil
}

// remove deletes a key as it was read, with the effects. before is nil for what cannot be read. Nothing is
// too large to be deleted: what would be made of what remains, and is, is left out.
func (s *Store) remove(ctx context.Context, at object.Identity, before *object.Object, dryRun bool) (storage.WriteResponse, error) {
	response, err := s.removeOnce(ctx, at, before, dryRun, false)
	if isTooLarge(err) {
		response, err = s.removeOnce(ctx, at, before, dryRun, true)
	}
	if !errors.Is(err, storage.ErrUnknownOutcome) {
		return response, err
	}
	got, readErr := s.storage.Get(ctx, at.Key, storage.GetOptions{})
	if readErr != nil || got.KV != nil && got.KV.ModRevision == at.Revision {
		return storage.WriteResponse{}, err
	}
	// If the object that was read is deleted, by this call or another's, that is what was
	// asked for.
	deleted := got.KV == nil || got.KV.CreateRevision != at.CreateRevision
	return storage.WriteResponse{Succeeded: deleted, Revision: got.Revision, Current: got.KV}, nil
}

// removeOnce is remove without a look at what became of it. deleteOnly is as for Mirroring.Effects.
func (s *Store) removeOnce(ctx context.Context, at object.Identity, before *object.Object, dryRun, deleteOnly bool) (storage.WriteResponse, error) {
	fx, err := s.mirroring.Effects(ctx, mirrored{s}, at, before, nil, deleteOnly)
	if err != nil {
		return storage.WriteResponse{}, err
	}
	if instead := fx.Instead(); instead != nil {
		return s.put(ctx, instead, 0, storage.PutOptions{Expect: at.Revision, Reserve: storage.ForDeletion, DryRun: dryRun}, fx)
	}
	response, err := s.storage.Delete(ctx, at.Key, storage.DeleteOptions{Expect: at.Revision, Also: fx.Also(), DryRun: dryRun})
	s.lost(ctx, at.Namespace, response, err)
	return response, err
}

// isTooLarge reports whether a write is refused for the size or the number of what is written.
func isTooLarge(err error) bool {
	var tooLarge *storage.TooLargeError
	return apierrors.IsRequestEntityTooLargeError(err) || errors.As(err, &tooLarge) || errors.Is(err, storage.ErrTooManyWrites)
}

// insert stores an object that has been prepared, and returns it as the store's clients see it, if its name is free and its namespace as the
// guard has it. A guard that turns out stale is looked up again, for as long as the context
// lasts.
func (s *Store) insert(ctx context.Context, obj APIObject, guard *storage.Guard, dryRun bool) (*object.Object, error) {
	namespace, name := obj.GetNamespace(), obj.GetName()
	d, err := s.draft(obj, object.Identity{Key: s.resource.key(namespace, name), Namespace: namespace, Name: name}, 0)
	if err != nil {
		return nil, err
	}
	for again := false; ; again = true {
		fx, err := s.mirroring.Effects(ctx, mirrored{s}, d.Identity, nil, obj, false)
		if apierr.IsRefusal(err) && !again {
			continue // as it was, perhaps
		}
		if err != nil {
			return nil, err
		}
		response, err := s.put(ctx, d, int64(d.Size())+capacity.VersionBytes, storage.PutOptions{Guard: guard, DryRun: dryRun}, fx)
		switch {
		case err != nil:
			return nil, apierr.FromStorage(err)
		case response.Succeeded && dryRun:
			return s.show(d)
		case response.Succeeded:
			return s.show(d.At(response.Revision))
		case response.Current != nil:
			return nil, s.alreadyExists(d.Name, response.Current)
		case guard == nil:
			return nil, fmt.Errorf("creating %s failed without a reason", d.Key)
		}
		if err := s.namespaces.Refresh(d.Namespace, response.Guarded); err != nil {
			return nil, err
		}
		if guard, err = s.guard(ctx, d.Namespace, d.Name); err != nil {
			return nil, err
		}
	}
}

// replace commits next in the place of what was read, and returns what there is then as the
// store's clients see it, unless nothing has changed; it may
// always be as large as atLeast, in bytes. An object that is being deleted and that nothing
// holds any more is removed.
func (s *Store) replace(ctx context.Context, current *object.Object, next APIObject, marking, dryRun bool) (*object.Object, outcome, error) {
	atLeast := current.ValueSize()
	if marking {
		atLeast = math.MaxInt
	}
	d, err := s.draft(next, current.Identity, atLeast)
	if err != nil {
		return nil, noop, err
	}
	if current.IsMadeOf(d.JSON()) {
		shown, err := s.show(current)
		return shown, noop, err
	}
	var response storage.WriteResponse
	if next.GetDeletionTimestamp() != nil && !s.held(next) {
		response, err = s.remove(ctx, current.Identity, current, dryRun)
	} else {
		response, err = s.putNext(ctx, current, next, d, marking, dryRun)
	}
	switch {
	case apierr.IsRefusal(err):
		return nil, noop, err
	case err != nil:
		return nil, done, apierr.FromStorage(err)
	case !response.Succeeded:
		return nil, conflict, nil
	case dryRun:
		response.Revision = current.Revision
	}
	shown, err := s.show(d.At(response.Revision))
	return shown, done, err
}

// putNext commits the draft of next in the place of what was read.
func (s *Store) putNext(ctx context.Context, current *object.Object, next APIObject, d *object.Object, marking, dryRun bool) (storage.WriteResponse, error) {
	fx, err := s.mirroring.Effects(ctx, mirrored{s}, current.Identity, current, next, false)
	if err != nil {
		return storage.WriteResponse{}, err
	}
	opts := storage.PutOptions{Expect: current.Revision, DryRun: dryRun}
	adds := int64(d.ValueSize() - current.ValueSize())
	all := fx.Adds() + adds
	switch dying := next.GetDeletionTimestamp() != nil; {
	case marking, dying && all <= 0:
		adds, opts.Reserve = 0, storage.ForDeletion
	case all <= 0:
		opts.Reserve = storage.ForShrinking
	}
	return s.put(ctx, d, adds, opts, fx)
}

// held reports whether something keeps a deleted object from being removed. Nothing keeps what is made
// of others, since nobody could let go of it.
func (s *Store) held(obj APIObject) bool {
	return !s.mirroring.IsMade(mirrored{s}, obj) && (objectmeta.Hold(obj.GetFinalizers()) || s.resource.Holds != nil && s.resource.Holds(obj))
}

// alreadyExists is the 409 for a name that is taken. It says so if the object is being deleted,
// so that the name will be free again.
func (s *Store) alreadyExists(name string, kv *storage.KeyValue) error {
	err := apierrors.NewAlreadyExists(s.resource.GroupResource(), name)
	if current := s.cachedOrRead(kv); current.object != nil {
		if metadata, readErr := current.object.Metadata(); readErr == nil && metadata.DeletionTimestamp != nil {
			err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
		}
	}
	return err
}
