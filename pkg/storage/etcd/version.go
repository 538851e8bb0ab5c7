package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/util/version"
)

// memberTimeout bounds how long CheckVersions waits for each round of answers.
const memberTimeout = 2 * time.Second

// checkInterval is how often WatchVersions asks all members.
const checkInterval = 30 * time.Second

// firstReliable is the first version of each minor release whose progress notifications can
// be relied on, according to etcd's changelogs. The fix of etcd-io/etcd#15220 (3.4.25,
// 3.5.8) stopped them from overtaking events, but until 3.4.31 and 3.5.13 a watch without
// events could stay without an answer forever (#17507), and a slow one lose events to a
// compaction (#17555). kube-apiserver draws the same line. Later minor releases are
// reliable from the start.
var firstReliable = map[uint]*version.Version{
	4: version.MustParseSemantic("3.4.31"),
	5: version.MustParseSemantic("3.5.13"),
	6: version.MustParseSemantic("3.6.0-rc.0"),
}

// oldestReliable is the version required of a member whose minor release has no reliable one.
var oldestReliable = firstReliable[4]

// checkVersion returns an error with the required version if a member of version v cannot
// be used, and an error if v is not a version.
func checkVersion(v string) error {
	parsed, err := version.ParseSemantic(v)
	if err != nil {
		return fmt.Errorf("has the unknown version %q", v)
	}
	first := firstReliable[parsed.Minor()]
	if parsed.Major() != 3 || first == nil {
		first = oldestReliable
	}
	if parsed.LessThan(first) {
		return fmt.Errorf("has version %s, whose watches are not reliable (etcd-io/etcd#15220): it needs %s or later", v, first)
	}
	return nil
}

// member is a member's answer about itself.
type member struct {
	url         string
	id, cluster uint64
	version     string
}

// CheckVersions asks every member of client's cluster for its version: at the client's
// endpoints and, for the other members, at the URLs by which the cluster knows them. It
// returns an error that names each member whose version cannot be used, or an error if no
// member answered. If only some members do not answer, that is no error and silent names
// them. CheckVersions returns within some seconds.
func CheckVersions(ctx context.Context, client *clientv3.Client) (silent []string, err error) {
	members, silent, err := ask(ctx, client, client.Endpoints())
	if len(members) == 0 {
		return silent, fmt.Errorf("no member tells its version: %w", err)
	}
	others, urls := unasked(ctx, client, members)
	found, _, _ := ask(ctx, client, urls)
	for _, m := range found {
		// A member's URL, such as localhost, may be another etcd's address here.
		if m.cluster == members[0].cluster && others[m.id] != "" {
			delete(others, m.id)
			members = append(members, m)
		}
	}
	for _, name := range others {
		silent = append(silent, name)
	}
	var faults []string
	for _, m := range members {
		if err := checkVersion(m.version); err != nil {
			faults = append(faults, fmt.Sprintf("etcd at %s %v", m.url, err))
		}
	}
	if len(faults) > 0 {
		return silent, errors.New(strings.Join(faults, "; "))
	}
	return silent, nil
}

// WatchVersions repeats the check until ctx ends, for members that did not answer before,
// are new, or have changed their version. It logs an error as long as one cannot be used:
// requests continue, and watches that miss events end.
func WatchVersions(ctx context.Context, client *clientv3.Client, logger zerolog.Logger) {
	watchVersions(ctx, client, logger, time.Tick(checkInterval))
}

func watchVersions(ctx context.Context, client *clientv3.Client, logger zerolog.Logger, ticks <-chan time.Time) {
	for {
		select {
		case <-ticks:
			if _, err := CheckVersions(ctx, client); err != nil && ctx.Err() == nil {
				logger.Error().Err(err).Msg("the version of an etcd member cannot be used or is not known")
			}
		case <-ctx.Done():
			return
		}
	}
}

// unasked returns the cluster's other members, each with a name for messages, and their
// URLs. It returns none if the cluster does not list its members.
func unasked(ctx context.Context, client *clientv3.Client, asked []member) (others map[uint64]string, urls []string) {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	others = map[uint64]string{}
	list, err := client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return others, nil
	}
	for _, m := range list.Members {
		known := slices.ContainsFunc(asked, func(a member) bool { return a.id == m.ID })
		if !known && len(m.ClientURLs) > 0 { // a member that has not started has none
			others[m.ID] = m.ClientURLs[0]
			urls = append(urls, m.ClientURLs...)
		}
	}
	return others, urls
}

// ask asks all URLs concurrently. It returns the answers, the URLs without one, and an
// error of one of those.
func ask(ctx context.Context, client *clientv3.Client, urls []string) (members []member, silent []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	answers, errs := make([]*clientv3.StatusResponse, len(urls)), make([]error, len(urls))
	var asking sync.WaitGroup
	for i, url := range urls {
		asking.Go(func() { answers[i], errs[i] = client.Status(ctx, url) })
	}
	asking.Wait()
	for i, url := range urls {
		if errs[i] != nil {
			silent, err = append(silent, url), errs[i]
			continue
		}
		header := answers[i].Header
		members = append(members, member{url, header.GetMemberId(), header.GetClusterId(), answers[i].Version})
	}
	return members, silent, err
}
