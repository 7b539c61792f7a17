package tree

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
)

// packed makes a tar of members whose content is their name.
func packed(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		must(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := io.WriteString(w, h.Name)
			must(t, err)
		}
	}
	must(t, w.Close())
	return b.Bytes()
}

func compressed(t testing.TB, data []byte, c layer.Compression) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := layer.Compress(&b, c, 0)
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// add adds one file that holds data to base, unpacking it.
func add(t testing.TB, base FS, data []byte, dst string, owner *Owner) (*Changes, error) {
	t.Helper()
	src := Edit(nil)
	must(t, src.Mkfile("/file.bin", data, MakeOptions{Mode: 0o600}))
	o := dockerfile
	o.Unpack, o.Owner, o.Mode = true, owner, "0111"
	c := Edit(base)
	c.Temp = t.TempDir()
	t.Cleanup(func() { c.Close() })
	return c, c.Copy(t.Context(), src.FS(), "/file.bin", dst, o)
}

func TestArchivesAreKnownByTheirContent(t *testing.T) {
	archive := packed(t, tar.Header{Name: "a"}, tar.Header{Name: "d/b"})
	for name, data := range map[string][]byte{
		"plain": archive, "gzip": compressed(t, archive, layer.Gzip), "zstd": compressed(t, archive, layer.Zstd),
	} {
		c, err := add(t, nil, data, "/x", nil)
		must(t, err)
		_, fsys := written(t, c)
		if got, want := list(t, fsys), "drwxr-xr-x 0:0 x\n-rw-r--r-- 0:0 x/a \"a\"\ndrwxr-xr-x 0:0 x/d\n-rw-r--r-- 0:0 x/d/b \"d/b\"\n"; got != want {
			t.Errorf("%s: %s", name, got)
		}
		if left, _ := os.ReadDir(c.Temp); len(left) > 0 {
			t.Errorf("%s: %v is left in the temporary directory", name, left)
		}
	}
	for name, data := range map[string][]byte{
		"text": []byte("just text"), "empty": nil, "gzipped text": compressed(t, []byte("just text"), layer.Gzip),
		"empty tar": packed(t), "broken gzip": compressed(t, archive, layer.Gzip)[:20],
	} {
		c, err := add(t, nil, data, "/x/", nil)
		must(t, err)
		if got := names(t, c.FS()); got != "x/ x/file.bin" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestUnpackingGoesThroughLinksOfTheDestinationAndNoFurther(t *testing.T) {
	data := packed(t, tar.Header{Name: "lib/x"}, tar.Header{Name: "up/y"}, tar.Header{Name: "/abs/z"})
	c, err := add(t, build(t, "root/lib -> usr/lib", "root/usr/lib/", "root/up -> /../../etc"), data, "/root", &Owner{7, 8})
	must(t, err)
	if got, want := names(t, c.FS()), "root/ root/abs/ root/abs/z root/etc/ root/etc/y root/lib->usr/lib root/up->/../../etc root/usr/ root/usr/lib/ root/usr/lib/x"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := list(t, c.FS()); !strings.Contains(got, "-rw-r--r-- 7:8 root/usr/lib/x") {
		t.Errorf("owner: %s", got)
	}
}

func TestHostileArchivesAreRefused(t *testing.T) {
	good := packed(t, tar.Header{Name: "a"}, tar.Header{Name: "b"})
	for name, data := range map[string][]byte{
		"dot dot":             packed(t, tar.Header{Name: "../x"}),
		"dot dot inside":      packed(t, tar.Header{Name: "a/../../x"}),
		"hard link out":       packed(t, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}),
		"hard link to none":   packed(t, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}),
		"hard link to dir":    packed(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir}, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "d"}),
		"below file":          packed(t, tar.Header{Name: "a"}, tar.Header{Name: "a/b"}),
		"loop":                packed(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "l"}, tar.Header{Name: "l/x"}),
		"deleted file":        packed(t, tar.Header{Name: "w", Typeflag: tar.TypeChar}),
		"unknown type":        packed(t, tar.Header{Name: "w", Typeflag: 'Z'}),
		"long name":           packed(t, tar.Header{Name: strings.Repeat("n", 256)}),
		"long path":           packed(t, tar.Header{Name: strings.Repeat("d/", 2100) + "x"}),
		"cut short":           good[:len(good)-1536],
		"cut short in gzip":   compressed(t, good, layer.Gzip)[:60],
		"garbage after first": append(bytes.Clone(good[:1024]), bytes.Repeat([]byte("x"), 1024)...),
	} {
		c, err := add(t, nil, data, "/x", nil)
		if name == "cut short in gzip" && err == nil && names(t, c.FS()) == "x" {
			continue // too short to know it from any other file
		}
		if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v, %s", name, err, names(t, c.FS()))
		}
	}
}

func TestUnpackDropsAttributesOfOverlayfs(t *testing.T) {
	data := packed(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, PAXRecords: map[string]string{
		"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.kept": "v",
	}})
	c, err := add(t, build(t, "x/d/old"), data, "/x", nil)
	must(t, err)
	if got := list(t, c.FS()); !strings.Contains(got, `x/d map["user.kept":"v"]`) || !strings.Contains(got, "x/d/old") {
		t.Error(got)
	}
}

