// Package conformance replays HTTP exchanges against a server and holds its answers
// against those that are expected.
//
// A case is cases/NAME.http, a sequence of steps in the .http format that editors know:
// "### title", a request line, headers, an empty line, a body. Beside it stands
// NAME.golden.json with the answers. A header without a value takes away the one that
// every request carries. Before the request line a step may say
//
//	# @name X          keep the answer: later steps may say {{X.metadata.uid}}
//	# @ignore a.b,c    leave these fields out of the comparison
//	# @status-only     compare the status code alone
//	# @as USER         send USER's token of cases/tokens.csv; - sends none
//	# @unordered a.b   the order of that list does not count
//	# @base64          the body is sent decoded
//	# @background      go on as soon as the answer begins
//	# @eventually      ask again for as long as the answer differs, up to 10 s
//
// and for the audit log:
//
//	# @setup           send it before all others, and compare nothing
//	# @background      go on once the log has its first line
//	# @cancel 1s       hang up after this time
//	# @masked a.b,c    these fields have to be there, their values do not count
//
// Other lines with # are remarks. {{ns}} and {{ns2}} are two namespaces that each case
// has to itself, {{token}} is the token of the run, and {{300*x}} is x three hundred times.
package conformance

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// step is one request of a case.
type step struct {
	Title      string
	Line       int // of the title, from 1
	Name       string
	Ignore     []string // paths of fields, parted by dots
	Unordered  []string // likewise
	StatusOnly bool
	As         string
	Eventually bool
	Setup      bool
	Base64     bool
	Background bool
	Cancel     time.Duration // 0: never
	Masked     []string      // as Ignore
	Method     string
	Path       string // with the query
	Header     []field
	Body       string
}

type field struct{ Name, Value string }

// parse reads the steps of a case. It fails on a step without a request line, on a
// directive that it does not know, and where no step is found.
func parse(text string) ([]step, error) {
	const (
		inHead = iota
		inHeader
		inBody
	)
	var steps []step
	part := inHead
	for i, line := range strings.Split(text, "\n") {
		if title, ok := strings.CutPrefix(line, "###"); ok {
			steps = append(steps, step{Title: strings.TrimSpace(title), Line: i + 1})
			part = inHead
			continue
		}
		if len(steps) == 0 {
			continue
		}
		s := &steps[len(steps)-1]
		var err error
		switch {
		case part == inHead:
			if err = s.readHead(line); s.Method != "" {
				part = inHeader
			}
		case part == inHeader && strings.TrimSpace(line) == "":
			part = inBody
		case part == inHeader:
			err = s.readHeader(line)
		default:
			s.Body += line + "\n"
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("there is no step")
	}
	for i := range steps {
		if steps[i].Method == "" {
			return nil, fmt.Errorf("line %d: %q has no request line", steps[i].Line, steps[i].Title)
		}
		steps[i].Body = strings.TrimSpace(steps[i].Body)
	}
	return steps, nil
}

func (s *step) readHead(line string) error {
	line = strings.TrimSpace(line)
	directive, isDirective := strings.CutPrefix(line, "# @")
	if !isDirective {
		if line == "" || strings.HasPrefix(line, "#") {
			return nil
		}
		var ok bool
		if s.Method, s.Path, ok = strings.Cut(line, " "); !ok {
			return fmt.Errorf("%q is no request line", line)
		}
		return nil
	}
	word, value, _ := strings.Cut(directive, " ")
	switch word {
	case "setup":
		s.Setup = true
	case "base64":
		s.Base64 = true
	case "background":
		s.Background = true
	case "cancel":
		var err error
		if s.Cancel, err = time.ParseDuration(strings.TrimSpace(value)); err != nil {
			return err
		}
	case "masked":
		s.Masked = strings.Split(strings.ReplaceAll(value, " ", ""), ",")
	case "name":
		s.Name = strings.TrimSpace(value)
	case "ignore":
		s.Ignore = strings.Split(strings.ReplaceAll(value, " ", ""), ",")
	case "unordered":
		s.Unordered = strings.Split(strings.ReplaceAll(value, " ", ""), ",")
	case "status-only":
		s.StatusOnly = true
	case "as":
		s.As = strings.TrimSpace(value)
	case "eventually":
		s.Eventually = true
	default:
		return fmt.Errorf("unknown directive @%s", word)
	}
	return nil
}

func (s *step) readHeader(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return fmt.Errorf("%q is no header", line)
	}
	s.Header = append(s.Header, field{strings.TrimSpace(name), strings.TrimSpace(value)})
	return nil
}

var placeholder = regexp.MustCompile(`\{\{([^{}]+)\}\}`)

// expand returns the step with every placeholder replaced by its value in vars, where
// answers are kept as decoded JSON. It fails where there is no such value.
func (s step) expand(vars map[string]any) (step, error) {
	var failed error
	replace := func(text string) string {
		return placeholder.ReplaceAllStringFunc(text, func(match string) string {
			value, err := evaluate(strings.Trim(match, "{}"), vars)
			if err != nil && failed == nil {
				failed = err
			}
			return value
		})
	}
	s.Path, s.Body = replace(s.Path), replace(s.Body)
	header := make([]field, len(s.Header))
	for i, f := range s.Header {
		header[i] = field{f.Name, replace(f.Value)}
	}
	s.Header = header
	return s, failed
}

func evaluate(expression string, vars map[string]any) (string, error) {
	if times, text, ok := strings.Cut(expression, "*"); ok {
		n, err := strconv.Atoi(times)
		if err != nil || n < 0 {
			return "", fmt.Errorf("{{%s}}: %q is no number of times", expression, times)
		}
		return strings.Repeat(text, n), nil
	}
	var value any = vars
	for _, key := range strings.Split(expression, ".") {
		object, _ := value.(map[string]any)
		var ok bool
		if value, ok = object[key]; !ok {
			return "", fmt.Errorf("{{%s}}: there is no %q", expression, key)
		}
	}
	if text, ok := value.(string); ok {
		return text, nil
	}
	data, err := json.Marshal(value)
	return string(data), err
}
