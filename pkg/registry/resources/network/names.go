package network

import "k8s.io/apimachinery/pkg/util/validation"

// IsDNSLabel reports whether validation.IsDNS1123Label finds no fault, without its regular
// expression.
func IsDNSLabel(s string) bool {
	return len(s) <= validation.DNS1123LabelMaxLength && isDNSName(s, false)
}

// IsDNSSubdomain reports the same of validation.IsDNS1123Subdomain. The length of a single label
// is not limited, as it is not there.
func IsDNSSubdomain(s string) bool {
	return len(s) <= validation.DNS1123SubdomainMaxLength && isDNSName(s, true)
}

// isDNSName reports whether s is [a-z0-9]([-a-z0-9]*[a-z0-9])?, or with dots several of
// these with dots between them.
func isDNSName(s string, dots bool) bool {
	alphanumeric := false // whether the last one was a letter or a digit
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
