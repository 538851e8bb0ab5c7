package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-project/berth/test/harness"
)

var (
	linkTarget = regexp.MustCompile(`\]\(([^()#\s]*)(?:#([^()\s]*))?\)`)
	heading    = regexp.MustCompile(`(?m)^#+ (.*)$`)
	codeBlock  = regexp.MustCompile("(?ms)^```.*?^```")
	notInSlug  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestLinks checks that the links of the documents to files and headings lead somewhere.
func TestLinks(t *testing.T) {
	for _, document := range documents(t) {
		text := withoutBlocks(t, filepath.Join(harness.Root(), document))
		for _, match := range linkTarget.FindAllStringSubmatch(text, -1) {
			file, anchor := match[1], match[2]
			if strings.Contains(file, "://") {
				continue
			}
			target := filepath.Join(harness.Root(), document)
			if file != "" {
				target = filepath.Join(filepath.Dir(target), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s: %v", document, match[0], err)
				continue
			}
			if anchor != "" && !anchors(withoutBlocks(t, target))[anchor] {
				t.Errorf("%s: %s: there is no such heading", document, match[0])
			}
		}
	}
}

func withoutBlocks(t *testing.T, file string) string {
	t.Helper()
	return codeBlock.ReplaceAllString(harness.ReadFile(t, file), "")
}

// anchors are the names that GitHub gives the headings of a Markdown text.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, match := range heading.FindAllStringSubmatch(text, -1) {
		slug := notInSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(match[1])), "")
		names[strings.ReplaceAll(slug, " ", "-")] = true
	}
	return names
}
