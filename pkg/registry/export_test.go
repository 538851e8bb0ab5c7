package registry

// What the tests of this package use beyond its exported names.

// EncodeValue is encodeValue.
var EncodeValue = encodeValue

const (
	// MaxNameAttempts is maxNameAttempts.
	MaxNameAttempts = maxNameAttempts
	// TerminatePage is terminatePage.
	TerminatePage = terminatePage
)

// Finish is finish.
func (r *Resource) Finish(value []byte, revision int64) ([]byte, error) {
	return r.finish(value, revision)
}

// Key is key.
func (r *Resource) Key(namespace, name string) string { return r.key(namespace, name) }

// Prefix is prefix.
func (r *Resource) Prefix(namespace string) string { return r.prefix(namespace) }

// SelfLink is selfLink.
func (r *Resource) SelfLink(namespace, name string) string { return r.selfLink(namespace, name) }

// VersionOffset is versionOffset.
var VersionOffset = versionOffset
