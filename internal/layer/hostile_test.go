package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// A member that is at fault is refused by its name, before a file is made.
func TestHostileMembersAreRefused(t *testing.T) {
	xattr := func(name, value string) m {
		return m{Header: tar.Header{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr." + name: value}}}
	}
	for _, c := range []struct {
		name    string
		members []m
		want    string // a part of the error
	}{
		{"name above the root", []m{reg("../canary", "x")}, `"../canary": name leaves the root`},
		{"name that climbs", []m{reg("a/../../canary", "x")}, "leaves the root"},
		{"absolute name that climbs", []m{reg("/../canary", "x")}, "leaves the root"},
		{"only dots", []m{dir("..")}, "leaves the root"},
		{"hard link above the root", []m{lnk("a", "../../canary")}, "hard link to ../../canary leaves the root"},
		{"hard link to nothing", []m{lnk("a", "b")}, `"a": hard link to b, which isn't there`},
		{"hard link to an absolute name that is not there", []m{lnk("a", "/etc/shadow")}, "which isn't there"},
		{"hard link to a whiteout", []m{reg(".wh.b", ""), lnk("a", "b")}, "which isn't there"},
		{"hard link to a directory", []m{dir("d"), lnk("a", "d")}, "which is a directory"},
		{"hard link to the root", []m{lnk("a", "/")}, "hard link to the root"},
		{"hard link without a target", []m{lnk("a", "")}, "hard link to nothing"},
		{"hard link through a symbolic link to outside", []m{sym("up", "../.."), lnk("a", "up/canary")}, "which isn't there"},
		{"root that is a symbolic link", []m{sym("./", "/tmp")}, "in the place of the root"},
		{"root that is a file", []m{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "."}}}, "in the place of the root"},
		{"root that is a hard link", []m{reg("a", ""), lnk("./", "a")}, "in the place of the root"},
		{"file below a file", []m{reg("a", "x"), reg("a/b", "y")}, `"a/b": lies below a, which is no directory`},
		{"file below a link to a file", []m{reg("f", "x"), sym("l", "f"), reg("l/b", "y")}, "lies below f"},
		{"file below a loop", []m{sym("a", "b"), sym("b", "a"), reg("a/x", "")}, "loop of symbolic links"},
		{"whiteout without a name", []m{reg("d/.wh.", "")}, "whiteout of nothing"},
		{"whiteout of the directory", []m{reg("d/.wh..", "")}, "whiteout of nothing"},
		{"whiteout of the parent", []m{reg("d/.wh...", "")}, "whiteout of nothing"},
		{"file below a whiteout", []m{reg(".wh.../x", "")}, "lies below a whiteout"},
		{"whiteout above the root", []m{reg("../.wh.x", "")}, "leaves the root"},
		{"part that is too long", []m{reg(strings.Repeat("n", 256), "")}, "has a part of more than 255 bytes"},
		{"whiteout that is too long", []m{reg(".wh."+strings.Repeat("n", 256), "")}, "has a part of more than 255 bytes"},
		{"name that is too long", []m{dir(strings.Repeat("a/", 2100))}, "has more than 4095 bytes"},
		{"symbolic link that is too long", []m{sym("l", strings.Repeat("x", 4096))}, "bad target"},
		{"symbolic link without a target", []m{sym("l", "")}, "bad target"},
		{"attribute without a name", []m{xattr("", "v")}, "bad extended attribute"},
		{"attribute with a long name", []m{xattr("user."+strings.Repeat("n", 251), "v")}, "bad extended attribute"},
		{"attribute with a long value", []m{xattr("user.v", strings.Repeat("v", 65536))}, "bad extended attribute"},
		{"owner that is none", []m{{Header: tar.Header{Name: "x", Typeflag: tar.TypeReg, Uid: 1 << 32, Format: tar.FormatPAX}}}, "no such owner"},
		{"owner that chown ignores", []m{{Header: tar.Header{Name: "x", Typeflag: tar.TypeReg, Gid: 1<<32 - 1, Format: tar.FormatPAX}}}, "no such owner"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := tarOf(t, c.members...)
			_, err := tryIndex(t, data)
			if err == nil || !strings.Contains(err.Error(), c.want) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("index: %v, want %q", err, c.want)
			}
			parent := t.TempDir()
			canary(t, parent)
			dir := filepath.Join(parent, "layer")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := Unpack(context.Background(), bytes.NewReader(data), dir, UnpackOptions{NoOwner: true}); err == nil {
				t.Error("unpack: no error")
			}
			if list, _ := os.ReadDir(dir); len(list) > 0 {
				t.Errorf("unpack left %v", list)
			}
			checkCanary(t, parent)
		})
	}
}

