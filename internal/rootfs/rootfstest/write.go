package rootfstest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/sys"
)

// must reports the first error of a list of steps.
func must(t *testing.T, steps ...error) {
	t.Helper()
	if err := errors.Join(steps...); err != nil {
		t.Error(err)
	}
}

func testWrites(t *testing.T, b *bench) {
	members := kinds()
	l := b.layer(t, members...)
	p := b.place(t, true)
	b.mounted(t, []digest.Digest{l}, p, func() {
		must(t,
			os.WriteFile(p.path("size1"), []byte("changed"), 0),
			os.Remove(p.path("size0")),
			os.RemoveAll(p.path("deep")),
			os.Chmod(p.path("d/setuid"), 0o600),
			os.WriteFile(p.path("new"), []byte("new"), 0o600),
		)
	})
	if got, err := os.ReadFile(filepath.Join(p.upper, "size1")); string(got) != "changed" {
		t.Errorf("upper has %q, %v", got, err)
	}
	equal(t, b.shown(t, l), expected(members))
}

func testRoundTrip(t *testing.T, b *bench) {
	base := b.layer(t, kinds()...)
	middle := b.layer(t, dir("."), dir("m"), file("m/1", "middle"), file("m/2", "middle"), dir("m/sub"), file("m/sub/x", "middle"))
	p := b.place(t, true)
	var want tree
	b.mounted(t, []digest.Digest{base, middle}, p, func() {
		change(t, p)
		want = describe(t, p.path(""))
	})
	if len(want) < 20 || want["m/1"] != "" || want["m/sub/x"] != "" {
		t.Fatalf("the changes did not happen: %s", want.names())
	}
	got := b.shown(t, base, middle, b.fromUpper(t, p, base, middle))
	for name, first := range map[string]string{"m/3": "m/2", "size4097": "linked"} {
		if !strings.HasSuffix(got[name], sameAs+first) {
			t.Errorf("%s is no hard link of %s: %s", name, first, got[name])
		}
	}
	// While it is mounted, overlayfs gives the names of a file that it copied
	// up inode numbers of their own, and goes on to count those links of a
	// lower file that are no more.
	for name := range want {
		got[name], _, _ = strings.Cut(got[name], sameAs)
		want[name], _, _ = strings.Cut(want[name], sameAs)
		if strings.HasPrefix(name, "d/owned") || name == "." {
			delete(got, name) // a layer has no root, unless a tar says so
			delete(want, name)
		}
	}
	equal(t, got, want)
}

// change does to the tree at p what programs do.
func change(t *testing.T, p place) {
	t.Helper()
	write := func(name, content string) error { return os.WriteFile(p.path(name), []byte(content), 0o640) }
	must(t,
		os.Remove(p.path("m/1")),
		os.RemoveAll(p.path("m/sub")), os.Mkdir(p.path("m/sub"), 0o700), write("m/sub/new", "new"),
		os.RemoveAll(p.path("deep")), write("deep", "a file now"),
		os.Remove(p.path("size1")), os.Mkdir(p.path("size1"), 0o755), write("size1/in", "in"),
		os.Chmod(p.path("size4095"), 0o4711),
		os.Rename(p.path("size4096"), p.path("m/moved")),
		write("m/2", "changed"), os.Chtimes(p.path("m/2"), noon, noon),
		os.Link(p.path("m/2"), p.path("m/3")),
		os.Link(p.path("size4097"), p.path("linked")),
		os.Remove(p.path("d/link")), os.Symlink("elsewhere", p.path("d/link")),
		sys.SetXattr(p.path("size513"), "user.new", []byte("new")),
		sys.SetXattr(p.path("size512"), "security.capability", []byte(capability())),
		os.Remove(p.path("hard2")),
		syscall.Mkfifo(p.path("pipe"), 0o620),
		write("m/.odd\nname", ""),
	)
	if !alone() {
		must(t, os.Lchown(p.path("size511"), 1234, 4321), os.Lchown(p.path("d/dangling"), 1, 2))
	}
	if !plain() {
		must(t, syscall.Mknod(p.path("zero"), syscall.S_IFCHR|0o666, int(makedev(1, 5))))
	}
}

