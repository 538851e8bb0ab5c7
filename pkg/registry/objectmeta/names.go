package objectmeta

import "k8s.io/apimachinery/pkg/util/rand"

const (
	generatedSuffix = 5
	// maxGeneratedBase keeps a generated name within a DNS label of 63 characters.
	maxGeneratedBase = 63 - generatedSuffix
)

// GenerateName returns base, cut where needed, with a random suffix; "" for an empty base.
func GenerateName(base string) string {
	if base == "" {
		return ""
	}
	if len(base) > maxGeneratedBase {
		base = base[:maxGeneratedBase]
	}
	return base + rand.String(generatedSuffix)
}
