// Package auth says who a request comes from and whether it may do what it asks:
// a token becomes a User, and a User with a verb and a resource becomes a yes or a
// no. It knows nothing of HTTP.
package auth