func testAgain(t *testing.T, b *bench) {
	l := b.layer(t, dir("."), dir("d"), file("d/1", "layer"), file("d/2", "layer"))
	p := b.place(t, true)
	for round := range 3 {
		b.mounted(t, []digest.Digest{l}, p, func() {
			_, err := os.Stat(p.path("d/1"))
			if round == 0 {
				must(t, err, os.Remove(p.path("d/1")), os.WriteFile(p.path("d/2"), []byte("upper"), 0o600), os.Chmod(p.path(""), 0o711))
				return
			}
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a removed file came back: %v", err)
			}
			if got, err := os.ReadFile(p.path("d/2")); string(got) != "upper" {
				t.Errorf("d/2 holds %q, %v", got, err)
			}
			if info, err := os.Stat(p.path("")); err != nil || info.Mode().Perm() != 0o711 {
				t.Errorf("the root lost its mode: %v, %v", info.Mode(), err)
			}
		})
	}
}

func testVolatile(t *testing.T, b *bench) {
	l := b.layer(t, dir("."), file("f", "layer"))
	p := b.place(t, true)
	mounts, err := b.driver.Stack(t.Context(), []digest.Digest{l}, p.at, p.upper, p.work)
	if err != nil {
		t.Fatal(err)
	}
	b.make(t, rootfs.Volatile(mounts), func() {
		must(t, os.WriteFile(p.path("f"), []byte("upper"), 0o600))
		data, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil || !strings.Contains(string(data), "volatile") {
			t.Errorf("the mount is not volatile: %v", err)
		}
	})
	if got, err := os.ReadFile(filepath.Join(p.upper, "f")); string(got) != "upper" {
		t.Errorf("upper has %q, %v", got, err)
	}
}

func testNothingStays(t *testing.T, b *bench) {
	l := b.layer(t, file("f", "x"))
	p := b.place(t, true)
	b.mounted(t, []digest.Digest{l}, p, func() {
		if out, err := exec.Command("cat", p.path("f")).Output(); string(out) != "x" {
			t.Errorf("a child reads %q, %v", out, err)
		}
	})
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(data), b.dir) {
		t.Errorf("a mount got out: %v\n%s", err, data)
	}
	must(t, os.Remove(p.at))
}

func testForget(t *testing.T, b *bench) {
	members := kinds()
	l := b.layer(t, members...)
	p := b.place(t, false)
	b.mounted(t, []digest.Digest{l}, p, func() {
		err := b.driver.Forget(t.Context(), l)
		if err != nil && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("forget a mounted layer: %v", err)
		}
		equal(t, describe(t, p.path("")), expected(members))
	})
	// The thread that had the mount ends in its own time.
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := b.driver.Forget(t.Context(), l)
		if err == nil {
			break
		}
		if !errdefs.IsFailedPrecondition(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	must(t, b.driver.Forget(t.Context(), l), b.driver.Forget(t.Context(), digest.FromString("never seen")))
	equal(t, b.shown(t, l), expected(members))
}

func testConcurrent(t *testing.T, b *bench) {
	members := kinds()
	l := b.layer(t, members...)
	got := make([]tree, 8)
	places := make([]place, len(got))
	for i := range places {
		places[i] = b.place(t, i%2 == 0)
	}
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() {
			mounts, err := b.driver.Stack(t.Context(), []digest.Digest{l}, p.at, p.upper, p.work)
			if err == nil {
				err = sys.PrivateMounts(func() error {
					if err := sys.MountAll(mounts); err != nil {
						return err
					}
					got[i] = describe(t, p.path(""))
					return nil
				})
			}
			must(t, err)
		})
	}
	wg.Wait()
	for i := range got {
		if !t.Failed() {
			equal(t, got[i], expected(members))
		}
	}
}
