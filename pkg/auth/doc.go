// Package auth authenticates tokens and authorizes requests: it maps a token to a User,
// and decides whether that User may perform a verb on a resource. It does not depend on
// HTTP.
package auth
