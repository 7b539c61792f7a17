package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// host makes files below a new directory: "a/" is a directory, "a -> b" a
// symbolic link, "a" a file that holds its own name.
func host(t testing.TB, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		name, target, isLink := strings.Cut(f, " -> ")
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch {
		case isLink:
			must(t, os.Symlink(target, path))
		case strings.HasSuffix(f, "/"):
			must(t, os.MkdirAll(path, 0o755))
		default:
			must(t, os.WriteFile(path, []byte(name), 0o644))
		}
	}
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openHost(t testing.TB, root string) FS {
	t.Helper()
	d, err := Dir(root, t.TempDir())
	must(t, err)
	t.Cleanup(func() { d.(*hostDir).Close() })
	// Most directories are more than what is kept in memory.
	d.(*hostDir).keep = 4
	// The files are new, but the cache takes only those that are not.
	d.(*hostDir).now = func() time.Time { return time.Now().Add(time.Hour) }
	return d
}

// mapCache is a StatCache in memory.
type mapCache struct {
	mu   sync.Mutex
	m    map[StatKey]Sum
	hits int
}

func (c *mapCache) Get(key StatKey) (Sum, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum, ok := c.m[key]
	if ok {
		c.hits++
	}
	return sum, ok
}

func (c *mapCache) Put(key StatKey, sum Sum) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[StatKey]Sum{}
	}
	c.m[key] = sum
}

func digestOf(t testing.TB, fsys FS, path string, o DigestOptions) digest.Digest {
	t.Helper()
	d, err := Digest(t.Context(), fsys, path, o)
	must(t, err)
	return d
}

func TestDirKeepsToItsRoot(t *testing.T) {
	outside := host(t, "secret")
	root := host(t, "a/b", "out -> "+outside, "up -> ../..", "loop -> loop")
	d := openHost(t, root)
	for _, name := range []string{"out/secret", "up/etc", "loop", "../x", "/etc/passwd", "a/../../etc"} {
		if f, err := d.Open(name); err == nil {
			f.Close()
			t.Errorf("%s opens", name)
		}
	}
	if got, err := Resolve(d, "out"); err != nil || got != outside[1:] {
		t.Errorf("out leads to %s, %v", got, err)
	}
	if _, err := Resolve(d, "loop"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("loop: %v", err)
	}
}

func TestDirNeverBlocksOnSpecialFiles(t *testing.T) {
	root := host(t, "f")
	must(t, syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	d := openHost(t, root)
	if _, err := d.Open("fifo"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("open fifo: %v", err)
	}
	// A file that becomes a FIFO after it was listed must not block either.
	must(t, os.Remove(filepath.Join(root, "f")))
	must(t, syscall.Mkfifo(filepath.Join(root, "f"), 0o600))
	if _, err := d.Open("f"); !errdefs.IsAborted(err) {
		t.Errorf("open swapped file: %v", err)
	}
	digestOf(t, openHost(t, root), "/", DigestOptions{})
}

func TestDirNoticesThatAFileChangedUnderIt(t *testing.T) {
	root := host(t, "f")
	d := openHost(t, root)
	if _, err := d.Lstat("f"); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte("longer than before"), 0o644))
	if _, err := d.Open("f"); !errdefs.IsAborted(err) {
		t.Errorf("open: %v", err)
	}
}

func TestDirSymlinkSwapShowsNothingOutside(t *testing.T) {
	outside := host(t, "f")
	root := host(t, "a/f")
	d := openHost(t, root)
	if _, err := d.ReadDir("a"); err != nil {
		t.Fatal(err)
	}
	must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(root, "b")))
	must(t, os.Symlink(outside, filepath.Join(root, "a")))
	if f, err := d.Open("a/f"); err == nil {
		f.Close()
		t.Error("a file outside opens")
	}
}

func TestDirShowsEveryNameThatAFileCanHave(t *testing.T) {
	names := []string{"new\nline", "\xff\xfe", strings.Repeat("x", 255), "...", " ", "a\\b", "*"}
	d := openHost(t, host(t, names...))
	for _, name := range names {
		data, err := fs.ReadFile(d, name)
		if err != nil || string(data) != name {
			t.Errorf("%q: %q, %v", name, data, err)
		}
	}
}

