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
// when it is complete. A pipe or a device is written to as it is, and a link
// stays one.
type outFile struct {
	*os.File
	path string // the name that it is to get; empty if it has it
}

// openOut opens the file at path, with mode but for the umask.
func openOut(path string, mode fs.FileMode) (*outFile, error) {
	place := path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		place = target
	}
	if info, err := os.Lstat(place); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return nil, fmt.Errorf("write %s: is a directory", path)
		}
		flags := os.O_WRONLY
		if info.Mode()&fs.ModeSymlink != 0 { // to what is not there yet, or has no name, as standard output
			flags |= os.O_CREATE
		}
		file, err := os.OpenFile(place, flags, mode)
		return &outFile{File: file}, err
	}
	aside := filepath.Join(filepath.Dir(place), ".shale-"+rand.Text())
	file, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		var perr *fs.PathError
		if errors.As(err, &perr) {
			perr.Path = path // as the user knows it
		}
		return nil, err
	}
	return &outFile{file, place}, nil
}

// writeOut writes data to the file at path, which others may read.
func writeOut(path string, data []byte) error {
	file, err := openOut(path, 0o666)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.finish(err == nil))
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
