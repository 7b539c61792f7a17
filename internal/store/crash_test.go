package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mutating are the system calls by which a store changes.
const mutating = "write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,openat,ftruncate,fchmod,fchmodat,utimensat,flock"

// crashOps are operations on the store that childPrepare makes. Each may be
// run again after it was killed.
var crashOps = map[string]func(ctx context.Context, s *Store) error{
	"ingest": func(ctx context.Context, s *Store) error {
		l, err := s.Lease(ctx)
		if err != nil {
			return err
		}
		defer l.Close()
		_, err = ingest(s, l, []byte("new blob"))
		return err
	},
	"ingest layer": func(ctx context.Context, s *Store) error {
		l, err := s.Lease(ctx)
		if err != nil {
			return err
		}
		defer l.Close()
		in, err := s.IngestLayer(l)
		if err != nil {
			return err
		}
		defer in.Close()
		if _, err := in.Write(crashTar); err != nil {
			return err
		}
		_, _, err = in.Commit(ctx, "")
		return err
	},
	"image": func(ctx context.Context, s *Store) error {
		l, err := s.Lease(ctx)
		if err != nil {
			return err
		}
		defer l.Close()
		desc, err := putImage(s, l, []byte("layer of new image"), []byte("shared"))
		if err != nil {
			return err
		}
		return s.SetRef("docker.io/new/image:1", desc)
	},
	"set ref": func(ctx context.Context, s *Store) error {
		desc, err := s.Resolve("docker.io/old/image:1")
		if err != nil {
			return err
		}
		return errors.Join(s.SetRef("docker.io/old/image:2", desc), s.SetRef("localhost:5000/a/b/c:1", desc))
	},
	"delete and collect": func(ctx context.Context, s *Store) error {
		if err := s.DeleteRef("docker.io/old/image:1"); expected(err) != nil {
			return err
		}
		_, err := s.Collect(ctx, CollectOptions{CacheBudget: -1})
		return err
	},
	"record": func(ctx context.Context, s *Store) error {
		d := digest.FromString("shared")
		return s.Cache("new").Put("key", Record{Data: []byte("x"), Holds: []digest.Digest{d}})
	},
	"large record": func(ctx context.Context, s *Store) error {
		return s.Cache("new").PutFrom("large", nil, patterned(3*recordWindow, recordWindow))
	},
	"container": func(ctx context.Context, s *Store) error {
		dir, err := s.NewContainer("new", []digest.Digest{digest.FromString("shared")})
		if err == nil {
			err = WriteFile(filepath.Join(dir, "state"), []byte("running"))
		}
		return err
	},
	"remove container": func(ctx context.Context, s *Store) error {
		return expected(s.RemoveContainer("old"))
	},
	"push": func(ctx context.Context, s *Store) error {
		r := s.Registry("_served")
		w, err := r.PushBlobChunked(ctx, "app", 0)
		if err != nil {
			return err
		}
		defer w.Close()
		if _, err := w.Write([]byte("{}")); err != nil {
			return err
		}
		desc, err := w.Commit(digest.FromString("{}"))
		if err != nil {
			return err
		}
		subject := describe(ocispec.MediaTypeImageManifest, []byte("subject"))
		_, err = r.PushManifest(ctx, "app", "v1", manifestOf(desc, &subject, desc), ocispec.MediaTypeImageManifest)
		return err
	},
	"delete manifest": func(ctx context.Context, s *Store) error {
		desc, err := s.Registry("_served").ResolveTag(ctx, "old", "v1")
		if err == nil {
			err = s.Registry("_served").DeleteManifest(ctx, "old", desc.Digest)
		}
		if errors.Is(err, ociregistry.ErrManifestUnknown) || errors.Is(err, ociregistry.ErrNameUnknown) {
			return nil
		}
		return err
	},
}

var crashTar = []byte(strings.Repeat("\x00", 1024)) // the end of a tar is a tar

// childPrepare makes a store with something of each kind, and garbage.
func childPrepare(root string, _ []string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	ctx := context.Background()
	l, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	desc, err := putImage(s, l, []byte("layer of old image"), []byte("shared"))
	if err != nil {
		return err
	}
	if _, err := putImage(s, l, []byte("garbage")); err != nil {
		return err
	}
	r := s.Registry("_served")
	blob, err := r.PushBlob(ctx, "old", describe("", []byte("{}")), strings.NewReader("{}"))
	if err != nil {
		return err
	}
	if _, err := r.PushManifest(ctx, "old", "v1", manifestOf(blob, &desc, blob), ocispec.MediaTypeImageManifest); err != nil {
		return err
	}
	_, cerr := s.NewContainer("old", []digest.Digest{desc.Digest})
	return errors.Join(cerr,
		s.SetRef("docker.io/old/image:1", desc),
		s.Cache("old").Put("key", Record{Holds: []digest.Digest{digest.FromString("garbage")}}),
		os.MkdirAll(filepath.Join(s.ContainerDir("old"), "upper/a"), 0o700),
		os.MkdirAll(s.TreeDir(digest.FromString("no layer"))+"/a/b", 0o700),
		l.Close(), s.Close())
}

// childOp runs an operation on the thread that strace counts on.
func childOp(root string, args []string) error {
	runtime.LockOSThread()
	s, err := Open(root)
	if err != nil {
		return err
	}
	if err := crashOps[args[0]](context.Background(), s); err != nil {
		return err
	}
	return s.Close()
}

