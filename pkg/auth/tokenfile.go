package auth

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// MinTokenLength is the number of characters below which a token is easy to guess. A shorter
	// one is accepted all the same.
	MinTokenLength = 16
	// hashPrefix begins the first column of a line that has a token's SHA-256 in place of the
	// token.
	hashPrefix = "sha256:"
)

// byteOrderMark begins files that some editors write. It is not part of the first token.
var byteOrderMark = []byte("\ufeff")

// tokenRecord is what a line of a token file says of its token.
type tokenRecord struct {
	user    User      // without system:authenticated
	expires time.Time // zero: never
}

// Remarks are the lines of a token file that are accepted, and yet worth a warning.
type Remarks struct {
	Short   []int // with a token of less than MinTokenLength characters
	Expired []int // when the file was read
	Spaced  []int // with a space at the beginning or the end of the user or of a group, which is part of it
}

// newFileReader returns a reader of the records of a token file, of which it expects nothing:
// the number of columns may differ.
func newFileReader(r io.Reader) *csv.Reader {
	buffered := bufio.NewReader(r)
	// An error comes again at the first read.
	if begin, _ := buffered.Peek(len(byteOrderMark)); bytes.Equal(begin, byteOrderMark) {
		_, _ = buffered.Discard(len(byteOrderMark))
	}
	reader := csv.NewReader(buffered)
	reader.FieldsPerRecord = -1
	return reader
}

// parseTokens reads kube-apiserver's static token file: CSV with a line
//
//	token,user,uid,"group1,group2",expiry
//
// for each token; the groups and the expiry are optional. In place of the token a line may have
// its hash, as TokenLine writes it. The expiry is a time in the form of RFC 3339.
//
// As upstream, it skips blank lines, ignores columns after those, keeps spaces in group names,
// and knows no comments: a line that begins with # is a token like any other. Unlike upstream,
// which only warns, it rejects the whole file for an empty or repeated token, for an empty user
// name, and for containing no token, since that would lock everybody out; and for a fifth column
// that is no time, which upstream ignores. Empty group names are dropped, and so is a byte order
// mark.
func parseTokens(r io.Reader, now time.Time) (records map[[sha256.Size]byte]tokenRecord, remarks Remarks, err error) {
	reader := newFileReader(r)
	reader.ReuseRecord = true
	records = map[[sha256.Size]byte]tokenRecord{}
	lines := map[[sha256.Size]byte]int{}
	for {
		columns, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// A *csv.ParseError contains the position and the violated rule, but no
			// text of the line.
			if parseErr, ok := errors.AsType[*csv.ParseError](err); ok {
				return nil, Remarks{}, lineError(parseErr.Line, parseErr.Err)
			}
			return nil, Remarks{}, err
		}
		line, _ := reader.FieldPos(0)
		id, record, err := parseRecord(columns)
		if err != nil {
			return nil, Remarks{}, lineError(line, err)
		}
		if first, ok := lines[id]; ok {
			return nil, Remarks{}, lineError(line, fmt.Errorf("the token is the same as in line %d", first))
		}
		lines[id], records[id] = line, record
		if !strings.HasPrefix(columns[0], hashPrefix) && utf8.RuneCountInString(columns[0]) < MinTokenLength {
			remarks.Short = append(remarks.Short, line)
		}
		if !record.expires.IsZero() && !now.Before(record.expires) {
			remarks.Expired = append(remarks.Expired, line)
		}
		if isSpaced(record.user.Name) || slices.ContainsFunc(record.user.Groups, isSpaced) {
			remarks.Spaced = append(remarks.Spaced, line)
		}
	}
	if len(records) == 0 {
		return nil, Remarks{}, errors.New("it has no token, which would lock out everybody")
	}
	return records, remarks, nil
}

func isSpaced(name string) bool { return strings.TrimSpace(name) != name }

func lineError(line int, err error) error { return fmt.Errorf("line %d: %w", line, err) }

// parseRecord clones what it keeps: the columns are slices of one string, which begins with the
// token.
func parseRecord(columns []string) (id [sha256.Size]byte, record tokenRecord, err error) {
	if len(columns) < 3 {
		return id, record, fmt.Errorf("it must have at least 3 columns (token, user name, user uid), found %d", len(columns))
	}
	if id, err = tokenID(columns[0]); err != nil {
		return id, record, err
	}
	if columns[1] == "" {
		return id, record, errNoName
	}
	record.user = User{Name: strings.Clone(columns[1]), UID: strings.Clone(columns[2])}
	if len(columns) > 3 {
		groups := strings.Split(strings.Clone(columns[3]), ",")
		record.user.Groups = slices.DeleteFunc(groups, func(group string) bool { return group == "" })
	}
	if len(columns) > 4 && columns[4] != "" {
		if record.expires, err = time.Parse(time.RFC3339, columns[4]); err != nil {
			// Not err: it has the text of the column, which may be anything in a line with
			// misplaced commas.
			return id, record, errors.New(`the fifth column is not when the token expires, such as 2027-01-31T12:00:00Z; several groups must be in quotes: "group1,group2"`)
		}
	}
	return id, record, nil
}

// tokenID returns the SHA-256 of the token that the first column of a line has, or that it has
// the hash of.
func tokenID(column string) (id [sha256.Size]byte, err error) {
	digits, hashed := strings.CutPrefix(column, hashPrefix)
	switch {
	case column == "":
		return id, errNoToken
	case !hashed:
		return sha256.Sum256([]byte(column)), nil
	}
	if n, err := hex.Decode(id[:], []byte(digits[:min(len(digits), hex.EncodedLen(len(id)))])); err != nil || n < len(id) || len(digits) > hex.EncodedLen(n) {
		return id, fmt.Errorf("a token that begins with %s is a hash, and must go on with %d hexadecimal digits", hashPrefix, hex.EncodedLen(len(id)))
	}
	return id, nil
}

// TokenLine returns the line of a token file that has the hash of a token in place of it, with a
// line feed. A zero expires means never. It fails for what a file could not have: no token, no
// user name, or a group without a name or with a comma in it.
func TokenLine(token string, u User, expires time.Time) (string, error) {
	switch {
	case token == "":
		return "", errNoToken
	case u.Name == "":
		return "", errNoName
	}
	for _, group := range u.Groups {
		if group == "" || strings.Contains(group, ",") {
			return "", fmt.Errorf("a group cannot be named %q in a token file", group)
		}
	}
	columns := []string{fmt.Sprintf("%s%x", hashPrefix, sha256.Sum256([]byte(token))), u.Name, u.UID, strings.Join(u.Groups, ",")}
	if !expires.IsZero() {
		columns = append(columns, expires.UTC().Format(time.RFC3339))
	}
	var line strings.Builder
	w := csv.NewWriter(&line)
	if err := w.Write(columns); err != nil {
		return "", err
	}
	w.Flush()
	return line.String(), nil
}

// CheckTokens returns what Tokens.Load would say of a file that reads as r.
func CheckTokens(r io.Reader) error {
	_, _, err := parseTokens(r, time.Now())
	return err
}

// PlainTokens returns the tokens of a token file that are not hashed and have not expired, in the
// order of the file.
func PlainTokens(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines, err := newFileReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	now := time.Now()
	var plain []string
	for _, columns := range lines {
		_, record, err := parseRecord(columns)
		if err == nil && !strings.HasPrefix(columns[0], hashPrefix) && (record.expires.IsZero() || now.Before(record.expires)) {
			plain = append(plain, columns[0])
		}
	}
	return plain, nil
}
