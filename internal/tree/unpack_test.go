package tree

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
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
