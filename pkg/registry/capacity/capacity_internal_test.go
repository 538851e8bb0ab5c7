package capacity

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-project/berth/pkg/storage"
)

// empty is a cache that nothing ever gets into.
type empty struct{ Cache }

// What may still be written keeps its room until that is certain not to happen any more.
func TestUnknownWritesKeepTheirRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, cache := New(100), &empty{}
		release, err := c.Reserve(map[Cache]int64{cache: 60})
		if err != nil {
			t.Fatal(err)
		}
		release(storage.WriteResponse{}, false, storage.ErrUnknownOutcome)
		<-time.After(unknownHold - time.Second)
		if _, err := c.Reserve(map[Cache]int64{cache: 60}); err == nil {
			t.Error("the room is given away")
		}
		<-time.After(2 * time.Second)
		if _, err := c.Reserve(map[Cache]int64{cache: 100}); err != nil {
			t.Error(err)
		}
	})
}
