package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shaleproject/shale/internal/sys"
)

// m is a member of a tar in a test.
type m struct {
	tar.Header
	data string
}

func dir(name string) m { return m{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}} }
func reg(name, data string) m {
	return m{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}, data}
}
func sym(name, to string) m {
	return m{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}}
}
func lnk(name, to string) m {
	return m{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}}
}
func dev(name string, major, minor int64) m {
	return m{Header: tar.Header{Typeflag: tar.TypeChar, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor}}
}

// tarOf makes a tar with archive/tar, so that the parser is not tested against
// our own Writer alone.
func tarOf(t testing.TB, members ...m) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, x := range members {
		if err := w.WriteHeader(&x.Header); err != nil {
			t.Fatalf("%s: %v", x.Name, err)
		}
		if _, err := io.WriteString(w, x.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// indexed is a layer on disk.
type indexed struct {
	*FS
	tar, index string
	info       Info
}

// index writes data and its index to files, so that they can be mounted.
func index(t testing.TB, data []byte) *indexed {
	t.Helper()
	l, err := tryIndex(t, data)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tryIndex(t testing.TB, data []byte) (*indexed, error) {
	t.Helper()
	dir := t.TempDir()
	l := &indexed{tar: filepath.Join(dir, "tar"), index: filepath.Join(dir, "index")}
	if err := os.WriteFile(l.tar, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(l.index)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	x := NewIndexer(dir)
	defer x.Close()
	// Odd pieces, so that no header comes whole.
	for b := data; len(b) > 0; {
		n := min(len(b), 777)
		if _, err := x.Write(b[:n]); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	if l.info, err = x.Finish(out); err != nil {
		return nil, err
	}
	if fi, err := out.Stat(); err != nil || fi.Size() != l.info.IndexSize {
		t.Errorf("index has %d bytes, Info says %d", fi.Size(), l.info.IndexSize)
	}
	l.FS, err = Open(out, l.info.IndexSize, bytes.NewReader(data))
	return l, err
}

// describe tells all about every file of fsys, a line each.
func describe(t testing.TB, fsys fs.ReadLinkFS) map[string]string {
	t.Helper()
	all, first := map[string]string{}, map[uint64]string{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		s := fi.Sys().(*Stat)
		f := described{
			mode: unixMode(fi.Mode()), uid: s.UID, gid: s.GID, size: fi.Size(), mtime: fi.ModTime(),
			rdev: s.Rdev, nlink: uint64(s.Nlink), xattrs: s.Xattrs, opaque: s.Opaque,
		}
		if _, ok := first[s.Ino]; !ok {
			first[s.Ino] = name
		}
		f.same = first[s.Ino]
		switch {
		case fi.Mode().IsRegular():
			f.content, err = digest(fsys, name)
		case fi.Mode().Type() == fs.ModeSymlink:
			f.content, err = fsys.ReadLink(name)
		}
		all[name] = f.String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func digest(fsys fs.FS, name string) (string, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return fmt.Sprintf("%d:%x", n, h.Sum(nil)[:8]), err
}

type described struct {
	mode        uint32
	uid, gid    uint32
	size        int64
	mtime       time.Time
	rdev, nlink uint64
	xattrs      map[string][]byte
	opaque      bool
	same        string
	content     string
}

func (f described) String() string {
	if f.mode&typeMask == typeChar && f.rdev == 0 {
		return "whiteout"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%o %d:%d %d.%09d", f.mode, f.uid, f.gid, f.mtime.Unix(), f.mtime.Nanosecond())
	switch f.mode & typeMask {
	case typeDir:
	case typeChar, typeBlock:
		fmt.Fprintf(&b, " rdev=%x", f.rdev)
		fallthrough
	default:
		fmt.Fprintf(&b, " size=%d links=%d of %q %s", f.size, f.nlink, f.same, f.content)
	}
	for _, name := range slices.Sorted(maps.Keys(f.xattrs)) {
		fmt.Fprintf(&b, " %s=%q", name, clip(string(f.xattrs[name])))
	}
	if f.opaque {
		b.WriteString(" opaque")
	}
	return b.String()
}

// describeDir does the same for a directory of the machine.
func describeDir(t testing.TB, root string) map[string]string {
	t.Helper()
	all, first := map[string]string{}, map[uint64]string{}
	var walk func(d *sys.Dir, at string)
	one := func(name string, st sys.Inode, attrs map[string][]byte, content string) {
		f := described{
			mode: st.Mode, uid: st.UID, gid: st.GID, size: st.Size, mtime: st.ModTime,
			rdev: st.Rdev, nlink: st.Nlink, xattrs: map[string][]byte{}, content: content,
		}
		for k, v := range attrs {
			switch {
			case ofOverlay(k):
				f.opaque = f.opaque || strings.HasSuffix(k, ".opaque") && string(v) == "y"
			case k != "security.selinux":
				f.xattrs[k] = v
			}
		}
		if _, ok := first[st.Ino]; !ok {
			first[st.Ino] = name
		}
		f.same = first[st.Ino]
		all[name] = f.String()
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	walk = func(d *sys.Dir, at string) {
		names, err := d.Names()
		must(err)
		slices.Sort(names)
		for _, base := range names {
			name := path.Join(at, base)
			st, err := d.Stat(base)
			must(err)
			attrs, err := d.Xattrs(base)
			must(err)
			content := ""
			switch st.Mode & typeMask {
			case typeRegular:
				f, err := d.Open(base, 0, 0)
				must(err)
				h := sha256.New()
				n, err := io.Copy(h, f)
				must(err)
				f.Close()
				content = fmt.Sprintf("%d:%x", n, h.Sum(nil)[:8])
			case typeSymlink:
				content, err = d.Readlink(base)
				must(err)
			}
			one(name, st, attrs, content)
			if st.Mode&typeMask == typeDir {
				sub, err := d.Dir(base)
				must(err)
				walk(sub, name)
				sub.Close()
			}
		}
	}
	d, err := sys.OpenDir(root)
	must(err)
	defer d.Close()
	st, err := d.Self()
	must(err)
	attrs, err := sys.Xattrs(root)
	must(err)
	one(".", st, attrs, "")
	walk(d, ".")
	return all
}

// same compares two descriptions.
func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	shown := 0
	names := maps.Clone(want)
	maps.Copy(names, got)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got[name] != want[name] {
			if shown++; shown > 10 {
				t.Fatal("… and more")
			}
			t.Errorf("%s: %q:\n got %s\nwant %s", what, name, got[name], want[name])
		}
	}
}

// mounted calls f with the directory where the kernel shows the layer.
func (l *indexed) mounted(t *testing.T, f func(dir string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting an index needs root")
	}
	at := filepath.Join(t.TempDir(), "mnt")
	err := sys.PrivateMounts(func() error {
		err := sys.MountAll([]sys.Mount{{
			Type: "erofs", Source: l.index, Target: at, Flags: sys.ReadOnly, Data: sys.Option("device", l.tar),
		}})
		if err == nil {
			f(at)
		}
		return err
	})
	if err != nil {
		t.Skipf("this kernel mounts no EROFS from a file: %v", err)
	}
}
