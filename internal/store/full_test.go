package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

const namespaceEnv = "SHALE_STORE_TEST_NAMESPACE"

// inMountNamespace runs the test again in a process that has a mount namespace
// of its own, in which it returns true. Nothing that is mounted there outlives
// the process.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceEnv) != "" {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no mount namespace: ", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// mountTmpfs mounts a file system of a size and with a number of inodes.
func mountTmpfs(t *testing.T, size, inodes int) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d", size, inodes)); err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}

// free returns the bytes and inodes that are left.
func free(t *testing.T, dir string) (bytes, inodes int64) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize, int64(st.Ffree)
}

// work does a bit of everything that takes space.
func work(t *testing.T, s *Store) error {
	l, err := s.Lease(t.Context())
	if err != nil {
		return err
	}
	defer l.Close()
	in, err := s.IngestLayer(l)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.Write(tarOf(t, "big", strings.Repeat("x", 300_000))); err != nil {
		return err
	}
	if _, _, err := in.Commit(t.Context(), ""); err != nil {
		return err
	}
	desc, err := putImage(s, l, []byte(strings.Repeat("y", 100_000)))
	if err != nil {
		return err
	}
	if err := s.SetRef("docker.io/library/app:1", desc); err != nil {
		return err
	}
	if err := s.Cache("step").Put("key", Record{Holds: []digest.Digest{desc.Digest}}); err != nil {
		return err
	}
	_, err = s.NewContainer("c", []digest.Digest{desc.Digest})
	return err
}

func TestADiskThatFillsUpCostsNothing(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	try := func(size, inodes int) (done bool) {
		dir, unmount := mountTmpfs(t, size, inodes)
		defer unmount()
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%d bytes, %d inodes: %s", size, inodes, fmt.Sprintf(format, args...))
		}
		s, err := Open(filepath.Join(dir, "store"))
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
				fail("open: %v", err)
			}
			return false
		}
		bytesBefore, inodesBefore := free(t, dir)
		err = work(t, s)
		if err != nil && (!errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir)) {
			fail("an unclear error: %v", err)
		}
		problems, ferr := s.Fsck(t.Context(), true)
		if ferr != nil || len(problems) != 0 {
			fail("%v, %v", problems, ferr)
		}
		if err := expected(s.DeleteRef("docker.io/library/app:1")); err != nil {
			fail("%v", err)
		}
		if err := expected(s.RemoveContainer("c")); err != nil {
			fail("%v", err)
		}
		if err := s.Close(); err != nil {
			fail("%v", err)
		}
		if _, err := s.Collect(t.Context(), CollectOptions{CacheBudget: -1}); err != nil {
			fail("%v", err)
		}
		// The directories that names and records have made may stay.
		if bytes, inodes := free(t, dir); bytes < bytesBefore-64<<10 || inodes < inodesBefore-8 {
			fail("leaked %d bytes, %d inodes", bytesBefore-bytes, inodesBefore-inodes)
		}
		return err == nil
	}
	done := false
	for size := 4 << 10; size < 8<<20 && !done; size += 4 << 10 {
		done = try(size, 1000)
	}
	if !done {
		t.Error("never enough bytes")
	}
	done = false
	for inodes := 2; inodes < 1000 && !done; inodes++ {
		done = try(8<<20, inodes)
	}
	if !done {
		t.Error("never enough inodes")
	}
}

func TestAFullDiskCanBeEmptied(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	dir, unmount := mountTmpfs(t, 4<<20, 200)
	defer unmount()
	s, err := Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	if err := work(t, s); err != nil {
		t.Fatal(err)
	}
	tree := s.TreeDir(digest.FromString("gone"))
	if err := os.MkdirAll(filepath.Join(tree, "a/b/c"), 0o700); err != nil {
		t.Fatal(err)
	}
	// What is left of processes that were killed, their leases included.
	dead := randomName()
	for _, name := range []string{"tmp/" + dead + ".1", "leases/" + dead} {
		if err := os.WriteFile(s.path(name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(s.path(tmpDir, dead+".2/a"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	for i, err := 0, error(nil); err == nil; i++ {
		var empty *os.File
		if empty, err = os.Create(filepath.Join(dir, fmt.Sprint("filler", i))); err == nil {
			empty.Close()
		}
	}
	if bytes, inodes := free(t, dir); bytes != 0 || inodes != 0 {
		t.Fatalf("%d bytes, %d inodes are free", bytes, inodes)
	}
	// As the commands do it: each in a process of its own.
	s.Close()
	if s, err = Open(s.Root()); err != nil {
		t.Fatal(err)
	}
	if problems, err := s.Fsck(t.Context(), true); err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if err := errors.Join(s.DeleteRef("docker.io/library/app:1"), s.RemoveContainer("c")); err != nil {
		t.Error(err)
	}
	if r := collect(t, s, CollectOptions{CacheBudget: -1}); r.Blobs == 0 || r.Records != 1 || r.Derived != 2 || r.Stale != 3 {
		t.Errorf("%+v", r)
	}
	for _, dir := range []string{"blobs/sha256", "index/sha256", "trees/sha256", "tmp", "leases", "containers", "refs"} {
		if left := listing(t, s.path(dir)); len(left) != 0 {
			t.Errorf("left in %s: %q", dir, left)
		}
	}
	if bytes, _ := free(t, dir); bytes < 400_000 {
		t.Errorf("%d bytes are free", bytes)
	}
}
