//go:build linux

package sys

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRenameNoReplaceReplacesNothing(t *testing.T) {
	type rename struct {
		name string
		f    func(a, b string) error
	}
	for _, r := range []rename{{"renameat2", RenameNoReplace}, {"link", func(a, b string) error { return classify(linkNoReplace(a, b)) }}} {
		t.Run(r.name, func(t *testing.T) {
			dir := t.TempDir()
			a := write(t, filepath.Join(dir, "a"), "A")
			b := write(t, filepath.Join(dir, "b"), "B")
			err := r.f(a, b)
			if !errdefs.IsAlreadyExists(err) || !errors.Is(err, os.ErrExist) {
				t.Fatalf("rename over a file: %v", err)
			}
			if got, _ := os.ReadFile(b); string(got) != "B" {
				t.Errorf("b holds %q", got)
			}
			c := filepath.Join(dir, "c")
			if err := r.f(a, c); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(a); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a is still there: %v", err)
			}
			if err := r.f(a, c); !errdefs.IsNotFound(err) {
				t.Errorf("rename of nothing: %v", err)
			}
		})
	}
}

func TestSyncNamesWhatItCouldNotSync(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []func(string) error{SyncDir, SyncFS} {
		if err := f(dir); err != nil {
			t.Error(err)
		}
		if err := f(filepath.Join(dir, "none")); !errdefs.IsNotFound(err) {
			t.Errorf("missing directory: %v", err)
		}
	}
}

func TestOpenInRootStaysInRoot(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "canary")
	root := filepath.Join(outside, "root")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "etc/name"), "inside")
	write(t, filepath.Join(root, "secret"), "inside")
	links := map[string]string{
		"abs": "/etc/name", "up": "../../../../etc/name", "dir": "/etc", "out": "../secret",
		"magic": "/proc/self/root/etc",
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"etc/name", "/etc/name", "abs", "up", "dir/name", "out", "../secret", "../../../secret"} {
		f, err := OpenInRoot(root, path, os.O_RDONLY)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, _ := io.ReadAll(f); string(got) != "inside" {
			t.Errorf("%s: read %q", path, got)
		}
		f.Close()
	}
	if _, err := OpenInRoot(root, "magic", os.O_RDONLY); !errdefs.IsNotFound(err) {
		t.Errorf("link into /proc: %v", err)
	}
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if _, err := OpenInRoot(proc, "self/root/etc", os.O_RDONLY); !errors.Is(err, unix.ELOOP) {
		t.Errorf("magic link: %v", err)
	}
}

func TestReflinkSharesOrSaysItCannot(t *testing.T) {
	dir := t.TempDir()
	src, err := os.Open(write(t, filepath.Join(dir, "src"), "content"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	switch err := Reflink(dst, src); {
	case errdefs.IsNotImplemented(err):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(dst.Name()); string(got) != "content" {
		t.Errorf("clone holds %q", got)
	}
}

func TestXattrsAreReadFromTheLinkItself(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "file"), "")
	long := make([]byte, 1000)
	want := map[string][]byte{"user.empty": {}, "user.long": long}
	for name, value := range want {
		if err := SetXattr(file, name, value); errdefs.IsNotImplemented(err) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	got, err := Xattrs(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || string(v) != string(value) {
			t.Errorf("%s: %d bytes, want %d", name, len(v), len(value))
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	if got, err := Xattrs(link); err != nil || got["user.long"] != nil {
		t.Errorf("link: %v, %v", got, err)
	}
	if _, err := Xattrs(filepath.Join(dir, "none")); !errdefs.IsNotFound(err) {
		t.Errorf("missing file: %v", err)
	}
}

func TestAnXattrBelowADirectoryIsTheSameOnOldKernels(t *testing.T) {
	at := t.TempDir()
	file := write(t, filepath.Join(at, "file"), "")
	if err := os.Symlink("file", filepath.Join(at, "link")); err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("x"), 1000)
	if err := SetXattr(file, "user.long", long); errdefs.IsNotImplemented(err) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if value, err := XattrAt(dir, "file", "user.long"); err != nil || !bytes.Equal(value, long) {
		t.Errorf("file: %d bytes, %v", len(value), err)
	}
	if value, err := xattrByPath(int(dir.Fd()), "file", "user.long"); err != nil || !bytes.Equal(value, long) {
		t.Errorf("file by its path: %d bytes, %v", len(value), err)
	}
	for _, name := range []string{"file", "link"} {
		if value, err := XattrAt(dir, name, "user.none"); err != nil || value != nil {
			t.Errorf("%s has %q, %v", name, value, err)
		}
	}
	if value, err := XattrAt(dir, "link", "user.long"); err != nil || value != nil {
		t.Errorf("the link has %d bytes, %v", len(value), err)
	}
	if _, err := XattrAt(dir, "none", "user.long"); !errdefs.IsNotFound(err) {
		t.Errorf("missing file: %v", err)
	}
}
