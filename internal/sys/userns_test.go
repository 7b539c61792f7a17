//go:build linux

package sys

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// role makes the test binary play one of roles as the ordinary user, first outside,
// then inside of the user namespace.
const role = "SHALE_SYS_TEST_ROLE"

// record is the file that names the namespace; "" for one of its own.
const record = "SHALE_SYS_TEST_RECORD"

const ordinary = 12345 // the uid and gid of the ordinary user

func TestMain(m *testing.M) {
	name := os.Getenv(role)
	if name == "" {
		os.Exit(m.Run())
	}
	os.Exit(play(name))
}

func play(name string) int {
	if f, ok := rootRoles[name]; ok {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 98
		}
		return 0
	}
	value := os.Getenv(UserNamespaceEnv)
	if value == "" {
		exit, err := ReexecInUserNamespace(context.Background(), os.Args, os.Getenv(record))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 99
		}
		return exit
	}
	err := EnterUserNamespace(value)
	if err == nil {
		err = roles[name]()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	return 0
}

var roles = map[string]func() error{
	"ids": func() error {
		m, err := os.ReadFile("/proc/self/uid_map")
		fmt.Printf("%d %d %t %d\n%s", os.Getuid(), os.Getgid(), InUserNamespace(), MappedIDs(), m)
		return err
	},
	"exit": func() error { os.Exit(42); return nil },
	"mount": func() error {
		dir := os.Args[1]
		return PrivateMounts(func() error {
			err := MountAll([]Mount{
				{Type: "tmpfs", Target: dir + "/t"},
				{Type: "tmpfs", Target: dir + "/t/lower"},
				{Type: "overlay", Target: dir + "/t/both", Layers: []string{dir + "/t/lower"},
					Data: "userxattr," + Option("upperdir", dir+"/upper") + "," + Option("workdir", dir+"/work")},
			})
			if err != nil {
				return err
			}
			return os.WriteFile(dir+"/t/both/file", []byte("content"), 0o600)
		})
	},
	// where prints the namespace, whether the process given can be signalled
	// and mounts be made, and what is open.
	"where": func() error {
		ns, err := os.Readlink("/proc/self/ns/user")
		if err != nil {
			return err
		}
		var pid int
		fmt.Sscan(os.Args[1], &pid)
		if pid != 0 {
			err = unix.Kill(pid, 0)
		}
		files, _ := os.ReadDir("/proc/self/fd")
		fmt.Println(ns, err, PrivateMounts(func() error { return MountAll([]Mount{{Type: "tmpfs", Target: "/tmp"}}) }), os.Getuid(), MappedIDs(), len(files))
		return nil
	},
	"chown": func() error { return os.Lchown(os.Args[1]+"/upper", 1000, 1000) },
	"signal": func() error {
		got := make(chan os.Signal, 1)
		signal.Notify(got, unix.SIGUSR1)
		fmt.Println(os.Getpid())
		<-got
		os.Exit(7)
		return nil
	},
	"term": func() error {
		got := make(chan os.Signal, 1)
		signal.Notify(got, unix.SIGTERM)
		if err := os.WriteFile(os.Args[1], nil, 0o600); err != nil {
			return err
		}
		<-got
		os.Exit(9)
		return nil
	},
	"kill": func() error { return unix.Kill(os.Getpid(), unix.SIGKILL) },
}

// rootRoles are played as the user who runs the test, in no namespace.
var rootRoles = map[string]func() error{
	"hold": func() error {
		return PrivateMounts(func() error {
			err := MountAll([]Mount{
				{Type: "tmpfs", Target: os.Args[1]},
				{Type: "tmpfs", Source: "x", Target: os.Args[1] + "/lower"},
				{Type: "overlay", Target: os.Args[1] + "/both", Layers: []string{os.Args[1] + "/lower"}, Data: "upperdir=" + os.Args[2] + ",workdir=" + os.Args[3]},
			})
			if err != nil {
				return err
			}
			fmt.Println("mounted")
			_, err = io.Copy(io.Discard, os.Stdin)
			return err
		})
	},
}

