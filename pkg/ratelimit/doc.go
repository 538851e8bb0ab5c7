// Package ratelimit gives each token, or each user, a token bucket for reads and one
// for writes, and each client address one for requests without a valid token.
//
// A bucket holds at most burst requests and gains qps of them per second. A request
// takes one; if there is none, the request is rejected with the exact time until there
// is, and takes nothing. Buckets start full.
//
// The caller passes the time in, and there are no goroutines. Memory is bounded: see
// maxSubjects and maxAddresses.
package ratelimit
