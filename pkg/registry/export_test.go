package registry

// What the tests of this package use beyond its exported names.

// MaxNameAttempts is maxNameAttempts.
const MaxNameAttempts = maxNameAttempts

// Key is key.
func (r *Resource) Key(namespace, name string) string { return r.key(namespace, name) }

// Prefix is prefix.
func (r *Resource) Prefix(namespace string) string { return r.prefix(namespace) }

// Key is the resource's key.
func (s *Store) Key(namespace, name string) string { return s.resource.key(namespace, name) }

// Prefix is the resource's prefix.
func (s *Store) Prefix(namespace string) string { return s.resource.prefix(namespace) }
