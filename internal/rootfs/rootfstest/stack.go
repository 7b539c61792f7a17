package rootfstest

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
)

func testMerge(t *testing.T, b *bench) {
	base := b.layer(t, dir("."), dir("a"), file("a/1", "base"), file("a/2", "base"), dir("a/sub"), file("a/sub/x", "base"),
		dir("b"), file("b/1", "base"), dir("c"), file("c/1", "base"), file("f", "base"), dir("gone"), file("gone/deep", "base"))
	cases := []struct {
		name string
		top  []member
		want string
	}{
		{"nothing", nil, "a a/1=base a/2=base a/sub a/sub/x=base b b/1=base c c/1=base f=base gone gone/deep=base"},
		{"add and replace", []member{dir("a"), file("a/1", "top"), file("a/3", "top")},
			"a a/1=top a/2=base a/3=top a/sub a/sub/x=base b b/1=base c c/1=base f=base gone gone/deep=base"},
		{"whiteouts", []member{dir("a"), whiteout("a/", "2"), whiteout("a/", "sub"), whiteout("", "gone"), whiteout("", "never-there")},
			"a a/1=base b b/1=base c c/1=base f=base"},
		{"opaque", []member{dir("a"), opaque("a"), file("a/new", "top"), dir("b"), file("b/2", "top"), opaque("b")},
			"a a/new=top b b/2=top c c/1=base f=base gone gone/deep=base"},
		{"opaque and whiteout in one", []member{dir("a"), opaque("a"), whiteout("a/", "1"), file("a/new", "top")},
			"a a/new=top b b/1=base c c/1=base f=base gone gone/deep=base"},
		{"whiteout in a new directory", []member{dir("new"), whiteout("new/", "x"), file("new/y", "top")},
			"a a/1=base a/2=base a/sub a/sub/x=base b b/1=base c c/1=base f=base gone gone/deep=base new new/y=top"},
		{"file over directory", []member{file("a", "top"), file("gone", "top")},
			"a=top b b/1=base c c/1=base f=base gone=top"},
		{"directory over file", []member{dir("f"), file("f/in", "top")},
			"a a/1=base a/2=base a/sub a/sub/x=base b b/1=base c c/1=base f f/in=top gone gone/deep=base"},
		{"everything opaque", []member{dir("."), file(".wh..wh..opq", ""), file("only", "top")}, "only=top"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			top := b.layer(t, c.top...)
			if got := b.shown(t, base, top).names(); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			// A layer above sees the same; what was hidden stays hidden.
			high := b.layer(t, dir("c"), file("c/2", "high"), dir("gone"), file("gone/again", "high"))
			got := b.shown(t, base, top, high)
			if _, ok := got["c/2"]; !ok {
				t.Errorf("the highest layer is not there: %s", got.names())
			}
			if _, ok := got["gone/again"]; !ok {
				t.Errorf("the highest layer is not there: %s", got.names())
			}
			if _, ok := got["gone/deep"]; ok && (c.name == "whiteouts" || c.name == "file over directory") {
				t.Errorf("a hidden file came back: %s", got.names())
			}
		})
	}
}

