package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// field is a store of a test's own with a registry beside it.
type field struct {
	t        *testing.T
	root     string
	registry string // host:port
	context  string
	marker   string // stands in the command line of what RUN runs
}

func newField(t *testing.T) *field {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: RUN and run make namespaces and mounts")
	}
	dir := t.TempDir()
	f := &field{t: t, root: filepath.Join(dir, "store"), context: filepath.Join(dir, "context")}
	f.marker = fmt.Sprint(600_000_000 + rand.IntN(99_999_999))
	tarball := filepath.Join(dir, "busybox.tar")
	if err := writeBusybox(tarball); err != nil {
		t.Skip(err)
	}
	f.must("import", "-c", `CMD ["sh"]`, "-c", "ENV PATH=/bin", tarball, "busybox")
	for i := range 100 {
		file := filepath.Join(f.context, "src", fmt.Sprint("file", i))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, bytes.Repeat([]byte{byte(i)}, 20_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dockerfile := "FROM busybox\nCOPY src /src\nRUN cp -r /src /copy && sleep 0.0" + f.marker + "\nRUN rm -r /src\nCMD [\"sh\"]\n"
	if err := os.WriteFile(filepath.Join(f.context, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	f.serve(filepath.Join(dir, "registry"))
	return f
}

func (f *field) serve(root string) {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.registry = l.Addr().String()
	l.Close()
	server := exec.Command(binary, "registry", "serve", "--addr", f.registry, "--root", root)
	if err := server.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
	})
	eventually(f.t, "the registry answers", func() bool {
		conn, err := net.Dial("tcp", f.registry)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func (f *field) shale(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{"SHALE_ROOT=" + f.root, "HOME=" + filepath.Dir(f.root), "PATH=" + os.Getenv("PATH")}
	return cmd
}

func (f *field) must(args ...string) string {
	f.t.Helper()
	out, err := f.shale(args...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("shale %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// whole checks that nothing is left of a command that was killed.
func (f *field) whole() {
	f.t.Helper()
	if out, err := f.shale("fsck", "--deep").CombinedOutput(); err != nil {
		f.t.Fatalf("fsck --deep: %v\n%s", err, out)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(f.root)) {
		f.t.Fatalf("a mount is left:\n%s", mounts)
	}
	eventually(f.t, "no process of a build or container is left", func() bool { return len(processes(f.marker)) == 0 })
}

// processes are the command lines that hold marker.
func processes(marker string) []string {
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(marker)) {
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// eventually waits for the kernel, or a process of ours, to get there.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}

func TestKilledCommandsLeaveAWholeStoreAndNothingElse(t *testing.T) {
	f := newField(t)
	kills := 50
	if testing.Short() {
		kills = 5
	}
	name := f.registry + "/app:1"
	build := []string{"build", "-q", "--no-cache", "-t", name, f.context}
	f.must(build...)
	f.must("push", name)

	for _, c := range []struct {
		name    string
		prepare [][]string
		command []string
	}{
		{"build", nil, build},
		{"pull", [][]string{{"rmi", name}, {"builder", "prune", "-af"}, {"gc"}}, []string{"pull", name}},
		{"push", [][]string{build, {"tag", name, f.registry + "/fresh-NUMBER:1"}}, []string{"push", f.registry + "/fresh-NUMBER:1"}},
		{"rmi", [][]string{build}, []string{"rmi", name}},
		{"gc", [][]string{build, {"rmi", name}}, []string{"gc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := *f
			f.t = t
			full := 100 * time.Millisecond
			for i := range kills + 1 {
				numbered := func(args []string) []string {
					out := make([]string, len(args))
					for j, a := range args {
						out[j] = strings.ReplaceAll(a, "NUMBER", fmt.Sprint(i))
					}
					return out
				}
				for _, p := range c.prepare {
					// What is to be removed may be gone already.
					_ = f.shale(numbered(p)...).Run()
				}
				command := numbered(c.command)
				cmd := f.shale(command...)
				begin := time.Now()
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					if err := cmd.Wait(); err != nil {
						t.Fatalf("shale %s, left alone: %v", strings.Join(command, " "), err)
					}
					full = time.Since(begin)
					continue
				}
				time.Sleep(time.Duration(rand.Int64N(int64(full))))
				_ = cmd.Process.Signal(syscall.SIGKILL)
				_ = cmd.Wait()
				f.whole()
				if out, err := f.shale(command...).CombinedOutput(); err != nil && !expected(string(out)) {
					t.Fatalf("shale %s, after kill %d: %v\n%s", strings.Join(command, " "), i, err, out)
				}
			}
			f.whole()
		})
	}
}
