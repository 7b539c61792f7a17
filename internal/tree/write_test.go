package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
)

// written is the layer of c, as the bytes of its tar and as a file system.
func written(t testing.TB, c *Changes) ([]byte, FS) {
	t.Helper()
	return archived(t, func(w *layer.Writer) error { return c.WriteLayer(t.Context(), w) })
}

func archived(t testing.TB, write func(*layer.Writer) error) ([]byte, FS) {
	t.Helper()
	var b bytes.Buffer
	w := layer.NewWriter(&b)
	must(t, write(w))
	must(t, w.Close())
	return b.Bytes(), opened(t, b.Bytes())
}

// opened is the file system of a layer tar.
func opened(t testing.TB, data []byte) FS {
	t.Helper()
	x := layer.NewIndexer(t.TempDir())
	defer x.Close()
	_, err := x.Write(data)
	must(t, err)
	f, err := os.CreateTemp(t.TempDir(), "index")
	must(t, err)
	defer f.Close()
	_, err = x.Finish(f)
	must(t, err)
	index, err := os.ReadFile(f.Name())
	must(t, err)
	fsys, err := layer.Open(bytes.NewReader(index), int64(len(index)), bytes.NewReader(data))
	must(t, err)
	return fsys
}

// members lists the names of a tar; a hard link shows where it leads.
func members(t testing.TB, data []byte) string {
	t.Helper()
	var all []string
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(all, " ")
		}
		must(t, err)
		if h.Typeflag == tar.TypeLink {
			h.Name += "=" + h.Linkname
		}
		all = append(all, h.Name)
	}
}

func TestWriteLayerHoldsOnlyWhatChanged(t *testing.T) {
	base := []string{"a/b", "a/c/d", "e", "f -> e", "g/h"}
	file := MakeOptions{Mode: 0o644}
	for _, test := range []struct {
		name string
		edit func(c *Changes) error
		want string
	}{
		{"nothing", func(c *Changes) error { return nil }, ""},
		{"new file", func(c *Changes) error { return c.Mkfile("a/c/x", nil, file) }, "a/ a/c/ a/c/x"},
		{"file again", func(c *Changes) error { return c.Mkfile("a/b", nil, file) }, "a/ a/b"},
		{"file through link", func(c *Changes) error { return c.Mkfile("f", nil, file) }, "e"},
		{"directory there", func(c *Changes) error { return c.Mkdir("a", MakeOptions{Mode: 0o700}) }, ""},
		{"directories", func(c *Changes) error { return c.Mkdir("a/x/y", MakeOptions{Mode: 0o755, Parents: true}) }, "a/ a/x/ a/x/y/"},
		{"remove file", func(c *Changes) error { return c.Remove("a/b", RemoveOptions{}) }, "a/ a/.wh.b"},
		{"remove directory", func(c *Changes) error { return c.Remove("a", RemoveOptions{}) }, ".wh.a"},
		{"remove link", func(c *Changes) error { return c.Remove("f", RemoveOptions{}) }, ".wh.f"},
		{"remove what is not there", func(c *Changes) error { return c.Remove("x/y", RemoveOptions{AllowNotFound: true}) }, ""},
		{"remove what is new", func(c *Changes) error {
			return errors.Join(c.Mkfile("x", nil, file), c.Remove("x", RemoveOptions{}))
		}, ""},
		{"remove and make again", func(c *Changes) error {
			return errors.Join(c.Remove("a", RemoveOptions{}), c.Mkfile("x", nil, file), c.Mkdir("a", MakeOptions{Mode: 0o755}))
		}, "a/ a/.wh..wh..opq x"},
		{"file for directory", func(c *Changes) error {
			return errors.Join(c.Remove("a", RemoveOptions{}), c.Mkfile("a", nil, file))
		}, "a"},
		{"directory for file", func(c *Changes) error {
			return errors.Join(c.Remove("e", RemoveOptions{}), c.Mkdir("e", MakeOptions{Mode: 0o755}))
		}, "e/"},
		{"remove by pattern", func(c *Changes) error { return c.Remove("*/[bh]", RemoveOptions{Wildcard: true}) }, "a/ a/.wh.b g/ g/.wh.h"},
		{"order", func(c *Changes) error {
			return errors.Join(c.Mkfile("z", nil, file), c.Mkfile("A", nil, file), c.Mkdir("a-b", MakeOptions{}), c.Mkfile("a/z", nil, file))
		}, "A a/ a/z a-b/ z"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Edit(build(t, base...))
			must(t, test.edit(c))
			data, fsys := written(t, c)
			if got := members(t, data); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if got, want := list(t, Stack(build(t, base...), fsys)), list(t, c.FS()); got != want {
				t.Errorf("stack:\n%s\nedited:\n%s", got, want)
			}
		})
	}
}