func canary(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "canary"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func checkCanary(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "canary"))
	fi, statErr := os.Stat(filepath.Join(dir, "canary"))
	if err != nil || statErr != nil || string(data) != "alive" || fi.Mode() != 0o600 {
		t.Errorf("the canary is dead: %q, %v, %v", data, fi, err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 2 {
		t.Errorf("beside the layer: %v, %v", list, err)
	}
}

// What leads out of the root when it is followed on the host stays inside.
func TestNamesBelowLinksStayInTheRoot(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []m
		want    map[string]string // names and a part of their description
	}{
		{"absolute link", []m{sym("l", "/etc"), reg("l/x", "data")},
			map[string]string{"etc/x": "4:", "l": "/etc"}},
		{"link that climbs", []m{sym("l", "../../../.."), reg("l/canary", "data")},
			map[string]string{"canary": "4:"}},
		{"link to a directory of the layer", []m{dir("usr/lib"), sym("lib", "usr/lib"), reg("lib/x", "data"), lnk("y", "lib/x")},
			map[string]string{"usr/lib/x": "links=2", "y": `"usr/lib/x"`}},
		{"chain of links", []m{sym("a", "b/c"), sym("b", "/d"), reg("a/x", "data")},
			map[string]string{"d/c/x": "4:"}},
		{"link then file of the same name", []m{sym("canary", "../canary"), reg("canary", "data")},
			map[string]string{"canary": "100644"}},
		{"link then directory of the same name", []m{sym("d", "../.."), dir("d"), reg("d/canary", "data")},
			map[string]string{"d/canary": "4:"}},
		{"hard link to a link", []m{sym("s", "../canary"), lnk("h", "s"), reg("h", "data")},
			map[string]string{"s": "../canary", "h": "100644"}},
		{"whiteout below a link", []m{sym("l", ".."), reg("l/.wh.canary", "")},
			map[string]string{"canary": "whiteout"}},
		{"opaque link", []m{sym("l", "d"), dir("d"), reg("l/.wh..wh..opq", "")},
			map[string]string{"d": "opaque"}},
		{"link that is replaced while it is known", []m{sym("l", "a"), reg("l/x", "1"), sym("l", "b"), reg("l/x", "22")},
			map[string]string{"a/x": "1:", "b/x": "2:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := tarOf(t, c.members...)
			l := index(t, data)
			all := describe(t, l)
			for name, part := range c.want {
				if !strings.Contains(all[name], part) {
					t.Errorf("%s: %q, want %q", name, all[name], part)
				}
			}
			if os.Geteuid() != 0 {
				t.Skip("owners need root")
			}
			parent := t.TempDir()
			canary(t, parent)
			dir := filepath.Join(parent, "layer")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := Unpack(context.Background(), bytes.NewReader(data), dir, UnpackOptions{}); err != nil {
				t.Fatal(err)
			}
			same(t, "unpack", describeDir(t, dir), all)
			checkCanary(t, parent)
		})
	}
}

