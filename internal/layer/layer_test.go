package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

// torture has one of everything that a layer can hold.
func torture(t testing.TB) []byte { return tortureOf(t, 2000, 3<<20) }

func tortureOf(t testing.TB, many, big int) []byte {
	members := []m{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o751, Uid: 3, Gid: 4, ModTime: time.Unix(1700000000, 0)}},
		dir("./etc/"),
		reg("./etc/passwd", "root:x:0:0::/:/bin/sh\n"),
		reg("/abs/olute", "x"),
		reg("empty", ""),
		reg("block", strings.Repeat("b", 512)),
		reg("block+1", strings.Repeat("b", 513)),
		reg("page", strings.Repeat("0123456789abcdef", 4096/16)),
		reg("big", strings.Repeat("0123456789abcdef", big/16)+"tail"),
		sym("etc/short", "passwd"),
		sym("long-link", strings.Repeat("a/", 2000)+"end"),
		sym("link-511", strings.Repeat("l", 511)),
		sym("link-512", strings.Repeat("l", 512)),
		sym("link-513", strings.Repeat("l", 513)),
		lnk("hard1", "etc/passwd"),
		lnk("z/hard2", "/etc/passwd"),
		lnk("hardsym", "./etc/short"),
		dev("dev/null", 1, 3),
		dev("dev/high", 4095, 1048575),
		{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Mode: 0o660, Devmajor: 8, Devminor: 300, Gid: 6}},
		{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o622}},
		{Header: tar.Header{Name: "suid", Typeflag: tar.TypeReg, Mode: 0o6755, Uid: 1000, Gid: 1001}},
		{Header: tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}},
		{Header: tar.Header{Name: "ids", Typeflag: tar.TypeReg, Uid: 4294967294, Gid: 3000000000, Format: tar.FormatPAX}},
		{Header: tar.Header{Name: "nanos", Typeflag: tar.TypeReg, ModTime: time.Unix(1600000000, 123456789), Format: tar.FormatPAX}},
		{Header: tar.Header{Name: "before", Typeflag: tar.TypeReg, ModTime: time.Unix(-5, 500000000), Format: tar.FormatPAX}},
		{Header: tar.Header{Name: "caps", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability":    "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"SCHILY.xattr.user.large":             strings.Repeat("v", 3000),
			"SCHILY.xattr.user.name with = no":    "x",
			"SCHILY.xattr.trusted.mine":           "y",
			"SCHILY.xattr.trusted.overlay.opaque": "y",
			"SCHILY.xattr.user.overlay.whiteout":  "y",
		}}},
		{Header: tar.Header{Name: "acl", Typeflag: tar.TypeReg, Mode: 0o664, PAXRecords: map[string]string{
			"SCHILY.xattr.system.posix_acl_access": "\x02\x00\x00\x00" +
				"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
				"\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff",
		}}},
		{Header: tar.Header{Name: "xattr-dir/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{
			"SCHILY.xattr.user.on.dir": "1", "SCHILY.xattr.security.ima": "\x00\x01",
		}}},
		reg(".wh.gone", ""),
		reg("xattr-dir/.wh..wh..opq", ""),
		reg("xattr-dir/.wh."+strings.Repeat("w", 255), ""),
		dev("stranger", 0, 0),
		reg(strings.Repeat("n", 255), "long name"),
		reg("ünïcode/日本語", "utf8"),
		reg("latin\xe9", "latin1"),
		reg("new\nline and spaces ", "odd"),
		{tar.Header{Name: strings.Repeat("gnu-name/", 30) + "end", Typeflag: tar.TypeReg, Size: 3, Format: tar.FormatGNU}, "gnu"},
		{Header: tar.Header{Name: "gnu-link", Linkname: strings.Repeat("gnu/", 60), Typeflag: tar.TypeSymlink, Format: tar.FormatGNU}},
		reg(strings.Repeat("d/", 150)+"deep", "deep"),
		reg("before-dot/!", "sorts before ."), reg("before-dot/-", ""), reg("before-dot/.a", ""), reg("before-dot/a", ""),
	}
	members[26].PAXRecords = mapWithout(members[26].PAXRecords, "SCHILY.xattr.user.name with = no")
	for i := range many {
		members = append(members, reg(fmt.Sprintf("many/%d-%s", i, strings.Repeat("x", i%90)), fmt.Sprint(i)))
	}
	return tarOf(t, members...)
}

