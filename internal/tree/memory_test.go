package tree

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
)

// fill keeps tables of some megabytes and returns what they hold.
func fill(s *sys.Spill, r *rand.Rand) (tables []table, names [][]string) {
	for range 400 {
		w := tableWriter{in: s}
		var list []string
		for i := range r.IntN(3000) {
			name := fmt.Sprintf("%06d-%x", i, r.Uint32())
			w.add(name)
			w.number(uint64(len(name)))
			w.text(strings.ToUpper(name))
			w.offset(-int64(i))
			list = append(list, name)
		}
		tables, names = append(tables, w.done()), append(names, list)
	}
	return tables, names
}

func checkTables(t *testing.T, tables []table, names [][]string) {
	t.Helper()
	check := func(i int, name string, r record) error {
		if n, text, off := r.number(), r.text(), r.offset(); n != uint64(len(name)) || text != strings.ToUpper(name) || off != -int64(i) {
			return fmt.Errorf("record %d, %s: %d, %q, %d", i, name, n, text, off)
		}
		return nil
	}
	for n, tab := range tables {
		var got []string
		must(t, tab.each(func(i int, name string, r record) error {
			got = append(got, name)
			return check(i, name, r)
		}))
		if strings.Join(got, " ") != strings.Join(names[n], " ") {
			t.Fatalf("table %d has %d names, not %d", n, len(got), len(names[n]))
		}
		for i := 0; i < len(got); i += 97 {
			r, at, ok, err := tab.find(got[i], []int{0, i, i - 1, i - 20, len(got), len(got) + 50}[i%6])
			must(t, err)
			if !ok || at != i {
				t.Fatalf("%s: number %d, %v", got[i], at, ok)
			}
			must(t, check(i, got[i], r))
		}
		for _, none := range []string{"", "000000", "000001-", "~"} {
			if _, _, ok, err := tab.find(none, len(got)/3); ok || err != nil {
				t.Fatalf("%q: %v, %v", none, ok, err)
			}
		}
	}
}

func TestTablesOfManyMegabytesAreReadByFourAtOnce(t *testing.T) {
	s := &sys.Spill{Dir: t.TempDir()}
	defer s.Close()
	tables, names := fill(s, rand.New(rand.NewPCG(1, 2)))
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() { checkTables(t, tables, names) })
	}
	readers.Wait()
}

// manyFiles makes n files in directories of a hundred.
func manyFiles(t testing.TB, n int) string {
	t.Helper()
	root := t.TempDir()
	for i := range n {
		dir := fmt.Sprintf("%s/d%d/e%d", root, i/2500, i/100)
		if i%100 == 0 {
			must(t, os.MkdirAll(dir, 0o755))
		}
		name := fmt.Sprintf("%s/file%d", dir, i)
		if i%50 == 7 {
			must(t, os.Symlink(fmt.Sprint(i), name))
			continue
		}
		must(t, os.WriteFile(name, []byte(name[i%10:]), 0o644))
	}
	return root
}

func TestALargeContextIsTheSameFromTables(t *testing.T) {
	root := manyFiles(t, 3_000)
	var layers [][]byte
	var digests []string
	for _, keep := range []int{keptFiles, 0} {
		d, err := Dir(root, t.TempDir())
		must(t, err)
		defer d.(*hostDir).Close()
		d.(*hostDir).keep = keep
		ignoring, err := Select(d, []string{"d1", "**/*9", "!d1/e28"})
		must(t, err)
		for _, fsys := range []FS{d, ignoring} {
			digests = append(digests, digestOf(t, fsys, "/", DigestOptions{}).String())
			c := Edit(nil)
			defer c.Close()
			must(t, c.Copy(t.Context(), fsys, "/", "/", dockerfile))
			var out bytes.Buffer
			w := layer.NewWriter(&out)
			must(t, c.WriteLayer(t.Context(), w))
			must(t, w.Close())
			layers = append(layers, out.Bytes())
		}
	}
	for i := range 2 {
		if !bytes.Equal(layers[i], layers[i+2]) || digests[i] != digests[i+2] {
			t.Errorf("tree %d: layers of %d and %d bytes, digests %s and %s", i, len(layers[i]), len(layers[i+2]), digests[i], digests[i+2])
		}
	}
	if bytes.Equal(layers[0], layers[1]) {
		t.Error("nothing is ignored")
	}
}

