package certificates

import (
	"context"
	"crypto/tls"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/berth-project/berth/test/harness"
)

// keep runs a keeper of a new certificate in a bubble of time, until the test ends.
func keep(t *testing.T) (dir Dir, holder *Holder, log *harness.Output) {
	t.Helper()
	dir, holder, log = Dir(t.TempDir()), &Holder{}, new(harness.Output)
	renew := func(now time.Time) (*Serving, error) { return dir.Ensure([]string{"localhost"}, now) }
	serving, err := renew(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	holder.Set(serving)
	keeper := &Keeper{Holder: holder, Renew: renew, Remedy: "do this", File: dir.Cert(), Logger: zerolog.New(log)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		keeper.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return dir, holder, log
}

// pass lets time pass, and everything that is due then happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestKeeperRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, holder, log := keep(t)
		first := holder.Get().Pair.Leaf
		pass(certLifetime - renewBefore - time.Minute)
		if !holder.Get().Pair.Leaf.Equal(first) || log.String() != "" {
			t.Errorf("too early: %s", log)
		}
		pass(time.Minute)
		served, err := holder.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		if want := time.Now().Add(certLifetime); !served.Leaf.NotAfter.Equal(want) {
			t.Errorf("it ends at %v, want %v", served.Leaf.NotAfter, want)
		}
		verify(t, []byte(harness.ReadFile(t, dir.CACert())), served.Leaf, time.Now())
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"file":"`+dir.Cert()+`"`) || !strings.Contains(got, "the serving certificate was renewed") {
			t.Errorf("it logged %s", got)
		}
		pass(certLifetime)
		if got := strings.Count(log.String(), "was renewed"); got != 2 {
			t.Errorf("after a year it was renewed %d times, want 2", got)
		}
	})
}

func TestKeeperWarns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, holder, log := keep(t)
		first := holder.Get().Pair.Leaf
		if err := os.Rename(dir.CAKey(), dir.CAKey()+".elsewhere"); err != nil {
			t.Fatal(err)
		}
		pass(certLifetime - renewBefore)
		for _, want := range []string{"cannot be renewed", "ca.key does not exist", `"level":"warn","file":"` + dir.Cert(), "expires soon; do this"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("no %q in %s", want, log)
			}
		}
		pass(10 * checkInterval)
		if got := strings.Count(log.String(), "expires soon"); got != 11 {
			t.Errorf("%d warnings in five days, want 11", got)
		}
		pass(renewBefore)
		if !strings.Contains(log.String(), "has expired; do this") || !holder.Get().Pair.Leaf.Equal(first) {
			t.Errorf("it logged %s", log)
		}
		// The key is back.
		if err := os.Rename(dir.CAKey()+".elsewhere", dir.CAKey()); err != nil {
			t.Fatal(err)
		}
		pass(checkInterval)
		if holder.Get().Pair.Leaf.NotAfter.Before(time.Now().Add(renewBefore)) {
			t.Errorf("it was not renewed: %s", log)
		}
	})
}

func TestKeeperWarnsOfACertificateFromTheFuture(t *testing.T) {
	dir, holder, log := Dir(t.TempDir()), &Holder{}, new(harness.Output)
	now := time.Now()
	serving, err := dir.Ensure([]string{"localhost"}, now.Add(48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	holder.Set(serving)
	keeper := &Keeper{Holder: holder, File: dir.Cert(), Logger: zerolog.New(log)}
	if keeper.Warn(now); !strings.Contains(log.String(), `"level":"error","file":"`+dir.Cert()+`","validFrom":`) ||
		!strings.Contains(log.String(), "not valid yet by this machine's clock; set the clock if it is wrong") {
		t.Errorf("it logged %s", log)
	}
}
