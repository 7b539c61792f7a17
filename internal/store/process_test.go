package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The test binary runs itself again as a process that works on a store. What
// it does stands in childEnv; the first argument is the store.
const childEnv = "SHALE_STORE_TEST_CHILD"

var children = map[string]func(root string, args []string) error{
	"lease":       childLease,
	"storm":       childStorm,
	"prepare":     childPrepare,
	"op":          childOp,
	"acknowledge": childAcknowledge,
}

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := children[what](os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child returns the command of a process that dies with the test.
func child(t testing.TB, what, root string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{root}, args...)...)
	cmd.Env = append(os.Environ(), childEnv+"="+what, "GOMAXPROCS=2")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// childLease keeps a blob until it is killed.
func childLease(root string, _ []string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	l, err := s.Lease(context.Background())
	if err != nil {
		return err
	}
	if _, err := ingest(s, l, []byte("leased")); err != nil {
		return err
	}
	if _, err := s.Ingest(l); err != nil { // a temporary file
		return err
	}
	if _, err := l.TempDir(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.ReadAll(os.Stdin)
	return err
}

func TestALeaseDiesWithItsProcess(t *testing.T) {
	s := open(t)
	cmd := child(t, "lease", s.Root())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	leased := digest.FromString("leased")
	if r := collect(t, s, CollectOptions{}); r != (Report{}) || !has(s, leased) {
		t.Errorf("while it lives: %+v", r)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if r := collect(t, s, CollectOptions{}); r.Blobs != 1 || r.Stale != 3 || has(s, leased) {
		t.Errorf("after its death: %+v", r)
	}
	if left := slices.Concat(listing(t, s.path(tmpDir)), listing(t, s.path(leasesDir))); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// stormer does at random what commands do.
type stormer struct {
	s *Store
	*rand.Rand
}

func (w *stormer) name() string { return fmt.Sprintf("docker.io/storm/app:%d", w.IntN(6)) }

// layer is one of a few contents that all processes share, or a new one.
func (w *stormer) layer() []byte {
	if w.IntN(2) == 0 {
		return bytes.Repeat([]byte{byte('a' + w.IntN(4))}, 20000)
	}
	return fmt.Appendf(nil, "layer %d", w.Uint64())
}

// expected lets pass what happens when others remove a thing meanwhile.
func expected(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func (w *stormer) build() error {
	l, err := w.s.Lease(context.Background())
	if err != nil {
		return err
	}
	defer l.Close()
	desc, err := putImage(w.s, l, w.layer(), w.layer())
	if err != nil {
		return err
	}
	return w.s.SetRef(w.name(), desc)
}

func (w *stormer) tag() error {
	desc, err := w.s.Resolve(w.name())
	if err != nil {
		return expected(err)
	}
	return expected(w.s.SetRef(w.name(), desc))
}

func (w *stormer) untag() error { return expected(w.s.DeleteRef(w.name())) }

func (w *stormer) collect() error {
	_, err := w.s.Collect(context.Background(), CollectOptions{CacheBudget: 60000})
	return err
}

// use holds what a name points at and reads all of it: what Hold grants has to
// stay.
func (w *stormer) use() error {
	l, err := w.s.Lease(context.Background())
	if err != nil {
		return err
	}
	defer l.Close()
	desc, err := w.s.Resolve(w.name())
	if err == nil {
		err = l.Hold(desc.Digest)
	}
	if err != nil {
		return expected(err)
	}
	return w.readAll(desc.Digest)
}

func (w *stormer) readAll(d digest.Digest) error {
	reached, err := newMarker(w.s).reach(d)
	if err != nil {
		return err
	}
	if len(reached) < 4 && len(reached) != 3 { // two equal layers are one
		return fmt.Errorf("image %s reaches %d blobs", d, len(reached))
	}
	for _, d := range reached {
		if _, err := w.s.Read(d); err != nil {
			return fmt.Errorf("held content: %w", err)
		}
	}
	return nil
}

func (w *stormer) cache() error {
	l, err := w.s.Lease(context.Background())
	if err != nil {
		return err
	}
	defer l.Close()
	c := w.s.Cache("storm")
	key := fmt.Sprint(w.IntN(8))
	r, err := c.Get(key)
	if err == nil {
		err = l.Hold(r.Holds...)
	}
	if err == nil {
		_, err = w.s.Read(r.Holds[0])
		return err
	}
	if err := expected(err); err != nil {
		return err
	}
	d, err := ingest(w.s, l, w.layer())
	if err != nil {
		return err
	}
	return c.Put(key, Record{Data: []byte(key), Holds: []digest.Digest{d}})
}

func (w *stormer) container() error {
	desc, err := w.s.Resolve(w.name())
	if err != nil {
		return expected(err)
	}
	id := fmt.Sprintf("c%d", w.Uint64())
	dir, err := w.s.NewContainer(id, []digest.Digest{desc.Digest})
	if err != nil {
		return expected(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "upper/a/b"), 0o700); err != nil {
		return err
	}
	if err := w.readAll(desc.Digest); err != nil {
		return fmt.Errorf("container: %w", err)
	}
	return w.s.RemoveContainer(id)
}

func (w *stormer) push() error {
	r := w.s.Registry("_served")
	ctx := context.Background()
	layer := w.layer()
	var descs []ocispec.Descriptor
	for _, data := range [][]byte{layer, []byte("{}")} {
		desc, err := r.PushBlob(ctx, "storm", describe("application/x", data), bytes.NewReader(data))
		if err != nil {
			return err
		}
		descs = append(descs, desc)
	}
	tag := fmt.Sprint(w.IntN(3))
	if _, err := r.PushManifest(ctx, "storm", tag, manifestOf(descs[1], nil, descs[0]), ocispec.MediaTypeImageManifest); err != nil {
		return err
	}
	m, err := r.GetTag(ctx, "storm", tag)
	if err != nil {
		return err
	}
	return m.Close()
}

func (w *stormer) check() error {
	problems, err := w.s.Fsck(context.Background(), w.IntN(4) == 0)
	for _, p := range problems {
		err = errors.Join(err, errors.New(p.String()))
	}
	return err
}

// childStorm runs until a time: root, seed, milliseconds.
func childStorm(root string, args []string) error {
	var seed uint64
	var ms int
	if _, err := fmt.Sscan(strings.Join(args, " "), &seed, &ms); err != nil {
		return err
	}
	s, err := Open(root)
	if err != nil {
		return err
	}
	w := &stormer{s, rand.New(rand.NewPCG(seed, 0))}
	steps := []struct {
		name string
		run  func() error
	}{{"build", w.build}, {"build", w.build}, {"tag", w.tag}, {"untag", w.untag}, {"collect", w.collect}, {"use", w.use}, {"use", w.use},
		{"cache", w.cache}, {"container", w.container}, {"push", w.push}, {"check", w.check}}
	for end := time.Now().Add(time.Duration(ms) * time.Millisecond); time.Now().Before(end); {
		step := steps[w.IntN(len(steps))]
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return s.Close()
}

// wantNoLeak removes every name and makes sure that nothing stays.
func wantNoLeak(t *testing.T, s *Store) {
	t.Helper()
	names, err := s.names(t.Context(), "", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := s.deleteRef(n); err != nil {
			t.Error(err)
		}
	}
	ids, err := s.Containers()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := s.RemoveContainer(id); err != nil {
			t.Error(err)
		}
	}
	s.Close() // its own lease
	collect(t, s, CollectOptions{CacheBudget: -1, Grace: -1})
	for _, dir := range []string{"blobs/sha256", "index/sha256", "trees/sha256", "refs", "links", "containers", "leases", "tmp"} {
		if left := listing(t, s.path(dir)); len(left) != 0 {
			t.Errorf("left in %s: %q", dir, left)
		}
	}
}

func stormTime(short, long time.Duration) time.Duration {
	if testing.Short() {
		return short
	}
	return long
}

func TestManyProcessesWorkOnOneStore(t *testing.T) {
	s := open(t)
	ms := fmt.Sprint(stormTime(time.Second, 4*time.Second).Milliseconds())
	var cmds []*exec.Cmd
	var outs []*bytes.Buffer
	for i := range 8 {
		cmd := child(t, "storm", s.Root(), fmt.Sprint(i), ms)
		out := &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v: %s", i, err, outs[i])
		}
	}
	wantWhole(t, s)
	wantNoLeak(t, s)
}

func TestProcessesThatAreKilledAtAnyMomentLeaveAWholeStore(t *testing.T) {
	s := open(t)
	end := time.Now().Add(stormTime(2*time.Second, 8*time.Second))
	r := rand.New(rand.NewPCG(1, 2))
	kills := 0
	for time.Now().Before(end) {
		var cmds []*exec.Cmd
		for range 3 {
			cmd := child(t, "storm", s.Root(), fmt.Sprint(r.Uint32()), "60000")
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
		}
		time.Sleep(time.Duration(10+r.IntN(90)) * time.Millisecond) // the random moment
		for _, cmd := range cmds {
			cmd.Process.Kill()
			cmd.Wait()
			if cmd.ProcessState.Exited() {
				t.Errorf("process ended by itself: %v", cmd.ProcessState)
			}
			kills++
		}
		wantWhole(t, s)
	}
	t.Logf("%d kills", kills)
	if err := (&stormer{s, r}).build(); err != nil {
		t.Error(err)
	}
	wantNoLeak(t, s)
}
