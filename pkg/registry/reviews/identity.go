package reviews

import (
	"context"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/auth"
)

// audience is for whom tokens are. It is kube-apiserver's own name in most clusters, for which
// their programs ask.
const audience = "https://kubernetes.default.svc.cluster.local"

// answerSelfSubject tells who asks. Whatever the client sends is dropped.
func answerSelfSubject(ctx context.Context, _ *Config, _ string, asked review) error {
	*asked.(*authenticationv1.SelfSubjectReview) = authenticationv1.SelfSubjectReview{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Now()},
		Status:     authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(auth.UserFrom(ctx))},
	}
	return nil
}

// answerToken tells whose a token is.
func answerToken(ctx context.Context, cfg *Config, _ string, asked review) error {
	r := asked.(*authenticationv1.TokenReview)
	// A header could hold no more than the part before a space.
	token, _, _ := strings.Cut(strings.TrimSpace(r.Spec.Token), " ")
	if token == "" {
		return apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	identity, ok, err := cfg.Authenticator.Authenticate(ctx, token)
	switch {
	case err != nil:
		return err
	case !ok, len(r.Spec.Audiences) > 0 && !slices.Contains(r.Spec.Audiences, audience):
		r.Status = authenticationv1.TokenReviewStatus{Error: "invalid bearer token"}
		return nil
	}
	r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: userInfo(&identity.User), Audiences: []string{audience}}
	return nil
}

func userInfo(user *auth.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: user.Name, UID: user.UID, Groups: user.Groups}
	if len(user.Extra) > 0 {
		info.Extra = make(map[string]authenticationv1.ExtraValue, len(user.Extra))
		for key, values := range user.Extra {
			info.Extra[key] = values
		}
	}
	return info
}