func mapWithout(in map[string]string, key string) map[string]string {
	delete(in, key)
	return in
}

func TestFSMountAndUnpackShowTheSame(t *testing.T) {
	data := tortureOf(t, 200, 1<<20)
	l := index(t, data)
	want := describe(t, l)
	if got := want["etc/passwd"]; !strings.Contains(got, "links=3") {
		t.Errorf("etc/passwd: %s", got)
	}
	if _, ok := want["stranger"]; ok {
		t.Error("a device 0/0 of the tar is in the index")
	}
	if want["gone"] != "whiteout" || !strings.HasSuffix(want["xattr-dir"], "opaque") {
		t.Errorf("whiteouts: %q, %q", want["gone"], want["xattr-dir"])
	}
	if strings.Contains(want["caps"], "overlay") || strings.Contains(want["caps"], "opaque") {
		t.Errorf("attributes of overlayfs are kept: %s", want["caps"])
	}
	t.Run("mount", func(t *testing.T) {
		l.mounted(t, func(dir string) { same(t, "mount", describeDir(t, dir), want) })
	})
	t.Run("unpack", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("owners and devices need root")
		}
		for what, r := range map[string]interface {
			Read([]byte) (int, error)
		}{"reader at": bytes.NewReader(data), "stream": bytes.NewBuffer(data)} {
			dir := t.TempDir()
			if err := Unpack(context.Background(), r, dir, UnpackOptions{}); err != nil {
				t.Fatal(err)
			}
			same(t, what, describeDir(t, dir), want)
		}
	})
}

func TestFSKeepsThePromisesOfIOFS(t *testing.T) {
	l := index(t, tarOf(t, reg("a/b/c.txt", "hello"), sym("a/l", "b"), reg("d", strings.Repeat("x", 5000)), dir("e/")))
	if err := fstest.TestFS(l, "a/b/c.txt", "a/l", "d", "e"); err != nil {
		t.Error(err)
	}
}

func TestDirectoryOf100000EntriesIsReadAndSearched(t *testing.T) {
	const n = 100_000
	var b bytes.Buffer
	w := NewWriter(&b)
	for i := range n {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("big/file-%d", i*7919%n)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l := index(t, b.Bytes())
	list, err := l.ReadDir("big")
	if err != nil || len(list) != n {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	for i := 0; i < n; i += 999 {
		if _, err := l.Lstat(fmt.Sprintf("big/file-%d", i)); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.Lstat("big/file-x"); !os.IsNotExist(err) {
		t.Errorf("file-x: %v", err)
	}
	l.mounted(t, func(dir string) {
		list, err := os.ReadDir(filepath.Join(dir, "big"))
		if err != nil || len(list) != n {
			t.Errorf("mount: %d entries, %v", len(list), err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "big/file-77777")); err != nil {
			t.Error(err)
		}
	})
}

func TestTarWithoutTrailerIsWhole(t *testing.T) {
	data := tarOf(t, reg("a", "short"))
	l := index(t, data[:1024])
	want := describe(t, l)
	l.mounted(t, func(dir string) { same(t, "mount", describeDir(t, dir), want) })
	if l := index(t, nil); len(describe(t, l)) != 1 {
		t.Error("a tar of no bytes is an empty layer")
	} else {
		l.mounted(t, func(dir string) {
			if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
				t.Errorf("mount: %v, %v", list, err)
			}
		})
	}
}

func TestSparseFilesOfEveryFormat(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("tar is not installed")
	}
	src := t.TempDir()
	sparse(t, filepath.Join(src, "aligned"), 16<<20, 0, 1<<20, 1<<23)
	sparse(t, filepath.Join(src, "odd"), 10<<20+123, 4096, 3<<20+777, 9<<20)
	sparse(t, filepath.Join(src, "huge"), 1<<40, 1<<20, 1<<39)
	sparse(t, filepath.Join(src, "hole"), 7<<20)
	sparse(t, filepath.Join(src, "many"), 40<<20, manyOffsets()...)
	for _, format := range []string{"--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"} {
		t.Run(format, func(t *testing.T) {
			args := []string{"-cS", format, "-C", src, "."}
			if !strings.HasPrefix(format, "--format") {
				args = append([]string{"--format=posix"}, args...)
			}
			data, err := exec.Command(gnu, args...).Output()
			if err != nil {
				t.Fatal(err)
			}
			l := index(t, data)
			for _, name := range []string{"aligned", "odd", "hole", "many"} {
				want, err := digest(os.DirFS(src), name)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := digest(l, name); err != nil || got != want {
					t.Errorf("%s: %s, not %s: %v", name, got, want, err)
				}
			}
			probe(t, l, filepath.Join(src, "huge"))
			l.mounted(t, func(dir string) {
				for _, name := range []string{"odd", "many", "aligned"} {
					want, _ := digest(os.DirFS(src), name)
					if got, err := digest(os.DirFS(dir), name); err != nil || got != want {
						t.Errorf("mount: %s: %s, not %s: %v", name, got, want, err)
					}
				}
			})
			out := t.TempDir()
			if err := Unpack(context.Background(), bytes.NewReader(data), out, UnpackOptions{NoOwner: true}); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"odd", "many", "hole"} {
				want, _ := digest(os.DirFS(src), name)
				if got, err := digest(os.DirFS(out), name); err != nil || got != want {
					t.Errorf("unpack: %s: %s, not %s: %v", name, got, want, err)
				}
			}
		})
	}
}

