package main

import (
	"embed"
	"html/template"
	"io"
)

//go:embed report.html report.css report.js
var page embed.FS

var pageTemplate = template.Must(template.New("report.html").Funcs(template.FuncMap{
	"grouped": func(n any) string {
		switch n := n.(type) {
		case uint64:
			return grouped(n)
		case int64:
			return grouped(n)
		}
		return grouped(n.(int))
	},
	"msText": msText, "rateText": rateText, "shareText": shareText, "bytesText": bytesText,
}).ParseFS(page, "report.html", "report.css", "report.js"))

// pageReport is a report with what the page shows of it in another form.
type pageReport struct {
	*report
	Codes       []string
	FirstTokens []tokenReport
	MoreTokens  int
	Charts      charts
}

// charts is what the page's script draws.
type charts struct {
	Intervals []intervalReport `json:"intervals"`
	Histogram []bucketReport   `json:"histogram"`
}

// writeHTML writes a report as one page that needs nothing else.
func writeHTML(w io.Writer, rep *report) error {
	first := min(len(rep.Tokens), maxRows)
	return pageTemplate.Execute(w, pageReport{
		report: rep, Codes: rep.codes(), FirstTokens: rep.Tokens[:first], MoreTokens: len(rep.Tokens) - first,
		Charts: charts{rep.Intervals, rep.Histogram},
	})
}
