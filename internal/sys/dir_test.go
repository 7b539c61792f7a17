//go:build linux

package sys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenBeneathFollowsNothingAndStaysBeneath(t *testing.T) {
	root := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "a/b"), 0o755),
		os.WriteFile(filepath.Join(root, "a/b/f"), []byte("f"), 0o644),
		os.Symlink("a", filepath.Join(root, "dir")),
		os.Symlink("a/b/f", filepath.Join(root, "file")),
		os.Symlink("/", filepath.Join(root, "out")),
		unix.Mkfifo(filepath.Join(root, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	byName := func(dir *os.File, path string, flags int) (*os.File, error) {
		fd, err := openByName(int(dir.Fd()), path, flags)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), path), nil
	}
	for name, open := range map[string]func(*os.File, string, int) (*os.File, error){"openat2": OpenBeneath, "openat": byName} {
		for path, want := range map[string]bool{
			"a/b/f": true, "a/b": true, "a": true, ".": true, "fifo": true,
			"dir/b/f": false, "file": false, "out/etc/passwd": false, "out": false,
			"..": false, "a/../../x": false, "/etc/passwd": false, "a/b/f/g": false, "nowhere": false,
		} {
			f, err := open(dir, path, unix.O_RDONLY|unix.O_NONBLOCK)
			if (err == nil) != want {
				t.Errorf("%s %s: %v", name, path, err)
			}
			if err == nil {
				f.Close()
			}
		}
	}
}

func TestEveryEntryOfADirectoryIsDescribed(t *testing.T) {
	root := t.TempDir()
	target := strings.Repeat("x", 1000)
	for _, err := range []error{
		os.WriteFile(filepath.Join(root, "\xffodd\n"), []byte("four"), 0o640),
		os.Symlink(target, filepath.Join(root, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	names, err := ReadDirNames(dir)
	if err != nil || len(names) != 2 {
		t.Fatalf("%q, %v", names, err)
	}
	if _, err := StatAt(dir, "gone"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	for _, name := range names {
		f, err := StatAt(dir, name)
		if err != nil || f.Name != name {
			t.Errorf("%q is %q: %v", name, f.Name, err)
		}
		switch name {
		case "\xffodd\n":
			if f.Size != 4 || f.Mode != unix.S_IFREG|0o640 || f.Nlink != 1 || f.Mtime == 0 || f.Ctime == 0 || f.Ino == 0 {
				t.Errorf("%+v", f)
			}
		case "link":
			if got, err := ReadLinkAt(dir, "link"); got != target || err != nil || f.Mode&unix.S_IFMT != unix.S_IFLNK {
				t.Errorf("%q, %v, %+v", got, err, f)
			}
		default:
			t.Errorf("%+v", f)
		}
	}
}
