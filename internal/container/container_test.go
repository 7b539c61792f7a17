package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	os.Exit(clean(m))
}

// clean runs the tests in a directory of their own, so that what they leave
// behind is told from what other tests have at the same time.
func clean(m *testing.M) int {
	runtime.LockOSThread() // as main does: no test runs on the first thread
	dir, err := os.MkdirTemp("", "shale-container-")
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	code := m.Run()
	if err := network.Machine().Prune(); err != nil && os.Geteuid() == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if left := leftovers(); left != "" {
		fmt.Fprintln(os.Stderr, "left behind:", left)
		code = 1
	}
	return code
}

// made are the ids of containers that tests have left to their clean-up.
var made = map[string]bool{}

// leftovers names what a container must not leave: mounts, control groups,
// monitors.
func leftovers() string {
	var left []string
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, os.TempDir()) {
			left = append(left, line)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/shale-*")
	for _, g := range groups {
		if made[strings.TrimPrefix(filepath.Base(g), "shale-")] {
			left = append(left, g)
		}
	}
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
		Store: s, Images: images, Networks: network.Machine(),
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
		for _, s := range list {
			made[s.ID] = true
		}
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
	for _, applet := range strings.Fields("sh true false cat ls id echo sleep kill readlink grep touch stty mount hostname env pwd wc stat dd mkdir test sed") {
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
	made, err := c.Prepare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := made.Run(t.Context(), container.IO{Out: &out, Err: &out}, nil)
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

// start runs args in the background and returns the id.
func start(t *testing.T, c *container.Containers, o container.CreateOptions) string {
	t.Helper()
	id, err := c.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func logs(t *testing.T, c *container.Containers, id string, o container.LogOptions) string {
	t.Helper()
	var out bytes.Buffer
	if err := c.Logs(t.Context(), id, o, &out, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func status(t *testing.T, c *container.Containers, id string) container.Status {
	t.Helper()
	info, err := c.Inspect(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Status
}

func TestContainerInTheBackgroundOutlivesItsStarter(t *testing.T) {
	c := world(t)
	id := start(t, c, options("sh", "-c", "echo out; echo err >&2; sleep 1000"))
	if s := status(t, c, id); s != container.Running {
		t.Fatalf("status %s", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out, errout lines
	out.until, errout.until = "out\n", "err\n"
	out.done, errout.done = make(chan struct{}), make(chan struct{})
	followed := make(chan error, 1)
	go func() {
		followed <- c.Logs(ctx, id, container.LogOptions{Follow: true, Tail: -1}, &out, &errout)
	}()
	<-out.done
	<-errout.done
	cancel()
	<-followed
	timeout := 0
	if err := c.Stop(t.Context(), id, "", &timeout); err != nil {
		t.Fatal(err)
	}
	if code, err := c.Wait(t.Context(), id); err != nil || code != 137 {
		t.Errorf("wait: %d, %v", code, err)
	}
	if s := status(t, c, id); s != container.Exited {
		t.Errorf("status %s", s)
	}
}

// lines closes done when it has been written until.
type lines struct {
	text  bytes.Buffer
	until string
	done  chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	n, err := l.text.Write(p)
	if l.until != "" && strings.Contains(l.text.String(), l.until) {
		l.until = ""
		close(l.done)
	}
	return n, err
}

func TestStopSendsTheStopSignalOfTheImage(t *testing.T) {
	c := world(t)
	load(t, c, "stopper", []string{"STOPSIGNAL SIGUSR1"})
	o := options("sh", "-c", "trap 'exit 7' USR1; echo ready; while true; do sleep 0.01; done")
	o.Image = "stopper"
	id := start(t, c, o)
	waitForLog(t, c, id, "ready")
	if err := c.Stop(t.Context(), id, "", nil); err != nil {
		t.Fatal(err)
	}
	if code, err := c.Wait(t.Context(), id); err != nil || code != 7 {
		t.Errorf("code %d, %v", code, err)
	}
}

func waitForLog(t *testing.T, c *container.Containers, id, text string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := &lines{until: text, done: make(chan struct{})}
	failed := make(chan error, 1)
	go func() { failed <- c.Logs(ctx, id, container.LogOptions{Follow: true, Tail: -1}, l, l) }()
	select {
	case <-l.done:
		cancel()
		<-failed
	case err := <-failed:
		select {
		case <-l.done:
		default:
			t.Fatalf("container ended before it wrote %q: %v, %q", text, err, l.text.String())
		}
	}
}

func TestLogsTailSinceAndTimestamps(t *testing.T) {
	c := world(t)
	code, _ := run(t, c, options("sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo -n rest"))
	if code != 0 {
		t.Fatal(code)
	}
	list, err := c.List(t.Context(), container.ListOptions{All: true})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	id := list[0].ID
	for _, test := range []struct {
		o    container.LogOptions
		want string
	}{
		{container.LogOptions{Tail: -1}, "line 1\nline 2\nline 3\nline 4\nline 5\nrest"},
		{container.LogOptions{Tail: 2}, "line 5\nrest"},
		{container.LogOptions{Tail: 0}, ""},
		{container.LogOptions{Tail: 100}, "line 1\nline 2\nline 3\nline 4\nline 5\nrest"},
		{container.LogOptions{Tail: -1, Since: time.Now().Add(time.Hour)}, ""},
		{container.LogOptions{Tail: -1, Until: time.Now().Add(-time.Hour)}, ""},
		{container.LogOptions{Tail: -1, Follow: true}, "line 1\nline 2\nline 3\nline 4\nline 5\nrest"},
	} {
		if got := logs(t, c, id, test.o); got != test.want {
			t.Errorf("%+v: %q, want %q", test.o, got, test.want)
		}
	}
	if got := logs(t, c, id, container.LogOptions{Tail: 1, Timestamps: true}); !strings.HasSuffix(got, "Z rest") {
		t.Errorf("timestamps: %q", got)
	}
}

func TestExecRunsInTheContainer(t *testing.T) {
	c := world(t)
	o := options("sh", "-c", "echo here > /tmp/file; echo ready; sleep 1000")
	o.Process.Env = []string{"FROM_CREATE=1"}
	id := start(t, c, o)
	waitForLog(t, c, id, "ready")
	exec := func(x container.ExecOptions) (int, string) {
		var out bytes.Buffer
		x.IO = container.IO{In: strings.NewReader("typed"), Out: &out, Err: &out}
		exit, err := c.Exec(t.Context(), id, x)
		if err != nil {
			t.Fatalf("%v: %v", x.Args, err)
		}
		return exit.Code, out.String()
	}
	for _, test := range []struct {
		x    container.ExecOptions
		code int
		out  string
	}{
		{container.ExecOptions{Args: []string{"cat", "/tmp/file"}}, 0, "here\n"},
		{container.ExecOptions{Args: []string{"cat"}}, 0, "typed"},
		{container.ExecOptions{Args: []string{"sh", "-c", "exit 9"}}, 9, ""},
		{container.ExecOptions{Args: []string{"id", "-u"}, User: "user"}, 0, "1000\n"},
		{container.ExecOptions{Args: []string{"id", "-G"}, User: "user"}, 0, "1000 2000\n"},
		{container.ExecOptions{Args: []string{"pwd"}, Dir: "/tmp"}, 0, "/tmp\n"},
		{container.ExecOptions{Args: []string{"sh", "-c", "echo $FROM_CREATE $FROM_EXEC"}, Env: []string{"FROM_EXEC=2"}}, 0, "1 2\n"},
		{container.ExecOptions{Args: []string{"grep", "-E", "CapEff|CapInh|CapAmb|Seccomp:", "/proc/self/status"}}, 0,
			"CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nCapAmb:\t0000000000000000\nSeccomp:\t2\n"},
		{container.ExecOptions{Args: []string{"grep", "CapEff", "/proc/self/status"}, User: "1000"}, 0, "CapEff:\t0000000000000000\n"},
		{container.ExecOptions{Args: []string{"ls", "/proc/self/fd"}}, 0, "0\n1\n2\n3\n"}, // 3 is ls's own
	} {
		if code, out := exec(test.x); code != test.code || out != test.out {
			t.Errorf("%v: code %d, %q; want %d, %q", test.x.Args, code, out, test.code, test.out)
		}
	}
	for name, code := range map[string]int{"/none": 127, "nothing": 127, "/etc/passwd": 126, "/tmp": 126} {
		_, err := c.Exec(t.Context(), id, container.ExecOptions{Args: []string{name}})
		if got := container.StartExitCode(err); got != code {
			t.Errorf("exec %s: %d (%v), want %d", name, got, err, code)
		}
	}
}

func TestStartFailuresHaveDockersExitCodes(t *testing.T) {
	c := world(t)
	for name, code := range map[string]int{"/none": 127, "nothing": 127, "/etc/passwd": 126, "/tmp": 126} {
		o := options(name)
		o.Life.AutoRemove = true
		made, err := c.Prepare(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = made.Run(t.Context(), container.IO{}, nil)
		if got := container.StartExitCode(err); got != code {
			t.Errorf("run %s: %d (%v), want %d", name, got, err, code)
		}
		id, err := c.Create(t.Context(), options(name))
		if err != nil {
			t.Fatal(err)
		}
		err = c.Start(t.Context(), id)
		if got := container.StartExitCode(err); got != code {
			t.Errorf("start %s: %d (%v), want %d", name, got, err, code)
		}
		info, err := c.Inspect(t.Context(), id, false)
		if err != nil || info.State.ExitCode != code || info.State.Status != container.Created {
			t.Errorf("state after start %s: %+v, %v", name, info.State, err)
		}
	}
}

func TestNamesAreUniqueAndCanBeChanged(t *testing.T) {
	c := world(t)
	o := options("true")
	o.Name = "one"
	first, err := c.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), o); !errdefs.IsConflict(err) {
		t.Errorf("second one: %v", err)
	}
	if err := c.Rename(t.Context(), "one", "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), o); err != nil {
		t.Errorf("the name is free: %v", err)
	}
	info, err := c.Inspect(t.Context(), "two", false)
	if err != nil || info.ID != first {
		t.Errorf("two is %s, %v", info.ID, err)
	}
	if _, err := c.Inspect(t.Context(), first[:10], false); err != nil {
		t.Errorf("by the start of the id: %v", err)
	}
	if err := c.Remove(t.Context(), "two", container.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Inspect(t.Context(), "two", false); !errdefs.IsNotFound(err) {
		t.Errorf("removed: %v", err)
	}
}

func TestNothingOutlivesAMonitorThatIsKilled(t *testing.T) {
	c := world(t)
	id := start(t, c, options("sh", "-c", "sleep 1000 & sleep 1000"))
	info, err := c.Inspect(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	monitor := parent(t, info.State.Pid)
	if err := kill(monitor); err != nil {
		t.Fatal(err)
	}
	if code, err := c.Wait(t.Context(), id); err != nil || code != 137 {
		t.Errorf("wait: %d, %v", code, err)
	}
	if s := status(t, c, id); s != container.Exited {
		t.Errorf("status %s", s)
	}
	if err := c.Start(t.Context(), id); err != nil {
		t.Errorf("start again: %v", err)
	}
}

func TestRestartPolicyStartsAgainUntilSomebodyStopsIt(t *testing.T) {
	c := world(t)
	o := options("sh", "-c", "echo run; exit 1")
	o.Life.Restart = container.Restart{Name: "on-failure", MaximumRetryCount: 2}
	id := start(t, c, o)
	if code, err := c.Wait(t.Context(), id); err != nil || code != 1 {
		t.Errorf("wait: %d, %v", code, err)
	}
	if got := logs(t, c, id, container.LogOptions{Tail: -1}); got != "run\nrun\nrun\n" {
		t.Errorf("log %q", got)
	}
	o = options("sh", "-c", "echo run; exit 0")
	o.Life.Restart.Name = "always"
	id = start(t, c, o)
	waitForLog(t, c, id, "run\nrun\n")
	if err := c.Stop(t.Context(), id, "", nil); err != nil {
		t.Fatal(err)
	}
	if s := status(t, c, id); s != container.Exited {
		t.Errorf("status %s", s)
	}
}

func TestRemoveNeedsForceForARunningContainer(t *testing.T) {
	c := world(t)
	id := start(t, c, options("sleep", "1000"))
	if err := c.Remove(t.Context(), id, container.RemoveOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("without force: %v", err)
	}
	if err := c.Remove(t.Context(), id, container.RemoveOptions{Force: true}); err != nil {
		t.Errorf("with force: %v", err)
	}
	if _, err := os.Stat(c.Store.ContainerDir(id)); !os.IsNotExist(err) {
		t.Errorf("directory: %v", err)
	}
}

func TestVolumesKeepAndShareFiles(t *testing.T) {
	c := world(t)
	host := t.TempDir()
	o := options("sh", "-c", "cat /etc/group > /named/group; echo bound > /bind/file; touch /ro/x; mount | grep -c 'on /memory type tmpfs'; ls /anon")
	o.Mounts = []container.Mount{
		{Type: container.MountVolume, Source: "data", Target: "/named"},
		{Type: container.MountVolume, Target: "/anon", Anonymous: true},
		{Type: container.MountBind, Source: filepath.Join(host, "new"), Target: "/bind", CreateSource: true},
		{Type: container.MountBind, Source: host, Target: "/ro", ReadOnly: true},
		{Type: container.MountTmpfs, Target: "/memory"},
	}
	o.Life.AutoRemove = true
	code, out := run(t, c, o)
	if code != 0 || !strings.Contains(out, "1\n") || !strings.Contains(out, "Read-only file system") {
		t.Errorf("code %d, output %q", code, out)
	}
	if data, err := os.ReadFile(filepath.Join(host, "new/file")); err != nil || string(data) != "bound\n" {
		t.Errorf("bind: %q, %v", data, err)
	}
	volumes, err := c.Volumes.List()
	if err != nil || len(volumes) != 1 || volumes[0].Name != "data" {
		t.Errorf("volumes %v, %v", volumes, err)
	}
	if _, err := os.Stat(filepath.Join(volumes[0].Mountpoint, "group")); err != nil {
		t.Error(err)
	}
}

func TestANewVolumeBeginsWithWhatTheImageHasThere(t *testing.T) {
	c := world(t)
	file := func(name, content string, h tar.Header) tar.Header {
		h.Name, h.PAXRecords = name, map[string]string{"SHALE.content": content}
		return h
	}
	load(t, c, "data", []string{"VOLUME /data"},
		tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o2750, Uid: 5, Gid: 6},
		file("data/file", "of the image\n", tar.Header{Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 7, Gid: 8}),
		tar.Header{Typeflag: tar.TypeSymlink, Name: "data/out", Linkname: "/etc"},
		tar.Header{Typeflag: tar.TypeDir, Name: "data/dir/", Mode: 0o700})
	o := options("sh", "-c", "stat -c '%a %u %g %n' /data /data/file; cat /data/file; readlink /data/out; echo new > /data/new")
	o.Image = "data"
	const want = "2750 5 6 /data\n4711 7 8 /data/file\nof the image\n/etc\n"
	if code, out := run(t, c, o); code != 0 || out != want {
		t.Errorf("anonymous: code %d, %q", code, out)
	}
	o.Mounts = []container.Mount{{Type: container.MountVolume, Source: "named", Target: "/data"}}
	if code, out := run(t, c, o); code != 0 || out != want {
		t.Errorf("named: code %d, %q", code, out)
	}
	o.Process.Cmd = []string{"cat", "/data/new"}
	if code, out := run(t, c, o); code != 0 || out != "new\n" {
		t.Errorf("again: code %d, %q", code, out)
	}
	o.Mounts = []container.Mount{{Type: container.MountVolume, Source: "empty", Target: "/data", NoCopy: true}}
	o.Process.Cmd = []string{"ls", "-A", "/data"}
	if code, out := run(t, c, o); code != 0 || out != "" {
		t.Errorf("nocopy: code %d, %q", code, out)
	}
}

func TestR16LabelsAndAnnotationsOfAnImageSteerNothing(t *testing.T) {
	c := world(t)
	labels := []string{}
	for _, l := range []string{
		"io.shale.runtime=/evil", "io.podman.annotations.privileged=TRUE", "io.kubernetes.cri-o.userns-mode=host",
		"containerd.io/restart.loguri=binary:///evil", "run.oci.hooks.stderr=/evil", "org.criu.config=/evil",
		"cdi.k8s.io/x=evil/dev=all", "com.docker.runtime=evil", "org.systemd.property.X=1", "run.oci.keep_original_groups=1",
	} {
		labels = append(labels, "LABEL "+l)
	}
	load(t, c, "labelled", labels)
	// A runtime that keeps the specification and does nothing else.
	dir := t.TempDir()
	c.Runtime = filepath.Join(dir, "runtime")
	script := "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --bundle ] && cp \"$2/config.json\" " + dir + "; shift; done; exit 1\n"
	if err := os.WriteFile(c.Runtime, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := func(image string) string {
		o := options("true")
		o.Image, o.Network.Hostname = image, "same"
		made, err := c.Prepare(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := made.Run(t.Context(), container.IO{}, nil); err == nil {
			t.Fatal("the runtime did something")
		}
		data, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(data), made.ID(), "ID")
	}
	plain, labelled := spec("busybox"), spec("labelled")
	if plain != labelled {
		t.Errorf("%s\n----\n%s", plain, labelled)
	}
	if strings.Contains(plain, "annotations") {
		t.Errorf("annotations in %s", plain)
	}
}
