package registry

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
)

// Nearly all metadata is valid, and to have apimachinery say so takes regular expressions,
// field paths and reflection. So each object is first asked the plain questions below. A no
// may be wrong, a yes may not: what it passes is not looked at again.

// isPlain reports whether metadata has no fault, whatever the rule for names.
func isPlain(meta *metav1.ObjectMeta, namespaced bool) bool {
	if meta.GenerateName != "" || !IsDNSLabel(meta.Name) || meta.Generation < 0 ||
		len(meta.OwnerReferences) > 0 || len(meta.Finalizers) > 0 {
		return false
	}
	if namespaced && !IsDNSLabel(meta.Namespace) || !namespaced && meta.Namespace != "" {
		return false
	}
	for key, value := range meta.Labels {
		if !isQualifiedName(key) || value != "" && !isLabel(value) {
			return false
		}
	}
	size := 0
	for key, value := range meta.Annotations {
		if size += len(key) + len(value); !isQualifiedName(key) {
			return false
		}
	}
	if size > validation.TotalAnnotationSizeLimitB {
		return false
	}
	for i := range meta.ManagedFields {
		if !isPlainEntry(&meta.ManagedFields[i]) {
			return false
		}
	}
	return true
}

func isPlainEntry(entry *metav1.ManagedFieldsEntry) bool {
	if entry.Operation != metav1.ManagedFieldsOperationApply && entry.Operation != metav1.ManagedFieldsOperationUpdate {
		return false
	}
	if entry.FieldsType != "FieldsV1" || entry.Subresource != "" || len(entry.Manager) > metavalidation.FieldManagerMaxLength {
		return false
	}
	for i := range len(entry.Manager) {
		if c := entry.Manager[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// isPlainSuccessor reports whether meta keeps what an update of old must not change, and
// neither is of an object that is being deleted.
func isPlainSuccessor(meta, old *metav1.ObjectMeta) bool {
	return meta.ResourceVersion != "" &&
		meta.Name == old.Name && meta.Namespace == old.Namespace && meta.UID == old.UID &&
		meta.CreationTimestamp.Equal(&old.CreationTimestamp) &&
		meta.Generation >= old.Generation &&
		meta.DeletionTimestamp == nil && old.DeletionTimestamp == nil &&
		meta.DeletionGracePeriodSeconds == nil && old.DeletionGracePeriodSeconds == nil
}

// IsDNSLabel says what validation.IsDNS1123Label says, without its regular expression.
func IsDNSLabel(s string) bool {
	return len(s) <= utilvalidation.DNS1123LabelMaxLength && isDNSName(s, false)
}

// IsDNSSubdomain says what validation.IsDNS1123Subdomain says, without its regular
// expression. The length of a single label is not limited, as it is not there.
func IsDNSSubdomain(s string) bool {
	return len(s) <= utilvalidation.DNS1123SubdomainMaxLength && isDNSName(s, true)
}

// isDNSName reports whether s is [a-z0-9]([-a-z0-9]*[a-z0-9])?, or with dots several of
// these with dots between them.
func isDNSName(s string, dots bool) bool {
	alphanumeric := false // what came last was a letter or a digit
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			alphanumeric = true
		case c == '-' && i > 0 && (alphanumeric || s[i-1] == '-'):
			alphanumeric = false
		case c == '.' && dots && alphanumeric:
			alphanumeric = false
		default:
			return false
		}
	}
	return alphanumeric
}

// isQualifiedName says what validation.IsQualifiedName says.
func isQualifiedName(s string) bool {
	prefix, name, ok := strings.Cut(s, "/")
	if !ok {
		return isLabel(s)
	}
	return IsDNSSubdomain(prefix) && isLabel(name)
}

// isLabel reports whether s is ([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9] and not too long for
// the value of a label or the name of a key.
func isLabel(s string) bool {
	if len(s) > utilvalidation.LabelValueMaxLength {
		return false
	}
	alphanumeric := false
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			alphanumeric = true
		case i > 0 && (c == '-' || c == '_' || c == '.'):
			alphanumeric = false
		default:
			return false
		}
	}
	return alphanumeric
}
