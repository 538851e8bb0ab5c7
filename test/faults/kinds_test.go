package faults

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// kind is a kind of faults of a system. inject makes one happen and returns what ends it; nil where
// nothing does. Where needs is not nil, it reports whether this machine can have such faults. One that
// is slow is not among those of a short run.
type kind[S any] struct {
	name   string
	inject func(t *testing.T, system S, random *rand.Rand) (heal func())
	needs  func() bool
	slow   bool
}

var kinds = []kind[*cluster]{
	{name: "kill a server", inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		return crash(t, c.anyReplica(random).process)
	}},
	{name: "stop a server", inject: func(_ *testing.T, c *cluster, random *rand.Rand) func() { return freeze(c.anyReplica(random).process) }},
	{name: "kill all servers", inject: func(t *testing.T, c *cluster, _ *rand.Rand) func() {
		return crash(t, c.replicas[0].process, c.replicas[1].process, c.replicas[2].process)
	}},
	{name: "kill a member", inject: func(t *testing.T, c *cluster, random *rand.Rand) func() { return crash(t, c.anyMember(random).process) }},
	{name: "stop a member", inject: func(_ *testing.T, c *cluster, random *rand.Rand) func() { return freeze(c.anyMember(random).process) }},
	{name: "kill the leader", inject: func(t *testing.T, c *cluster, _ *rand.Rand) func() { return crash(t, c.leader(t).process) }},
	{name: "stop the leader", inject: func(t *testing.T, c *cluster, _ *rand.Rand) func() { return freeze(c.leader(t).process) }},
	{name: "kill two members", inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		i := random.IntN(size)
		return crash(t, c.members[i].process, c.members[(i+1)%size].process)
	}},
	{name: "kill all members", inject: func(t *testing.T, c *cluster, _ *rand.Rand) func() {
		return crash(t, c.members[0].process, c.members[1].process, c.members[2].process)
	}},
	{name: "cut a server off", inject: func(_ *testing.T, c *cluster, random *rand.Rand) func() {
		return c.isolate(c.anyReplica(random).name, rule{cut: true}, true, true)
	}},
	{name: "cut a server off one way", inject: func(_ *testing.T, c *cluster, random *rand.Rand) func() {
		to := random.IntN(2) == 0
		return c.isolate(c.anyReplica(random).name, rule{cut: true}, to, !to)
	}},
	{name: "cut a member off", inject: func(_ *testing.T, c *cluster, random *rand.Rand) func() {
		return c.isolate(c.anyMember(random).name, rule{cut: true}, true, true)
	}},
	{name: "cut the leader off", inject: func(t *testing.T, c *cluster, _ *rand.Rand) func() {
		return c.isolate(c.leader(t).name, rule{cut: true}, true, true)
	}},
	{name: "cut the leader off one way", inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		to := random.IntN(2) == 0
		return c.isolate(c.leader(t).name, rule{cut: true}, to, !to)
	}},
	{name: "cut the leader off from the members", inject: func(t *testing.T, c *cluster, _ *rand.Rand) func() {
		leader := c.leader(t).name
		for _, m := range c.members {
			c.set(rule{cut: true}, link{leader, m.name}, link{m.name, leader})
		}
		return c.network.heal
	}},
	{name: "slow links", inject: func(_ *testing.T, c *cluster, random *rand.Rand) func() {
		return c.everywhere(rule{delay: time.Duration(10+random.IntN(90)) * time.Millisecond})
	}},
	{name: "lossy links", inject: func(_ *testing.T, c *cluster, random *rand.Rand) func() {
		return c.everywhere(rule{delay: time.Millisecond, loss: 0.02 + 0.1*random.Float64()})
	}},
	{name: "break connections", inject: func(_ *testing.T, c *cluster, _ *rand.Rand) func() { return c.everywhere(rule{reset: true}) }},
	{name: "fail fsync of a member", needs: canTrace, inject: func(t *testing.T, c *cluster, random *rand.Rand) func() {
		return failSync(t, c.anyMember(random).process)
	}},
	{name: "compact under lagging watchers", inject: compactUnderLag},
	{name: "replace a member", slow: true, inject: replaceMember},
	{name: "rotate the tokens", inject: func(t *testing.T, c *cluster, _ *rand.Rand) func() {
		c.rotating.Store(true)
		c.rotateToken(t)
		return nil
	}},
	{name: "rotate the certificates", inject: rotateCertificates},
}

