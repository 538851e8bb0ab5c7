package auth

import (
	"bytes"
	"context"
	"slices"
)

// Authenticator tells whose a token is. Its methods are safe for concurrent use.
type Authenticator interface {
	// Authenticate returns the identity that token belongs to, and reports whether there is
	// one. An error says that this cannot be told now.
	Authenticate(ctx context.Context, token string) (identity *Identity, ok bool, err error)
	// Of returns the identities of a user, in the order of their ids; nil: the user has no token.
	Of(user string) []*Identity
}

// Union returns an authenticator of the tokens of all; the first that knows a token decides.
func Union(all ...Authenticator) Authenticator {
	if len(all) == 1 {
		return all[0]
	}
	return union(all)
}

type union []Authenticator

func (u union) Authenticate(ctx context.Context, token string) (identity *Identity, ok bool, err error) {
	for _, one := range u {
		if identity, ok, err = one.Authenticate(ctx, token); ok || err != nil {
			return identity, ok, err
		}
	}
	return nil, false, nil
}

func (u union) Of(user string) []*Identity {
	var all []*Identity
	for _, one := range u {
		all = append(all, one.Of(user)...)
	}
	slices.SortFunc(all, func(a, b *Identity) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return all
}

type userKey struct{}

// WithUser returns a context of what is done for the user.
func WithUser(ctx context.Context, user *User) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

// UserFrom returns the user for whom ctx says that something is done; nil: it is done for none.
func UserFrom(ctx context.Context) *User {
	user, _ := ctx.Value(userKey{}).(*User)
	return user
}
