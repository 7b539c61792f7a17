package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/term"
)

// outFile is a file that a command writes and that appears under its name only
// when it is complete. A pipe or a device is written to as it is.
type outFile struct {
	*os.File
	path string // the name that it is to get; empty if it has it
}

// openOut opens the file at path, with mode but for the umask.
func openOut(path string, mode fs.FileMode) (*outFile, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return nil, fmt.Errorf("write %s: is a directory", path)
		}
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &outFile{File: file}, err
	}
	aside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
	file, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		var perr *fs.PathError
		if errors.As(err, &perr) {
			perr.Path = path // as the user knows it
		}
		return nil, err
	}
	return &outFile{file, path}, nil
}

// finish closes the file. It gets its name if it is complete, and goes if not.
func (o *outFile) finish(complete bool) error {
	err := o.Close()
	if o.path == "" {
		return err
	}
	if err == nil && complete {
		err = os.Rename(o.Name(), o.path)
	}
	if err != nil || !complete {
		os.Remove(o.Name())
	}
	return err
}

// toFile gives f the file at path, or out if that is empty, to write an
// archive to.
func toFile(out io.Writer, path string, f func(io.Writer) error) error {
	if path == "" {
		if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return f(out)
	}
	file, err := openOut(path, 0o600)
	if err != nil {
		return err
	}
	err = f(file)
	return errors.Join(err, file.finish(err == nil))
}