func (c *cluster) anyReplica(random *rand.Rand) *replica { return c.replicas[random.IntN(size)] }
func (c *cluster) anyMember(random *rand.Rand) *member   { return c.members[random.IntN(size)] }

// crash kills processes; the heal starts them again.
func crash(t *testing.T, all ...*process) func() {
	for _, p := range all {
		p.kill()
	}
	return func() {
		for _, p := range all {
			p.start(t)
		}
	}
}

// freeze stops a process, whose connections stay; the heal lets it go on.
func freeze(p *process) func() {
	p.signal(syscall.SIGSTOP)
	return func() { p.signal(syscall.SIGCONT) }
}

// isolate sets a rule for the links to a process, from it, or both.
func (c *cluster) isolate(name string, r rule, to, from bool) func() {
	for _, other := range c.others(name) {
		if to {
			c.set(r, link{other, name})
		}
		if from {
			c.set(r, link{name, other})
		}
	}
	return c.network.heal
}

// everywhere sets a rule for all links.
func (c *cluster) everywhere(r rule) func() {
	for _, m := range c.members {
		c.isolate(m.name, r, true, true)
	}
	return c.network.heal
}

// compactUnderLag cuts a server off until etcd has compacted what the server has not seen.
func compactUnderLag(t *testing.T, c *cluster, random *rand.Rand) func() {
	name := c.anyReplica(random).name
	before := c.recorder.at()
	heal := c.isolate(name, rule{reset: true}, true, true)
	return func() {
		await(t, "there are changes to compact", func(context.Context) error {
			if now := c.recorder.at(); now < before+10 {
				return fmt.Errorf("%d changes", now-before)
			}
			return nil
		})
		await(t, "etcd compacts", func(ctx context.Context) error {
			_, err := c.direct.Compact(ctx, c.recorder.at(), clientv3.WithCompactPhysical())
			if errors.Is(err, rpctypes.ErrCompacted) {
				return nil
			}
			return err
		})
		heal()
	}
}

// replaceMember removes a member that has lost its data, and adds another in its place.
func replaceMember(t *testing.T, c *cluster, random *rand.Rand) func() {
	m := c.anyMember(random)
	m.kill()
	id := uint64(0)
	await(t, "the member is removed", func(ctx context.Context) error {
		all, err := c.direct.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, other := range all.Members {
			if other.Name == m.name {
				id = other.ID
				_, err = c.direct.MemberRemove(ctx, id)
				return err
			}
		}
		return nil
	})
	if err := os.RemoveAll(m.data); err != nil {
		t.Fatal(err)
	}
	return func() {
		await(t, "the member is added", func(ctx context.Context) error {
			_, err := c.direct.MemberAdd(ctx, []string{"http://" + m.peers})
			if errors.Is(err, rpctypes.ErrPeerURLExist) {
				return nil
			}
			return err
		})
		m.state = "existing"
		m.start(t)
		// Faults that follow may leave no majority without it.
		await(t, "the member serves", func(ctx context.Context) error {
			status, err := c.direct.Status(ctx, "http://"+m.client)
			if err == nil && status.Leader == 0 {
				err = errors.New("it knows no leader")
			}
			return err
		})
	}
}

// rotateCertificates replaces the certificate of all servers, of which each must serve it.
func rotateCertificates(t *testing.T, c *cluster, _ *rand.Rand) func() {
	c.rotateCertificate(t, "")
	return func() {
		for _, r := range c.replicas {
			address, err := url.Parse(r.url)
			if err != nil {
				t.Fatal(err)
			}
			await(t, "the server has the new certificate", func(ctx context.Context) error {
				// Whose it is, is looked at below.
				dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
				conn, err := dialer.DialContext(ctx, "tcp", address.Host)
				if err != nil {
					return err
				}
				defer conn.Close()
				if !conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Equal(c.serial) {
					return errors.New("it has the old one")
				}
				return nil
			})
			r.http.CloseIdleConnections()
		}
	}
}
