package reviews

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/berth-project/berth/pkg/auth"
)

// The specs of all reviews of access are that of a SubjectAccessReview, or a part of it.

func answerAccess(ctx context.Context, cfg *Config, _ string, asked review) error {
	r := asked.(*authorizationv1.SubjectAccessReview)
	if err := invalid(append(validateSpec(&r.Spec), validateMetadata(&r.ObjectMeta)...)); err != nil {
		return err
	}
	r.Status = decide(ctx, cfg, subject(&r.Spec), &r.Spec)
	return nil
}

func answerSelfAccess(ctx context.Context, cfg *Config, _ string, asked review) error {
	r := asked.(*authorizationv1.SelfSubjectAccessReview)
	spec := &authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: r.Spec.ResourceAttributes, NonResourceAttributes: r.Spec.NonResourceAttributes}
	if err := invalid(append(validateAttributes(spec), validateMetadata(&r.ObjectMeta)...)); err != nil {
		return err
	}
	r.Status = decide(ctx, cfg, auth.UserFrom(ctx), spec)
	return nil
}

func answerLocalAccess(ctx context.Context, cfg *Config, namespace string, asked review) error {
	r := asked.(*authorizationv1.LocalSubjectAccessReview)
	switch r.Namespace {
	case namespace:
	case "":
		r.Namespace = namespace
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	faults := validateSpec(&r.Spec)
	metadata := r.ObjectMeta
	metadata.Namespace = ""
	faults = append(faults, validateMetadata(&metadata)...)
	if attrs := r.Spec.ResourceAttributes; attrs != nil && attrs.Namespace != namespace {
		faults = append(faults, field.Invalid(specPath.Child("resourceAttributes", "namespace"), attrs.Namespace, "must match metadata.namespace"))
	}
	if r.Spec.NonResourceAttributes != nil {
		faults = append(faults, field.Invalid(specPath.Child("nonResourceAttributes"), shownPath(&r.Spec), "disallowed on this kind of request"))
	}
	if err := invalid(faults); err != nil {
		return err
	}
	r.Status = decide(ctx, cfg, subject(&r.Spec), &r.Spec)
	return nil
}

// answerSelfRules lists what the user may do. Of the question nothing comes back.
func answerSelfRules(ctx context.Context, cfg *Config, _ string, asked review) error {
	r := asked.(*authorizationv1.SelfSubjectRulesReview)
	if r.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	rules, err := []rbacv1.PolicyRule{
		{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
		{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
	}, error(nil)
	incomplete := false
	if cfg.Rules != nil {
		rules, incomplete, err = cfg.Rules.RulesFor(auth.UserFrom(ctx), r.Spec.Namespace)
	}
	// Lists that are empty are shown as such.
	status := authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}, Incomplete: incomplete}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	for _, rule := range rules {
		if len(rule.Resources) > 0 {
			status.ResourceRules = append(status.ResourceRules, authorizationv1.ResourceRule{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
			})
		}
		if len(rule.NonResourceURLs) > 0 {
			status.NonResourceRules = append(status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	*r = authorizationv1.SelfSubjectRulesReview{Status: status}
	return nil
}

// subject is the user that a review is about: it has no groups but those that are named.
func subject(spec *authorizationv1.SubjectAccessReviewSpec) *auth.User {
	user := &auth.User{Name: spec.User, UID: spec.UID, Groups: spec.Groups}
	if len(spec.Extra) > 0 {
		user.Extra = make(map[string][]string, len(spec.Extra))
		for key, values := range spec.Extra {
			user.Extra[key] = values
		}
	}
	return user
}

// decide asks the authorizer.
func decide(ctx context.Context, cfg *Config, user *auth.User, spec *authorizationv1.SubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus {
	attrs, fault := attributes(spec)
	attrs.User = user
	allowed, reason, err := cfg.Authorizer.Authorize(ctx, attrs)
	status := authorizationv1.SubjectAccessReviewStatus{Allowed: allowed, Reason: reason, EvaluationError: fault}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

// attributes returns what a review asks about. The fault says which part of it is ignored; "":
// none is. Selectors are of no matter to who may do what, and are only parsed.
func attributes(spec *authorizationv1.SubjectAccessReviewSpec) (attrs auth.Attributes, fault string) {
	if path := spec.NonResourceAttributes; path != nil {
		return auth.Attributes{Verb: path.Verb, Path: path.Path}, ""
	}
	asked := spec.ResourceAttributes
	attrs = auth.Attributes{
		ResourceRequest: true, Verb: asked.Verb, APIGroup: asked.Group, APIVersion: asked.Version,
		Resource: asked.Resource, Subresource: asked.Subresource, Namespace: asked.Namespace, Name: asked.Name,
	}
	if selector := asked.FieldSelector; selector != nil && !parses(selector.RawSelector, func(raw string) error {
		_, err := fields.ParseSelector(raw)
		return err
	}) {
		fault = "spec.resourceAttributes.fieldSelector ignored due to parse error"
	}
	if selector := asked.LabelSelector; selector != nil && !parses(selector.RawSelector, func(raw string) error {
		_, err := labels.Parse(raw)
		return err
	}) {
		if fault != "" {
			fault += ", "
		}
		fault += "spec.resourceAttributes.labelSelector ignored due to parse error"
	}
	return attrs, fault
}

// Bounds of a selector that is asked about: everybody may ask, and parsing one of 3 MB takes half a
// second and 100 MB. No list can have a longer one than its URL may be.
const (
	maxRawSelector  = 16 << 10 // bytes
	maxRequirements = 100
	maxValues       = 500 // of all requirements together
)

// parses reports whether there is no selector, or one that can be parsed.
func parses(raw string, parse func(string) error) bool {
	return raw == "" || len(raw) <= maxRawSelector && parse(raw) == nil
}

// invalid is the 422 for faults of a review, nil without faults. As in kube-apiserver it names no
// kind.
func invalid(faults field.ErrorList) error {
	if len(faults) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName}, "", faults)
}

var specPath = field.NewPath("spec")

func validateSpec(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	faults := validateAttributes(spec)
	if spec.User == "" && len(spec.Groups) == 0 {
		faults = append(faults, field.Invalid(specPath.Child("user"), spec.User, "at least one of user or group must be specified"))
	}
	return faults
}

func validateAttributes(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	if (spec.ResourceAttributes == nil) == (spec.NonResourceAttributes == nil) {
		return field.ErrorList{field.Invalid(specPath, shownPath(spec), "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	var faults field.ErrorList
	if attrs := spec.ResourceAttributes; attrs != nil {
		at := specPath.Child("resourceAttributes")
		if selector := attrs.FieldSelector; selector != nil {
			faults = append(faults, validateSelector(at.Child("fieldSelector"), selector.RawSelector, selector.Requirements,
				func(r *metav1.FieldSelectorRequirement) int { return len(r.Values) },
				func(r *metav1.FieldSelectorRequirement, at *field.Path) field.ErrorList {
					return validation.ValidateFieldSelectorRequirement(*r, validation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at)
				})...)
		}
		if selector := attrs.LabelSelector; selector != nil {
			faults = append(faults, validateSelector(at.Child("labelSelector"), selector.RawSelector, selector.Requirements,
				func(r *metav1.LabelSelectorRequirement) int { return len(r.Values) },
				func(r *metav1.LabelSelectorRequirement, at *field.Path) field.ErrorList {
					return validation.ValidateLabelSelectorRequirement(*r, validation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at)
				})...)
		}
	}
	return faults
}

// validateSelector checks that a selector has one form of the two, and looks at its requirements if
// they are not too many. values tells how many values one has.
func validateSelector[R any](at *field.Path, raw string, requirements []R, values func(*R) int, validate func(*R, *field.Path) field.ErrorList) (faults field.ErrorList) {
	path, sum := at.Child("requirements"), 0
	for i := range requirements {
		sum += values(&requirements[i])
	}
	switch {
	case len(requirements) > maxRequirements:
		return field.ErrorList{field.TooMany(path, len(requirements), maxRequirements)}
	case sum > maxValues:
		return field.ErrorList{field.Invalid(path, sum, fmt.Sprintf("must have at most %d values together", maxValues))}
	case raw != "" && len(requirements) > 0:
		faults = append(faults, field.Invalid(at.Child("rawSelector"), raw, "may not specified at the same time as requirements"))
	case raw == "" && len(requirements) == 0:
		faults = append(faults, field.Required(path, "when "+at.String()+" is specified, requirements or rawSelector is required"))
	}
	for i := range requirements {
		faults = append(faults, validate(&requirements[i], path.Index(i))...)
	}
	return faults
}

// validateMetadata refuses metadata: nothing is stored that could have some.
func validateMetadata(metadata *metav1.ObjectMeta) field.ErrorList {
	rest := *metadata
	rest.ManagedFields = nil
	if equality.Semantic.DeepEqual(metav1.ObjectMeta{}, rest) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), *metadata, "must be empty")}
}

// shownPath is a path as faults show it: by the names that its fields have within kube-apiserver.
func shownPath(spec *authorizationv1.SubjectAccessReviewSpec) any {
	if spec.NonResourceAttributes == nil {
		return nil
	}
	return struct{ Path, Verb string }{spec.NonResourceAttributes.Path, spec.NonResourceAttributes.Verb}
}
