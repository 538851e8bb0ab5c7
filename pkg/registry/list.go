package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/storage"
	"github.com/berth-project/berth/pkg/storage/cache"
)

// futureRevisionWait is how long a read waits for a revision that is not there yet, as in
// kube-apiserver.
const futureRevisionWait = 3 * time.Second

// List returns the objects of the namespace, or with an empty namespace of all of them,
// that opts selects, in the order of their keys and as of one revision. It goes on without
// those whose stored values cannot be read; the warnings name them.
func (s *Store) List(ctx context.Context, namespace string, opts *metav1.ListOptions) (list runtime.Object, warnings []string, err error) {
	listed, err := s.list(ctx, namespace, opts)
	if err != nil {
		return nil, nil, err
	}
	return listed, listed.unreadable.warnings(), nil
}

func (s *Store) list(ctx context.Context, namespace string, opts *metav1.ListOptions) (*objectList, error) {
	selection, err := s.selection(namespace, opts, true)
	if err != nil {
		return nil, err
	}
	if opts.Continue != "" {
		return s.listContinued(ctx, selection, opts)
	}
	if opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact ||
		opts.Limit > 0 && opts.ResourceVersionMatch == "" && opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
		revision, err := parseResourceVersion(opts.ResourceVersion)
		if err != nil {
			return nil, err
		}
		return s.listStored(ctx, selection, opts, revision, "")
	}
	if err := s.waitFor(ctx, opts.ResourceVersion); err != nil {
		return nil, err
	}
	snapshot, err := s.cache.Snapshot()
	if err != nil {
		return nil, apiError(err)
	}
	page := pager{selection: selection, limit: opts.Limit}
	page.read(snapshot, "")
	return s.page(&page, snapshot.Revision), nil
}

// listContinued is the next page: from the state of the first one, which the store still
// knows.
func (s *Store) listContinued(ctx context.Context, selection *selection, opts *metav1.ListOptions) (*objectList, error) {
	if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
		return nil, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	token, err := decodeContinue(opts.Continue, selection.prefix)
	if err != nil {
		return nil, err
	}
	if token.ResourceVersion < 0 { // an inconsistent resume: from now on the newest state
		if err := s.waitFor(ctx, ""); err != nil {
			return nil, err
		}
		snapshot, err := s.cache.Snapshot()
		if err != nil {
			return nil, apiError(err)
		}
		page := pager{selection: selection, limit: opts.Limit, continued: true}
		page.read(snapshot, token.key)
		return s.page(&page, snapshot.Revision), nil
	}
	list, err := s.listStored(ctx, selection, opts, token.ResourceVersion, token.key)
	if apierrors.IsResourceExpired(err) {
		return nil, expiredContinue(selection.prefix, token.key)
	}
	return list, err
}

// storedPage is how many keys are read at once where a selector may leave out many.
const storedPage = 500

// listStored lists the state of an exact revision, which only the store knows.
func (s *Store) listStored(ctx context.Context, selection *selection, opts *metav1.ListOptions, revision int64, from string) (*objectList, error) {
	page := pager{selection: selection, limit: opts.Limit, continued: from != ""}
	read := storage.ListOptions{Revision: revision, From: from}
	if opts.Limit > 0 {
		read.Limit = max(opts.Limit+1, storedPage)
	}
	for {
		part, err := s.storage.List(ctx, selection.prefix, read)
		if errors.Is(err, storage.ErrFutureRevision) {
			current, revisionErr := s.storage.Revision(ctx)
			if revisionErr != nil {
				return nil, apiError(revisionErr)
			}
			return nil, tooLargeResourceVersion(revision, current)
		}
		if errors.Is(err, storage.ErrCompacted) {
			return nil, apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
		}
		if err != nil {
			return nil, apiError(err)
		}
		read.Revision = part.Revision
		for i, kv := range part.KVs {
			if !page.add(s.objectOf(kv)) {
				page.remaining = part.Count - int64(i)
				return s.page(&page, part.Revision), nil
			}
			read.From = kv.Key + "\x00"
		}
		if !part.More {
			return s.page(&page, part.Revision), nil
		}
	}
}

// pager collects the selected objects of one page.
type pager struct {
	selection *selection
	limit     int64 // 0 or less: none
	continued bool  // whether it is not the first page
	objects   []*object
	last      string // the key of the last object on the page, set where more follow
	remaining int64  // how many keys follow, selected or not, readable or not

	unreadable unreadableKeys // that it met, up to the end of the page
}

// read collects from a snapshot, from the key from on. What follows the page is only
// counted where the count is told.
func (p *pager) read(snapshot cache.Snapshot[*object], from string) {
	count := int64(0)
	if p.selection.all() {
		count = int64(snapshot.Count(p.selection.scope, from))
		size := count
		if p.limit > 0 {
			size = min(size, p.limit)
		}
		p.objects = make([]*object, 0, size)
	}
	snapshot.Ascend(p.selection.scope, from, func(entry *cacheEntry) bool { return p.add(entry.Value) })
	p.remaining = max(0, count-int64(len(p.objects)+p.unreadable.count))
}

