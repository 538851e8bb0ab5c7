package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-project/berth/cmd/loadtest/internal/report"
)

// output is one report to write.
type output struct {
	kind string // one of report.Kinds
	path string // empty: standard output
}

// outputs parses the values of --output, each "kind" or "kind=file".
func (c *config) outputs() ([]output, error) {
	var all []output
	toStdout := 0
	for _, value := range c.Output {
		kind, path, given := strings.Cut(value, "=")
		if !slices.Contains(report.Kinds, kind) {
			return nil, flagError("output", fmt.Errorf("%q is not one of %s", kind, strings.Join(report.Kinds, ", ")))
		}
		if given && path == "" {
			return nil, flagError("output", fmt.Errorf("%q has no file", value))
		}
		if path == "" {
			toStdout++
		}
		all = append(all, output{kind, path})
	}
	if toStdout > 1 {
		return nil, flagError("output", errors.New("only one report can go to standard output; give the others files, as in html=report.html"))
	}
	return all, nil
}

// outputFile is a report to write. One that goes to a file is written to a new file beside
// it, which takes its name once it is complete.
type outputFile struct {
	output
	to   io.Writer
	file *os.File // the new file, or what path is if that is no regular file; nil: standard output
	path string   // of the report
	part string   // of the new file; "": there is none
}

// outputFiles are the reports to write.
type outputFiles []*outputFile

// openOutputs creates the new files of the reports.
func openOutputs(outputs []output, stdout io.Writer) (outputFiles, error) {
	var all outputFiles
	for _, o := range outputs {
		one := &outputFile{output: o, to: stdout}
		if o.path != "" {
			if err := one.open(); err != nil {
				all.discard()
				return nil, flagError("output", err)
			}
			one.to = one.file
		}
		all = append(all, one)
	}
	return all, nil
}

func (f *outputFile) open() (err error) {
	path, mode := f.output.path, os.FileMode(0o666) // less the umask, as for any new file
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() { // a pipe, a device, or an error
			f.file, err = os.OpenFile(path, os.O_WRONLY, 0)
			return err
		}
		mode = info.Mode().Perm()
	}
	f.path, f.part = path, path+"."+strconv.FormatUint(rand.Uint64(), 36)+".part"
	f.file, err = os.OpenFile(f.part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	return err
}

func (all outputFiles) write(rep *report.Report) error {
	for _, f := range all {
		err := rep.Write(f.to, f.kind)
		if err == nil && f.file != nil {
			err = f.finish()
		}
		if err != nil {
			return fmt.Errorf("cannot write the %s report: %w", f.kind, err)
		}
	}
	return nil
}

// finish gives a complete report its name.
func (f *outputFile) finish() error {
	if f.part == "" {
		return f.file.Close()
	}
	if err := errors.Join(f.file.Sync(), f.file.Close()); err != nil {
		return err
	}
	return os.Rename(f.part, f.path)
}

// discard removes the new files that have not become reports. What was there before stays.
func (all outputFiles) discard() {
	for _, f := range all {
		if f.part != "" {
			_ = os.Remove(f.part) // it is gone if it has become the report
		}
	}
}