// A file that is looked at twice is told the same, wherever it was kept: the
// context of a build is what it was when it was listed.
func TestTablesRememberTheMomentOfTheListing(t *testing.T) {
	root := host(t, "d/a", "d/l -> a")
	d := openHost(t, root)
	d.(*hostDir).keep = 0
	before, err := d.Lstat("d/a")
	must(t, err)
	target, err := d.ReadLink("d/l")
	must(t, err)
	statOf(before) // reads the attributes
	must(t, os.Chtimes(root+"/d/a", time.Unix(1, 0), time.Unix(1, 0)))
	must(t, os.Chmod(root+"/d/a", 0o600))
	must(t, os.Remove(root+"/d/l"))
	must(t, os.Symlink("b", root+"/d/l"))
	must(t, os.WriteFile(root+"/d/new", nil, 0o644))
	if os.Getuid() == 0 {
		value := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		must(t, syscall.Setxattr(root+"/d/a", capability, []byte(value), 0))
	}
	after, err := d.Lstat("d/a")
	must(t, err)
	if after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) || len(statOf(after).Xattrs) > 0 {
		t.Errorf("%v %v %v, was %v %v", after.Mode(), after.ModTime(), statOf(after).Xattrs, before.Mode(), before.ModTime())
	}
	if again, err := d.ReadLink("d/l"); again != target || err != nil {
		t.Errorf("link to %s, was %s: %v", again, target, err)
	}
	if got := walked(t, d); strings.Contains(got, "new") {
		t.Errorf("shows %s", got)
	}
	if _, err := fs.ReadFile(d, "d/a"); err == nil {
		t.Error("a file that has changed can be read")
	}
}

// heap is what is in use after a collection, in bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTheNamesOfALargeCopyCostNoMemory(t *testing.T) {
	const files = 100_000
	src := Edit(nil)
	defer src.Close()
	one := openHost(t, host(t, "dir/file"))
	for i := range 10 {
		must(t, src.Copy(t.Context(), many{one, files / 10}, "/", fmt.Sprintf("/warm%d/", i), dockerfile))
	}
	before := heap()
	c := Edit(nil)
	defer c.Close()
	for i := range 10 {
		must(t, c.Copy(t.Context(), many{one, files / 10}, "/", fmt.Sprintf("/d%d/", i), dockerfile))
	}
	after := heap()
	if perFile := int64(after-before) / files; after > before && perFile > 32 {
		t.Errorf("%d bytes a file", perFile)
	}
	if got := strings.Count(walked(t, c.FS()), "\n"); got != files+10 {
		t.Errorf("%d names", got)
	}
}

// A directory of several tables takes edits before, between and after its names.
func TestADirectoryOfSeveralTablesCanBeEdited(t *testing.T) {
	const files = 3 * packRun
	one := openHost(t, host(t, "x", "more/file0000003 ", "more/a", "more/z"))
	c := Edit(nil)
	defer c.Close()
	must(t, c.Copy(t.Context(), many{one, files}, "/", "/", dockerfile))
	if n := len(c.root.packed); n < 3 {
		t.Fatalf("%d tables", n)
	}
	want := map[string]string{}
	for i := range files {
		want[fmt.Sprintf("file%07d", i)] = "file"
	}
	shown := c.FS()
	edits := []func() error{
		func() error { return c.Mkdir("/zz", MakeOptions{}) },
		func() error { return c.Mkfile("/a0", nil, MakeOptions{}) },
		func() error { return c.Copy(t.Context(), one, "/more", "/", dockerfile) },
		func() error { return c.Remove("/file0000005", RemoveOptions{}) },
		func() error { return c.Remove("/file0020000", RemoveOptions{}) },
		func() error { return c.Symlink("x", "/file0000005", MakeOptions{}) },
		func() error { return c.Mkdir(fmt.Sprintf("/file%07d", files), MakeOptions{}) },
	}
	for name, what := range map[string]string{"zz": "dir", "a0": "file", "file0000003 ": "file", "a": "file", "z": "file", "file0000005": "link", fmt.Sprintf("file%07d", files): "dir"} {
		want[name] = what
	}
	delete(want, "file0020000")
	for _, edit := range edits {
		must(t, edit())
	}
	check := func(fsys FS, want map[string]string) {
		t.Helper()
		entries, err := fsys.ReadDir(".")
		must(t, err)
		if len(entries) != len(want) {
			t.Errorf("%d names, not %d", len(entries), len(want))
		}
		kinds := map[fs.FileMode]string{0: "file", fs.ModeDir: "dir", fs.ModeSymlink: "link"}
		last := ""
		for _, e := range entries {
			if e.Name() <= last || want[e.Name()] != kinds[e.Type()] {
				t.Fatalf("%q, %v, comes after %q", e.Name(), e.Type(), last)
			}
			last = e.Name()
		}
		for name, what := range want {
			info, err := fsys.Lstat(name)
			if err != nil || kinds[info.Mode().Type()] != what {
				t.Fatalf("%s: %v, %v", name, info, err)
			}
		}
	}
	check(c.FS(), want)
	if _, err := c.FS().Lstat("file0020000"); err == nil {
		t.Error("a removed name is there")
	}
	before := map[string]string{}
	for i := range files {
		before[fmt.Sprintf("file%07d", i)] = "file"
	}
	check(shown, before)
}

