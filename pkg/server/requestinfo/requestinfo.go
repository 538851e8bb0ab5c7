// Package requestinfo reads from a request what it asks to do, and as whom.
package requestinfo

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/berth-project/berth/pkg/auth"
)

// verbs are what the methods mean for resources, until it is known whether the request names an
// object. Others mean nothing.
var verbs = map[string]string{
	http.MethodGet: "get", http.MethodHead: "get", http.MethodPost: "create",
	http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
}

// MaxPathBytes is several times what the longest path of an object has. What is longer is taken
// for the path of nothing.
const MaxPathBytes = 4 << 10

// PrometheusFeed is the path of the feed for Prometheus, which is not kube-apiserver's. Whoever
// reads it asks for what it is made of: a list of Endpoints, in the namespace that the query names
// or in all of them.
const PrometheusFeed = "/feeds/prometheus"

// Attributes returns what a request asks to do. As kube-apiserver's RequestInfo it goes by the
// method, the path and the query alone: what is not served is asked for all the same, so that
// nobody learns what there is. The user is not among it.
func Attributes(req *http.Request) auth.Attributes {
	asked := auth.Attributes{Verb: strings.ToLower(req.Method), Path: req.URL.Path}
	if len(asked.Path) > MaxPathBytes {
		return asked
	}
	if asked.Path == PrometheusFeed && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		query := req.URL.Query()
		asked.ResourceRequest, asked.Verb, asked.APIVersion, asked.Resource = true, "list", "v1", "endpoints"
		asked.Namespace, asked.Name = query.Get("namespace"), selectedName(query.Get("fieldSelector"))
		return asked
	}
	// From /apis to a subresource there are at most nine parts; what is behind is of no matter.
	var array [10]string
	parts := splitPath(array[:0], asked.Path)
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		parts = parts[1:]
	case len(parts) >= 4 && parts[0] == "apis":
		asked.APIGroup, parts = parts[1], parts[2:]
	default:
		return asked
	}
	version, parts := parts[0], parts[1:]
	verb := verbs[req.Method]
	if parts[0] == "watch" || parts[0] == "proxy" {
		if verb, parts = parts[0], parts[1:]; len(parts) == 0 {
			asked.APIGroup = ""
			return asked
		}
	}
	asked.ResourceRequest, asked.APIVersion = true, version
	if parts[0] == "namespaces" && len(parts) > 1 {
		asked.Namespace = parts[1]
		if len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
			parts = parts[2:]
		}
	}
	asked.Resource = parts[0]
	if len(parts) > 1 {
		asked.Name = parts[1]
	}
	if len(parts) > 2 && verb != "proxy" {
		asked.Subresource = parts[2]
	}
	asked.Verb = verb
	if asked.Name == "" {
		describeCollection(&asked, req.URL)
	}
	return asked
}

// splitPath appends the parts of a path to parts, as many as it has room for. Slashes at either
// end are ignored.
func splitPath(parts []string, whole string) []string {
	rest := strings.Trim(whole, "/")
	for more := rest != ""; more && len(parts) < cap(parts); {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		parts = append(parts, part)
	}
	return parts
}

// describeCollection completes what a request without a name asks of a collection.
func describeCollection(asked *auth.Attributes, u *url.URL) {
	switch asked.Verb {
	case "delete":
		asked.Verb = "deletecollection"
	case "get", "watch":
		var opts metav1.ListOptions
		if strings.Contains(u.RawQuery, "watch") || strings.Contains(u.RawQuery, "fieldSelector") || strings.Contains(u.RawQuery, "%") {
			opts = collectionOptions(u.Query())
		}
		if asked.Verb == "get" {
			asked.Verb = "list"
			if opts.Watch {
				asked.Verb = "watch"
			}
		}
		asked.Name = selectedName(opts.FieldSelector)
	}
}

// collectionOptions are the options of a list. Where they cannot be parsed the request is refused
// later; until then it counts as a watch if it seems to be one.
func collectionOptions(query url.Values) metav1.ListOptions {
	var opts metav1.ListOptions
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&query, &opts, nil); err != nil {
		watch := query["watch"]
		return metav1.ListOptions{Watch: len(watch) > 0 && !slices.Contains([]string{"false", "0"}, strings.ToLower(watch[0]))}
	}
	return opts
}

// selectedName is the name of the only object that a field selector allows; "": it allows others.
func selectedName(selector string) string {
	if selector == "" {
		return ""
	}
	parsed, err := fields.ParseSelector(selector)
	if err != nil {
		return ""
	}
	name, ok := parsed.RequiresExactMatch("metadata.name")
	if !ok || len(content.IsPathSegmentName(name)) > 0 {
		return ""
	}
	return name
}