func TestEditsOfNothingFail(t *testing.T) {
	c := Edit(build(t, "a/b", "l -> loop", "loop -> l"))
	for name, err := range map[string]error{
		"mkdir without parent":     c.Mkdir("x/y", MakeOptions{}),
		"mkdir below file":         c.Mkdir("a/b/c", MakeOptions{Parents: true}),
		"mkfile without parent":    c.Mkfile("x/y", nil, MakeOptions{}),
		"mkfile over directory":    c.Mkfile("a", nil, MakeOptions{}),
		"mkfile over root":         c.Mkfile("/", nil, MakeOptions{}),
		"mkfile through loop":      c.Mkfile("l/x", nil, MakeOptions{}),
		"symlink over file":        c.Symlink("x", "a/b", MakeOptions{}),
		"symlink over directory":   c.Symlink("x", "a", MakeOptions{}),
		"symlink over root":        c.Symlink("x", "/", MakeOptions{}),
		"remove what is not there": c.Remove("x", RemoveOptions{}),
		"remove root":              c.Remove("/", RemoveOptions{}),
		"remove dot dot":           c.Remove("../..", RemoveOptions{AllowNotFound: true}),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if data, _ := written(t, c); members(t, data) != "" {
		t.Errorf("failed edits left %s", members(t, data))
	}
}

func TestFSIsNotChangedByLaterEdits(t *testing.T) {
	c := Edit(build(t, "a"))
	must(t, c.Mkfile("b", []byte("1"), MakeOptions{}))
	before := c.FS()
	want := list(t, before)
	must(t, c.Mkfile("b", []byte("2"), MakeOptions{}))
	must(t, c.Remove("a", RemoveOptions{}))
	must(t, c.Copy(t.Context(), before, "/", "/sub/", dockerfile))
	if got := list(t, before); got != want {
		t.Errorf("got %s", got)
	}
	if got := names(t, c.FS()); got != "b sub/ sub/a sub/b" {
		t.Errorf("got %s", got)
	}
}

// randomEdit makes one edit; those that fail are part of the game.
func randomEdit(t testing.TB, r *rand.Rand, c *Changes, src FS) {
	paths := []string{"a", "b", "c", "a/b", "a/a", "b/c", "c/a/b", "a/b/c", "new", "b/new/x", "/"}
	p := paths[r.IntN(len(paths))]
	o := MakeOptions{Mode: fs.FileMode(r.IntN(0o1000)), Parents: r.IntN(2) == 0, Owner: &Owner{uint32(r.IntN(3)), 5}}
	switch r.IntN(7) {
	case 0:
		c.Mkdir(p, o)
	case 1:
		c.Mkfile(p, []byte(fmt.Sprint(r.IntN(50))), o)
	case 2:
		c.Symlink([]string{"a", "/b", "../c"}[r.IntN(3)], p, o)
	case 3, 4:
		c.Remove(p, RemoveOptions{AllowNotFound: true})
	default:
		co := randomOptions(r)
		co.AlwaysReplace = r.IntN(2) == 0
		c.Copy(t.Context(), src, paths[r.IntN(len(paths))], p, co)
	}
}

func FuzzWrittenLayersMergeToTheEditedTree(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		var trees []FS
		for range 2 {
			dir := t.TempDir()
			randomTree(t, r, dir, 3)
			trees = append(trees, load(t, dir))
		}
		data, base := archived(t, func(w *layer.Writer) error { return Archive(t.Context(), trees[0], w) })
		if got, want := list(t, base), list(t, trees[0]); got != want {
			t.Fatalf("archive %s:\n%s\ntree:\n%s", members(t, data), got, want)
		}
		layers := []FS{base}
		for range 3 {
			c := Edit(Stack(layers...))
			for range 1 + r.IntN(5) {
				randomEdit(t, r, c, trees[1])
			}
			data, fsys := written(t, c)
			if again, _ := written(t, c); !bytes.Equal(again, data) {
				t.Fatal("the same edits gave two layers")
			}
			layers = append(layers, fsys)
			stack := Stack(layers...)
			if got, want := list(t, stack), list(t, c.FS()); got != want {
				t.Fatalf("layer %s\nstack:\n%s\nedited:\n%s", members(t, data), got, want)
			}
			if got, want := timesOf(t, stack, time.Now()), timesOf(t, c.FS(), time.Now()); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("times of stack: %v\nedited: %v", got, want)
			}
		}
		// The difference of two trees turns one into the other.
		top := Stack(layers...)
		data, diff := archived(t, func(w *layer.Writer) error { return Diff(t.Context(), base, top, w) })
		if got, want := list(t, Stack(base, diff)), list(t, top); got != want {
			t.Fatalf("difference %s\nstack:\n%s\nwant:\n%s", members(t, data), got, want)
		}
		data, _ = archived(t, func(w *layer.Writer) error { return Diff(t.Context(), top, top, w) })
		if got := members(t, data); got != "" {
			t.Fatalf("a tree differs from itself by %s", got)
		}
	})
}

