package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/sys"
)

// rewrite writes every member that archive/tar finds in data.
func rewrite(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		dir, base := filepath.Split(h.Name)
		switch {
		case base == opaqueName:
			err = w.Opaque(dir)
		case strings.HasPrefix(base, whiteoutPrefix):
			err = w.Whiteout(dir + base[len(whiteoutPrefix):])
		default:
			if err = w.WriteHeader(h); err == nil {
				_, err = w.ReadFrom(r)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriterKeepsAllButFractionsOfSeconds(t *testing.T) {
	data := torture(t)
	canon := rewrite(t, data)
	if again := rewrite(t, canon); !bytes.Equal(canon, again) {
		t.Error("what the Writer wrote is not canonical")
	}
	want := describe(t, index(t, data))
	for name, s := range want {
		want[name] = strings.NewReplacer(".123456789", ".000000000", ".500000000", ".000000000").Replace(s)
	}
	same(t, "rewritten", describe(t, index(t, canon)), want)
	if out, err := exec.Command("tar", "--version").Output(); err == nil && bytes.Contains(out, []byte("GNU")) {
		cmd := exec.Command("tar", "-t")
		cmd.Stdin = bytes.NewReader(canon)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("GNU tar: %v\n%s", err, out)
		}
	}
}

// The digest of everything that shale builds hangs on these bytes.
func TestCanonicalBytesStayAsTheyAre(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "/etc", Mode: 0o40755, Uname: "root", ModTime: time.Unix(1700000000, 999)},
		{Typeflag: tar.TypeReg, Name: "etc/empty", Mode: 0o644, Uid: 1000, Gname: "users", AccessTime: time.Unix(5, 0)},
		{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 50) + "name", Uid: 3000000, PAXRecords: map[string]string{"SCHILY.xattr.user.b": "2", "SCHILY.xattr.user.a": "1", "comment": "dropped"}},
		{Typeflag: tar.TypeSymlink, Name: "link", Linkname: strings.Repeat("t", 101)},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Whiteout("gone"), w.Opaque("etc"), w.Close()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(b.Bytes()))[:16]; got != "610da5f50666920c" {
		t.Errorf("%s", got)
	}
}

func TestWriterRefusesWhatALayerCannotHold(t *testing.T) {
	w := NewWriter(io.Discard)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "../up"},
		{Typeflag: tar.TypeReg, Name: ""},
		{Typeflag: tar.TypeReg, Name: "d/.wh.x"},
		{Typeflag: tar.TypeReg, Name: "negative", Size: -1},
		{Typeflag: tar.TypeLink, Name: "l", Linkname: "../../up"},
		{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ""},
		{Typeflag: tar.TypeChar, Name: "c", Devmajor: -1},
		{Typeflag: 'V', Name: "volume"},
	} {
		if err := w.WriteHeader(&h); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	if err := w.Whiteout("."); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	if err := w.Close(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("closed with two bytes missing: %v", err)
	}
}

