package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// start: what every command pays before it begins.
func (b *bench) start() error {
	return compare("version", 2*b.rounds, "10 ms",
		side{name: "shale version", run: func() (*exec.Cmd, error) { return exec.Command(b.shale, "version"), nil }},
		side{name: "/bin/true", run: func() (*exec.Cmd, error) { return exec.Command("/bin/true"), nil }})
}

// runBusybox: the first thing a user waits for.
func (b *bench) runBusybox() error {
	sides := []side{{name: "shale run --network none", run: func() (*exec.Cmd, error) {
		return b.cmd("store", "run", "--rm", "--network", "none", "busybox", "true"), nil
	}}}
	bridge := []side{{name: "shale run", run: func() (*exec.Cmd, error) {
		return b.cmd("store", "run", "--rm", "busybox", "true"), nil
	}}}
	if have("runc") {
		if err := b.bundle("true"); err != nil {
			return err
		}
		n := 0
		runc := side{name: "runc run", run: func() (*exec.Cmd, error) {
			n++
			return exec.Command("runc", "--root", b.path("runc"), "run", "--bundle", b.path("bundle"), fmt.Sprint("bench", n)), nil
		}}
		sides, bridge = append(sides, runc), append(bridge, runc)
	}
	if have("podman") {
		if err := b.podman("import", b.path("busybox.tar"), "busybox").Run(); err != nil {
			return fmt.Errorf("podman import: %w", err)
		}
		sides = append(sides, side{name: "podman run --network none", run: func() (*exec.Cmd, error) {
			return b.podman("run", "--rm", "--network", "none", "localhost/busybox", "/bin/true"), nil
		}})
	}
	if err := compare("run --rm --network none busybox true", 2*b.rounds, "1.3 x runc", sides...); err != nil {
		return err
	}
	return compare("run --rm busybox true (default network)", 2*b.rounds, "2 x runc", bridge...)
}

// bundle writes runc's default specification, with args for a command.
func (b *bench) bundle(args ...string) error {
	file := b.path("bundle/config.json")
	if err := os.RemoveAll(file); err != nil { // runc writes over none
		return err
	}
	if err := quiet("runc", "spec", "--bundle", b.path("bundle")); err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, args
	delete(process, "rlimits")
	if data, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// list: the commands that only look, with 500 images in the store.
func (b *bench) list() error {
	if err := b.do("many", "import", "-c", `CMD ["sh"]`, b.path("busybox.tar"), "busybox"); err != nil {
		return err
	}
	context := b.path("one")
	for i := range 500 {
		// Each has a configuration of its own.
		if err := b.buildTiny(context, i); err != nil {
			return err
		}
	}
	version := side{name: "shale version", run: func() (*exec.Cmd, error) { return exec.Command(b.shale, "version"), nil }}
	for _, args := range [][]string{
		{"images"}, {"inspect", "tiny:250"}, {"history", "tiny:250"}, {"tag", "tiny:250", "tiny:again"},
	} {
		err := compare(strings.Join(args, " ")+", 500 images", b.rounds, "3 x version",
			side{name: "shale " + args[0], run: func() (*exec.Cmd, error) { return b.cmd("many", args...), nil }}, version)
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) buildTiny(context string, i int) error {
	if err := os.MkdirAll(context, 0o755); err != nil {
		return err
	}
	dockerfile := fmt.Sprintf("FROM busybox\nLABEL number=%d\n", i)
	if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return err
	}
	return b.do("many", "build", "-q", "-t", fmt.Sprintf("tiny:%d", i), context)
}

// cachedBuild: the inner loop of whoever writes a Dockerfile.
func (b *bench) cachedBuild() error {
	context := b.path("app")
	for i := range 300 {
		dir := filepath.Join(context, "src", fmt.Sprint("package", i%20))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		text := strings.Repeat(fmt.Sprintf("line of file %d\n", i), 50+i%200)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("module", i, ".py")), []byte(text), 0o644); err != nil {
			return err
		}
	}
	dockerfile := "FROM busybox\nWORKDIR /app\nCOPY . /app\nRUN ls -R /app > /list\nCMD [\"sh\"]\n"
	if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return err
	}
	sides := []side{
		{name: "shale build", run: func() (*exec.Cmd, error) {
			return b.cmd("store", "build", "-t", "app", context), nil
		}},
		{name: "shale version", run: func() (*exec.Cmd, error) { return exec.Command(b.shale, "version"), nil }},
	}
	if have("podman") {
		if err := b.podman("import", b.path("busybox.tar"), "busybox").Run(); err != nil {
			return fmt.Errorf("podman import: %w", err)
		}
		sides = append(sides, side{name: "podman build --layers", run: func() (*exec.Cmd, error) {
			return b.podman("build", "--pull=never", "--layers", "--network", "none", "-t", "app", context), nil
		}})
	}
	return compare("build of a 300-file application, all cached", b.rounds, "0.1 x podman, 30 ms or 3 x version", sides...)
}

// pull: six gzip layers with more than a gigabyte of files, from a registry on
// loopback into an empty store, until a container has run.
func (b *bench) pull() error {
	registry, err := b.registry()
	if err != nil {
		return err
	}
	defer registry.stop()
	image := registry.address + "/bench/big:1"
	if err := b.bigImage(image); err != nil {
		return err
	}
	sides := []side{{
		name:   "shale run",
		before: func() error { return os.RemoveAll(b.path("pull")) },
		run: func() (*exec.Cmd, error) {
			return b.cmd("pull", "run", "--rm", "--network", "none", image, "/bin/true"), nil
		},
	}, {
		name: "zcat of the layers in turn",
		run: func() (*exec.Cmd, error) {
			return exec.Command("sh", "-c", "for f in "+b.path("layers")+"/*.gz; do zcat $f >/dev/null; done"), nil
		},
	}}
	if have("podman") {
		sides = append(sides, side{
			name: "podman run",
			before: func() error {
				_ = b.podman("system", "reset", "--force").Run()
				return quiet("rm", "-rf", b.path("podman"))
			},
			run: func() (*exec.Cmd, error) {
				return b.podman("run", "--rm", "--network", "none", "--tls-verify=false", image, "/bin/true"), nil
			},
		})
	}
	return compare("pull of a 1 GB image until it ran", 3, "0.25 x podman, 0.6 x zcat", sides...)
}