func TestCopyKeepsHardLinksOfOneCopy(t *testing.T) {
	root := host(t, "a", "d/x")
	must(t, os.Link(root+"/a", root+"/b"))
	must(t, os.Link(root+"/a", root+"/d/c"))
	c := Edit(nil)
	must(t, c.Copy(t.Context(), openHost(t, root), "/", "/", dockerfile))
	must(t, c.Copy(t.Context(), openHost(t, root), "a", "/alone", dockerfile))
	data, fsys := written(t, c)
	if got, want := members(t, data), "a alone b=a d/ d/c=a d/x"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := linksOf(t, fsys); !strings.Contains(got, "[a b d/c]") {
		t.Errorf("links %s", got)
	}
}

func TestContextsBelongToRootAndKeepOnlyCapabilities(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("setting capabilities needs root")
	}
	root := host(t, "a")
	must(t, os.Chown(root+"/a", 12, 34))
	value := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	must(t, syscall.Setxattr(root+"/a", "user.note", []byte("from the web"), 0))
	must(t, syscall.Setxattr(root+"/a", capability, []byte(value), 0))
	c := Edit(nil)
	must(t, c.Copy(t.Context(), openHost(t, root), "a", "/a", dockerfile))
	_, fsys := written(t, c)
	info, err := fsys.Lstat("a")
	must(t, err)
	st := statOf(info)
	if st.UID != 0 || st.GID != 0 || len(st.Xattrs) != 1 || string(st.Xattrs[capability]) != value {
		t.Errorf("%+v", st)
	}
}

func TestSpecialFilesAreCopiedAndNeverOpened(t *testing.T) {
	root := host(t, "f")
	must(t, syscall.Mkfifo(root+"/fifo", 0o640))
	sock, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	must(t, err)
	defer syscall.Close(sock)
	if err := syscall.Bind(sock, &syscall.SockaddrUnix{Name: root + "/sock"}); err != nil {
		t.Skipf("make a socket: %v", err)
	}
	want := map[string]fs.FileMode{"fifo": fs.ModeNamedPipe, "sock": 0, "f": 0}
	if os.Getuid() == 0 {
		must(t, syscall.Mknod(root+"/null", syscall.S_IFCHR|0o600, 1<<8|3))
		want["null"] = fs.ModeDevice | fs.ModeCharDevice
	}
	c := Edit(nil)
	must(t, c.Copy(t.Context(), openHost(t, root), "/", "/", dockerfile))
	_, fsys := written(t, c)
	for name, mode := range want {
		info, err := fsys.Lstat(name)
		must(t, err)
		if info.Mode().Type() != mode {
			t.Errorf("%s: %v", name, info.Mode())
		}
		if name == "null" && statOf(info).Rdev != 1<<8|3 {
			t.Errorf("null: %+v", statOf(info))
		}
	}
}

