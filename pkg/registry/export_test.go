package registry

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
)

// What the tests of this package use beyond its exported names.

const (
	// MaxNameAttempts is maxNameAttempts.
	MaxNameAttempts = maxNameAttempts
	// TerminatePage is terminatePage.
	TerminatePage = terminatePage
)

// Encode is encode.
func (r *Resource) Encode(obj runtime.Object) ([]byte, error) { return r.encode(obj) }

// Finish is finish.
func (r *Resource) Finish(value []byte, revision int64) ([]byte, error) {
	data, _, err := r.finish(value, revision)
	return data, err
}

// FinishesTo is finishesTo.
func (r *Resource) FinishesTo(value []byte, revision int64, finished []byte) bool {
	return r.finishesTo(value, revision, finished)
}

// Key is key.
func (r *Resource) Key(namespace, name string) string { return r.key(namespace, name) }

// Prefix is prefix.
func (r *Resource) Prefix(namespace string) string { return r.prefix(namespace) }

// SelfLink is selfLink.
func (r *Resource) SelfLink(namespace, name string) string { return r.selfLink(namespace, name) }

// VersionOffset is versionOffset.
var VersionOffset = versionOffset

// Ownership is ownership, for comparison with the library that it follows.
type Ownership struct{ *ownership }

// NewOwnership is newOwnership.
func NewOwnership(r *Resource, scheme *runtime.Scheme, converter managedfields.TypeConverter) (Ownership, error) {
	o, err := newOwnership(r, scheme, converter)
	return Ownership{o}, err
}

// Update is ownership.update.
func (o Ownership) Update(live, next runtime.Object, manager string) runtime.Object {
	return o.update(live, next, manager)
}

// PackAbove is packAbove, PackTightAbove is packTightAbove.
const (
	PackAbove      = packAbove
	PackTightAbove = packTightAbove
)

// Pack is pack, Unpack is unpack.
var (
	Pack   = pack
	Unpack = unpack
)