// A layer that is stacked, changed and collected holds just the changes.
func TestUpperDirectoryBecomesALayer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("overlayfs needs root")
	}
	lower, upper, work, mnt := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	base := tarOf(t, dir("d"), reg("d/keep", "k"), reg("d/gone", "g"), dir("again"), reg("again/old", "o"),
		reg("hard1", "h"), lnk("hard2", "hard1"), reg("lost", "l"))
	if err := Unpack(context.Background(), bytes.NewReader(base), lower, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	run := func(script string) {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-ec", script)
		cmd.Dir = mnt
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	want := map[string]string{}
	err := sys.PrivateMounts(func() error {
		err := sys.MountAll([]sys.Mount{{
			Type: "overlay", Source: "overlay", Target: mnt, Layers: []string{lower},
			Data: sys.Option("upperdir", upper) + "," + sys.Option("workdir", work) + ",redirect_dir=off,metacopy=off",
		}})
		if err != nil {
			return err
		}
		run(`umask 022
			rm d/gone lost; rm -r again; mkdir again; echo new >again/new
			echo more >>hard1; ln hard1 hard3; ln -s /nowhere sl; mkfifo fifo; mknod zero c 1 5
			mkdir -p deep/er; echo x >deep/er/f; chown 1000:1001 deep/er/f; chmod 4755 deep/er/f
			truncate -s 3M sparse; echo end >>sparse; touch -d @1500000000 deep/er/f
			echo "name with
newline" >"odd name"`)
		if err := sys.SetXattr(filepath.Join(mnt, "deep/er/f"), "user.x", []byte("y")); err != nil {
			return err
		}
		want = describeDir(t, mnt)
		return nil
	})
	if err != nil {
		t.Skipf("overlayfs: %v", err)
	}
	collect := func(o UpperOptions) []byte {
		var b bytes.Buffer
		w := NewWriter(&b)
		if err := errors.Join(FromUpper(context.Background(), w, upper, o), w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	data := collect(UpperOptions{})
	if !bytes.Equal(data, collect(UpperOptions{})) {
		t.Error("the same upper gives other bytes")
	}
	got := describe(t, index(t, data))
	for name, part := range map[string]string{
		"d/gone": "whiteout", "lost": "whiteout", "again": "opaque", "again/new": "4:",
		"hard3": "links=2 of \"hard1\"", "sl": "/nowhere", "deep/er/f": "104755 1000:1001 1500000000", "sparse": "size=3145732",
	} {
		if !strings.Contains(got[name], part) {
			t.Errorf("%s: %q, want %q", name, got[name], part)
		}
	}
	if got["d/keep"] != "" || got["again/old"] != "" || strings.Contains(fmt.Sprint(got), "overlay") {
		t.Errorf("more than the changes: %v", got)
	}
	for name, line := range got {
		w := want[name]
		whole := func(s string) string { _, s, _ = strings.Cut(s, " "); return s }
		if line != "whiteout" && name != "." && !strings.Contains(line, "opaque") && !strings.Contains(line, "links=2") &&
			strings.Join(strings.Fields(whole(line))[2:], " ") != strings.Join(strings.Fields(whole(w))[2:], " ") {
			t.Errorf("%s:\n got %s\nwant %s", name, line, w)
		}
	}
	epoch := time.Unix(1600000000, 0)
	l := index(t, collect(UpperOptions{Epoch: &epoch, Skip: func(name string) bool { return name == "deep/er" }}))
	if fi, err := l.Lstat("sparse"); err != nil || !fi.ModTime().Equal(epoch) {
		t.Errorf("epoch: %v, %v", fi, err)
	}
	if _, err := l.Lstat("deep/er"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deep/er was to be skipped: %v", err)
	}
}

// In a user namespace overlayfs marks with attributes of users.
func TestUpperOfAUserBecomesALayer(t *testing.T) {
	upper := t.TempDir()
	for _, name := range []string{"opq/x", "xwhite/gone"} {
		if err := os.MkdirAll(filepath.Join(upper, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(upper, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, attr := range map[string][2]string{
		"opq": {"user.overlay.opaque", "y"}, "xwhite": {"user.overlay.opaque", "x"},
		"xwhite/gone": {"user.overlay.whiteout", ""}, "opq/x": {"user.overlay.origin", "abc"},
	} {
		if err := sys.SetXattr(filepath.Join(upper, name), attr[0], []byte(attr[1])); err != nil {
			t.Skip(err)
		}
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := errors.Join(FromUpper(context.Background(), w, upper, UpperOptions{}), w.Close()); err != nil {
		t.Fatal(err)
	}
	got := describe(t, index(t, b.Bytes()))
	if !strings.HasSuffix(got["opq"], "opaque") || strings.HasSuffix(got["xwhite"], "opaque") || got["xwhite/gone"] != "whiteout" {
		t.Errorf("%v", got)
	}
	if err := sys.SetXattr(filepath.Join(upper, "opq"), "user.overlay.redirect", []byte("/x")); err != nil {
		t.Fatal(err)
	}
	if err := FromUpper(context.Background(), NewWriter(io.Discard), upper, UpperOptions{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("redirected directory: %v", err)
	}
}

func TestUnpackWithoutRights(t *testing.T) {
	data := tarOf(t, m{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o500, Uid: 77}}, reg("d/f", "x"), dev("d/null", 1, 3),
		reg(".wh.gone", ""), reg("d/.wh..wh..opq", ""))
	dir := t.TempDir()
	o := UnpackOptions{NoOwner: true, NoDevices: true, UserXattr: true}
	if err := Unpack(context.Background(), bytes.NewReader(data), dir, o); err != nil {
		t.Fatal(err)
	}
	got := describeDir(t, dir)
	if want := fmt.Sprintf("40500 %d:%d", os.Geteuid(), os.Getegid()); !strings.HasPrefix(got["d"], want) || !strings.HasSuffix(got["d"], "opaque") {
		t.Errorf("d: %s", got["d"])
	}
	if got["d/null"] != "" || got["gone"] != "whiteout" || got["d/f"] == "" {
		t.Errorf("%v", got)
	}
}
