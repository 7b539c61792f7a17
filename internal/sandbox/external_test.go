package sandbox_test

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/sandbox"
)

func TestOtherRuntimesRunTheSameSandbox(t *testing.T) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			root := busybox(t)
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skip("needs ", name)
			}
			with := func(c *sandbox.Config) {
				c.Runtime = path
				// Debian's are too old for the newest paths and controllers.
				c.Spec.Version = "1.0.2"
			}
			exit, out, err := run(t, sandbox.SpecOptions{Root: root, Process: sh("echo out; id -u; exit 6")}, with)
			if err != nil && name == "crun" && strings.Contains(err.Error(), "cgroup") {
				t.Skip("crun refuses hybrid control groups: ", err)
			}
			if err != nil || exit.Code != 6 || out != "out\n0\n" {
				t.Errorf("%+v, %q, %v", exit, out, err)
			}
			_, _, err = run(t, sandbox.SpecOptions{Root: root, Process: args("/none")}, with)
			if !errors.Is(err, sandbox.ErrNotFoundCommand) {
				t.Errorf("no command: %v", err)
			}
			o := sandbox.SpecOptions{Root: root, Process: sh("test -t 1 && stty size")}
			o.Process.Terminal = true
			if exit, out, err := run(t, o, with); err != nil || exit.Code != 0 {
				t.Errorf("terminal: %+v, %q, %v", exit, out, err)
			}
			execsIn(t, root, with)
		})
	}
}

// execsIn starts a sandbox and a second process in it.
func execsIn(t *testing.T, root string, change func(*sandbox.Config)) {
	t.Helper()
	spec, err := sandbox.NewSpec(sandbox.SpecOptions{ID: "execs", Root: root, Process: args("sleep", "1000")})
	if err != nil {
		t.Fatal(err)
	}
	c := sandbox.Config{ID: "execs", Dir: t.TempDir(), Spec: spec}
	change(&c)
	s, err := sandbox.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Delete()
	if state, err := sandbox.Load(c.Dir, c.ID); err != nil || !state.Running || state.Pid != s.Pid() {
		t.Errorf("state %+v, %v", state, err)
	}
	var out bytes.Buffer
	x, err := sandbox.Exec(t.Context(), c.Dir, c.ID, sandbox.ExecProcess{
		Process: &specs.Process{Args: []string{"sh", "-c", "cat; exit 4"}, Cwd: "/", Env: []string{"PATH=/bin"}, User: specs.User{Username: "7"}},
		Stdin:   strings.NewReader("in"), Stdout: &out,
	})
	if err != nil {
		t.Fatal(err)
	}
	exit, err := x.Wait(t.Context())
	if err != nil || exit.Code != 4 || out.String() != "in" {
		t.Errorf("exec: %+v, %q, %v", exit, out.String(), err)
	}
}
