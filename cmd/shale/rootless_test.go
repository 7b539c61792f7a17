package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shaleproject/shale/internal/sys"
)

// ordinary is the uid and gid of a user who is made up for the test.
const ordinary = 54321

// TestAnOrdinaryUserBuildsAndRuns lives the life of an image as a user without
// rights, once with ids of /etc/subuid and once with a single id.
func TestAnOrdinaryUserBuildsAndRuns(t *testing.T) {
	if os.Geteuid() != 0 || sys.InUserNamespace() {
		t.Skip("only root can become another user")
	}
	if ok, err := condition("userns"); !ok || err != nil {
		t.Skip("no user namespaces:", err)
	}
	for name, lent := range map[string]string{"one id": "", "ids lent": "ordinary:200000:65536\n"} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("newuidmap"); err != nil && lent != "" {
				t.Skip(err)
			}
			u := newUser(t, lent)
			err := sys.PrivateMounts(func() error {
				if err := sys.MountAll(u.mounts); err != nil {
					return err
				}
				u.live(t)
				return nil
			})
			if err != nil {
				t.Skip(err)
			}
			u.leavesNothing(t)
		})
	}
}

// user is an ordinary user with a home of their own.
type user struct {
	home   string
	mounts []sys.Mount // make /etc know them
}

func newUser(t *testing.T, lent string) *user {
	t.Helper()
	home, err := os.MkdirTemp("", "shale-ordinary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := os.MkdirAll(filepath.Join(home, "context"), 0o755); err != nil {
		t.Fatal(err)
	}
	u := &user{home: home}
	if err := writeBusybox(u.path("busybox.tar")); err != nil {
		t.Skip(err)
	}
	for name, content := range map[string]string{
		"context/Dockerfile": "FROM box\nRUN echo made > /made && chmod 4711 /made\nCOPY file /file\n",
		"context/file":       "copied\n",
		"passwd":             fmt.Sprintf("root:x:0:0::/:/bin/sh\nordinary:x:%d:%d::/:/bin/sh\n", ordinary, ordinary),
		"subuid":             lent,
		"subgid":             lent,
	} {
		if err := os.WriteFile(u.path(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"passwd", "subuid", "subgid"} {
		u.mounts = append(u.mounts, sys.Mount{Source: u.path(name), Target: "/etc/" + name, Flags: sys.Bind})
	}
	if err := os.Chown(home, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *user) path(name string) string { return filepath.Join(u.home, name) }

// shale runs shale as the user and returns what it prints.
func (u *user) shale(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir = u.home
	cmd.Env = []string{"HOME=" + u.home, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("shale %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (u *user) live(t *testing.T) {
	t.Helper()
	expect := func(want string, args ...string) {
		t.Helper()
		if got := u.shale(t, args...); !strings.Contains(got, want) {
			t.Errorf("shale %s: got %q, want %q", strings.Join(args, " "), got, want)
		}
	}
	expect("overlay", "info")
	expect("sha256:", "import", "-c", "ENV PATH=/bin", "busybox.tar", "box")
	expect("0\n", "run", "--rm", "--network", "none", "box", "id", "-u")
	expect("sha256:", "build", "-q", "--network", "none", "-t", "app", "context")
	expect("made\ncopied\n", "run", "--rm", "--network", "host", "app", "cat", "/made", "/file")
	u.shale(t, "run", "-d", "--network", "none", "--name", "here", "app", "sh", "-c", "echo mine > /own; sleep 1000")
	// Each command is a process of its own, and finds the way to the container.
	expect("mine\n", "exec", "here", "sh", "-c", "until cat /own; do :; done")
	expect("here", "ps")
	expect("here", "stop", "-t", "0", "here")
	expect("here", "start", "here")
	expect("mine\n", "exec", "here", "cat", "/own")
	expect("here", "rm", "-f", "here")
	expect("app", "rmi", "app")
	if got := u.shale(t, "ps", "-aq"); got != "" {
		t.Errorf("containers are left: %s", got)
	}
}

// leavesNothing looks for mounts and processes.
func (u *user) leavesNothing(t *testing.T) {
	t.Helper()
	if used, err := sys.Mounted(u.home); err != nil || used {
		t.Errorf("something is mounted: %t, %v", used, err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		var st syscall.Stat_t
		if syscall.Stat(p, &st) != nil || st.Uid != ordinary {
			continue
		}
		// Of one that has ended and only waits for init there is no command line.
		if line, err := os.ReadFile(p + "/cmdline"); err == nil && len(line) > 0 {
			t.Errorf("a process is left: %q", line)
		}
	}
}
