package mirror

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// maxPorts is how many ports a slice may have.
const maxPorts = 20_000

// Slice is a slice that mirrors a part of an Endpoints.
type Slice struct {
	*discoveryv1.EndpointSlice
	// Takes is the index of the existing slice that it overwrites; -1: it is new.
	Takes int
}

// Slices returns the slices that mirror e, whatever Mirrors says of it, in the place of those that
// mirrored it before: one for each family of addresses and set of ports, or several if that has
// more than 1,000 endpoints. They are complete, but have a generateName for a name and nothing that
// a server fills in. None is without endpoints, and addresses that no slice may have are left out.
//
// A slice keeps its family, ports and endpoints. An existing one whose ports nothing has any more is
// used again for what is new of the same family; surplus are those that remain, to be deleted. The
// order of the existing slices does not matter, but their names do.
//
// The slices share memory with e and with one another: whoever changes more than their
// metadata copies them first.
func Slices(e *corev1.Endpoints, existing []Existing) (wanted []Slice, surplus []int, err error) {
	addresses, sets, err := repack(e.Subsets)
	if err != nil {
		return nil, nil, err
	}
	b := builder{endpoints: e, addresses: addresses, ready: ptr.To(true), notReady: ptr.To(false), existing: existing}
	b.index()
	total := 0
	for _, set := range sets {
		groups := groupPorts(set.ports)
		for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
			members := b.distinct(set.members, family)
			if total += len(members) * len(groups); total > MaxEndpoints {
				return nil, nil, ErrTooMany
			}
			if len(members) > 0 {
				b.add(family, groups, members)
			}
		}
	}
	return b.slices, b.reuse(), nil
}

// groupPorts returns ports as slices may have them. In those of Kubernetes' mirror a name may
// occur twice, so that they are refused: here each port gets a slice of its own then.
func groupPorts(ports []port) [][]port {
	if len(ports) == 0 {
		return [][]port{nil}
	}
	size := maxPorts
	for i := range ports[1:] { // which are sorted by name
		if ports[i].name == ports[i+1].name {
			size = 1
		}
	}
	return slices.Collect(slices.Chunk(ports, size))
}

type builder struct {
	endpoints       *corev1.Endpoints
	addresses       []address
	ready, notReady *bool
	existing        []Existing
	groups          map[group][]int // the existing slices, in the order of their names
	slices          []Slice
}

// group is what slices have in common that divide a set of endpoints.
type group struct {
	family discoveryv1.AddressType
	ports  string // see portsKey
}

func (b *builder) index() {
	b.groups = map[group][]int{}
	order := make([]int, len(b.existing))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(b.existing[i].Name, b.existing[j].Name) })
	for _, i := range order {
		g := group{b.existing[i].AddressType, b.existing[i].ports}
		b.groups[g] = append(b.groups[g], i)
	}
}

// reuse gives existing slices that nobody has taken to new ones of the same family, and returns the
// others.
func (b *builder) reuse() (surplus []int) {
	taken := make([]bool, len(b.existing))
	for _, s := range b.slices {
		if s.Takes >= 0 {
			taken[s.Takes] = true
		}
	}
	var left []int
	for i := range b.existing {
		if !taken[i] {
			left = append(left, i)
		}
	}
	slices.SortStableFunc(left, func(i, j int) int { return cmp.Compare(b.existing[i].Name, b.existing[j].Name) })
	for i := range b.slices {
		s := &b.slices[i]
		at := slices.IndexFunc(left, func(k int) bool { return b.existing[k].AddressType == s.AddressType })
		if s.Takes < 0 && at >= 0 {
			s.Takes = left[at]
			left = slices.Delete(left, at, at+1)
		}
	}
	return left
}

// distinct returns the members of one family, each endpoint once.
func (b *builder) distinct(members []member, family discoveryv1.AddressType) []member {
	found := make([]member, 0, len(members))
	run := 0 // where the endpoints with the IP of the last one begin
	for _, m := range members {
		key := b.addresses[index(m)].key
		if key.family() != family {
			continue
		}
		if len(found) > run && b.addresses[index(found[run])].key != key {
			found = b.distinctRun(found, run)
			run = len(found)
		}
		found = append(found, m)
	}
	return b.distinctRun(found, run)
}

