package tree

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/shaleproject/shale/internal/layer"
)

// same is one set of files in every kind of tree.
func same(t testing.TB, files ...string) map[string]FS {
	edited := build(t, files...)
	_, archive := archived(t, func(w *layer.Writer) error { return Archive(t.Context(), edited, w) })
	selected, err := Select(build(t, append(files, "ignored", "d/ignored")...), []string{"**/ignored"})
	must(t, err)
	onBase := Edit(build(t, append(files, "removed/x")...))
	must(t, onBase.Remove("removed", RemoveOptions{}))
	_, gone := written(t, onBase)
	return map[string]FS{
		"edited": edited, "directory": openHost(t, host(t, files...)), "layer": archive, "selected": selected,
		"stack of one": Stack(archive), "stack": Stack(build(t, "removed/x"), archive, gone), "on base": onBase.FS(),
	}
}

func TestEveryTreeIsAFileSystem(t *testing.T) {
	files := []string{"a", "d/b", "d/e/f", "d/e/g", "z/"}
	for name, fsys := range same(t, files...) {
		t.Run(name, func(t *testing.T) {
			if err := fstest.TestFS(fsys, "a", "d/b", "d/e", "d/e/f", "d/e/g", "z"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEveryTreeAnswersAlike(t *testing.T) {
	long := strings.Repeat("n", 255)
	all := same(t, "a", "d/b", "l -> d", "m -> /etc", "new\nline", "\xff\xfe", long, "d/...")
	for name, fsys := range all {
		t.Run(name, func(t *testing.T) {
			if got, want := list(t, fsys), list(t, all["edited"]); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			for _, missing := range []string{"x", "d/x", "x/y", "d/e/f/g"} {
				for what, err := range tries(fsys, missing) {
					if !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s %s: %v", what, missing, err)
					}
				}
			}
			for _, bad := range []string{"", "/a", "a/", "./a", "d/../a", "d//b", "..", "a\x00b"} {
				for what, err := range tries(fsys, bad) {
					if err == nil {
						t.Errorf("%s %q is taken", what, bad)
					}
				}
			}
			for _, through := range []string{"l/b", "a/x"} {
				for what, err := range tries(fsys, through) {
					if err == nil {
						t.Errorf("%s %s goes through what is no directory", what, through)
					}
				}
			}
			if _, err := fsys.ReadLink("a"); err == nil {
				t.Error("a file has a link target")
			}
			if f, err := fsys.Open("l"); err == nil && name != "layer" { // a layer opens it to be asked for its Stat
				f.Close()
				t.Error("a symbolic link opens")
			}
			if real, err := Resolve(fsys, "/l/b"); err != nil || real != "d/b" {
				t.Errorf("resolve: %s, %v", real, err)
			}
		})
	}
}

func tries(fsys FS, name string) map[string]error {
	errs := map[string]error{}
	_, errs["lstat"] = fsys.Lstat(name)
	_, errs["readdir"] = fsys.ReadDir(name)
	_, errs["readlink"] = fsys.ReadLink(name)
	f, err := fsys.Open(name)
	if err == nil {
		f.Close()
	}
	errs["open"] = err
	return errs
}

func TestResolveEndsAtTheRoot(t *testing.T) {
	fsys := build(t, "a/b/f", "up -> ../../..", "abs -> /a", "rel -> a/b", "a/back -> ../rel/..", "x -> y", "y -> x", "deep -> rel/../b/f", "dots -> ...", ".../f", "none -> a/none/x")
	for name, want := range map[string]string{
		"": ".", "/": ".", "..": ".", "../../a": "a", "up": ".", "up/a": "a", "abs/b": "a/b", "rel/f": "a/b/f", "/rel/../b": "b",
		"a/back": "a", "a/back/b": "a/b", "deep": "a/b/f", "dots/f": ".../f", "nowhere/x": "nowhere/x", "none": "a/none/x", "a/./b": "a/b",
	} {
		if got, err := Resolve(fsys, name); got != want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for name, want := range map[string]error{"x": syscall.ELOOP, "x/y": syscall.ELOOP, "a/b/f/g": syscall.ENOTDIR, "deep/x": syscall.ENOTDIR} {
		if got, err := Resolve(fsys, name); !errors.Is(err, want) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

// A process that swaps a directory of the context for a link, as fast as it
// can, never gets a file from outside into a digest or an image.
func TestSwappedDirectoriesShowNothingFromOutside(t *testing.T) {
	const secret = "canary"
	outside := host(t, "f")
	must(t, os.WriteFile(outside+"/f", []byte(secret), 0o644))
	root := host(t, "a/f")
	var stop atomic.Bool
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for !stop.Load() {
			os.Rename(root+"/a", root+"/b")
			os.Symlink(outside, root+"/a")
			os.Remove(root + "/a")
			os.Rename(root+"/b", root+"/a")
		}
	})
	defer swapper.Wait()
	defer stop.Store(true)
	for range 2000 {
		d, err := Dir(root, "")
		must(t, err)
		data, err := fs.ReadFile(d, "a/f")
		if err == nil && string(data) != "a/f" {
			t.Fatalf("read %q", data)
		}
		c := Edit(nil)
		if err := c.Copy(t.Context(), d, "/", "/", dockerfile); err == nil {
			var b bytes.Buffer
			c.WriteLayer(t.Context(), layer.NewWriter(&b)) // fails more often than not
			if strings.Contains(b.String(), secret) {
				t.Fatal("the layer has a file from outside")
			}
		}
		d.(*hostDir).Close()
	}
}

func TestDirNeedsADirectory(t *testing.T) {
	root := host(t, "f")
	for _, path := range []string{filepath.Join(root, "f"), filepath.Join(root, "nowhere")} {
		if _, err := Dir(path, ""); err == nil {
			t.Errorf("%s opens", path)
		}
	}
}
