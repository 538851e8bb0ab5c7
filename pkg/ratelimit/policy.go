package ratelimit

import (
	"cmp"
	"fmt"
	"slices"
)

// Class is the kind of a request. Each kind has its own bucket.
type Class uint8

// The classes.
const (
	Read  Class = iota // get, list, watch
	Write              // every verb that changes something
)

// String returns "read" or "write".
func (c Class) String() string {
	if c == Read {
		return "read"
	}
	return "write"
}

const privilegedGroup = "system:masters"

// rule is an override, or the defaults, with everything filled in.
type rule struct {
	limits  [2]Limit // by Class
	perUser bool
	exempt  bool
}

// policy is a Config prepared for lookups. It is immutable.
type policy struct {
	rules         []rule // in order of precedence, the defaults last
	users, groups map[string]int
	anonymous     Limit
}

// newPolicy panics if c is invalid; nil means DefaultConfig.
func newPolicy(c *Config) *policy {
	if c == nil {
		c = &Config{}
	}
	if err := c.validate().ToAggregate(); err != nil {
		panic(fmt.Sprintf("ratelimit: invalid Config: %v", err))
	}
	builtIn := DefaultConfig()
	defaults := rule{
		limits: [2]Limit{
			Read:  *cmp.Or(c.Defaults.Read, builtIn.Defaults.Read),
			Write: *cmp.Or(c.Defaults.Write, builtIn.Defaults.Write),
		},
		perUser: c.Defaults.Per == PerUser,
	}
	overrides := append(slices.Clone(c.Overrides), Override{Groups: []string{privilegedGroup}, Exempt: true})
	p := &policy{
		rules:     make([]rule, len(overrides), len(overrides)+1),
		users:     map[string]int{},
		groups:    map[string]int{},
		anonymous: *cmp.Or(c.Anonymous, builtIn.Anonymous),
	}
	for i, o := range slices.Backward(overrides) { // the first one that names somebody stays
		p.rules[i] = rule{
			limits: [2]Limit{
				Read:  *cmp.Or(o.Read, &defaults.limits[Read]),
				Write: *cmp.Or(o.Write, &defaults.limits[Write]),
			},
			perUser: cmp.Or(o.Per, c.Defaults.Per) == PerUser,
			exempt:  o.Exempt,
		}
		for _, name := range o.Users {
			p.users[name] = i
		}
		for _, name := range o.Groups {
			p.groups[name] = i
		}
	}
	p.rules = append(p.rules, defaults)
	return p
}

// match returns the index of the rule for a user in groups. It costs one map lookup per
// name, however many overrides there are, so results need no caching and changes of a
// user's groups take effect at once.
func (p *policy) match(user string, groups []string) int {
	best := len(p.rules) - 1
	if i, ok := p.users[user]; ok {
		best = i
	}
	for _, group := range groups {
		if i, ok := p.groups[group]; ok {
			best = min(best, i)
		}
	}
	return best
}
