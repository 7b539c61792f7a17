package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/registry/client"
	"github.com/shaleproject/shale/internal/registry/server"
	"github.com/shaleproject/shale/internal/store"
)

// actorEnv makes the test binary an actor: a process that works on the images
// of a store until it is killed.
const actorEnv = "SHALE_TEST_ACTOR"

func TestMain(m *testing.M) {
	if spec := os.Getenv(actorEnv); spec != "" {
		root, addr, _ := strings.Cut(spec, " ")
		if err := act(root, addr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// act does at random what people do to images, on names that its siblings use
// too, for as long as the parent wants: it closes standard input.
func act(root, addr string) error {
	s, err := store.Open(root)
	if err != nil {
		return err
	}
	defer s.Close()
	c := client.New(client.Config{})
	i := &Images{
		Store: s, Platform: amd64, Now: time.Now,
		Registries: func(host string) (ociregistry.Interface, error) { return c.Registry(host) },
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		os.Stdin.Read(make([]byte, 1)) // the end of the pipe
		stop()
	}()
	for ctx.Err() == nil {
		what, err := actOnce(ctx, i, addr)
		if err != nil && !expected(err) && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// expected are the errors of someone whom others have come before.
func expected(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsConflict(err)
}

func actOnce(ctx context.Context, i *Images, addr string) (string, error) {
	n := rand.IntN(4)
	local, remote := fmt.Sprintf("local%d:v1", n), fmt.Sprintf("%s/app%d:v1", addr, rand.IntN(2))
	switch rand.IntN(9) {
	case 0, 1:
		_, err := i.Pull(ctx, remote, PullOptions{})
		return "pull", err
	case 2:
		_, err := i.Remove(ctx, remote, RemoveOptions{})
		return "rmi", err
	case 3:
		_, err := i.Import(ctx, bytes.NewReader(tarOf("f", fmt.Sprint(rand.IntN(3)), "big", strings.Repeat("x", 1<<20))), ImportOptions{Name: local})
		return "import", err
	case 4:
		return "tag", i.Tag(ctx, remote, local)
	case 5:
		var archive bytes.Buffer
		err := i.Save(ctx, &archive, []string{local}, SaveOptions{})
		if err == nil {
			_, err = i.Load(ctx, &archive, LoadOptions{})
		}
		return "save and load", err
	case 6:
		err := i.Tag(ctx, local, addr+"/pushed:"+local[:6])
		if err == nil {
			_, err = i.Push(ctx, addr+"/pushed:"+local[:6], PushOptions{})
		}
		return "push", err
	case 7:
		_, err := i.Prune(ctx, PruneOptions{All: n == 0})
		return "prune", err
	}
	_, err := i.List(ctx, ListOptions{})
	if err == nil {
		_, err = i.Inspect(ctx, local, nil)
	}
	return "inspect", err
}

// actor is a running child.
type actor struct {
	cmd  *exec.Cmd
	errs bytes.Buffer
	stop func()
}

func (w *world) actor(addr string) *actor {
	w.t.Helper()
	a := &actor{cmd: exec.Command(os.Args[0])}
	a.cmd.Env = append(os.Environ(), actorEnv+"="+w.Store.Root()+" "+addr)
	a.cmd.Stderr = &a.errs
	in := must(a.cmd.StdinPipe())(w.t)
	a.stop = func() { in.Close() }
	fine(w.t, a.cmd.Start())
	return a
}

// whole fails the test unless every digest in the store is right.
func (w *world) whole() {
	w.t.Helper()
	problems := must(w.Store.Fsck(w.t.Context(), true))(w.t)
	for _, p := range problems {
		w.t.Errorf("fsck: %v", p)
	}
}

// stocked is a registry on the network with two images in it. It is ours:
// distribution 2.8 answers 400 when two processes push the same blob, because
// it reads a link that it is just writing.
func stocked(t *testing.T) string {
	t.Helper()
	served := must(store.Open(t.TempDir()))(t)
	t.Cleanup(func() { served.Close() })
	site := httptest.NewServer(server.New(served.Registry("_served"), server.Options{}))
	t.Cleanup(site.Close)
	addr := strings.TrimPrefix(site.URL, "http://")
	w := newWorld(t)
	w.online()
	for n, layers := range [][][]byte{{base, top}, {base, tarOf("other", strings.Repeat("y", 3<<20))}} {
		name := fmt.Sprintf("%s/app%d:v1", addr, n)
		w.local(epoch, layers, name)
		must(w.Push(t.Context(), name, PushOptions{}))(t)
	}
	return addr
}

func TestProcessesShareAStore(t *testing.T) {
	addr := stocked(t)
	w := newWorld(t)
	var actors []*actor
	for range 6 {
		actors = append(actors, w.actor(addr))
	}
	time.Sleep(span(t, 3*time.Second)) // how long they work
	for _, a := range actors {
		a.stop()
	}
	var all sync.WaitGroup
	for _, a := range actors {
		all.Go(func() {
			if err := a.cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, a.errs.String())
			}
		})
	}
	all.Wait()
	w.whole()
}

func TestAKilledProcessLeavesAWholeStore(t *testing.T) {
	addr := stocked(t)
	w := newWorld(t)
	w.online()
	for deadline := time.Now().Add(span(t, 4*time.Second)); time.Now().Before(deadline); {
		a := w.actor(addr)
		time.Sleep(time.Duration(20+rand.IntN(200)) * time.Millisecond) // a moment to be killed at
		fine(t, a.cmd.Process.Kill())
		var exit *exec.ExitError
		if err := a.cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("the actor ended by itself: %v: %s", err, a.errs.String())
		}
		w.whole()
		if t.Failed() {
			return
		}
	}
	must(w.Pull(t.Context(), addr+"/app0:v1", PullOptions{}))(t)
	must(w.Store.Collect(t.Context(), store.CollectOptions{}))(t)
	w.whole()
	if refs := w.refs(); !slices.Contains(refs, addr+"/app0:v1") {
		t.Errorf("names: %q", refs)
	}
}

// span is how long a test works; SHALE_TEST_SPAN makes it longer.
func span(t *testing.T, short time.Duration) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(os.Getenv("SHALE_TEST_SPAN"))
	if err != nil {
		return short
	}
	return d
}