func TestDigestSeesAllThatAStepSeesAndNoTimes(t *testing.T) {
	base := []string{"d/f", "d/g", "l -> d/f"}
	first := digestOf(t, openHost(t, host(t, base...)), "/", DigestOptions{DirContents: true})
	change := map[string]func(root string) error{
		"nothing":  func(string) error { return nil },
		"mtime":    func(r string) error { return os.Chtimes(r+"/d/f", time.Unix(1, 0), time.Unix(1, 0)) },
		"content":  func(r string) error { return os.WriteFile(r+"/d/f", []byte("d/x"), 0o644) },
		"mode":     func(r string) error { return os.Chmod(r+"/d/f", 0o600) },
		"dirmode":  func(r string) error { return os.Chmod(r+"/d", 0o700) },
		"name":     func(r string) error { return os.Rename(r+"/d/f", r+"/d/e") },
		"link":     func(r string) error { return errors.Join(os.Remove(r+"/l"), os.Symlink("d/g", r+"/l")) },
		"extra":    func(r string) error { return os.Mkdir(r+"/x", 0o755) },
		"hard":     func(r string) error { return errors.Join(os.Remove(r+"/d/g"), os.Link(r+"/d/f", r+"/d/g")) },
		"rootmode": func(r string) error { return os.Chmod(r, 0o700) },
	}
	seen := map[digest.Digest]string{}
	for name, f := range change {
		root := host(t, base...)
		must(t, f(root))
		d := digestOf(t, openHost(t, root), "/", DigestOptions{DirContents: true})
		same := name == "nothing" || name == "mtime" || name == "rootmode"
		if (d == first) != same {
			t.Errorf("%s: digest equal: %v", name, d == first)
		}
		if other, dup := seen[d]; dup && !same {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[d] = name
	}
}

func TestDigestReadsAnUnchangedFileOnce(t *testing.T) {
	root := host(t, "a", "b/c", "b/d")
	cache := &mapCache{}
	first := digestOf(t, openHost(t, root), "/", DigestOptions{Cache: cache})
	if len(cache.m) != 3 {
		t.Fatalf("%d files in the cache", len(cache.m))
	}
	must(t, os.WriteFile(root+"/a", []byte("z"), 0o644))
	must(t, os.WriteFile(root+"/a", []byte("a"), 0o644))
	if again := digestOf(t, openHost(t, root), "/", DigestOptions{Cache: cache}); again != first {
		t.Error("the same content has another digest")
	}
	if cache.hits != 2 {
		t.Errorf("%d hits", cache.hits)
	}
	must(t, os.WriteFile(root+"/a", []byte("z"), 0o644))
	if again := digestOf(t, openHost(t, root), "/", DigestOptions{Cache: cache}); again == first {
		t.Error("a changed file went unnoticed")
	}
}

func TestDigestTellsWhichFileMadeTheDifference(t *testing.T) {
	root := host(t, "a", "b/c", "b/d")
	files := func() map[string]Sum {
		all := map[string]Sum{}
		digestOf(t, openHost(t, root), "/", DigestOptions{Each: func(name string, sum Sum) { all[name] = sum }})
		return all
	}
	before := files()
	must(t, os.WriteFile(root+"/b/c", []byte("new"), 0o644))
	after := files()
	if len(after) != 5 {
		t.Errorf("files: %v", after)
	}
	for name, d := range after {
		if (d == before[name]) == (name == "b/c") {
			t.Errorf("%q: %x, then %x", name, before[name], d)
		}
	}
}

func TestDigestNamesWhatIsMissing(t *testing.T) {
	d := openHost(t, host(t, "a/b"))
	for _, path := range []string{"/nofile", "a/b/c"} {
		_, err := Digest(t.Context(), d, path, DigestOptions{})
		if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "\": not found") {
			t.Errorf("%s: %v", path, err)
		}
	}
	_, err := Digest(t.Context(), d, "/", DigestOptions{Include: []string{"a/c"}, Required: []string{"/a/c"}})
	if !errdefs.IsNotFound(err) {
		t.Errorf("required: %v", err)
	}
	digestOf(t, d, "/", DigestOptions{Include: []string{"a/b"}, Required: []string{"/a/b"}})
}

// context20k is the context of the speed goals: 20,000 files in 400 directories.
func context20k(b *testing.B) string {
	root := b.TempDir()
	for i := range 400 {
		dir := fmt.Sprintf("%s/d%d/e%d", root, i%20, i)
		must(b, os.MkdirAll(dir, 0o755))
		for j := range 50 {
			must(b, os.WriteFile(fmt.Sprintf("%s/file%d.txt", dir, j), bytes.Repeat([]byte{byte(i), byte(j)}, 500), 0o644))
		}
	}
	return root
}

func BenchmarkDigest20kCold(b *testing.B) {
	root := context20k(b)
	for b.Loop() {
		digestOf(b, openHost(b, root), "/", DigestOptions{})
	}
}

func BenchmarkDigest20kUnchanged(b *testing.B) {
	root, cache := context20k(b), &mapCache{}
	digestOf(b, openHost(b, root), "/", DigestOptions{Cache: cache})
	b.ReportAllocs()
	for b.Loop() {
		digestOf(b, openHost(b, root), "/", DigestOptions{Cache: cache})
	}
}

func BenchmarkDigest20kUnchangedIgnoreFile(b *testing.B) {
	root, cache := context20k(b), &mapCache{}
	digestOf(b, openHost(b, root), "/", DigestOptions{Cache: cache})
	for b.Loop() {
		d, err := Select(openHost(b, root), []string{"*.log", "**/node_modules", ".git", "**/*.pyc", "!keep.log"})
		must(b, err)
		digestOf(b, d, "/", DigestOptions{Cache: cache})
	}
}
