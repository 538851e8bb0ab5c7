package report

import (
	"encoding/json"
	"fmt"
	"io"
)

// Kinds are the forms of a report that Write knows.
var Kinds = []string{"text", "json", "html"}

// Write writes a report in one of Kinds.
func (rep *Report) Write(w io.Writer, kind string) error {
	switch kind {
	case "text":
		return writeText(w, rep)
	case "json":
		return writeJSON(w, rep)
	case "html":
		return writeHTML(w, rep)
	}
	return fmt.Errorf("there is no %q report", kind)
}

func writeJSON(w io.Writer, rep *Report) error {
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}