// distinctRun leaves the last one of equal endpoints, all of which have the same IP from run
// on. Not ready ones are behind ready ones, and else addresses are in order.
func (b *builder) distinctRun(members []member, run int) []member {
	if len(members)-run < 2 {
		return members
	}
	compare := func(m, n member) int {
		x, y := b.identity(m), b.identity(n)
		return cmp.Or(strings.Compare(x.hostname, y.hostname), strings.Compare(x.namespace, y.namespace), strings.Compare(x.name, y.name))
	}
	same := members[run:]
	slices.SortFunc(same, func(m, n member) int {
		return cmp.Or(compare(m, n), cmp.Compare(m&1, n&1), cmp.Compare(m, n))
	})
	kept := members[:run]
	for i, m := range same {
		if i+1 == len(same) || compare(m, same[i+1]) != 0 {
			kept = append(kept, m)
		}
	}
	return kept
}

func (b *builder) identity(m member) identity {
	a := b.addresses[index(m)].first
	id := identity{hostname: a.Hostname}
	if a.TargetRef != nil {
		id.namespace, id.name = a.TargetRef.Namespace, a.TargetRef.Name
	}
	return id
}

// add appends the slices of one family and the sets of ports that its members have.
func (b *builder) add(family discoveryv1.AddressType, sets [][]port, members []member) {
	var hashes []uint64
	if len(members) > maxPerSlice {
		hashes = make([]uint64, len(members))
		for i, m := range members {
			hashes[i] = hash(b.addresses[index(m)].key, b.identity(m))
		}
	}
	for _, ports := range sets {
		rendered := renderPorts(ports)
		for _, p := range place(members, hashes, b.groups[group{family, portsKey(ports)}], b.existing) {
			b.slices = append(b.slices, Slice{&discoveryv1.EndpointSlice{
				ObjectMeta: b.metadata(), AddressType: family, Endpoints: b.render(p.members), Ports: rendered,
			}, p.takes})
		}
	}
}

// portsKey is equal for equal sets of ports, which must be sorted.
func portsKey(ports []port) string {
	var key []byte
	for _, p := range ports {
		key = strconv.AppendQuote(key, p.name)
		key = strconv.AppendQuote(key, string(p.protocol))
		key = strconv.AppendInt(key, int64(p.number), 10)
		if p.hasApp {
			key = strconv.AppendQuote(key, p.app)
		}
		key = append(key, ',')
	}
	return string(key)
}

func (b *builder) render(members []member) []discoveryv1.Endpoint {
	endpoints := make([]discoveryv1.Endpoint, len(members))
	ips := make([]string, len(members))
	for i, m := range members {
		a := &b.addresses[index(m)]
		ips[i] = a.ip()
		endpoint := &endpoints[i]
		endpoint.Addresses = ips[i : i+1 : i+1]
		endpoint.Conditions.Ready = b.notReady
		if isReady(m) {
			endpoint.Conditions.Ready = b.ready
		}
		if a.first.Hostname != "" {
			endpoint.Hostname = &a.first.Hostname
		}
		endpoint.NodeName, endpoint.TargetRef = a.first.NodeName, a.first.TargetRef
	}
	return endpoints
}

func renderPorts(ports []port) []discoveryv1.EndpointPort {
	var rendered []discoveryv1.EndpointPort
	for _, p := range ports {
		out := discoveryv1.EndpointPort{Name: ptr.To(p.name), Protocol: ptr.To(p.protocol), Port: ptr.To(p.number)}
		if p.hasApp {
			out.AppProtocol = ptr.To(p.app)
		}
		rendered = append(rendered, out)
	}
	return rendered
}

func (b *builder) metadata() metav1.ObjectMeta {
	e := b.endpoints
	labels := make(map[string]string, len(e.Labels)+2)
	maps.Copy(labels, e.Labels)
	labels[discoveryv1.LabelServiceName] = e.Name
	labels[discoveryv1.LabelManagedBy] = ManagedBy
	annotations := maps.Clone(e.Annotations)
	delete(annotations, corev1.EndpointsLastChangeTriggerTime)
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	if len(annotations) == 0 {
		annotations = nil
	}
	return metav1.ObjectMeta{
		GenerateName: e.Name + "-", Namespace: e.Namespace, Labels: labels, Annotations: annotations,
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Endpoints", Name: e.Name, UID: e.UID,
			Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
		}},
	}
}
