package build_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	bkclient "github.com/moby/buildkit/client"
)

// A build that is given up ends its processes and leaves neither a name nor
// a file.
func TestABuildThatIsGivenUpLeavesNothing(t *testing.T) {
	b := runs(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	status := make(chan *bkclient.SolveStatus)
	go func() {
		for s := range status {
			for _, l := range s.Logs {
				if strings.Contains(string(l.Data), "running") {
					cancel()
				}
			}
		}
	}()
	_, err := b.Build(ctx, dockerfile("FROM busybox\nRUN echo running; sleep 600\n", "app"), status)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if _, err := b.Images.Get(t.Context(), "app", nil); !errdefs.IsNotFound(err) {
		t.Errorf("the name is there: %v", err)
	}
	for _, dir := range []string{"tmp", "leases"} {
		entries, err := os.ReadDir(filepath.Join(b.Store.Root(), dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if dir == "tmp" {
				t.Errorf("%s/%s is left", dir, e.Name())
			}
		}
	}
	if problems, err := b.Store.Fsck(t.Context(), true); err != nil || len(problems) > 0 {
		t.Errorf("fsck: %v %v", problems, err)
	}
}

// git fetches through another program, which must not be waited for until the
// server is done with it, and not stay.
func TestABuildThatIsGivenUpEndsWhatGitHasStarted(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	left := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done() // and no answer
		close(left)
	}))
	defer server.Close()
	_, err := newBench(t).Build(ctx, dockerfile("FROM scratch\nADD "+server.URL+"/repo.git /r\n"), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	<-left
}

// Two processes that build the same thing at the same time both succeed, and
// with the same result.
func TestTheSameBuildTwiceAtTheSameTime(t *testing.T) {
	b := newBench(t)
	other := benchAt(t, b.Store.Root())
	ctx := application(t)
	var one, two outcome
	var wait sync.WaitGroup
	wait.Go(func() { one = b.try(dir(ctx, "app")) })
	wait.Go(func() { two = other.try(dir(ctx, "app")) })
	wait.Wait()
	if one.err != nil || two.err != nil {
		t.Fatalf("errors are %v and %v", one.err, two.err)
	}
	equal(t, "image", two.ID(), one.ID())
}
