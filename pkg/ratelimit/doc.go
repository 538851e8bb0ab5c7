// Package ratelimit gives each token, or each user, a token bucket for reads and one
// for writes, and each client address one for requests without a valid token.
//
// A bucket holds at most burst requests and gains qps of them a second. A request
// takes one; when there is none it is refused with the exact time after which there
// will be one, and takes nothing. Buckets start full.
//
// The caller passes the time in, and nothing here runs on its own. Memory is bounded:
// see maxSubjects and maxAddresses.
package ratelimit
