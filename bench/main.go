// Command bench measures shale against its peers and against bounds, both
// sides in one run. It prints ratios: a bare time says as much about the
// machine as about the program.
//
//	bench [-rounds N] [-only NAME,...]
//
// It needs root. Everything lies on an XFS of its own for all sides, in a file
// in memory: the kernel mounts no layer where it lies on a tmpfs, and a disk
// would measure itself.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// bench is where a run keeps its things.
type bench struct {
	dir    string // the XFS
	shale  string // the binary
	rounds int
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	rounds := flag.Int("rounds", 7, "how often each side runs")
	only := flag.String("only", "", "names of benchmarks, separated by commas")
	flag.Parse()
	if os.Geteuid() != 0 {
		return fmt.Errorf("mount a file system: needs root")
	}
	binary, err := filepath.Abs("bin/shale")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "shale-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	unmount, err := fileSystem(dir)
	if err != nil {
		return err
	}
	defer unmount()

	b := &bench{dir: dir, shale: binary, rounds: *rounds}
	if err := b.prepare(); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	for _, one := range []struct {
		name string
		run  func() error
	}{
		{"start", b.start},
		{"run", b.runBusybox},
		{"list", b.list},
		{"build", b.cachedBuild},
		{"context", b.context},
		{"app", b.application},
		{"stages", b.stages},
		{"step", b.step},
		{"memory", b.memory},
		{"pull", b.pull},
		{"push", b.push},
	} {
		if *only != "" && !strings.Contains(","+*only+",", ","+one.name+",") {
			continue
		}
		if err := one.run(); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return nil
}

// fileSystem mounts an empty XFS on dir.
func fileSystem(dir string) (unmount func(), err error) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755,size=80%"); err != nil {
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	unmount = func() {
		// The one on top, then the one below it.
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	}
	file := filepath.Join(dir, "xfs")
	for _, step := range [][]string{
		{"truncate", "-s", "32G", file},
		{"mkfs.xfs", "-q", file},
		{"mount", "-o", "loop", file, dir},
	} {
		if err := quiet(step[0], step[1:]...); err != nil {
			unmount()
			return nil, err
		}
	}
	return unmount, nil
}

// cmd is shale on the store called name.
func (b *bench) cmd(name string, args ...string) *exec.Cmd {
	return exec.Command(b.shale, append([]string{"--root", b.path(name)}, args...)...)
}

// do runs shale on the store called name for its effect.
func (b *bench) do(name string, args ...string) error {
	return quiet(b.shale, append([]string{"--root", b.path(name)}, args...)...)
}

// podman is podman with a store and a configuration of its own. Without the
// ulimits it fails where root lacks CAP_SYS_RESOURCE.
func (b *bench) podman(args ...string) *exec.Cmd {
	all := append([]string{
		"--root", b.path("podman"), "--runroot", b.path("podman-run"), "--tmpdir", b.path("podman-tmp"),
		"--cgroup-manager", "cgroupfs", "--storage-driver", "overlay", "--runtime", "runc",
	}, args...)
	cmd := exec.Command("podman", all...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+b.path("containers.conf"))
	return cmd
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

const containersConf = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
events_logger = "none"
`

func (b *bench) prepare() error {
	if err := os.WriteFile(b.path("containers.conf"), []byte(containersConf), 0o644); err != nil {
		return err
	}
	if err := b.busyboxRoot(b.path("bundle/rootfs")); err != nil {
		return err
	}
	if err := quiet("tar", "-C", b.path("bundle/rootfs"), "-cf", b.path("busybox.tar"), "."); err != nil {
		return err
	}
	return b.do("store", "import", "-c", `CMD ["sh"]`, b.path("busybox.tar"), "busybox")
}

// busyboxRoot is the root file system that every side runs.
func (b *bench) busyboxRoot(root string) error {
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := quiet("cp", "/bin/busybox", filepath.Join(root, "bin")); err != nil {
		return err
	}
	for _, applet := range []string{"true", "sh", "cat", "ls", "echo"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			return err
		}
	}
	return nil
}
