package objectjson

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// unlessEscaped and neverEscaped are the ASCII characters that stand for themselves in
// JSON: when it is read, and when encoding/json writes it, which escapes those of HTML.
var unlessEscaped, neverEscaped = characters(`"\`), characters(`"\<>&`)

func characters(except string) (set [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		set[c] = !strings.ContainsRune(except, c)
	}
	return set
}

// Depth returns how deep the objects and arrays of valid JSON are nested; 0: it is neither.
func Depth(text string) int {
	deepest, depth, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// lengthWithin is how many bytes at the head of text are in the set.
func lengthWithin(set *[256]bool, text string) int {
	for i := range len(text) {
		if !set[text[i]] {
			return i
		}
	}
	return len(text)
}

// quoted takes a string; what is none is left.
func (r *Reader) quoted() (string, bool) {
	if r.peek() != '"' {
		return "", false
	}
	start := r.at + 1
	end := start + lengthWithin(&unlessEscaped, r.text[start:])
	if end < len(r.text) && r.text[end] == '"' {
		r.at = end + 1
		return r.text[start:end], true
	}
	return r.quotedOddly(start)
}

// quotedOddly takes a string that begins at start and has escapes or is not ASCII.
func (r *Reader) quotedOddly(start int) (string, bool) {
	escapes := false
	for end := start; end < len(r.text); end++ {
		switch c := r.text[end]; {
		case c == '\\':
			escapes = true
			end++
		case c == '"':
			r.at = end + 1
			text, ok := r.text[start:end], true
			if escapes {
				text, ok = unescape(text)
			}
			return text, ok && utf8.ValidString(text)
		case c < ' ':
			return "", false
		}
	}
	return "", false
}

// unescape returns what text stands for (RFC 8259, section 7).
func unescape(text string) (string, bool) {
	var out strings.Builder
	out.Grow(len(text))
	for {
		before, after, found := strings.Cut(text, `\`)
		out.WriteString(before)
		if !found {
			return out.String(), true
		}
		r, rest, ok := escapedRune(after)
		if !ok {
			return "", false
		}
		out.WriteRune(r)
		text = rest
	}
}

// escapedRune reads what follows a backslash. A half of a surrogate pair is none: who
// reads U+FFFD there instead does so at the price of what was meant.
func escapedRune(text string) (r rune, rest string, ok bool) {
	if text == "" {
		return 0, "", false
	}
	if at := strings.IndexByte(`"\/bfnrt`, text[0]); at >= 0 {
		return rune("\"\\/\b\f\n\r\t"[at]), text[1:], true
	}
	r, rest, ok = codeUnit(text, "u")
	if ok && utf16.IsSurrogate(r) {
		var low rune
		low, rest, ok = codeUnit(rest, `\u`)
		r = utf16.DecodeRune(r, low)
		ok = ok && r != utf8.RuneError
	}
	return r, rest, ok
}

// codeUnit reads the prefix and the four digits behind it.
func codeUnit(text, prefix string) (unit rune, rest string, ok bool) {
	digits, ok := strings.CutPrefix(text, prefix)
	if !ok || len(digits) < 4 {
		return 0, "", false
	}
	value, err := strconv.ParseUint(digits[:4], 16, 16)
	return rune(value), digits[4:], err == nil
}
