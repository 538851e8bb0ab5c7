package discovery

import (
	"bytes"
	_ "embed"
	"html/template"
)

//go:embed page.html
var pageHTML string

// Page returns the HTML page that tells a person with a browser what answers there. It loads
// nothing, and runs no scripts.
func Page(version string) ([]byte, error) {
	page, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = page.Execute(&out, version)
	return out.Bytes(), err
}
