package harness

import (
	"regexp"
	"strings"
)

// Placeholders for what differs from one run to the next.
const (
	maskUID             = "<uid>"
	maskTime            = "<time>"
	maskResourceVersion = "<rv>"
	maskContinue        = "<continue>"
	maskGenerated       = "<generated>"
)

var (
	uidText     = regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`)
	versionYAML = regexp.MustCompile(`resourceVersion: "\d+"`)
	timeText    = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
)

// Mask returns a copy of a decoded JSON value in which uids, times, resource versions,
// continue tokens and the ends of generated names are placeholders, so that two answers
// to one request compare. What is missing stays missing. replace applies to every string
// first; nil replaces nothing.
func Mask(value any, replace *strings.Replacer) any {
	return masker{replace}.value("", value)
}

type masker struct{ replace *strings.Replacer }

func (m masker) value(key string, value any) any {
	switch v := value.(type) {
	case map[string]any:
		return m.object(v)
	case []any:
		masked := make([]any, len(v))
		for i, item := range v {
			masked[i] = m.value("", item)
		}
		return masked
	case string:
		return m.text(key, v)
	default:
		return value
	}
}

func (m masker) object(object map[string]any) map[string]any {
	masked := make(map[string]any, len(object))
	for key, item := range object {
		masked[key] = m.value(key, item)
	}
	prefix, _ := object["generateName"].(string)
	if name, ok := object["name"].(string); ok && prefix != "" && strings.HasPrefix(name, prefix) {
		masked["name"] = prefix + maskGenerated
		if link, ok := masked["selfLink"].(string); ok {
			masked["selfLink"] = strings.TrimSuffix(link, name) + prefix + maskGenerated
		}
	}
	return masked
}

func (m masker) text(key, text string) string {
	switch {
	case text == "":
		return ""
	case key == "resourceVersion" && text != "0":
		return maskResourceVersion
	case key == "continue":
		return maskContinue
	}
	if m.replace != nil {
		text = m.replace.Replace(text)
	}
	text = versionYAML.ReplaceAllString(text, `resourceVersion: "`+maskResourceVersion+`"`)
	text = uidText.ReplaceAllString(text, maskUID)
	return timeText.ReplaceAllString(text, maskTime)
}
