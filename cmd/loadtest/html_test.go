package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

// The page is well formed, contains its numbers, and loads nothing.
func TestRunWritesPage(t *testing.T) {
	f := newFakeAPI(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !isLoad(r) || r.Method == http.MethodGet {
			return false
		}
		writeStatus(w, http.StatusInternalServerError, "</script><script>alert(1)</script>", `"<b>&`)
		return true
	}
	r := runTool(t, f, "--rate=100", "--duration=300ms", "--watchers=2", "--fail-if=errors>100%")
	if r.status != statusOK {
		t.Fatal(r.stderr)
	}
	data := regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*?)</script>`).FindStringSubmatch(r.html)
	if data == nil {
		t.Fatal("there is no data in the page")
	}
	type charts struct {
		Intervals []report.Interval
		Histogram []report.Bucket
	}
	var drawn charts
	if err := json.Unmarshal([]byte(data[1]), &drawn); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(charts{r.report.Intervals, r.report.Histogram}, drawn); diff != "" {
		t.Errorf("the page's data (-want +got)\n%s", diff)
	}
	if strings.Contains(r.html, "alert(1)</script>") {
		t.Error("the server's words are not escaped")
	}
	if found := regexp.MustCompile(`(?i)\b(src|href|action)=|@import|url\(|fetch\(|XMLHttpRequest`).FindString(r.html); found != "" {
		t.Errorf("the page may load something: %q", found)
	}
	checkNesting(t, r.html)
}

// checkNesting wants every element of a page closed, in the right order.
func checkNesting(t *testing.T, page string) {
	t.Helper()
	page = regexp.MustCompile(`(?s)(<(?:script|style)[^>]*>).*?(</(?:script|style)>)`).ReplaceAllString(page, "$1$2")
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	depth, elements := 0, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token.(type) {
		case xml.StartElement:
			depth++
			elements++
		case xml.EndElement:
			depth--
		}
	}
	if depth != 0 || elements < 100 {
		t.Errorf("of %d elements, %d are not closed", elements, depth)
	}
}