func TestLastMemberOfANameWins(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []m
		want    []string // "name part-of-description", or "!name"
	}{
		{"file", []m{reg("a", "1"), reg("a", "22")}, []string{"a 2:"}},
		{"file with another name", []m{reg("a", "1"), lnk("b", "a"), reg("a", "22")}, []string{"a 2:", "b 1:", "b links=1"}},
		{"directory keeps its files", []m{dir("d"), reg("d/f", "1"), {Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o700}}},
			[]string{"d 40700", "d/f 1:"}},
		{"directory gives way to a file", []m{reg("d/f", "1"), reg("d", "22")}, []string{"d 2:", "!d/f"}},
		{"… which gives way to a directory", []m{reg("d/f", "1"), reg("d", "22"), reg("d/g", "x")}, nil},
		{"… that is named", []m{reg("d/f", "1"), reg("d", "22"), dir("d"), reg("d/g", "x")}, []string{"d/g 1:", "!d/f"}},
		{"file of a lost directory", []m{reg("d/f", "1"), lnk("keep", "d/f"), sym("d", "x")}, []string{"keep links=1", "d x", "!d/f"}},
		{"link to itself", []m{reg("a", "1"), lnk("a", "a")}, []string{"a links=1"}},
		{"root twice", []m{dir("./"), {Header: tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711}}}, []string{". 40711"}},
		{"three spellings", []m{reg("a/b", "1"), reg("./a//b", "22"), reg("/a/./b", "333")}, []string{"a/b 3:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := tryIndex(t, tarOf(t, c.members...))
			if c.want == nil {
				if err == nil {
					t.Fatal("no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			all := describe(t, l)
			for _, w := range c.want {
				name, part, _ := strings.Cut(w, " ")
				if gone, ok := strings.CutPrefix(name, "!"); ok {
					if all[gone] != "" {
						t.Errorf("%s: %s", gone, all[gone])
					}
				} else if !strings.Contains(all[name], part) {
					t.Errorf("%s: %q, want %q", name, all[name], part)
				}
			}
		})
	}
}

// image-spec layer.md: whiteouts hide only what lower layers have, whatever
// the order of the members.
func TestWhiteoutsHideWhatIsBelowOnly(t *testing.T) {
	file, gone, opq := reg("d/f", "1"), reg("d/.wh.f", ""), reg("d/.wh..wh..opq", "")
	for _, c := range []struct {
		members []m
		want    map[string]string
	}{
		{[]m{file, gone}, map[string]string{"d/f": "1:"}},
		{[]m{gone, file}, map[string]string{"d/f": "1:"}},
		{[]m{file, reg(".wh.d", "")}, map[string]string{"d": "opaque", "d/f": "1:"}},
		{[]m{reg(".wh.d", ""), file}, map[string]string{"d": "opaque", "d/f": "1:"}},
		{[]m{file, opq}, map[string]string{"d": "opaque", "d/f": "1:"}},
		{[]m{opq, dir("d"), file}, map[string]string{"d": "opaque", "d/f": "1:"}},
		{[]m{gone, gone, opq, opq}, map[string]string{"d": "opaque", "d/f": "whiteout"}},
		{[]m{reg(".wh..wh..opq", "")}, map[string]string{".": "opaque"}},
		{[]m{dir(".wh..wh.plnk"), reg(".wh..wh.plnk/1.2", "x"), file}, map[string]string{"d/f": "1:", ".wh..wh.plnk": ""}},
	} {
		l := index(t, tarOf(t, c.members...))
		all := describe(t, l)
		for name, want := range c.want {
			if !strings.Contains(all[name], want) || want == "" && all[name] != "" {
				t.Errorf("%v: %s is %q, want %q", names0(c.members), name, all[name], want)
			}
		}
	}
}

// A directory that the tar holds nowhere is marked, and only such a one.
func TestDirectoriesThatATarLeavesOutAreMarked(t *testing.T) {
	file := reg("d/e/f", "1")
	for _, c := range []struct {
		members []m
		implied string // names
		implies bool
	}{
		{nil, ".", false},
		{[]m{dir("./")}, "", false},
		{[]m{dir("./"), dir("d"), dir("d/e"), file}, "", false},
		{[]m{file}, ". d d/e", true},
		{[]m{file, dir("d")}, ". d/e", true},
		{[]m{file, dir("d/e"), dir("d"), dir(".")}, "", false},
		{[]m{sym("l", "d"), reg("l/e/f", "1")}, ". d d/e", true},
		{[]m{reg("d/.wh.e", "")}, ". d", true},
		{[]m{reg("d/.wh..wh..opq", ""), file}, ". d d/e", true},
		{[]m{reg(".wh.d", ""), file}, ". d/e", true}, // d has been removed, so it is a new one
		{[]m{file, reg("d", "instead")}, ".", false},
	} {
		l := index(t, tarOf(t, c.members...))
		var implied []string
		err := fs.WalkDir(l, ".", func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := e.Info()
			if err == nil && fi.Sys().(*Stat).Implied {
				implied = append(implied, name)
				if len(fi.Sys().(*Stat).Xattrs) > 0 || fi.Mode() != fs.ModeDir|0o755 {
					t.Errorf("%v: %s is %v with %v", names0(c.members), name, fi, fi.Sys())
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(implied, " "); got != c.implied || l.Implies() != c.implies {
			t.Errorf("%v: implied are %q, %t; want %q, %t", names0(c.members), got, l.Implies(), c.implied, c.implies)
		}
	}
}

func names0(members []m) (names []string) {
	for _, x := range members {
		names = append(names, x.Name)
	}
	return names
}

func TestTruncatedTarsNameTheMember(t *testing.T) {
	data := tarOf(t, reg("first", "1"), reg("second", strings.Repeat("2", 2000)))
	for n := 1; n < 512*7; n += 100 {
		_, err := tryIndex(t, data[:n])
		switch {
		case n%512 == 0 && n <= 1024:
			continue
		case err == nil || !errors.Is(err, io.ErrUnexpectedEOF) || !errdefs.IsInvalidArgument(err):
			t.Errorf("%d bytes: %v", n, err)
		case n > 512 && n < 1024 && !strings.Contains(err.Error(), `"first"`):
			t.Errorf("%d bytes: %v", n, err)
		case n > 3*512 && !strings.Contains(err.Error(), `"second"`):
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestWhatIsNoTarIsRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"text":           bytes.Repeat([]byte("hello\n"), 200),
		"after zeros":    append(make([]byte, 512), tarOf(t, reg("a", ""))...),
		"checksum":       func() []byte { b := tarOf(t, reg("a", "")); b[0] = 'b'; return b }(),
		"unknown type":   retyped(t, 'V'),
		"negative size":  sized(t, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00"),
		"size of 2^63":   sized(t, "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"),
		"size in words":  sized(t, "eleven bytes"),
		"long extension": extension(t, tar.TypeXHeader, 1<<30),
		"long name":      extension(t, tar.TypeGNULongName, 1<<30),
	} {
		if _, err := tryIndex(t, data); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// raw changes the header of a tar of one file.
func raw(t *testing.T, change func(rec []byte)) []byte {
	b := tarOf(t, reg("a", ""))
	change(b[:512])
	checksum(b[:512])
	return b
}

func retyped(t *testing.T, kind byte) []byte { return raw(t, func(rec []byte) { rec[156] = kind }) }
func sized(t *testing.T, size string) []byte {
	return raw(t, func(rec []byte) { copy(rec[124:136], size) })
}
func extension(t *testing.T, kind byte, size int64) []byte {
	return raw(t, func(rec []byte) { rec[156] = kind; octal(rec[124:136], size) })
}

// A million markers of one directory cost no more than a million files.
func TestRepeatedMarkersCostLinearTime(t *testing.T) {
	const n = 100_000
	feed := func(member func(i int) string) time.Duration {
		x := NewIndexer(t.TempDir())
		defer x.Close()
		start := time.Now()
		for i := range n {
			head, err := (&file{name: member(i), kind: tar.TypeReg}).encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := x.Write(head); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := x.Finish(discard{}); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	plain := feed(func(i int) string { return fmt.Sprintf("d/%d", i) })
	opaque := feed(func(int) string { return "d/.wh..wh..opq" })
	again := feed(func(int) string { return "d/x" })
	if opaque > 5*plain+time.Second || again > 5*plain+time.Second {
		t.Errorf("files %v, opaque markers %v, the same name %v", plain, opaque, again)
	}
}

type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// Inodes are named by 32 bits. Lists of chunks are what an index can get large
// with soonest.
func TestIndexOfMoreThan128GiBIsRefused(t *testing.T) {
	x := NewIndexer(t.TempDir())
	defer x.Close()
	for i := range int64(maxIndex / (maxChunks * chunkSize)) {
		_, err := x.member(&member{
			name: fmt.Sprintf("%05d", i), kind: tar.TypeReg, size: maxChunks * blockSize,
			holes: true, sparse: []segment{{0, blockSize}}, stored: blockSize,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := x.Finish(discard{}); !errdefs.IsResourceExhausted(err) {
		t.Error(err)
	}
}

func TestSparseBombsAreRefusedOrSmall(t *testing.T) {
	gnuSparse := func(size int64, entries ...segment) []byte {
		b := make([]byte, 512)
		copy(b, "bomb")
		octal(b[100:108], 0o644)
		octal(b[108:116], 0)
		octal(b[116:124], 0)
		octal(b[136:148], 0)
		b[156] = tar.TypeGNUSparse
		copy(b[257:], magicGNU)
		var stored int64
		for i, e := range entries {
			octal(b[386+24*i:398+24*i], e.off)
			octal(b[398+24*i:410+24*i], e.size)
			stored += e.size
		}
		octal(b[124:136], stored)
		b[483] = 0x80
		for i := range 8 {
			b[494-i] = byte(size >> (8 * i))
		}
		checksum(b)
		return append(b, make([]byte, alignUp(stored, 512)+1024)...)
	}
	l := index(t, gnuSparse(1<<40, segment{4096, 1}, segment{1 << 32, 3}))
	if l.info.IndexSize > 64<<20 {
		t.Errorf("index of a file of 1 TiB: %d bytes", l.info.IndexSize)
	}
	if fi, err := l.Lstat("bomb"); err != nil || fi.Size() != 1<<40 {
		t.Errorf("%v, %v", fi, err)
	}
	for name, data := range map[string][]byte{
		"more than EROFS has": gnuSparse(1<<62, segment{0, 512}),
		"overlap":             gnuSparse(1<<20, segment{0, 1024}, segment{512, 512}),
		"beyond the end":      gnuSparse(1000, segment{512, 512}),
		"backwards":           gnuSparse(1<<20, segment{8192, 512}, segment{0, 512}),
	} {
		if _, err := tryIndex(t, data); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Somebody who swaps directories for links while a layer is unpacked can break
// the layer, and nothing else. (CVE-2025-47290 was this.)
func TestUnpackIsNotLedOutByARace(t *testing.T) {
	var members []m
	for i := range 40 {
		members = append(members, reg(fmt.Sprintf("d/e/f%d", i), "x"), dir(fmt.Sprintf("d/e/d%d", i)))
	}
	l := index(t, tarOf(t, members...))
	outside := t.TempDir()
	for range 15 {
		dir := t.TempDir()
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			at, away := filepath.Join(dir, "d/e"), filepath.Join(dir, "away")
			for {
				select {
				case <-stop:
					return
				default:
				}
				if os.Rename(at, away) == nil {
					os.Symlink(outside, at)
					os.Remove(at)
					os.Rename(away, at)
				}
			}
		}()
		_ = UnpackFS(context.Background(), l.FS, dir, UnpackOptions{NoOwner: true}) // may fail or not
		close(stop)
		<-stopped
		if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
			t.Fatalf("outside: %v, %v", list, err)
		}
	}
}
