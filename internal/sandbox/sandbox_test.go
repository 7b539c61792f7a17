package sandbox_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/sandbox"
	_ "github.com/shaleproject/shale/internal/sandbox/reexec"
	"github.com/shaleproject/shale/internal/sys"
)

// busybox makes a root file system of nothing but a static busybox.
func busybox(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	binary, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (busybox-static)")
	}
	root := t.TempDir()
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "false", "cat", "ls", "id", "echo", "sleep", "kill", "readlink", "grep", "touch", "stty", "mount", "hostname", "env", "pwd", "tr", "wc", "mknod", "test", "dd"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// run runs args and returns how it ended and what it wrote.
func run(t *testing.T, o sandbox.SpecOptions, change ...func(*sandbox.Config)) (sandbox.Exit, string, error) {
	t.Helper()
	o.ID = strings.ReplaceAll(strings.ToLower(t.Name()), "/", "-")
	spec, err := sandbox.NewSpec(o)
	if err != nil {
		return sandbox.Exit{}, "", err
	}
	var out bytes.Buffer
	c := sandbox.Config{ID: o.ID, Dir: t.TempDir(), Spec: spec, Stdout: &out, Stderr: &out}
	for _, f := range change {
		f(&c)
	}
	s, err := sandbox.Start(t.Context(), c)
	if err != nil {
		return sandbox.Exit{}, out.String(), err
	}
	defer func() {
		if err := s.Delete(); err != nil {
			t.Error(err)
		}
	}()
	exit, err := s.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return exit, out.String(), nil
}

func args(a ...string) sandbox.ProcessOptions { return sandbox.ProcessOptions{Args: a} }

func TestExitCodeIsThatOfTheProcess(t *testing.T) {
	root := busybox(t)
	for _, test := range []struct {
		command string
		code    int
	}{{"exit 0", 0}, {"exit 42", 42}, {"kill -9 $$; sleep 1", 0}} {
		exit, out, err := run(t, sandbox.SpecOptions{Root: root, Process: args("sh", "-c", test.command)},
			func(c *sandbox.Config) { c.Mounts = []sys.Mount{} })
		if err != nil {
			t.Fatal(err)
		}
		if exit.Code != test.code {
			t.Errorf("%s: code %d, output %q", test.command, exit.Code, out)
		}
	}
	_ = specs.Version
}
