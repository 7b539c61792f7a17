package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/platforms"
	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/rootfs"
	_ "github.com/shaleproject/shale/internal/sandbox/reexec" // RUN starts this binary again
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

// start is the time of the test clock: builds happen then and a second later
// each.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := network.Machine().Prune(); err != nil && os.Geteuid() == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// bench is a store with a builder, and the contexts of a test.
type bench struct {
	*testing.T
	*build.Builder

	mu  sync.Mutex
	now time.Time
}

func newBench(t *testing.T) *bench { return benchAt(t, t.TempDir()) }

// benchAt opens the store at root, as another process would.
func benchAt(t *testing.T, root string) *bench {
	t.Helper()
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &bench{T: t, now: start}
	platform := platforms.Normalize(platforms.DefaultSpec())
	b.Builder = &build.Builder{
		Store: s,
		Images: &image.Images{
			Store: s, Platform: platform, Now: b.clock,
			Registries: func(host string) (ociregistry.Interface, error) {
				return (*ociregistry.Funcs)(nil), nil
			},
		},
		Rootfs: func() (rootfs.Driver, error) {
			d, _, err := rootfs.Choose(s, "")
			return d, err
		},
		Platform: platform,
		Now:      b.clock,
	}
	if os.Geteuid() == 0 {
		b.Networks = network.Machine() // tests of other packages are on it, too
	}
	return b
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// later lets time pass between two builds.
func (b *bench) later() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(time.Hour)
}

// directory makes a context out of files: "name" is a file, "name/" a
// directory, a content "-> x" a link.
func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		target, link := strings.CutPrefix(content, "-> ")
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(p, 0o755)
		case link:
			err = os.Symlink(target, p)
		default:
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// outcome is a build with what was shown of it.
type outcome struct {
	build.Result
	err      error
	cached   []string // names of steps that were cached, in order
	ran      []string // of steps that ran to their end
	failed   []string
	log      string
	warnings []string
}

func (b *bench) try(req build.Request) outcome {
	b.Helper()
	status := make(chan *bkclient.SolveStatus)
	done := make(chan outcome)
	go func() {
		var o outcome
		for s := range status {
			o.note(s)
		}
		done <- o
	}()
	res, err := b.Build(b.Context(), req, status)
	o := <-done
	o.Result, o.err = res, err
	return o
}

func (o *outcome) note(s *bkclient.SolveStatus) {
	for _, v := range s.Vertexes {
		switch {
		case v.Completed == nil:
		case v.Error == context.Canceled.Error(): // as the display has it
		case v.Error != "":
			o.failed = append(o.failed, v.Name)
		case v.Cached:
			o.cached = append(o.cached, v.Name)
		default:
			o.ran = append(o.ran, v.Name)
		}
	}
	for _, l := range s.Logs {
		o.log += string(l.Data)
	}
	for _, w := range s.Warnings {
		o.warnings = append(o.warnings, string(w.Short))
	}
}

func (b *bench) build(req build.Request) outcome {
	b.Helper()
	o := b.try(req)
	if o.err != nil {
		var excerpt bytes.Buffer
		_ = build.Excerpt(&excerpt, o.err)
		b.Fatalf("build: %v\n%s\n%s", o.err, excerpt.String(), o.log)
	}
	return o
}

// dir is the request for the context dir.
func dir(path string, names ...string) build.Request {
	return build.Request{Files: build.Files{Context: path}, Outputs: []build.Output{{Kind: build.OutputImage, Names: names}}}
}

// dockerfile is the request for a Dockerfile without a context.
func dockerfile(text string, names ...string) build.Request {
	return build.Request{
		Files:   build.Files{Context: "-", Stdin: strings.NewReader(text)},
		Outputs: []build.Output{{Kind: build.OutputImage, Names: names}},
	}
}

// steps leaves out of names the front end's own: those that begin with
// "[internal]", and the export.
func steps(names []string) []string {
	return slices.DeleteFunc(append([]string{}, names...), func(n string) bool {
		return strings.HasPrefix(n, "[internal]") || strings.HasPrefix(n, "exporting") || strings.Contains(n, "FROM ")
	})
}

// tree opens the file system of an image.
func (b *bench) tree(img *image.Image) tree.FS {
	b.Helper()
	var layers []tree.FS
	for _, d := range img.DiffIDs {
		l, err := b.Store.Layer(d)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
		layers = append(layers, l)
	}
	return tree.Stack(layers...)
}

