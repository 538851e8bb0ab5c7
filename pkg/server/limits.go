package server

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// LimitsPath shows the limits of one user, and what is left of them. It is not kube-apiserver's.
const LimitsPath = "/debug/limits"

// maxShownTokens bounds the tokens of a user whose buckets are shown.
const maxShownTokens = 100

// Limits is what LimitsPath answers.
type Limits struct {
	User   string   `json:"user"`
	Groups []string `json:"groups"`
	// Exempt says that the user's requests and watches in progress are not limited; memory is.
	Exempt bool    `json:"exempt"`
	Rates  []Rate  `json:"rates"`  // none for whom --rate-limit-config exempts
	Shares []Share `json:"shares"` // each limit that users share
	// More is how many tokens the user has beside those in Rates.
	More int `json:"moreTokens,omitempty"`
}

// Rate is a token bucket.
type Rate struct {
	Limit string  `json:"limit"`           // as in berth_rejected_requests_total
	Token string  `json:"token,omitempty"` // the beginning of its SHA-256; empty: all tokens of the user share it
	QPS   float64 `json:"qps"`
	Burst int     `json:"burst"`
	Left  float64 `json:"left"` // below 0: large requests have taken more than there was
}

// Share is what one user, and all together, have of something. A bound of 0 is none.
type Share struct {
	Limit   string `json:"limit"` // as in berth_rejected_requests_total
	Used    int64  `json:"used"`
	PerUser int64  `json:"perUser"`
	AllUsed int64  `json:"allUsed"`
	Total   int64  `json:"total"`
}

// limits answers with the limits of the user that the query names, by default the one who asks.
// Only administrators may ask for others.
func (s *Server) limits(w http.ResponseWriter, req *http.Request) {
	rec, user := recordOf(w), req.URL.Query().Get("user")
	own := rec.attrs.User
	if user == "" {
		user = own.Name
	}
	if user != own.Name && !slices.Contains(own.Groups, auth.SystemPrivilegedGroup) {
		s.renderError(rec, apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("only members of "+auth.SystemPrivilegedGroup+" may see the limits of other users")))
		return
	}
	identities := s.identitiesOf(user, rec.identity)
	if len(identities) == 0 {
		s.renderError(rec, apierrors.NewNotFound(schema.GroupResource{Resource: "users"}, user))
		return
	}
	data, err := json.MarshalIndent(s.limitsOf(identities), "", "  ")
	if err != nil {
		s.renderError(rec, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(data, '\n')) // a client that has gone needs no answer
}

// identitiesOf returns the identities of a user, in the order of their ids, one for each: that of
// who asks rather than another.
func (s *Server) identitiesOf(user string, asks *auth.Identity) []*auth.Identity {
	all := slices.Concat(s.cfg.Authenticator.Of(user), s.cfg.Certificates.Of(user))
	if i := slices.Index(all, asks); i > 0 {
		all[0], all[i] = all[i], all[0]
	}
	slices.SortStableFunc(all, func(a, b *auth.Identity) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return slices.CompactFunc(all, func(a, b *auth.Identity) bool { return a.ID == b.ID })
}

// bounded returns a bound of a pool, 0 where it has none.
func bounded(n int64) int64 {
	if n == math.MaxInt64 {
		return 0
	}
	return n
}

// limitsOf returns the limits of a user with these tokens.
func (s *Server) limitsOf(identities []*auth.Identity) Limits {
	user := identities[0].User
	answer := Limits{
		User: user.Name, Groups: user.Groups, Rates: []Rate{},
		Exempt: slices.Contains(user.Groups, auth.SystemPrivilegedGroup),
		More:   max(0, len(identities)-maxShownTokens),
	}
	now := time.Now()
	for i, identity := range identities[:min(len(identities), maxShownTokens)] {
		subject := subjectOf(identity)
		for _, class := range []ratelimit.Class{ratelimit.Read, ratelimit.Write} {
			state, limited := s.cfg.Limiter.State(now, subject, class)
			if !limited || state.PerUser && i > 0 {
				continue
			}
			rate := Rate{Limit: rateLimit(class), QPS: state.QPS, Burst: state.Burst, Left: state.Tokens}
			if !state.PerUser {
				rate.Token = hex.EncodeToString(identity.ID[:4])
			}
			answer.Rates = append(answer.Rates, rate)
		}
	}
	for _, pool := range s.pools.all() {
		answer.Shares = append(answer.Shares, Share{
			Limit: pool.limit, Used: pool.UsedBy(user.Name), PerUser: bounded(pool.PerUser()), AllUsed: pool.InUse(), Total: bounded(pool.Total()),
		})
	}
	return answer
}