func manyOffsets() (offs []int64) {
	for i := range int64(300) {
		offs = append(offs, i*131072)
	}
	return offs
}

// sparse makes a file with some bytes at each place.
func sparse(t *testing.T, name string, size int64, offs ...int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Skipf("no file of %d bytes here: %v", size, err)
	}
	for _, off := range offs {
		if _, err := f.WriteAt([]byte(fmt.Sprintf("data at %d", off)), off); err != nil {
			t.Fatal(err)
		}
	}
}

// probe compares places of a file that is too large to read.
func probe(t *testing.T, l *indexed, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g, err := l.Open("huge")
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1 << 20, 1<<20 - 10, 1 << 39, 1<<39 + 4090, 1<<40 - 100} {
		a, b := make([]byte, 100), make([]byte, 100)
		if _, err := f.ReadAt(a, off); err != nil {
			t.Fatal(err)
		}
		if _, err := g.(*File).ReadAt(b, off); err != nil || !bytes.Equal(a, b) {
			t.Errorf("at %d: %q, not %q: %v", off, b, a, err)
		}
	}
}

// The cost of a member; a layer has some 25 KB a member, so what counts is
// nanoseconds, not bytes.
func BenchmarkIndex(b *testing.B) {
	var ordered []m
	for i := range 20_000 {
		if i%50 == 0 {
			ordered = append(ordered, dir(fmt.Sprintf("d%03d", i/50)))
		}
		ordered = append(ordered, reg(fmt.Sprintf("d%03d/file-%05d", i/50, i), ""))
	}
	b.Run("all kinds", func(b *testing.B) { benchmarkIndex(b, torture(b)) })
	b.Run("in order", func(b *testing.B) { benchmarkIndex(b, tarOf(b, ordered...)) })
}

func benchmarkIndex(b *testing.B, data []byte) {
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		x := NewIndexer(b.TempDir())
		for p := data; len(p) > 0; {
			n := min(len(p), 256<<10)
			if _, err := x.Write(p[:n]); err != nil {
				b.Fatal(err)
			}
			p = p[n:]
		}
		if _, err := x.Finish(discard{}); err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}

func TestFSMayBeUsedByManyAtOnce(t *testing.T) {
	l := index(t, tortureOf(t, 300, 64<<10))
	var wg sync.WaitGroup
	all := make([]map[string]string, 4)
	for i := range all {
		wg.Go(func() { all[i] = describe(t, l) })
	}
	f, err := l.Open("big")
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(4) {
		wg.Go(func() {
			b := make([]byte, 16)
			if n, err := f.(*File).ReadAt(b, i*1600); n != 16 || err != nil || string(b) != "0123456789abcdef" {
				t.Errorf("at %d: %q, %v", i*1600, b[:n], err)
			}
		})
	}
	wg.Wait()
	for _, d := range all[1:] {
		same(t, "at once", d, all[0])
	}
}
