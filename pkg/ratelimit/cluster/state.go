package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-project/berth/pkg/ratelimit"
)

// A block is a part of a bucket: of its tokens, and of the rate at which it gains them.
const (
	// unit is the smallest block, as the reciprocal of its share of the bucket.
	unit = 16
	// maxBlock is the largest block of one replica, in units.
	maxBlock = unit / 2
	// maxBlocks bounds the blocks of all replicas together, in units, so that what they have in
	// common goes on gaining tokens.
	maxBlocks = 3 * unit / 4
)

// block is what one replica has of a bucket.
type block struct {
	replica string
	units   int
}

// state is what all replicas know of a bucket: what is owed to its common part, which is all of it
// except for the blocks. The common part holds burst×(1−b) tokens when it is full, and gains
// rate×(1−b) of them per second, where b is the share of the blocks. So the bounds of the blocks and
// of the common part add up to those of the bucket, whoever takes from which of them.
type state struct {
	at     int64   // the time of the state, in nanoseconds of the replicas' clock
	debt   float64 // tokens that the common part lacks
	given  int64   // by how much time what was given back has brought forward when the common part is full, ever
	blocks []block // sorted by replica
	// wanted says that the bucket is nearly empty, or too empty for somebody: blocks are to be given back,
	// and no others are made.
	wanted bool
}

// stateOf is a state with a bucket's limit, to compute with.
type stateOf struct {
	state
	limit ratelimit.Limit
}

// units returns the size of all blocks together.
func (s *state) units() (n int) {
	for _, b := range s.blocks {
		n += b.units
	}
	return n
}

// own returns the size of a replica's block, 0 if it has none.
func (s *state) own(replica string) int {
	for _, b := range s.blocks {
		if b.replica == replica {
			return b.units
		}
	}
	return 0
}

// tokens returns how many tokens a block of so many units has when it is full.
func tokens(l ratelimit.Limit, units int) float64 {
	return float64(l.Burst) * float64(units) / unit
}

// rate returns how many tokens the common part gains per second.
func (s *stateOf) rate() float64 { return s.limit.QPS * float64(unit-s.units()) / unit }

// level returns how many tokens the common part has; below 0 it owes some.
func (s *stateOf) level() float64 { return tokens(s.limit, unit-s.units()) - s.debt }

// epsilon is how many tokens count as none: what the rounding of times to nanoseconds can make of
// them, and of the floating-point numbers.
func (s *stateOf) epsilon() float64 { return 1e-9*float64(s.limit.Burst) + 4e-9*s.limit.QPS }

// maxDebt is the most that the common part lacks: it owes one request at most. A stored state that
// says more is not true.
func (s *stateOf) maxDebt() float64 {
	return tokens(s.limit, unit-s.units()) + ratelimit.MaxWeight
}

// relimit changes the limit. The tokens are kept, up to the new size.
func (s *stateOf) relimit(l ratelimit.Limit) {
	level := s.level()
	s.limit = l
	s.setLevel(level)
}

// setLevel has the common part have so many tokens, as far as it can.
func (s *stateOf) setLevel(level float64) {
	s.debt = min(max(0, tokens(s.limit, unit-s.units())-level), s.maxDebt())
}

// advance lets the time pass. A time before that of the state counts as that.
func (s *stateOf) advance(now int64) {
	if now > s.at {
		s.debt -= float64(now-s.at) / float64(time.Second) * s.rate()
		s.at = now
	}
	s.debt = min(max(s.debt, 0), s.maxDebt())
}

// wait returns the time until the common part has n tokens, 0 if it has them.
func (s *stateOf) wait(n float64) time.Duration {
	missing := n - s.level()
	if missing <= s.epsilon() {
		return 0
	}
	return duration(missing / s.rate())
}

// duration returns seconds as a Duration of at least a nanosecond, rounded to the nearest one, and
// the longest one for more than that.
func duration(seconds float64) time.Duration {
	ns := math.Round(seconds * float64(time.Second))
	return time.Duration(min(max(ns, 1), 1<<61))
}

// maxGiven bounds what is given back ever, in nanoseconds: 146 years.
const maxGiven = 1 << 62

// give adds to the common part tokens that a replica has taken and not used.
func (s *stateOf) give(n float64) {
	if n > 0 {
		s.debt = max(0, s.debt-n)
		s.given = min(s.given+int64(duration(n/s.limit.QPS)), maxGiven)
	}
}

// lapseAt returns when tokens that are taken in advance have lapsed: as the bucket gains as many again.
func (s *stateOf) lapseAt() int64 { return s.at + int64(duration(s.debt/s.limit.QPS)) }

// join makes a block of the common part, which must have its tokens.
func (s *stateOf) join(replica string, units int) {
	i, _ := slices.BinarySearchFunc(s.blocks, replica, func(b block, replica string) int { return strings.Compare(b.replica, replica) })
	s.blocks = slices.Insert(slices.Clone(s.blocks), i, block{replica, units})
}

