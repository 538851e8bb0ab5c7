package auth

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// MinTokenLength is the number of characters below which a token is easy to guess. A shorter
// one is accepted all the same.
const MinTokenLength = 16

// byteOrderMark begins files that some editors write. It is not part of the first token.
var byteOrderMark = []byte("\ufeff")

// NewFileReader returns a reader of the records of a token file, of which it expects nothing:
// the number of columns may differ.
func NewFileReader(r io.Reader) *csv.Reader {
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
//	token,user,uid,"group1,group2"
//
// for each token; the groups are optional. short are the lines of tokens that are shorter than
// MinTokenLength. As upstream, it skips blank lines, ignores
// columns after the fourth, keeps spaces in group names, and knows no comments: a line
// that begins with # is a token like any other. Unlike upstream, which only warns, it
// rejects the whole file for an empty or repeated token, for an empty user name, and
// for containing no token, since that would lock everybody out. Empty group names are
// dropped, and so is a byte order mark.
func parseTokens(r io.Reader) (set tokenSet, short []int, err error) {
	reader := NewFileReader(r)
	reader.ReuseRecord = true
	set = tokenSet{}
	lines := map[[32]byte]int{}
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// A *csv.ParseError contains the position and the violated rule, but no
			// text of the line.
			if parseErr, ok := errors.AsType[*csv.ParseError](err); ok {
				return nil, nil, lineError(parseErr.Line, parseErr.Err)
			}
			return nil, nil, err
		}
		line, _ := reader.FieldPos(0)
		id, err := parseRecord(record)
		if err != nil {
			return nil, nil, lineError(line, err)
		}
		if first, ok := lines[id.ID]; ok {
			return nil, nil, lineError(line, fmt.Errorf("the token is the same as in line %d", first))
		}
		lines[id.ID] = line
		set[id.ID] = id
		if utf8.RuneCountInString(record[0]) < MinTokenLength {
			short = append(short, line)
		}
	}
	if len(set) == 0 {
		return nil, nil, errors.New("it has no token, which would lock out everybody")
	}
	return set, short, nil
}

func lineError(line int, err error) error { return fmt.Errorf("line %d: %w", line, err) }

// parseRecord clones what it keeps: the fields of a record are slices of one string,
// which begins with the token.
func parseRecord(record []string) (*Identity, error) {
	if len(record) < 3 {
		return nil, fmt.Errorf("it must have at least 3 columns (token, user name, user uid), found %d", len(record))
	}
	u := User{Name: strings.Clone(record[1]), UID: strings.Clone(record[2])}
	if len(record) > 3 {
		u.Groups = strings.Split(strings.Clone(record[3]), ",")
		u.Groups = slices.DeleteFunc(u.Groups, func(group string) bool { return group == "" })
	}
	return newIdentity(record[0], u)
}