func TestUnpackLinksToAFileOfTheBase(t *testing.T) {
	base := build(t, "x/old", "x/e")
	data := packed(t, tar.Header{Name: "new", Typeflag: tar.TypeLink, Linkname: "old"}, tar.Header{Name: "third", Typeflag: tar.TypeLink, Linkname: "new"})
	c, err := add(t, base, data, "/x", nil)
	must(t, err)
	data, fsys := written(t, c)
	if got, want := members(t, data), "x/ x/new x/old=x/new x/third=x/new"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := linksOf(t, Stack(base, fsys)); !strings.Contains(got, "[x/new x/old x/third]") {
		t.Error(got)
	}
}

// Archives jump between directories, come back to them, replace what they had
// and link to it: what is packed in between must not show.
func TestUnpackComesBackToDirectoriesThatItHasLeft(t *testing.T) {
	headers := []tar.Header{
		{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o700}, {Name: "a/1"}, {Name: "a/sub/x"}, {Name: "a/sub/l", Typeflag: tar.TypeSymlink, Linkname: "x"},
		{Name: "b/1"}, {Name: "b/two"},
		{Name: "a/2"}, // back
		{Name: "c/link", Typeflag: tar.TypeLink, Linkname: "b/two", Mode: 0o600},
		{Name: "c/deep/link", Typeflag: tar.TypeLink, Linkname: "c/link", Mode: 0o640},
		{Name: "b/1", Mode: 0o755}, // once more
		{Name: "d/1"},
		{Name: "a/sub/", Typeflag: tar.TypeDir, Mode: 0o711},
		{Name: "e/through", Typeflag: tar.TypeSymlink, Linkname: "../a"},
		{Name: "e/through/3"},
	}
	const want = `drwx------ 0:0 a
-rw-r--r-- 0:0 a/1 "a/1"
-rw-r--r-- 0:0 a/2 "a/2"
-rw-r--r-- 0:0 a/3 "e/through/3"
drwx--x--x 0:0 a/sub
Lrwxrwxrwx 0:0 a/sub/l -> x
-rw-r--r-- 0:0 a/sub/x "a/sub/x"
drwxr-xr-x 0:0 b
-rwxr-xr-x 0:0 b/1 "b/1"
-rw-r----- 0:0 b/two "b/two"
drwxr-xr-x 0:0 c
drwxr-xr-x 0:0 c/deep
-rw-r----- 0:0 c/deep/link "b/two"
-rw-r----- 0:0 c/link "b/two"
drwxr-xr-x 0:0 d
-rw-r--r-- 0:0 d/1 "d/1"
drwxr-xr-x 0:0 e
Lrwxrwxrwx 0:0 e/through -> ../a
`
	plain := packed(t, headers...)
	for _, data := range [][]byte{plain, compressed(t, plain, layer.Gzip)} {
		c, err := add(t, nil, data, "/", nil)
		must(t, err)
		if got := list(t, c.FS()); got != want {
			t.Errorf("got\n%s", got)
		}
		if _, fsys := written(t, c); !strings.Contains(linksOf(t, fsys), "[b/two c/deep/link c/link]") {
			t.Errorf("links %s", linksOf(t, fsys))
		}
		// A second archive may change what the first has packed, and no tree
		// that was shown before.
		before := c.FS()
		src := Edit(nil)
		must(t, src.Mkfile("/file.bin", packed(t, tar.Header{Name: "b/two", Mode: 0o777}, tar.Header{Name: "f", Typeflag: tar.TypeLink, Linkname: "d/1", Mode: 0o600}), MakeOptions{}))
		o := dockerfile
		o.Unpack = true
		must(t, c.Copy(t.Context(), src.FS(), "/file.bin", "/", o))
		after := strings.Replace(want, `-rw-r----- 0:0 b/two`, `-rwxrwxrwx 0:0 b/two`, 1)
		after = strings.Replace(after, `-rw-r--r-- 0:0 d/1`, `-rw------- 0:0 d/1`, 1) + "-rw------- 0:0 f \"d/1\"\n"
		if got := list(t, c.FS()); got != after {
			t.Errorf("after the second archive\n%s", got)
		}
		if got := list(t, before); got != want {
			t.Errorf("before it, seen after it\n%s", got)
		}
	}
}

func TestTheNamesOfALargeArchiveCostNoMemory(t *testing.T) {
	const dirs, files = 50, 1000
	var headers []tar.Header
	for d := range dirs {
		for f := range files {
			headers = append(headers, tar.Header{Name: fmt.Sprintf("dir%d/sub/a file with number %d", d, f)})
		}
	}
	data := packed(t, headers...)
	headers = nil
	before := heap()
	c, err := add(t, nil, data, "/", nil)
	must(t, err)
	if after := heap(); after > before && (after-before)/(dirs*files) > 60 {
		t.Errorf("%d bytes a file", (after-before)/(dirs*files))
	}
	runtime.KeepAlive(data)
	if got := strings.Count(walked(t, c.FS()), "\n"); got != dirs*(files+2) {
		t.Errorf("%d names", got)
	}
}