// testForeign: reliability.md A13 and A15. What overlayfs keeps in attributes and
// devices means nothing if it comes from a tar.
func testForeign(t *testing.T, b *bench) {
	base := b.layer(t, dir("."), dir("d"), file("d/kept", "base"), file("secret", "base"), file("masked", "base"))
	top := b.layer(t,
		dir("d").xattr("trusted.overlay.opaque", "y").xattr("user.overlay.opaque", "y"),
		dir("moved").xattr("trusted.overlay.redirect", "/d").xattr("user.overlay.redirect", "/d"),
		file("meta", "").xattr("trusted.overlay.metacopy", "").xattr("trusted.overlay.redirect", "/secret").
			xattr("user.overlay.metacopy", "x").xattr("user.overlay.redirect", "/secret"),
		file("white", "shown").xattr("trusted.overlay.whiteout", "y").xattr("user.overlay.whiteout", "y"),
		device("masked", tar.TypeChar, 0, 0),
	)
	got := b.shown(t, base, top)
	if _, ok := got["moved/kept"]; ok {
		t.Error("a redirect was followed")
	}
	// The device is no whiteout; whether it hides the file as a device is the
	// layer's to decide, so only the others are compared.
	delete(got, "masked")
	if got, want := got.names(), "d d/kept=base meta= moved secret=base white=shown"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func testNoLayer(t *testing.T, b *bench) {
	if got := b.shown(t); len(got) != 1 {
		t.Errorf("the empty tree holds %s", got.names())
	}
	p := b.place(t, true)
	b.mounted(t, nil, p, func() {
		if err := os.WriteFile(p.path("new"), []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
		if got := describe(t, p.path("")).names(); got != "new=x" {
			t.Errorf("got %s", got)
		}
		if info, err := os.Stat(p.path("")); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("root: %v, %v", info.Mode(), err)
		}
	})
}

func testOneLayer(t *testing.T, b *bench) {
	l := b.layer(t, dir("."), dir("d"), file("d/f", "x"), whiteout("d/", "none"), whiteout("", "nothing"), dir("o"), opaque("o"))
	const want = "d d/f=x o"
	if got := b.shown(t, l).names(); got != want {
		t.Errorf("read-only: got %s, want %s", got, want)
	}
	p := b.place(t, true)
	b.mounted(t, []digest.Digest{l}, p, func() {
		if got := describe(t, p.path("")).names(); got != want {
			t.Errorf("writable: got %s, want %s", got, want)
		}
	})
}

func testDuplicate(t *testing.T, b *bench) {
	a := b.layer(t, dir("."), dir("d"), file("d/a", "a"), file("both", "a"), whiteout("d/", "b"))
	c := b.layer(t, dir("."), dir("d"), file("d/b", "c"), file("d/c", "c"), file("both", "c"))
	cases := []struct {
		layers []digest.Digest
		want   string
	}{
		{[]digest.Digest{a, a}, "both=a d d/a=a"},
		{[]digest.Digest{a, c, a}, "both=a d d/a=a d/c=c"},
		{[]digest.Digest{c, a, c}, "both=c d d/a=a d/b=c d/c=c"},
	}
	for _, k := range cases {
		if got := b.shown(t, k.layers...).names(); got != k.want {
			t.Errorf("got %s, want %s", got, k.want)
		}
	}
}

func testMany(t *testing.T, b *bench, count int) {
	if testing.Short() && count > 100 {
		t.Skip("short")
	}
	var layers []digest.Digest
	for i := range count {
		layers = append(layers, b.layer(t, dir("."), file(fmt.Sprint("file", i), "x"), file("top", fmt.Sprint(i))))
	}
	for _, writable := range []bool{false, true} {
		p := b.place(t, writable)
		b.mounted(t, layers, p, func() {
			entries, err := os.ReadDir(p.path(""))
			if err != nil || len(entries) != count+1 {
				t.Errorf("%d entries, %v", len(entries), err)
			}
			if top, err := os.ReadFile(p.path("top")); string(top) != fmt.Sprint(count-1) {
				t.Errorf("top is %q, %v", top, err)
			}
			if _, err := os.ReadFile(p.path("file0")); err != nil {
				t.Error(err)
			}
		})
	}
}

func testRoot(t *testing.T, b *bench) {
	low := b.layer(t, dir(".").mode(0o700))
	high := b.layer(t, dir(".").mode(0o1777).owner(1000, 50).xattr("user.root", "high"))
	uid, gid := uint32(1000), uint32(50)
	if alone() {
		uid, gid = 0, 0
	}
	for _, writable := range []bool{false, true} {
		p := b.place(t, writable)
		b.mounted(t, []digest.Digest{low, high}, p, func() {
			info, err := os.Stat(p.path(""))
			if err != nil {
				t.Error(err)
				return
			}
			st := info.Sys().(*syscall.Stat_t)
			if info.Mode() != fs.ModeDir|fs.ModeSticky|0o777 || st.Uid != uid || st.Gid != gid {
				t.Errorf("writable %t: root is %s %d:%d", writable, info.Mode(), st.Uid, st.Gid)
			}
		})
	}
}

// testRootRoundTrip: the root is a file as others are, but says nothing by its
// time, and what did not change keeps the layer as it was.
func testRootRoundTrip(t *testing.T, b *bench) {
	noRoot := b.layer(t, file("f", "x"))
	odd := b.layer(t, dir(".").mode(0o1711).owner(3, 4).xattr("user.root", "odd").xattr("user.other", "1"), file("f", "x"))
	bases := map[string][]digest.Digest{"no layer": nil, "implied": {noRoot}, "odd below implied": {odd, noRoot}}
	changes := map[string]func(root string) error{
		"nothing": func(string) error { return nil },
		"a file":  func(root string) error { return os.WriteFile(root+"/new", []byte("x"), 0o600) },
		"mode":    func(root string) error { return os.Chmod(root, 0o700) },
		"setgid":  func(root string) error { return os.Chmod(root, 0o777|fs.ModeSetgid) },
		"owner":   func(root string) error { return os.Lchown(root, 1000, 50) },
		"xattr":   func(root string) error { return sys.SetXattr(root, "user.root", []byte("new")) },
		"back":    func(root string) error { return errors.Join(os.Chmod(root, 0o700), os.Chmod(root, 0o755)) },
	}
	for base, layers := range bases {
		for change, f := range changes {
			if change == "owner" && alone() || change == "back" && strings.HasPrefix(base, "odd") {
				continue
			}
			t.Run(change+" over "+base, func(t *testing.T) {
				before := strings.Fields(b.shown(t, layers...)["."])
				p := b.place(t, true)
				var want []string
				b.mounted(t, layers, p, func() {
					must(t, f(p.path("")))
					want = strings.Fields(describe(t, p.path(""))["."])
				})
				top := b.fromUpper(t, p, layers...)
				got := strings.Fields(b.shown(t, append(layers[:len(layers):len(layers)], top)...)["."])
				const mtime = 2
				before[mtime], want[mtime], got[mtime] = "", "", ""
				if !slices.Equal(got, want) {
					t.Errorf("the root is %q, want %q", got, want)
				}
				l, err := b.store.Layer(top)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				info, err := l.Lstat(".")
				if err != nil {
					t.Fatal(err)
				}
				if implied, same := info.Sys().(*layer.Stat).Implied, slices.Equal(before, want); implied != same {
					t.Errorf("the layer has a root: %t, it changed: %t", !implied, !same)
				}
			})
		}
	}
}

func testReadOnly(t *testing.T, b *bench) {
	l := b.layer(t, file("f", "x"))
	p := b.place(t, false)
	b.mounted(t, []digest.Digest{l}, p, func() {
		if err := os.WriteFile(p.path("new"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("write: %v", err)
		}
		if err := os.Remove(p.path("f")); !errors.Is(err, syscall.EROFS) {
			t.Errorf("remove: %v", err)
		}
	})
}

func testMissing(t *testing.T, b *bench) {
	p := b.place(t, true)
	_, err := b.driver.Stack(t.Context(), []digest.Digest{digest.FromString("never seen")}, p.at, p.upper, p.work)
	if !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}