func TestATreeIsReadWhileMoreIsPacked(t *testing.T) {
	c := Edit(nil)
	c.Temp = t.TempDir()
	defer c.Close()
	copies := func(i int) {
		src := openHost(t, host(t, fmt.Sprintf("d/f%d", i), fmt.Sprintf("d/e/g%d", i)))
		must(t, c.Copy(t.Context(), src, "/", fmt.Sprintf("/copy%d/", i), dockerfile))
	}
	copies(0)
	shown := c.FS()
	want := list(t, shown)
	var reader sync.WaitGroup
	stop := make(chan struct{})
	reader.Go(func() {
		for {
			if got := walked(t, shown); strings.Count(got, "\n") != strings.Count(want, "\n") {
				t.Errorf("got %s", got)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for i := range 20 {
		copies(i + 1)
	}
	close(stop)
	reader.Wait()
	if got := list(t, shown); got != want {
		t.Errorf("got %s", got)
	}
}

func TestInodesAreFoundByTheirNumbers(t *testing.T) {
	var table inodeTable
	if _, ok := table.get(1); ok {
		t.Error("an empty table has something")
	}
	number := func(i uint64) uint64 { return i * i * 64 } // with 0, and many equal low bits
	for i := range uint64(5000) {
		table.add(number(i), i)
	}
	for i := range uint64(5000) {
		if to, ok := table.get(number(i)); !ok || to != i {
			t.Fatalf("%d: %d, %v", number(i), to, ok)
		}
		if _, ok := table.get(number(i) + 1); ok {
			t.Fatalf("%d is there", number(i)+1)
		}
	}
}

func TestTheFirstNamesOfLinksAreKeptOutsideTheMemory(t *testing.T) {
	l := linkNames{Spill: sys.Spill{Dir: t.TempDir()}}
	defer l.Close()
	const links = 50_000
	name := func(i uint64) string { return fmt.Sprintf("a/directory/with/a/long/name/%d", i) }
	for i := range uint64(links) {
		if first, again, err := l.first(i, name(i)); first != name(i) || again || err != nil {
			t.Fatalf("%d: %q, %v, %v", i, first, again, err)
		}
	}
	for i := range uint64(links) {
		if first, again, err := l.first(i, "other"); first != name(i) || !again || err != nil {
			t.Fatalf("%d: %q, %v, %v", i, first, again, err)
		}
	}
}

// many is a tree of n files in one directory, all of the same content.
type many struct {
	FS
	n int
}

func (m many) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		return m.FS.ReadDir(name)
	}
	var all []fs.DirEntry
	for i := range m.n {
		all = append(all, fs.FileInfoToDirEntry(&attr{name: fmt.Sprintf("file%07d", i), mode: 0o644, stat: &layer.Stat{Nlink: 1}}))
	}
	return all, nil
}

// walked names the files of fsys and opens none.
func walked(t testing.TB, fsys FS) string {
	t.Helper()
	var b strings.Builder
	must(t, fs.WalkDir(fsys, ".", func(path string, _ fs.DirEntry, err error) error {
		if path != "." {
			fmt.Fprintln(&b, path)
		}
		return err
	}))
	return b.String()
}