// asUser returns a command that plays a role as the ordinary user. lent is what
// /etc/subuid and /etc/subgid hold meanwhile. run starts or runs the
// command in a namespace where this is so.
func asUser(t *testing.T, lent, name string, args ...string) (cmd *exec.Cmd, run func(func() error) error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become the ordinary user")
	}
	needMounts(t)
	dir := t.TempDir()
	passwd := fmt.Sprintf("root:x:0:0::/:/bin/sh\nordinary:x:%d:%d::/:/bin/sh\n", ordinary, ordinary)
	mounts := []Mount{{Source: write(t, filepath.Join(dir, "passwd"), passwd), Target: "/etc/passwd", Flags: Bind}}
	for _, file := range []string{"subuid", "subgid"} {
		mounts = append(mounts, Mount{Source: write(t, filepath.Join(dir, file), lent), Target: "/etc/" + file, Flags: Bind})
	}
	for _, m := range mounts {
		if err := os.Chmod(m.Source, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd = exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), role+"="+name)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	return cmd, func(f func() error) error {
		return PrivateMounts(func() error {
			if err := MountAll(mounts); err != nil {
				return err
			}
			return f()
		})
	}
}

// needUserNamespaces skips the test if the ordinary user can't have one.
func needUserNamespaces(t *testing.T) {
	t.Helper()
	cmd, run := asUser(t, "", "ids")
	if err := run(func() error {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return nil
	}); err != nil {
		t.Skip(err)
	}
}

// home returns a directory that belongs to the ordinary user.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", "upper", "work"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, ordinary, ordinary); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func output(t *testing.T, lent, name string, args ...string) (string, int) {
	t.Helper()
	cmd, run := asUser(t, lent, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := run(cmd.Run); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func needHelpers(t *testing.T) {
	t.Helper()
	for _, name := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
}

func TestUserIsRootOfOneIDWithoutSubordinateIDs(t *testing.T) {
	needUserNamespaces(t)
	out, exit := output(t, "somebody:100000:65536\n", "ids")
	if got := strings.Fields(out); exit != 0 || strings.Join(got, " ") != "0 0 true 1 0 12345 1" {
		t.Errorf("exit %d, %q", exit, out)
	}
}

func TestUserHasTheIDsLentByNameAndNumber(t *testing.T) {
	needUserNamespaces(t)
	needHelpers(t)
	out, exit := output(t, "ordinary:200000:1000\nother:1:1\n12345:300000:500\n", "ids")
	want := "0 0 true 1501 0 12345 1 1 200000 1000 1001 300000 500"
	if got := strings.Fields(out); exit != 0 || strings.Join(got, " ") != want {
		t.Errorf("exit %d, %q", exit, out)
	}
}

func TestUserWithoutNewPrivilegesHasOneID(t *testing.T) {
	needUserNamespaces(t)
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip(err)
	}
	cmd, run := asUser(t, "ordinary:200000:65536\n", "ids")
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	cmd.Path, cmd.Args = setpriv, []string{"setpriv", "--no-new-privs", "--", "/proc/self/fd/3"}
	var out []byte
	err = run(func() (err error) { out, err = cmd.CombinedOutput(); return err })
	if got := strings.Fields(string(out)); err != nil || strings.Join(got, " ") != "0 0 true 1 0 12345 1" {
		t.Errorf("%v: %q", err, out)
	}
}

func TestUserCanMountAndChownInTheNamespace(t *testing.T) {
	needUserNamespaces(t)
	dir := home(t)
	if out, exit := output(t, "", "mount", dir); exit != 0 {
		t.Fatalf("exit %d, %s", exit, out)
	}
	if got, err := os.ReadFile(dir + "/upper/file"); string(got) != "content" {
		t.Errorf("upper: %q, %v", got, err)
	}
	if seen := mountinfo(t, dir); seen != nil {
		t.Errorf("left behind: %q", seen)
	}
	needHelpers(t)
	if out, exit := output(t, "ordinary:200000:65536\n", "mount", dir); exit != 0 {
		t.Errorf("with ids lent: exit %d, %s", exit, out)
	}
	if out, exit := output(t, "ordinary:200000:65536\n", "chown", dir); exit != 0 {
		t.Fatalf("exit %d, %s", exit, out)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/upper", &st); err != nil || st.Uid != 200999 {
		t.Errorf("owner %d, %v", st.Uid, err)
	}
}