// leave makes the block of a replica a part of the common part again, with the tokens that are
// left in it. It does nothing if there is none.
func (s *stateOf) leave(replica string, left float64) {
	units := s.own(replica)
	if units == 0 {
		return
	}
	s.blocks = slices.DeleteFunc(slices.Clone(s.blocks), func(b block) bool { return b.replica == replica })
	full := tokens(s.limit, units)
	s.debt += full - min(left, full)
}

// pay charges what was admitted without asking, as far as the bucket has it: the time in which it
// was admitted would have paid for it, had it been told.
func (s *stateOf) pay(n float64) { s.debt += min(n, max(0, s.level())) }

// batch is how many tokens are taken at once of a bucket that is nearly empty, if they are there:
// what it gains in a quarter of a second, or up to forty where these take up to 0.6 seconds. It is at
// least 1, and at most half a bucket, which must not become full while one waits for a batch.
func batch(l ratelimit.Limit) float64 {
	return max(1, math.Floor(min(max(l.QPS/4, min(40, 0.6*l.QPS)), float64(l.Burst)/2)))
}

// smallest returns the units of the smallest block that has a token, 0 if there is none.
func smallest(l ratelimit.Limit) int {
	for units := 1; units <= maxBlock; units *= 2 {
		if tokens(l, units) >= 1 {
			return units
		}
	}
	return 0
}

// grant is what a replica gets of a bucket beside the tokens of the request that asked: a block, or
// else some tokens.
type grant struct {
	units int
	extra float64
}

// take takes n tokens, of which need must be there, for a replica without a block, and takes nothing if
// they are not. While there are plenty the replica gets a block, of the given units at most; else it
// gets extra tokens, about as many as wanted or a batch.
func (s *stateOf) take(replica string, need, n, units int, wanted float64) (g grant, ok bool) {
	if s.level() < float64(need)-s.epsilon() {
		return grant{}, false
	}
	s.debt += float64(n)
	quarter := float64(s.limit.Burst) / 4
	plenty := max(quarter, batch(s.limit)*5/4) // more than what replicas wait for
	for least := smallest(s.limit); least > 0 && units >= least && !s.wanted; units /= 2 {
		if s.units()+units <= maxBlocks && s.level()-tokens(s.limit, units) >= plenty {
			s.join(replica, units)
			return grant{units: units}, true
		}
	}
	level := math.Floor(s.level() + s.epsilon())
	extra := max(0, min(level, max(batch(s.limit), wanted, math.Floor(level/4))))
	s.debt += extra
	s.wanted = s.wanted || s.level() < quarter
	s.settle()
	return grant{extra: extra}, true
}

// settle ends the wish for blocks when there are none.
func (s *stateOf) settle() { s.wanted = s.wanted && len(s.blocks) > 0 }

// encode returns the state as it is stored: how many tokens the common part has, and the time at which
// it has them. What was given back, whether blocks are wanted, and the blocks follow.
func (s *stateOf) encode() []byte {
	data := fmt.Appendf(nil, "%v %d %d", s.level(), s.at, s.given)
	if s.wanted {
		data = append(data, " wanted"...)
	}
	for _, b := range s.blocks {
		data = fmt.Appendf(data, " %s:%d", b.replica, b.units)
	}
	return data
}

var errDamaged = errors.New("a stored bucket is damaged")

// decode reads what encode has written, by whatever limit. What the bucket can neither have nor owe
// counts as the most that it can.
func decode(data []byte, l ratelimit.Limit) (stateOf, error) {
	fields := bytes.Fields(data)
	if len(fields) < 3 || len(fields) > 4+maxBlocks {
		return stateOf{}, errDamaged
	}
	level, err := strconv.ParseFloat(string(fields[0]), 64)
	at, atErr := strconv.ParseInt(string(fields[1]), 10, 64)
	given, givenErr := strconv.ParseInt(string(fields[2]), 10, 64)
	if err != nil || atErr != nil || givenErr != nil || at < 0 || given < 0 || given > maxGiven || math.IsNaN(level) {
		return stateOf{}, errDamaged
	}
	s, fields := stateOf{state: state{at: at, given: given}, limit: l}, fields[3:]
	if s.wanted = len(fields) > 0 && string(fields[0]) == "wanted"; s.wanted {
		fields = fields[1:]
	}
	for _, field := range fields {
		replica, units, ok := strings.Cut(string(field), ":")
		n, err := strconv.Atoi(units)
		if !ok || err != nil || n < 1 || n > maxBlock || len(s.blocks) > 0 && s.blocks[len(s.blocks)-1].replica >= replica {
			return stateOf{}, errDamaged
		}
		s.blocks = append(s.blocks, block{replica, n})
	}
	if s.units() > maxBlocks {
		return stateOf{}, errDamaged
	}
	s.setLevel(level)
	return s, nil
}
