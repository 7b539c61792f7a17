package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/rootfs"
	_ "github.com/shaleproject/shale/internal/sandbox/reexec"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/volume"
)

// monitorName makes the test binary a monitor; its arguments are the store and
// the id.
const monitorName = "shale-monitor"

func TestMain(m *testing.M) {
	if os.Args[0] == monitorName {
		c, err := open(os.Args[1])
		if err == nil {
			err = c.RunMonitor(context.Background(), os.Args[2], os.NewFile(3, "status"))
		}
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if left := leftovers(); left != "" {
		fmt.Fprintln(os.Stderr, "left behind:", left)
		code = 1
	}
	os.Exit(code)
}

// leftovers names what a container must not leave: mounts, control groups,
// monitors.
func leftovers() string {
	var left []string
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/rootfs ") {
			left = append(left, line)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/shale-*")
	more, _ := filepath.Glob("/sys/fs/cgroup/*/shale-*")
	left = append(append(left, groups...), more...)
	monitors, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range monitors {
		if line, err := os.ReadFile(file); err == nil && bytes.HasPrefix(line, []byte(monitorName+"\x00"+os.TempDir())) {
			left = append(left, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return strings.Join(left, "\n")
}

func open(root string) (*container.Containers, error) {
	s, err := store.Open(root)
	if err != nil {
		return nil, err
	}
	images := &image.Images{
		Store:      s,
		Registries: func(string) (ociregistry.Interface, error) { return nil, errdefs.ErrUnavailable },
		Platform:   ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Now:        time.Now,
	}
	return &container.Containers{
		Store: s, Images: images, Networks: network.New("/run/shale-test/network"),
		Volumes: volume.New(filepath.Join(root, "volumes")),
		Rootfs: func() (rootfs.Driver, error) {
			d, _, err := rootfs.Choose(s, "")
			return d, err
		},
		Monitor: func(id string) (*exec.Cmd, error) {
			cmd := exec.Command("/proc/self/exe", root, id)
			cmd.Args[0] = monitorName
			return cmd, nil
		},
		Now: time.Now,
	}, nil
}

// world is a store with the image "busybox" in it.
func world(t *testing.T) *container.Containers {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("needs busybox (busybox-static)")
	}
	c, err := open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, err := c.List(context.Background(), container.ListOptions{All: true})
		if err != nil {
			t.Error(err)
		}
		for _, s := range list {
			if err := c.Remove(context.Background(), s.ID, container.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
				t.Error(err)
			}
		}
		c.Store.Close()
	})
	load(t, c, "busybox", nil)
	return c
}

// load imports an image of busybox and files under a name.
func load(t *testing.T, c *container.Containers, name string, changes []string, files ...tar.Header) {
	t.Helper()
	o := image.ImportOptions{Name: name, Changes: append([]string{`CMD ["sh"]`, "ENV PATH=/bin"}, changes...)}
	if _, err := c.Images.Import(t.Context(), bytes.NewReader(busybox(t, files)), o); err != nil {
		t.Fatal(err)
	}
}

func busybox(t *testing.T, files []tar.Header) []byte {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "etc", "tmp", "root"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, "")
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, string(program))
	for _, applet := range strings.Fields("sh true false cat ls id echo sleep kill readlink grep touch stty mount hostname env pwd wc trap stat dd mkdir test") {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, "")
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
	for _, f := range files {
		content := f.PAXRecords["SHALE.content"]
		f.PAXRecords = nil
		add(f, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func options(args ...string) container.CreateOptions {
	o := container.CreateOptions{Image: "busybox", Pull: container.PullNever}
	o.Process.Cmd = args
	o.Network.Mode = "none"
	return o
}

// run runs o in the foreground and returns the exit code and the output.
func run(t *testing.T, c *container.Containers, o container.CreateOptions) (int, string) {
	t.Helper()
	var out bytes.Buffer
	exit, err := c.CreateAndRun(t.Context(), o, container.IO{Out: &out, Err: &out}, nil, nil)
	if err != nil {
		t.Fatalf("run %v: %v\n%s", o.Process.Cmd, err, out.String())
	}
	return exit.Code, out.String()
}

func TestRunReturnsOutputAndExitCode(t *testing.T) {
	c := world(t)
	o := options("sh", "-c", "echo hello; exit 3")
	o.Life.AutoRemove = true
	code, out := run(t, c, o)
	if code != 3 || out != "hello\n" {
		t.Errorf("code %d, output %q", code, out)
	}
	if list, err := c.List(t.Context(), container.ListOptions{All: true}); err != nil || len(list) != 0 {
		t.Errorf("left %v, %v", list, err)
	}
}
