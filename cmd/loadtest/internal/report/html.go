package report

import (
	"embed"
	"html/template"
	"io"

	"github.com/berth-project/berth/cmd/loadtest/internal/text"
)

//go:embed report.html report.css report.js
var page embed.FS

var pageTemplate = template.Must(template.New("report.html").Funcs(template.FuncMap{
	"grouped": func(n any) string {
		switch n := n.(type) {
		case uint64:
			return text.Count(n)
		case int64:
			return text.Count(n)
		}
		return text.Count(n.(int))
	},
	"msText": text.Milliseconds, "rateText": text.Rate, "shareText": text.Percent, "bytesText": text.Bytes,
}).ParseFS(page, "report.html", "report.css", "report.js"))

// pageReport is a report with what the page shows of it in another form.
type pageReport struct {
	*Report
	Codes       []string
	FirstTokens []Token
	MoreTokens  int
	Charts      charts
}

// charts is what the page's script draws.
type charts struct {
	Intervals []Interval `json:"intervals"`
	Histogram []Bucket   `json:"histogram"`
}

// writeHTML writes a report as one page that loads nothing else.
func writeHTML(w io.Writer, rep *Report) error {
	first := min(len(rep.Tokens), maxRows)
	return pageTemplate.Execute(w, pageReport{
		Report: rep, Codes: rep.codes(), FirstTokens: rep.Tokens[:first], MoreTokens: len(rep.Tokens) - first,
		Charts: charts{rep.Intervals, rep.Histogram},
	})
}
