package certificates

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/rs/zerolog"
)

const (
	// checkInterval is how often an expiry that comes near is warned of, and a renewal that
	// has failed is tried again.
	checkInterval = 12 * time.Hour
	// minCheckInterval is for a timer that ends a little before the clock has got there.
	minCheckInterval = time.Second
)

// Keeper renews a serving certificate, or warns of its expiry.
type Keeper struct {
	Holder *Holder
	// Renew returns a certificate that is valid for longer, such as Ensure; nil if only the
	// user can replace it.
	Renew func(now time.Time) (*Serving, error)
	// Remedy says in the log what the user can do.
	Remedy string
	File   string // of the certificate
	Logger zerolog.Logger
}

// Run renews and warns until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	for {
		now := time.Now()
		k.renew(now)
		k.Warn(now)
		timer := time.NewTimer(k.wait(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// wait returns when to check next: when the certificate enters its last 30 days, if that is
// earlier than the next regular check.
func (k *Keeper) wait(now time.Time) time.Duration {
	due := k.leaf().NotAfter.Add(-renewBefore).Sub(now)
	if due < 0 || due > checkInterval {
		return checkInterval
	}
	return max(due, minCheckInterval)
}

func (k *Keeper) renew(now time.Time) {
	before := k.leaf()
	if k.Renew == nil || !expiresSoon(before, now) {
		return
	}
	serving, err := k.Renew(now)
	switch {
	case err != nil:
		k.Logger.Error().Err(err).Str("file", k.File).Msg("the serving certificate cannot be renewed")
	case !serving.Pair.Leaf.Equal(before):
		k.Holder.Set(serving)
		k.Logger.Info().Str("file", k.File).Time("expires", serving.Pair.Leaf.NotAfter).Msg("the serving certificate was renewed")
	}
}

// Warn logs that the certificate or its CA is not valid yet, has expired, or does so within 30
// days.
func (k *Keeper) Warn(now time.Time) {
	leaf := k.leaf()
	if from := k.Holder.Get().notBefore(); now.Before(from) {
		k.Logger.Error().Str("file", k.File).Time("validFrom", from).
			Msg("the serving certificate or its CA is not valid yet by this machine's clock; set the clock if it is wrong, or else replace the certificate")
		return
	}
	if !expiresSoon(leaf, now) {
		return
	}
	line, message := k.Logger.Warn(), "the serving certificate expires soon; "
	if now.After(leaf.NotAfter) {
		line, message = k.Logger.Error(), "the serving certificate has expired; "
	}
	line.Str("file", k.File).Time("expires", leaf.NotAfter).Msg(message + k.Remedy)
}

func (k *Keeper) leaf() *x509.Certificate { return k.Holder.Get().Pair.Leaf }

// expiresSoon reports whether a certificate is to be replaced.
func expiresSoon(cert *x509.Certificate, now time.Time) bool {
	return !now.Add(renewBefore).Before(cert.NotAfter)
}
