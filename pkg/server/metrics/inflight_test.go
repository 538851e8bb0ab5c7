package metrics

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f InFlight
		check := func(what string, want int) {
			t.Helper()
			if got := f.Most(time.Now()); got != want {
				t.Errorf("%s: %d, want %d", what, got, want)
			}
		}
		check("at first", 0)
		f.Enter()
		f.Enter()
		f.Leave()
		check("after two at once", 2)
		<-time.After(time.Second)
		check("a second later", 2)
		<-time.After(time.Second)
		check("two seconds later", 1)
		<-time.After(time.Hour)
		f.Leave()
		check("as the last one ends", 1)
		<-time.After(time.Minute)
		check("in the end", 0)
	})
}
