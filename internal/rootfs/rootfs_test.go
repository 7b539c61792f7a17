package rootfs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/rootfs/rootfstest"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// insideEnv makes the test binary run its tests as root of a user namespace.
const insideEnv = "SHALE_ROOTFS_TEST_USERNS"

func TestMain(m *testing.M) {
	value := os.Getenv(sys.UserNamespaceEnv)
	switch {
	case os.Getenv(insideEnv) == "":
	case value == "":
		exit, err := sys.ReexecInUserNamespace(context.Background(), os.Args, "")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			exit = 99
		}
		os.Exit(exit)
	default:
		if err := sys.EnterUserNamespace(value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(98)
		}
	}
	os.Exit(m.Run())
}

// driver returns a function that opens the driver called name, or skips the test
// where it does not work.
func driver(name string) func(t *testing.T, s *store.Store) rootfs.Driver {
	return func(t *testing.T, s *store.Store) rootfs.Driver {
		t.Helper()
		d, _, err := rootfs.Choose(s, name)
		if err != nil {
			t.Skip(err)
		}
		return d
	}
}

func TestErofs(t *testing.T)   { rootfstest.Run(t, driver("erofs")) }
func TestOverlay(t *testing.T) { rootfstest.Run(t, driver("overlay")) }

// TestOverlayForAnOrdinaryUser runs TestOverlay as a user that is made up for
// it, in a user namespace with and without ids of /etc/subuid.
func TestOverlayForAnOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 || sys.InUserNamespace() {
		t.Skip("only root can become the ordinary user")
	}
	const user = 12345
	for name, lent := range map[string]string{"one id": "", "ids lent": "ordinary:200000:65536\n"} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("newuidmap"); err != nil && lent != "" {
				t.Skip(err)
			}
			dir := t.TempDir()
			files := map[string]string{
				"/etc/passwd": fmt.Sprintf("root:x:0:0::/:/bin/sh\nordinary:x:%d:%d::/:/bin/sh\n", user, user),
				"/etc/subuid": lent, "/etc/subgid": lent,
			}
			var mounts []sys.Mount
			for target, content := range files {
				source := filepath.Join(dir, filepath.Base(target))
				if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
				mounts = append(mounts, sys.Mount{Source: source, Target: target, Flags: sys.Bind})
			}
			home, err := os.MkdirTemp("", "shale-ordinary-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(home) })
			if err := os.Chown(home, user, user); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestOverlay$", "-test.v", fmt.Sprintf("-test.short=%t", testing.Short()))
			cmd.Env = append(os.Environ(), insideEnv+"=1", "TMPDIR="+home)
			cmd.Dir = home
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
			var out []byte
			err = sys.PrivateMounts(func() error {
				if err := sys.MountAll(mounts); err != nil {
					return err
				}
				out, err = cmd.CombinedOutput()
				return err
			})
			if err != nil && strings.Contains(string(out), "start in a user namespace") {
				t.Skipf("%s", out)
			}
			if err != nil || !strings.Contains(string(out), "--- PASS: TestOverlay ") {
				t.Errorf("%v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "--- SKIP") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

// storeEnv makes TestChooseAdvises use a store at a place where no upper can be.
const storeEnv = "SHALE_ROOTFS_TEST_STORE"

func TestChooseSaysWhatToDoOnAnOverlay(t *testing.T) {
	if dir := os.Getenv(storeEnv); dir != "" {
		s, err := store.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, _, err = rootfs.Choose(s, "")
		t.Log(err)
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "overlayfs can't hold what containers write: move the store") {
			t.Error("no advice")
		}
		return
	}
	dir := t.TempDir()
	lower, upper, work, at := filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "at")
	for _, d := range []string{lower, upper, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), storeEnv+"="+filepath.Join(at, "store"))
	var out []byte
	err := sys.PrivateMounts(func() error {
		err := sys.MountAll([]sys.Mount{{Type: "overlay", Target: at, Layers: []string{lower},
			Data: sys.Option("upperdir", upper) + "," + sys.Option("workdir", work)}})
		if err != nil {
			t.Skip(err)
		}
		out, err = cmd.CombinedOutput()
		return err
	})
	t.Logf("%s", out)
	if err != nil && !t.Skipped() {
		t.Error(err)
	}
}

func TestChooseRemembersAndKnowsItsDrivers(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, _, err := rootfs.Choose(s, "vfs"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown driver: %v", err)
	}
	first, reason, err := rootfs.Choose(s, "")
	if err != nil {
		t.Skip(err)
	}
	t.Logf("%s: %s", first.Name(), reason)
	kept, err := s.Cache("driver").All(t.Context())
	if err != nil || len(kept) != 1 {
		t.Errorf("%d answers kept, %v", len(kept), err)
	}
	again, sameReason, err := rootfs.Choose(s, "")
	if err != nil || again.Name() != first.Name() || sameReason != reason {
		t.Errorf("then %v: %s, %v", again, sameReason, err)
	}
}