// read returns the content of a file of an image.
func (b *bench) read(img *image.Image, name string) string {
	b.Helper()
	f, err := b.tree(img).Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		b.Fatal(err)
	}
	return string(data)
}

// names lists all files of an image.
func (b *bench) names(img *image.Image) []string {
	b.Helper()
	var all []string
	fsys := b.tree(img)
	var walk func(string)
	walk = func(dir string) {
		entries, err := fsys.ReadDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			all = append(all, name)
			if e.IsDir() {
				walk(name)
			}
		}
	}
	walk(".")
	return all
}

// busybox makes an image of the static busybox and returns its name.
func (b *bench) busybox() string {
	b.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		b.Skip("no static busybox at /bin/busybox (Debian: busybox-static)")
	}
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		b.Fatal(err)
	}
	var files []*tar.Header
	for _, d := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"} {
		files = append(files, &tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755})
	}
	files = append(files,
		&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Linkname: string(program)},
		&tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644, Linkname: "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/tmp:/bin/sh\n"},
		&tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644, Linkname: "root:x:0:\nusers:x:1001:\nstaff:x:50:\n"},
	)
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			files = append(files, &tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox", Mode: 0o777})
		}
	}
	b.base("busybox", files)
	return "busybox"
}

// base makes an image of files, whose contents are in Linkname.
func (b *bench) base(name string, files []*tar.Header) {
	b.Helper()
	lease, err := b.Store.Lease(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer lease.Close()
	in, err := b.Store.IngestLayer(lease)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	w := tar.NewWriter(in)
	for _, h := range files {
		h.ModTime = time.Unix(1_600_000_000, 0)
		content := h.Linkname
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Linkname = int64(len(content)), ""
		}
		err := w.WriteHeader(h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = io.WriteString(w, content)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	d, _, err := in.Commit(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	created := time.Unix(1_600_000_000, 0).UTC()
	config, err := json.Marshal(ocispec.Image{
		Created:  &created,
		Platform: b.Platform,
		Config:   ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{d}},
		History:  []ocispec.History{{Created: &created, CreatedBy: "the test"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := b.Images.Write(b.Context(), lease, config, []digest.Digest{d}, []string{name}); err != nil {
		b.Fatal(err)
	}
}

// needsRoot skips a test that has to mount.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("RUN needs root here: not running as root")
	}
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if !bytes.Equal(g, w) {
		t.Errorf("%s is %s, want %s", what, g, w)
	}
}

func TestAnImageIsMadeWithoutRun(t *testing.T) {
	b := newBench(t)
	ctx := directory(t, map[string]string{
		"Dockerfile":   "FROM scratch\nCOPY a.txt dir /x/\nENV GREETING=hello\nWORKDIR /w\nLABEL l=1\nCMD [\"/x/a.txt\"]\n",
		"a.txt":        "content\n",
		"dir/b.txt":    "b\n",
		"dir/sub/link": "-> ../b.txt",
	})
	o := b.build(dir(ctx, "app:1", "app:2"))
	img := o.Image
	equal(t, "tree", b.names(img), []string{"w", "x", "x/a.txt", "x/b.txt", "x/sub", "x/sub/link"})
	equal(t, "content", b.read(img, "x/a.txt"), "content\n")
	equal(t, "command", img.Config.Config.Cmd, []string{"/x/a.txt"})
	equal(t, "working directory", img.Config.Config.WorkingDir, "/w")
	equal(t, "labels", img.Config.Config.Labels, map[string]string{"l": "1"})
	if !slices.Contains(img.Config.Config.Env, "GREETING=hello") {
		t.Errorf("environment is %q", img.Config.Config.Env)
	}
	var history []string
	for _, h := range img.Config.History {
		history = append(history, h.CreatedBy)
		equal(t, "time of "+h.CreatedBy, h.Created, &start)
	}
	equal(t, "history", history, []string{
		"COPY a.txt dir /x/ # buildkit", "ENV GREETING=hello", "WORKDIR /w", "LABEL l=1", "CMD [\"/x/a.txt\"]",
	})
	for _, name := range []string{"app:1", "app:2"} {
		named, err := b.Images.Get(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "image "+name, named.ConfigDigest, o.ID())
	}
}