// add takes the object up if it is selected; false: the page is full, and the object
// belongs to the next one.
func (p *pager) add(o *object) bool {
	if o.broken != nil {
		if p.selection.matchesFields(o) {
			p.unreadable.add(o.key)
		}
		return true
	}
	if !p.selection.matches(o) {
		return true
	}
	if p.limit > 0 && int64(len(p.objects)) == p.limit {
		p.last = p.objects[len(p.objects)-1].key
		return false
	}
	p.objects = append(p.objects, o)
	return true
}

// page makes the answer of what a pager collected.
func (s *Store) page(p *pager, revision int64) *objectList {
	list := &objectList{
		resource: s.Resource, objects: p.objects, selected: !p.selection.all(), continued: p.continued,
		unreadable: p.unreadable,
		meta:       metav1.ListMeta{SelfLink: s.selfLink(p.selection.namespace, ""), ResourceVersion: formatRevision(revision)},
	}
	if p.last != "" {
		list.meta.Continue = encodeContinue(p.last[len(p.selection.prefix):]+"\x00", revision)
		if p.selection.all() {
			list.meta.RemainingItemCount = &p.remaining
		}
	}
	return list
}

// continueToken is kube-apiserver's form of a place in a list.
type continueToken struct {
	Version         string `json:"v"`
	ResourceVersion int64  `json:"rv"`
	Start           string `json:"start"` // relative to the list's prefix, with a slash before it

	key string
}

const continueVersion = "meta.k8s.io/v1"

func encodeContinue(relative string, revision int64) string {
	data, err := json.Marshal(continueToken{Version: continueVersion, ResourceVersion: revision, Start: "/" + relative})
	if err != nil {
		panic(err) // strings and numbers can always be encoded
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func decodeContinue(value, prefix string) (continueToken, error) {
	var token continueToken
	data, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return token, badContinue(err)
	}
	if err := json.Unmarshal(data, &token); err != nil {
		return token, badContinue(err)
	}
	switch relative, ok := strings.CutPrefix(token.Start, "/"); {
	case token.Version != continueVersion:
		return token, badContinue(fmt.Errorf("server does not recognize this encoded version %q", token.Version))
	case token.ResourceVersion == 0:
		return token, badContinue(errors.New("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"))
	case !ok || relative == "" || strings.Contains(relative, "/../"):
		return token, badContinue(errors.New("the key is not within the list"))
	default:
		token.key = prefix + relative
		return token, nil
	}
}

func badContinue(cause error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: continue key is not valid: %v", cause))
}

// expiredContinue is the 410 for a page whose list is too old, with a token that goes on
// from the same place in the newest state.
func expiredContinue(prefix, key string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	err.ErrStatus.ListMeta.Continue = encodeContinue(key[len(prefix):], -1)
	return err
}

// selection is what a list or a watch is about.
type selection struct {
	namespace string
	prefix    string // of the keys
	scope     string // prefix, or the one key that can match
	labels    labels.Selector
	fields    fields.Selector
	resource  *Resource
}

// selection parses what opts selects. The order of the checks is kube-apiserver's.
func (s *Store) selection(namespace string, opts *metav1.ListOptions, list bool) (*selection, error) {
	byLabel, err := labels.Parse(opts.LabelSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	byField, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	internal := &internalversion.ListOptions{
		Watch: !list, AllowWatchBookmarks: opts.AllowWatchBookmarks, ResourceVersion: opts.ResourceVersion,
		ResourceVersionMatch: opts.ResourceVersionMatch, TimeoutSeconds: opts.TimeoutSeconds,
		Limit: opts.Limit, Continue: opts.Continue, SendInitialEvents: opts.SendInitialEvents,
	}
	if faults := validation.ValidateListOptions(internal, true); len(faults) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", faults)
	}
	byField, err = byField.Transform(func(name, value string) (string, string, error) {
		if name == "metadata.name" || name == "metadata.namespace" {
			return name, value, nil
		}
		return "", "", fmt.Errorf("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", name)
	})
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	sel := &selection{namespace: namespace, prefix: s.prefix(namespace), labels: byLabel, fields: byField, resource: s.Resource}
	sel.scope = sel.prefix
	if name, ok := byField.RequiresExactMatch("metadata.name"); ok && name != "" && !strings.Contains(name, "/") && (namespace != "" || !s.API.Namespaced) {
		sel.scope = s.key(namespace, name)
	}
	return sel, nil
}

// all says whether nothing is left out.
func (sel *selection) all() bool { return sel.labels.Empty() && sel.fields.Empty() }

// matches reports whether the object is selected; one that cannot be read never is. It looks
// at no more of the object than it needs to: the key has name and namespace, and only a label
// selector needs the metadata.
func (sel *selection) matches(o *object) bool {
	return o.broken == nil && sel.matchesFields(o) && (sel.labels.Empty() || sel.labels.Matches(o.labels()))
}

func (sel *selection) matchesFields(o *object) bool {
	return sel.fields.Empty() || sel.fields.Matches((*keyFields)(o))
}

// keyFields are the fields that selectors know, out of an object's key.
type keyFields object

var _ fields.Fields = (*keyFields)(nil)

// Has says whether there is such a field.
func (k *keyFields) Has(field string) bool { return field == "metadata.name" || k.Get(field) != "" }

// Get returns a field's value; "" where there is no such field.
func (k *keyFields) Get(field string) string {
	namespace, name := k.resource.place(k.key)
	switch field {
	case "metadata.name":
		return name
	case "metadata.namespace":
		return namespace
	}
	return ""
}