// bigImage makes an image of slices of this machine's /usr and pushes it; the
// compressed layers stay in layers/ for zcat.
func (b *bench) bigImage(name string) error {
	if err := os.MkdirAll(b.path("layers"), 0o755); err != nil {
		return err
	}
	context := b.path("big")
	if err := os.MkdirAll(context, 0o755); err != nil {
		return err
	}
	var dockerfile strings.Builder
	dockerfile.WriteString("FROM busybox\n")
	// Without the largest files the image has some 30,000 entries, as one of a
	// distribution with a language's libraries has.
	slices, err := slicesOf("/usr", 5, 250<<20, 2<<20)
	if err != nil {
		return err
	}
	for i, files := range slices {
		tarball := filepath.Join(context, fmt.Sprintf("slice%d.tar", i))
		list := tarball + ".list"
		if err := os.WriteFile(list, []byte(strings.Join(files, "\x00")), 0o644); err != nil {
			return err
		}
		if err := quiet("tar", "--no-recursion", "-P", fmt.Sprintf("--transform=s,^,slice%d,", i), "-cf", tarball, "--null", "-T", list); err != nil {
			return err
		}
		if err := os.Remove(list); err != nil {
			return err
		}
		if err := quiet("sh", "-c", fmt.Sprintf("gzip -c %s > %s/%d.gz", tarball, b.path("layers"), i)); err != nil {
			return err
		}
		fmt.Fprintf(&dockerfile, "ADD slice%d.tar /\n", i)
	}
	if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte(dockerfile.String()), 0o644); err != nil {
		return err
	}
	if err := b.do("store", "build", "-q", "-t", name, context); err != nil {
		return err
	}
	return b.do("store", "push", name)
}

// slicesOf splits the files below dir into at most n lists of about size
// bytes each. Files of more than largest bytes are left out.
func slicesOf(dir string, n int, size, largest int64) ([][]string, error) {
	lists := make([][]string, 1)
	var sum int64
	err := filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() > largest {
			return nil
		}
		if sum+info.Size() > size {
			if len(lists) == n {
				return filepath.SkipAll
			}
			lists, sum = append(lists, nil), 0
		}
		sum += info.Size()
		lists[len(lists)-1] = append(lists[len(lists)-1], file)
		return nil
	})
	return lists, err
}

// push: one fresh layer of 300 MB, as a build leaves it.
func (b *bench) push() error {
	registry, err := b.registry()
	if err != nil {
		return err
	}
	defer registry.stop()
	lists, err := slicesOf("/usr", 1, 300<<20, 75<<20)
	if err != nil {
		return err
	}
	list, tarball := b.path("fresh.list"), b.path("fresh.tar")
	if err := os.WriteFile(list, []byte(strings.Join(lists[0], "\x00")), 0o644); err != nil {
		return err
	}
	if err := quiet("tar", "--no-recursion", "-P", "-cf", tarball, "--null", "-T", list); err != nil {
		return err
	}
	if err := b.do("store", "import", tarball, "fresh"); err != nil {
		return err
	}
	name := registry.address + "/bench/fresh:1"
	if err := b.do("store", "tag", "fresh", name); err != nil {
		return err
	}
	sides := []side{{
		name:   "shale push",
		before: registry.restart,
		run:    func() (*exec.Cmd, error) { return b.cmd("store", "push", name), nil },
	}}
	if have("podman") {
		if err := b.podman("import", tarball, "fresh").Run(); err != nil {
			return fmt.Errorf("podman import: %w", err)
		}
		sides = append(sides, side{
			name:   "podman push",
			before: registry.restart,
			run: func() (*exec.Cmd, error) {
				return b.podman("push", "--tls-verify=false", "localhost/fresh", name), nil
			},
		})
	}
	return compare("push of a fresh 300 MB layer", 3, "0.5 x podman", sides...)
}

// server is a registry process on loopback.
type server struct {
	address string
	root    string
	command func() *exec.Cmd
	running *exec.Cmd
}

// registry starts docker-registry, or shale's own where that is missing, with
// an empty store.
func (b *bench) registry() (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{address: l.Addr().String(), root: b.path("registry")}
	l.Close()
	s.command = func() *exec.Cmd {
		return exec.Command(b.shale, "registry", "serve", "--addr", s.address, "--root", s.root)
	}
	if have("docker-registry") {
		config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", s.root, s.address)
		file := b.path("registry.yml")
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			return nil, err
		}
		s.command = func() *exec.Cmd { return exec.Command("docker-registry", "serve", file) }
	}
	return s, s.restart()
}

// restart empties the registry, so that the next push finds nothing.
func (s *server) restart() error {
	s.stop()
	s.running = s.command()
	if err := s.running.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			s.stop()
			return fmt.Errorf("registry does not answer: %w", err)
		}
	}
}

func (s *server) stop() {
	if s.running != nil {
		_ = s.running.Process.Kill()
		_ = s.running.Wait()
		s.running = nil
	}
	_ = os.RemoveAll(s.root)
}