func TestExitCodeComesThrough(t *testing.T) {
	needUserNamespaces(t)
	for name, want := range map[string]int{"exit": 42, "kill": 128 + 9} {
		if out, exit := output(t, "", name); exit != want {
			t.Errorf("%s: exit %d, want %d; %s", name, exit, want, out)
		}
	}
}

func TestSignalsComeThrough(t *testing.T) {
	needUserNamespaces(t)
	cmd, run := asUser(t, "", "signal")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = run(func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			return err
		}
		if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
			return err
		}
		return cmd.Wait()
	})
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("exit: %v", err)
	}
}

func TestTheEndOfTheContextTerminatesTheChild(t *testing.T) {
	needUserNamespaces(t)
	ready := filepath.Join(t.TempDir(), "ready")
	if err := unix.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(role, "term")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if _, err := os.ReadFile(ready); err != nil { // until the child opens and closes it
			t.Error(err)
		}
		cancel()
	}()
	exit, err := ReexecInUserNamespace(ctx, []string{"term", ready}, "")
	if exit != 9 || err != nil {
		t.Errorf("exit %d, %v", exit, err)
	}
}

func TestProcessesOfOneRecordShareTheNamespace(t *testing.T) {
	needUserNamespaces(t)
	if _, err := exec.LookPath("nsenter"); err != nil {
		t.Skip(err)
	}
	for _, lent := range []string{"", "ordinary:200000:65536\n"} {
		if lent != "" {
			needHelpers(t)
		}
		path := filepath.Join(home(t), "store", "userns")
		where := func(pid string) []string {
			t.Helper()
			cmd, run := asUser(t, lent, "where", pid)
			cmd.Env = append(cmd.Env, record+"="+path)
			var out []byte
			err := run(func() (err error) { out, err = cmd.CombinedOutput(); return err })
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return strings.Fields(string(out))
		}
		alone := where("0")
		first, run := asUser(t, lent, "signal")
		first.Env = append(first.Env, record+"="+path)
		stdout, err := first.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := run(first.Start); err != nil {
			t.Fatal(err)
		}
		pid, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pid = strings.TrimSpace(pid)
		its, err := os.Readlink("/proc/" + pid + "/ns/user")
		if err != nil {
			t.Fatal(err)
		}
		// While it is open, no other namespace gets its number.
		held, err := os.Open("/proc/" + pid + "/ns/user")
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		for range 2 {
			got := where(pid)
			// The same but for the namespace, which is that of the first.
			want := append([]string{its}, alone[1:]...)
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("lent %q: got %q, want %q", lent, got, want)
			}
		}
		if err := first.Process.Signal(unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		_ = first.Wait()
		if got := where("0"); got[0] == its {
			t.Errorf("joined a namespace without processes: %q", got)
		}
	}
}

func TestChildDiesWithAKilledParent(t *testing.T) {
	needUserNamespaces(t)
	lents := []string{""}
	if _, err := exec.LookPath("newuidmap"); err == nil {
		lents = append(lents, "ordinary:200000:65536\n")
	}
	for _, lent := range lents {
		path := filepath.Join(home(t), "userns")
		_, _ = start(t, lent, "signal", path) // the second joins what this one made
		for _, path := range []string{"", path} {
			cmd, stdout := start(t, lent, "signal", path)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			// The child holds the other end of the pipe: it ends with the child.
			closed := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, stdout)
				closed <- err
			}()
			select {
			case err := <-closed:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("lent %q, record %q: the child lives on", lent, path)
			}
		}
	}
}

// start starts a command that plays a role until the end of the test, and returns
// what it says after it has said its pid.
func start(t *testing.T, lent, name, path string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd, run := asUser(t, lent, name)
	cmd.Env = append(cmd.Env, record+"="+path)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	reader := bufio.NewReader(stdout)
	if _, err := reader.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd, reader
}
