package monitoring

import (
	"encoding/json"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

var (
	language = parser.NewParser(parser.Options{})
	engine   = promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: language})
)

// TestMonitoring evaluates everything on two scrapes that are four minutes apart, as the rules
// see them, and between which every sort of request was sent.
func TestMonitoring(t *testing.T) {
	server := start(t)
	scraped, now := memory{}, time.Now()
	then := now.Add(-4 * time.Minute)
	server.load(t)
	scraped.scrape(t, server, then)
	server.load(t)
	scraped.scrape(t, server, now)
	t.Run("rules", func(t *testing.T) { checkRules(t, scraped, now) })
	t.Run("dashboard", func(t *testing.T) { checkDashboard(t, scraped, now) })
	t.Run("needs", func(t *testing.T) { checkNeeds(t, scraped, now) })
}

// checkRules fails where a rule selects what is not there, a recording rule has no result, or an
// alert fires: the server is well.
func checkRules(t *testing.T, scraped memory, now time.Time) {
	groups, errs := rulefmt.ParseFile(filepath.Join(root, "deploy", "prometheus-rules.yaml"), false, model.UTF8Validation, language, slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	count := 0
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			count++
			checkSelectors(t, scraped, rule.Expr)
			result := scraped.query(t, rule.Expr, now)
			switch {
			case rule.Record == "" && len(result) > 0:
				t.Errorf("%s fires: %v", rule.Alert, result)
			case rule.Record != "" && !hasValue(result):
				t.Errorf("%s has no result", rule.Record)
			case rule.Record != "":
				for _, one := range result {
					scraped.add(labels.NewBuilder(one.Metric).Set("__name__", rule.Record).Labels(), now, one.F)
				}
			}
		}
	}
	if count == 0 {
		t.Error("there are no rules")
	}
}

// checkDashboard fails where a query of a panel has no result.
func checkDashboard(t *testing.T, scraped memory, now time.Time) {
	data, err := os.ReadFile(filepath.Join(root, "deploy", "grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) == 0 {
		t.Error("there are no panels")
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			checkSelectors(t, scraped, target.Expr)
			if !hasValue(scraped.query(t, target.Expr, now)) {
				t.Errorf("%s: %s has no result", panel.Title, target.Expr)
			}
		}
	}
}

// checkSelectors fails where a selector of an expression selects nothing.
func checkSelectors(t *testing.T, scraped memory, expr string) {
	t.Helper()
	parsed, err := language.ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok && len(scraped.find(selector.LabelMatchers...)) == 0 {
			t.Errorf("%s: %s selects nothing", expr, selector)
		}
		return nil
	})
}

func hasValue(result promql.Vector) bool {
	for _, one := range result {
		if !math.IsNaN(one.F) {
			return true
		}
	}
	return false
}
