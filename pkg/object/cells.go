package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// Since is a cell of a table that shows how long ago a time was: it changes while its object
// does not, so that whoever writes a table fills it in. The zero time is unknown.
type Since time.Time

// Age is the cell of a table that shows how old its object is, a Since of its creation.
var Age ageCell

type ageCell struct{}

// timeByte stands before and behind the time of a Since in the form Cells, which is in
// microseconds since 1970, or nothing where it is unknown. It is in no JSON.
const timeByte = 0

// encodeCells returns the form Cells.
func (o *Object) encodeCells(cells []any) ([]byte, error) {
	body := []byte{'['}
	for i, cell := range cells {
		if i > 0 {
			body = append(body, ',')
		}
		if cell == any(Age) {
			cell = Since(o.created)
		}
		if since, ok := cell.(Since); ok {
			body = append(body, timeByte)
			if at := time.Time(since); !at.IsZero() {
				body = strconv.AppendInt(body, at.UnixMicro(), 10)
			}
			body = append(body, timeByte)
			continue
		}
		encoded, err := json.Marshal(cell)
		if err != nil {
			return nil, err
		}
		body = append(body, encoded...)
	}
	return append(body, ']'), nil
}

// NextTime reads the form Cells up to its next Since: it returns the JSON before it, its time,
// and what is behind it. found is false where there is none: then before is all of the cells.
func NextTime(cells []byte) (before []byte, at time.Time, behind []byte, found bool, err error) {
	before, behind, found = bytes.Cut(cells, []byte{timeByte})
	if !found {
		return before, at, nil, false, nil
	}
	text, behind, closed := bytes.Cut(behind, []byte{timeByte})
	if !closed {
		return nil, at, nil, false, errors.New("a time in the cells of a table has no end")
	}
	if len(text) > 0 {
		microseconds, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil {
			return nil, at, nil, false, err
		}
		at = time.UnixMicro(microseconds)
	}
	return before, at, behind, true, nil
}
