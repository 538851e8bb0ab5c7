package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/registry/apierr"
)

// List returns the objects of the namespace, or with an empty namespace of all of them,
// that opts selects, in the order of their keys and as of one revision. It goes on without
// those whose stored values cannot be read; the warnings name them. Whoever has written the
// list calls its Done.
//
// Errors: BadRequest for bad options and for more old versions than one list may have,
// Expired, TooManyRequests where other lists of old versions take all the memory for them.
func (s *Store) List(ctx context.Context, namespace string, opts *metav1.ListOptions) (list *object.List, warnings []string, err error) {
	selection, err := s.selection(namespace, opts, true)
	if err != nil {
		return nil, nil, err
	}
	page, err := s.page(ctx, selection, opts)
	if err != nil {
		return nil, nil, err
	}
	list, err = s.listOf(page)
	return list, page.unreadable.warnings(), err
}

// OldVersions returns how many bytes of old versions the list may hold that opts ask for; 0: it
// holds none.
func (s *Store) OldVersions(opts *metav1.ListOptions) int64 {
	if opts.Continue == "" && !isExact(opts) {
		return 0
	}
	return maxOld(opts.Limit)
}

// isExact reports whether opts ask for the state of exactly the version that they name.
func isExact(opts *metav1.ListOptions) bool {
	return opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact ||
		opts.Limit > 0 && opts.ResourceVersionMatch == "" && opts.ResourceVersion != "" && opts.ResourceVersion != "0"
}

// page collects the page that opts ask for.
func (s *Store) page(ctx context.Context, selection *selection, opts *metav1.ListOptions) (*page, error) {
	if opts.Continue != "" {
		return s.pageContinued(ctx, selection, opts)
	}
	if isExact(opts) {
		revision, err := parseResourceVersion(opts.ResourceVersion)
		if err != nil {
			return nil, err
		}
		return s.pageAt(ctx, selection, opts.Limit, revision, "")
	}
	return s.pageNow(ctx, selection, opts.Limit, opts.ResourceVersion, "")
}

// pageContinued is the next page: from the state of the first one, which the store still
// knows.
func (s *Store) pageContinued(ctx context.Context, selection *selection, opts *metav1.ListOptions) (*page, error) {
	if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
		return nil, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	token, err := decodeContinue(opts.Continue, selection.prefix)
	if err != nil {
		return nil, err
	}
	if token.ResourceVersion < 0 { // an inconsistent resume: from now on the newest state
		return s.pageNow(ctx, selection, opts.Limit, "", token.key)
	}
	page, err := s.pageAt(ctx, selection, opts.Limit, token.ResourceVersion, token.key)
	if apierrors.IsResourceExpired(err) {
		return nil, expiredContinue(selection.prefix, token.key)
	}
	return page, err
}

// pageNow is a page of the cache's state once it is as new as resourceVersion wants it.
func (s *Store) pageNow(ctx context.Context, selection *selection, limit int64, resourceVersion, from string) (*page, error) {
	if err := s.waitFor(ctx, resourceVersion); err != nil {
		return nil, err
	}
	snapshot, err := s.cache.Snapshot()
	if err != nil {
		return nil, apierr.FromStorage(err)
	}
	p := &page{selection: selection, limit: limit, continued: from != "", revision: snapshot.Revision}
	count := int64(0)
	if selection.all() { // only then does the answer say how many follow the page
		count = int64(snapshot.Count(selection.scope, from))
		size := count
		if limit > 0 {
			size = min(size, limit)
		}
		p.objects = make([]*object.Object, 0, size)
	}
	snapshot.Ascend(selection.scope, from, func(entry *cacheEntry) bool { return ctx.Err() == nil && p.add(entry.Value) })
	if err := apierr.TimedOut(ctx, "objects were being selected"); err != nil {
		return nil, err
	}
	p.remaining = max(0, count-int64(len(p.objects)+p.unreadable.count))
	return p, nil
}

// page is the selected objects of one page of a list.
type page struct {
	selection *selection
	revision  int64 // of the state that it is from
	limit     int64 // 0 or less: none
	continued bool  // whether it is not the first page
	skipped   bool  // whether the selection left out objects between those of the page
	objects   []*object.Object
	last      string // the key of the last object on the page, set where more follow
	remaining int64  // how many keys follow, selected or not, readable or not
	examined  int    // how many objects the selection was compared with

	unreadable unreadableKeys // that it met, up to the end of the page
	release    func()         // gives back what an exact page takes; nil: nothing
}

// add takes up a value if it is of a selected object; false: the page is full, and the value
// belongs to the next one, which, as with kube-apiserver, may turn out to have no selected object.
func (p *page) add(v stored) bool {
	if p.limit > 0 && int64(len(p.objects)) == p.limit {
		p.last = p.objects[len(p.objects)-1].Key
		return false
	}
	p.examined++
	switch {
	case v.broken != nil:
		if p.selection.covers(v.broken) {
			p.unreadable.add(v.broken.Key)
		}
	case !p.selection.matches(v.object):
		p.skipped = true
	default:
		p.objects = append(p.objects, v.object)
	}
	return true
}

// listOf makes the answer of a page.
func (s *Store) listOf(p *page) (*object.List, error) {
	shown, err := s.showAll(p.objects)
	if err != nil {
		if p.release != nil {
			p.release()
		}
		return nil, err
	}
	list := &object.List{
		Type: s.objects, Objects: shown, Adjacent: !p.skipped, FromStart: !p.continued, Release: p.release,
		Comparisons: p.examined * p.selection.requirements,
		Meta:        metav1.ListMeta{SelfLink: s.resource.selfLink(p.selection.namespace, ""), ResourceVersion: formatRevision(p.revision)},
	}
	if p.last != "" {
		list.Meta.Continue = encodeContinue(p.last[len(p.selection.prefix):]+"\x00", p.revision)
		if p.selection.all() {
			list.Meta.RemainingItemCount = &p.remaining
		}
	}
	return list, nil
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
