package registry

import (
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"weak"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	operator "k8s.io/apimachinery/pkg/selection"

	"github.com/berth-project/berth/pkg/object"
)

const (
	nameField      = "metadata.name"
	namespaceField = "metadata.namespace"
)

// selection is what a list or a watch is about.
type selection struct {
	namespace    string
	prefix       string // of the keys
	scope        string // prefix, or the one key that can match
	labels       *labelSelector
	fields       fields.Selector
	requirements int // of both selectors, as many as they cost
	// initialEvents is what a watch says of its beginning, with kube-apiserver's defaults; nil:
	// it begins after the version that it names.
	initialEvents *bool
}

// Bounds of a selector: whoever watches keeps it, and every change is compared with it.
const (
	maxRequirements = 100
	maxValues       = 500 // of all requirements of a label selector together
	// maxCommas is more than a selector within these bounds has. Parsing one of 60 KB takes 12 ms
	// and 8 MB: it is not even tried.
	maxCommas = maxRequirements + maxValues
	// valuesPerRequirement is how many values a requirement of a label selector looks through in the
	// time that another requirement takes.
	valuesPerRequirement = 10
)

var (
	errLargeLabelSelector = fmt.Errorf("the label selector has more than %d requirements, or more than %d values", maxRequirements, maxValues)
	errLargeFieldSelector = fmt.Errorf("the field selector has more than %d requirements", maxRequirements)
)

// labelSelector is a parsed label selector.
type labelSelector struct {
	labels.Selector
	requirements int // as many as they cost
}

// labelSelectors are those in use, by their text: watches that have the same one share it.
// The methods are safe for concurrent use.
type labelSelectors struct {
	mu     sync.Mutex
	parsed map[string]weak.Pointer[labelSelector]
}

// parse returns the parsed selector, or an error for one that is malformed or too large.
func (all *labelSelectors) parse(text string) (*labelSelector, error) {
	if text == "" {
		return everything, nil
	}
	if known := all.find(text); known != nil {
		return known, nil
	}
	if strings.Count(text, ",") > maxCommas {
		return nil, errLargeLabelSelector
	}
	selector, err := labels.Parse(text)
	if err != nil {
		return nil, err
	}
	requirements, _ := selector.Requirements()
	values := 0
	for i := range requirements {
		values += len(requirements[i].ValuesUnsorted())
	}
	if len(requirements) > maxRequirements || values > maxValues {
		return nil, errLargeLabelSelector
	}
	parsed := &labelSelector{selector, len(requirements) + values/valuesPerRequirement}
	all.mu.Lock()
	defer all.mu.Unlock()
	all.parsed[text] = weak.Make(parsed)
	goruntime.AddCleanup(parsed, all.forget, text)
	return parsed, nil
}

func (all *labelSelectors) find(text string) *labelSelector {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.parsed[text].Value()
}

var everything = &labelSelector{labels.Everything(), 0}

// forget drops a selector that nobody uses any more.
func (all *labelSelectors) forget(text string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.parsed[text].Value() == nil {
		delete(all.parsed, text)
	}
}

// parseFieldSelector returns the parsed selector, or an error for one that is malformed or too
// large.
func parseFieldSelector(text string) (fields.Selector, error) {
	if strings.Count(text, ",") > maxCommas {
		return nil, errLargeFieldSelector
	}
	selector, err := fields.ParseSelector(text)
	if err == nil && len(selector.Requirements()) > maxRequirements {
		err = errLargeFieldSelector
	}
	return selector, err
}

// selection parses what opts selects. The order of the checks is kube-apiserver's.
func (s *Store) selection(namespace string, opts *metav1.ListOptions, list bool) (*selection, error) {
	byLabel, err := s.selectors.parse(opts.LabelSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	byField, err := parseFieldSelector(opts.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	internal := &internalversion.ListOptions{
		Watch: !list, AllowWatchBookmarks: opts.AllowWatchBookmarks, ResourceVersion: opts.ResourceVersion,
		ResourceVersionMatch: opts.ResourceVersionMatch, TimeoutSeconds: opts.TimeoutSeconds,
		Limit: opts.Limit, Continue: opts.Continue, SendInitialEvents: opts.SendInitialEvents,
	}
	internalversion.SetListOptionsDefaults(internal, true)
	if faults := validation.ValidateListOptions(internal, true); len(faults) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", faults)
	}
	byField, err = byField.Transform(s.resource.selectableField)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	sel := &selection{namespace: namespace, prefix: s.resource.prefix(namespace), labels: byLabel, fields: byField, initialEvents: internal.SendInitialEvents}
	sel.requirements = byLabel.requirements + len(byField.Requirements())
	sel.scope = sel.prefix
	if name, ok := byField.RequiresExactMatch(nameField); ok && name != "" && !strings.Contains(name, "/") && (namespace != "" || !s.resource.API.Namespaced) {
		sel.scope = s.resource.key(namespace, name)
	}
	return sel, nil
}

// selectableField returns the field that a selector names, or an error in kube-apiserver's
// words, which knows other ones for resources that have fields of their own.
func (r *Resource) selectableField(name, value string) (string, string, error) {
	if r.Fields == nil {
		return runtime.DefaultMetaV1FieldSelectorConversion(name, value)
	}
	if synonym, ok := r.FieldSynonyms[name]; ok {
		return synonym, value, nil
	}
	if name == nameField || name == namespaceField && r.API.Namespaced || slices.Contains(r.Fields, name) {
		return name, value, nil
	}
	return "", "", fmt.Errorf("field label not supported: %s", name)
}

// all reports whether nothing is left out.
func (sel *selection) all() bool { return sel.labels.Empty() && sel.fields.Empty() }

// matches reports whether the object is selected.
func (sel *selection) matches(o *object.Object) bool {
	return (sel.fields.Empty() || sel.fields.Matches(o.Fields())) && (sel.labels.Empty() || sel.labels.Matches(o.Labels()))
}

// covers reports whether a value that cannot be read may be of a selected object: all that is
// known of it is its key.
func (sel *selection) covers(broken *brokenValue) bool {
	known := fields.Set{nameField: broken.Name, namespaceField: broken.Namespace}
	for _, required := range sel.fields.Requirements() {
		if value, ok := known[required.Field]; ok && (value == required.Value) == (required.Operator == operator.NotEquals) {
			return false
		}
	}
	return true
}
