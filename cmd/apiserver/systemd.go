package main

import (
	"github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd the state of the service, by the protocol of sd_notify(3). It does
// nothing if systemd has not asked for it, which a unit does with Type=notify.
func (i *instance) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		i.logger.Warn().Err(err).Str("state", state).Msg("cannot notify systemd")
	}
}
