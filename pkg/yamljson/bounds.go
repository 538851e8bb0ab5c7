package yamljson

import "strings"

const (
	// MaxNesting bounds how deep a client's document may be nested. Objects are some ten
	// levels deep; libraries take time for every level of every value.
	MaxNesting = 100
	// MaxElements bounds the names and values of a client's document, which take some hundred
	// bytes each when they are decoded, however short they are. An object of 20,000 addresses,
	// each with a node and a target, has 300,000.
	MaxElements = 400_000
)

// Elements returns how many names and values JSON has; an empty list or object counts as two.
// What it says of data that is not JSON does not matter.
func Elements(json []byte) int {
	count := 1
	for i := 0; i < len(json); i++ {
		switch json[i] {
		case '"':
			i = endOfString(json, i)
		case ',', ':', '[', '{':
			count++
		}
	}
	return count
}

// IsDeeper reports whether JSON is nested more than limit levels deep. What it says of data
// that is not JSON does not matter.
func IsDeeper(json []byte, limit int) bool {
	depth := 0
	for i := 0; i < len(json); i++ {
		switch json[i] {
		case '"':
			i = endOfString(json, i)
		case '{', '[':
			if depth++; depth > limit {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}

// LongestList returns the length of the longest list in JSON. What it says of data that is not
// JSON does not matter.
func LongestList(json []byte) int {
	longest := 0
	var separators []int // in each list and object that is open
	for i := 0; i < len(json); i++ {
		last := len(separators) - 1
		switch json[i] {
		case '"':
			i = endOfString(json, i)
		case '{', '[':
			separators = append(separators, 0)
		case ',':
			if last >= 0 {
				separators[last]++
			}
		case '}', ']':
			if last < 0 {
				continue
			}
			if json[i] == ']' {
				longest = max(longest, separators[last]+1)
			}
			separators = separators[:last]
		}
	}
	return longest
}

// endOfString returns where the string ends that begins at i: the index of its closing quote.
func endOfString(json []byte, i int) int {
	for i++; i < len(json) && json[i] != '"'; i++ {
		if json[i] == '\\' {
			i++
		}
	}
	return i
}

// ElementsOfYAML returns about how many names and values a YAML document has before its aliases
// are expanded, and at least half of them. It does not tell text from structure: what looks
// like the latter counts, wherever it stands. For JSON it is at least what Elements returns.
func ElementsOfYAML(yaml []byte) int {
	const (
		blanks   = " \t\r\n"
		brackets = "[]{},"
	)
	count := 1
	for i, c := range yaml {
		before, after := byte('\n'), byte('\n')
		if i > 0 {
			before = yaml[i-1]
		}
		if i+1 < len(yaml) {
			after = yaml[i+1]
		}
		switch c {
		case ',', '[', '{':
			count++
		case '-':
			if isIn(blanks, after) || after >= 0x80 {
				count++
			}
		case ':', '?':
			// Both may stand at the end of a name or alone; then they have a name and a value.
			switch {
			case isIn(blanks, after) || after >= 0x80:
				count += 2
			case isIn(brackets, after), isIn(blanks+brackets+`"':?`, before):
				count++
			}
		}
	}
	return count
}

func isIn(set string, c byte) bool { return strings.IndexByte(set, c) >= 0 }