func TestADeletedFileOfAnOverlayIsNoPartOfACopy(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making a device needs root")
	}
	root := host(t)
	if err := syscall.Mknod(root+"/gone", syscall.S_IFCHR, 0); err != nil {
		t.Skip(err)
	}
	err := Edit(nil).Copy(t.Context(), openHost(t, root), "/", "/", dockerfile)
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "/gone") {
		t.Errorf("%v", err)
	}
}

func TestNamesThatALayerCannotHoldAreRefused(t *testing.T) {
	c := Edit(nil)
	must(t, c.Copy(t.Context(), openHost(t, host(t, "d/.wh.x")), "/", "/", dockerfile))
	err := c.WriteLayer(t.Context(), layer.NewWriter(io.Discard))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), ".wh.x") {
		t.Errorf("%v", err)
	}
}

func TestAFileThatChangesDuringTheBuildIsAnError(t *testing.T) {
	root := host(t, "f")
	c := Edit(nil)
	must(t, c.Copy(t.Context(), openHost(t, root), "/", "/", dockerfile))
	must(t, os.WriteFile(root+"/f", []byte("something else"), 0o644))
	if err := c.WriteLayer(t.Context(), layer.NewWriter(io.Discard)); !errdefs.IsAborted(err) {
		t.Errorf("changed: %v", err)
	}
	must(t, os.Remove(root+"/f"))
	if err := c.WriteLayer(t.Context(), layer.NewWriter(io.Discard)); !errdefs.IsNotFound(err) {
		t.Errorf("removed: %v", err)
	}
}

func TestTimesAreParameters(t *testing.T) {
	c := Edit(nil)
	c.Now, c.Latest = time.Unix(500, 123), time.Unix(400, 0)
	given := time.Unix(300, 5)
	must(t, c.Mkfile("a", nil, MakeOptions{}))
	must(t, c.Mkfile("b", nil, MakeOptions{Time: &given}))
	src := Edit(nil)
	src.Now = time.Unix(450, 0)
	must(t, src.Mkfile("c", nil, MakeOptions{}))
	must(t, c.Copy(t.Context(), src.FS(), "c", "/d/c", dockerfile))
	_, fsys := written(t, c)
	for name, want := range map[string]int64{"a": 400, "b": 300, "d": 400, "d/c": 400} {
		info, err := fsys.Lstat(name)
		must(t, err)
		if info.ModTime().Unix() != want {
			t.Errorf("%s: %d", name, info.ModTime().Unix())
		}
	}
}

func TestStackOfSixtyLayersLooksUpEachNameOnce(t *testing.T) {
	var layers []FS
	for i := range 60 {
		var files []string
		for j := range 300 {
			files = append(files, fmt.Sprintf("usr/d%d/f%d", i%7, j))
		}
		layers = append(layers, build(t, files...))
	}
	s := Stack(layers...)
	start := time.Now()
	for d := range 7 {
		entries, err := s.ReadDir(fmt.Sprintf("usr/d%d", d))
		must(t, err)
		if len(entries) != 300 {
			t.Fatalf("%d entries", len(entries))
		}
		for _, e := range entries {
			if _, err := e.Info(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("%v for 2,100 names in 60 layers", d)
	}
}

func BenchmarkStack60Layers300Names(b *testing.B) {
	var layers []FS
	for i := range 60 {
		c := Edit(nil)
		must(b, c.Mkdir("d", MakeOptions{Mode: 0o755}))
		for j := range 300 {
			must(b, c.Mkfile(fmt.Sprintf("d/f%d", i*300+j), nil, MakeOptions{}))
		}
		_, fsys := written(b, c)
		layers = append(layers, fsys)
	}
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			_, err := Stack(layers...).ReadDir("d")
			must(b, err)
		}
	})
	b.Run("lookup", func(b *testing.B) {
		s := Stack(layers...)
		for i := 0; b.Loop(); i++ {
			_, err := s.Lstat(fmt.Sprintf("d/f%d", i%18000))
			must(b, err)
		}
	})
}

func BenchmarkCopy20k(b *testing.B) {
	root := context20k(b)
	b.ReportAllocs()
	for b.Loop() {
		c := Edit(nil)
		must(b, c.Copy(b.Context(), openHost(b, root), "/", "/app", dockerfile))
		must(b, c.WriteLayer(b.Context(), layer.NewWriter(io.Discard)))
	}
}
