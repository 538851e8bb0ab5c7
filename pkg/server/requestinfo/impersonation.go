package requestinfo

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/berth-project/berth/pkg/auth"
)

// MaxImpersonated bounds the groups and the values of extra keys of who a request is made as: each of
// them is a question to the authorizer.
const MaxImpersonated = 1000

const (
	impersonateUser  = "Impersonate-User"
	impersonateGroup = "Impersonate-Group"
	impersonateUID   = "Impersonate-Uid"
	impersonateExtra = "Impersonate-Extra-"
)

// Impersonated returns the user as whom a request is to be made, and reports whether there is one. The
// error is BadRequest: other headers lack the user that they are about, or they are too many.
func Impersonated(header http.Header) (user auth.User, ok bool, err error) {
	user = auth.User{Name: header.Get(impersonateUser), UID: header.Get(impersonateUID), Groups: header[impersonateGroup]}
	values := len(user.Groups)
	for name, more := range header {
		key, ok := strings.CutPrefix(name, impersonateExtra)
		if !ok || key == "" {
			continue
		}
		key = strings.ToLower(key)
		if decoded, err := url.PathUnescape(key); err == nil {
			key = decoded
		}
		if user.Extra == nil {
			user.Extra = map[string][]string{}
		}
		user.Extra[key] = append(user.Extra[key], more...)
		values += len(more)
	}
	switch {
	case values > MaxImpersonated:
		return user, false, apierrors.NewBadRequest(fmt.Sprintf("the request has %d groups and values of extra keys to impersonate, of which there may be %d", values, MaxImpersonated))
	case user.Name != "":
		return user, true, nil
	case user.UID != "" || values > 0:
		return user, false, apierrors.NewBadRequest(fmt.Sprintf("requested &user.DefaultInfo{Name:%q, UID:%q, Groups:%#v, Extra:%#v} without impersonating a user name", user.Name, user.UID, user.Groups, user.Extra))
	}
	return user, false, nil
}