// prepare finds strace and makes the store that the operations work on.
func prepare(t *testing.T) (strace, prepared string) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if out, err := exec.Command(strace, "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("strace doesn't work here: %v: %s", err, out)
	}
	prepared = filepath.Join(t.TempDir(), "store")
	if out, err := child(t, "prepare", prepared).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strace, prepared
}

func TestKilledAtAnySystemCallAStoreStaysWhole(t *testing.T) {
	strace, prepared := prepare(t)
	for name := range crashOps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			step := 1
			if testing.Short() {
				step = 7
			}
			n := 1
			for ; killAt(t, strace, prepared, name, n); n += step {
				if t.Failed() {
					t.Fatalf("killed at system call %d", n)
				}
			}
			t.Logf("%d system calls", n-1)
		})
	}
	t.Run("make a store", func(t *testing.T) {
		t.Parallel()
		for n := 1; killAt(t, strace, "", "ingest", n); n++ {
			if t.Failed() {
				t.Fatalf("killed at system call %d", n)
			}
		}
	})
}

// copyStore returns a copy of a store, or an empty directory if there is none.
func copyStore(t *testing.T, prepared string) (root string) {
	t.Helper()
	root, err := os.MkdirTemp(t.TempDir(), "store")
	if err != nil {
		t.Fatal(err)
	}
	if prepared == "" {
		return root
	}
	if out, err := exec.Command("cp", "-a", prepared+"/.", root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return root
}

// injected returns the command of an operation in which strace spoils calls.
func injected(t *testing.T, strace, root, op, calls, how, log string) *exec.Cmd {
	t.Helper()
	cmd := child(t, "op", root, op)
	cmd.Args = append([]string{strace, "-f", "-qq", "-o", log, "-e", "trace=" + calls, "-e", "inject=" + calls + ":" + how, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = strace
	return cmd
}

// killAt kills an operation when a thread enters its n-th mutating call, and
// looks at what is left. It returns false if the operation ended before.
func killAt(t *testing.T, strace, prepared, op string, n int) bool {
	t.Helper()
	root := copyStore(t, prepared)
	defer os.RemoveAll(root)
	cmd := injected(t, strace, root, op, mutating, "signal=KILL:when="+strconv.Itoa(n), "/dev/null")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if cmd.ProcessState.Exited() && cmd.ProcessState.ExitCode() < 128 {
		t.Fatalf("%v: %s", err, out)
	}
	s, err := Open(root)
	if err != nil {
		t.Error(err)
		return true
	}
	defer s.Close()
	wantWhole(t, s)
	for _, kept := range []string{"docker.io/old/image:1", "_served/old:v1"} {
		if _, err := s.Resolve(kept); prepared != "" && !strings.HasPrefix(op, "delete") && err != nil {
			t.Error(err)
		}
	}
	if err := repeat(t.Context(), s, op); err != nil {
		t.Errorf("the same again: %v", err)
	}
	wantWhole(t, s)
	collect(t, s, CollectOptions{CacheBudget: -1, Grace: -1})
	wantWhole(t, s)
	s.Close()
	collect(t, s, CollectOptions{Grace: -1})
	for _, dir := range []string{tmpDir, leasesDir} {
		if left := listing(t, s.path(dir)); len(left) != 0 {
			t.Errorf("left in %s: %q", dir, left)
		}
	}
	return true
}

// repeat runs an operation again. A container that is there was made.
func repeat(ctx context.Context, s *Store, op string) error {
	if op == "container" {
		if ids, err := s.Containers(); err != nil || len(ids) == 2 {
			return err
		}
	}
	if err := crashOps[op](ctx, s); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

func TestAnErrorOfTheDiskIsNeverASuccess(t *testing.T) {
	strace, prepared := prepare(t)
	for name := range crashOps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, calls := range []string{"fsync,fdatasync", "rename,renameat,renameat2", "mkdir,mkdirat", "pwrite64"} {
				n := 1
				for ; failAt(t, strace, prepared, name, calls, n); n++ {
					if t.Failed() {
						t.Fatalf("error of call %d of %s", n, calls)
					}
				}
				t.Logf("%s: %d errors", calls, n-1)
			}
		})
	}
}

// failAt has the n-th of some calls of a thread fail. It returns false if
// there are no so many.
func failAt(t *testing.T, strace, prepared, op, calls string, n int) bool {
	t.Helper()
	root := copyStore(t, prepared)
	defer os.RemoveAll(root)
	log := filepath.Join(root, "tmp", "strace")
	out, err := injected(t, strace, root, op, calls, "error=EIO:when="+strconv.Itoa(n), log).CombinedOutput()
	text, rerr := os.ReadFile(log)
	if rerr != nil {
		t.Fatal(rerr)
	}
	os.Remove(log)
	if !strings.Contains(string(text), "INJECTED") {
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return false
	}
	if err == nil {
		t.Errorf("an error was passed over:\n%s", text)
	}
	if !strings.Contains(string(out), "input/output error") || strings.Contains(string(out), "goroutine") {
		t.Errorf("an unclear error: %s", out)
	}
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantWhole(t, s)
	if err := repeat(t.Context(), s, op); err != nil {
		t.Errorf("the same again: %v", err)
	}
	wantWhole(t, s)
	return true
}
