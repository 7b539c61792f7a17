package rootfs_test

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/store"
)

// unpackEnv names a store and a layer to a child that unpacks it.
const unpackEnv = "SHALE_ROOTFS_TEST_UNPACK"

// TestAKilledUnpackLeavesAWholeTreeOrNone kills processes while they unpack.
func TestAKilledUnpackLeavesAWholeTreeOrNone(t *testing.T) {
	if where := os.Getenv(unpackEnv); where != "" {
		unpackChild(t, where)
		return
	}
	const files, rounds = 300, 10
	root := filepath.Join(t.TempDir(), "store")
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, _, err := rootfs.Choose(s, "overlay")
	if err != nil {
		t.Skip(err)
	}
	lease, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	l := manyFiles(t, s, lease, files)
	began := time.Now()
	if _, err := d.Stack(t.Context(), []digest.Digest{l}, t.TempDir(), "", ""); err != nil {
		t.Fatal(err)
	}
	whole, step := 0, time.Since(began)*5/4/rounds
	for round := range rounds {
		if err := d.Forget(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		killChild(t, root, l, time.Duration(round)*step)
		trees, err := os.ReadDir(s.TreeDir(l))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, tree := range trees {
			if strings.HasSuffix(tree.Name(), ".aside") || tree.Name() == "lock" {
				continue
			}
			whole++
			countFiles(t, filepath.Join(s.TreeDir(l), tree.Name()), files)
		}
	}
	t.Logf("%d of %d had finished before they were killed", whole, rounds)
	at := t.TempDir()
	mounts, err := d.Stack(t.Context(), []digest.Digest{l}, at, "", "")
	if err != nil {
		t.Fatal(err)
	}
	last := mounts[len(mounts)-1]
	countFiles(t, last.Layers[len(last.Layers)-1], files)
}

func unpackChild(t *testing.T, where string) {
	root, l, _ := strings.Cut(where, "=")
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, _, err := rootfs.Choose(s, "overlay")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("unpacking")
	if _, err := d.Stack(t.Context(), []digest.Digest{digest.Digest(l)}, t.TempDir(), "", ""); err != nil {
		t.Fatal(err)
	}
}

func killChild(t *testing.T, root string, l digest.Digest, after time.Duration) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestAKilledUnpack")
	cmd.Env = append(os.Environ(), unpackEnv+"="+root+"="+string(l), "TMPDIR="+t.TempDir()) // it can't clean up
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "unpacking\n" {
		t.Errorf("child says %q, %v", line, err)
	}
	time.Sleep(after) // the moment of the kill is what the test varies
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
}

func manyFiles(t *testing.T, s *store.Store, lease *store.Lease, count int) digest.Digest {
	t.Helper()
	in, err := s.IngestLayer(lease)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	w := tar.NewWriter(in)
	for i := range count {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir%d/file%d", i/100, i), Mode: 0o644, Size: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, _, err := in.Commit(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func countFiles(t *testing.T, tree string, want int) {
	t.Helper()
	got := 0
	err := filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			got += int(info.Size())
		}
		return err
	})
	if err != nil || got != want {
		t.Errorf("%s has %d files of %d, %v", tree, got, want, err)
	}
}
