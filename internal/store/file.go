package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/sys"
)

// asidePrefix begins the name of a file that WriteFile has not renamed yet.
// Whoever lists a directory of the store passes over them.
const asidePrefix = ".tmp-"

func isAside(name string) bool { return strings.HasPrefix(name, asidePrefix) }

// WriteFile replaces the file at path by one with data in it, mode 0600. When
// it returns without an error the file survives a power cut; when the process
// dies on the way, path has its old content or the new one, and a file that
// begins with ".tmp-" may stay beside it.
func WriteFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	aside := filepath.Join(dir, asidePrefix+randomName())
	if err := writeSynced(aside, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(aside, path); err != nil {
		os.Remove(aside)
		return err
	}
	return sys.SyncDir(dir)
}

// writeSynced makes a file whose data, but not whose name, survives a power
// cut. After an error nothing is left.
func writeSynced(path string, data []byte) error {
	return fillSynced(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// fillSynced is writeSynced of what fill writes.
func fillSynced(path string, fill func(*os.File) error) error {
	f, err := createFile(path, 0o600)
	if err != nil {
		return err
	}
	if err = fill(f); err == nil {
		err = sys.Datasync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// createFile makes a file that must not exist, with exactly mode, and opens it
// for reading and writing.
func createFile(path string, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return f, nil
}

// diskFull gives an error of a disk that has no room its class.
func diskFull(err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if full && !errdefs.IsResourceExhausted(err) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	}
	return err
}

// mkdir makes a directory of mode 0700 under any umask. One that is there
// already is fine.
func mkdir(path string) error {
	err := os.Mkdir(path, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: path, Err: errors.New("a file of this name is in the way")}
	}
	if info.Mode().Perm()&0o700 != 0o700 {
		return os.Chmod(path, 0o700)
	}
	return nil
}

// mkdirs makes dir, below base, and what is missing on the way, durably.
func mkdirs(base, dir string) error {
	if dir == base {
		return nil
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := mkdirs(base, parent); err != nil {
		return err
	}
	if err := mkdir(dir); err != nil {
		return err
	}
	return sys.SyncDir(parent)
}

// removeTree removes path and all below it, directories without permissions
// included, as overlayfs leaves them behind in its work directory. What is not
// there is removed.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && err == nil {
			os.Chmod(p, 0o700) // before its entries are read
		}
		return nil
	})
	return os.RemoveAll(path)
}

// leaseIDLength is the length of what randomName returns: 128 bits in base 32.
const leaseIDLength = 26

// randomName returns a name that nobody else has, lower case.
func randomName() string { return strings.ToLower(rand.Text()) }

// sameContent compares two files.
func sameContent(a, b string) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if errA != nil {
			return errB != nil, nil
		}
	}
}
