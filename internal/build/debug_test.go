package build_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/rootfs"
)

// debug runs a shell command in the failed step called id.
func (b *bench) debug(id, command string) string {
	b.Helper()
	step, err := b.Debug(b.Context(), id, build.Run{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := step.Close(); err != nil {
			b.Error(err)
		}
	}()
	var out bytes.Buffer
	exit, err := step.Run(b.Context(), build.Program{Args: []string{"/bin/sh", "-c", command}, Stdout: &out, Stderr: &out})
	if err != nil || exit.Code != 0 {
		b.Fatalf("%s: exit code %d, error %v\n%s", command, exit.Code, err, out.String())
	}
	return out.String()
}

// fail builds what has to fail, and returns the id of what is kept.
func (b *bench) fail(req build.Request) string {
	b.Helper()
	req.Run.Network = "none" // the machine's is not what is tested
	var kept *build.KeptError
	if o := b.try(req); !errors.As(o.err, &kept) {
		b.Fatalf("error is %v, and nothing is kept", o.err)
	}
	return kept.ID
}

// What was removed, replaced, moved and linked shows as it did to the command,
// in either driver, also in a bind mount that may be written to.
func TestAFailedStepIsSeenAsItWas(t *testing.T) {
	for _, name := range []string{"erofs", "overlay"} {
		b := runs(t)
		b.Rootfs = func() (rootfs.Driver, error) {
			d, _, err := rootfs.Choose(b.Store, name)
			return d, err
		}
		if _, err := b.Rootfs(); err != nil {
			t.Skipf("driver %s: %v", name, err)
		}
		const look = "ls -laR /var /tmp /new /bin/bb /m 2>&1 | grep -v ' \\.\\.$'; cat /tmp/n /m/etc/group; echo $HOME $PWD"
		id := b.fail(dockerfile(`FROM busybox
RUN mkdir /var/a /var/b && echo 1 > /var/a/1 && echo 2 > /var/b/2
WORKDIR /var
RUN --mount=type=bind,from=busybox,target=/m,rw rm -r a && mkdir a && mv b c && ln c/2 a/two && ln -s two a/s && mv /bin/busybox /bin/bb && ln /bin/bb /bin/busybox && \
    rm -r /tmp && mkdir -m 700 /tmp && echo new > /tmp/n && mkdir /new && rm -r /m/bin && echo changed > /m/etc/group && (` + look + `) > /tmp/seen; exit 1
`))
		got, want := b.debug(id, look), b.debug(id, "cat /tmp/seen")
		for _, word := range []string{"two", "changed", "new"} {
			if !strings.Contains(want, word) {
				t.Errorf("%s: the command saw no %q:\n%s", name, word, want)
			}
		}
		equal(t, name, withoutTimes(got), withoutTimes(want))
	}
}

// withoutTimes drops the lines that looking has changed, and the columns that
// tell when and how large.
func withoutTimes(listing string) string {
	var out []string
	for line := range strings.Lines(listing) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(line, "seen"), strings.Contains(line, "now"), strings.HasPrefix(line, "total"), len(f) == 0:
		case len(f) > 8:
			out = append(out, strings.Join(append(f[:4:4], f[8:]...), " "))
		default:
			out = append(out, strings.TrimSpace(line))
		}
	}
	return strings.Join(out, "\n")
}

// Only the latest failure of a Dockerfile is kept, and none that somebody is
// looking into is taken away from him.
func TestAFailureIsReplacedUnlessItIsLookedInto(t *testing.T) {
	b := runs(t)
	files := map[string]string{"Dockerfile": "FROM busybox\nARG N\nRUN echo $N > /n; exit 1\n"}
	req := dir(directory(t, files))
	other := b.fail(dir(directory(t, files)))
	with := func(n string) build.Request {
		req.Language.Args = map[string]string{"N": n}
		return req
	}
	first := b.fail(with("1"))
	looking, err := b.Debug(b.Context(), first, build.Run{})
	if err != nil {
		t.Fatal(err)
	}
	b.later()
	second := b.fail(with("2"))
	if _, err := b.Prune(b.Context(), build.PruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if ids := b.kept(); ids != first {
		t.Errorf("kept are %s, want %s alone, which is in use", ids, first)
	}
	var out bytes.Buffer
	if exit, err := looking.Run(b.Context(), build.Program{Args: []string{"cat", "/n"}, Stdout: &out}); err != nil || exit.Code != 0 || out.String() != "1\n" {
		t.Errorf("exit code %d, error %v, output %q", exit.Code, err, out.String())
	}
	if err := looking.Close(); err != nil {
		t.Fatal(err)
	}
	b.later()
	third := b.fail(with("3"))
	if ids := b.kept(); ids != third {
		t.Errorf("kept are %s, want %s", ids, third)
	}
	for _, id := range []string{first, second, other} {
		if _, err := b.Debug(b.Context(), id, build.Run{}); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", id, err)
		}
	}
	equal(t, "the latest", b.debug("", "cat /n"), "3\n")
}

// A failure goes by age and size as the rest of the cache, and its age is the
// time since it was looked at.
func TestAFailureIsPrunedByAgeAndSize(t *testing.T) {
	b := runs(t)
	b.now = time.Now() // records are measured by the real clock
	id := b.fail(dockerfile("FROM busybox\nRUN head -c 20971520 /dev/urandom > /f; exit 1\n"))
	prune := func(o build.PruneOptions, want string) {
		t.Helper()
		if _, err := b.Prune(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprintf("kept after %+v", o), b.kept(), want)
	}
	prune(build.PruneOptions{Keep: 100 << 20}, id)
	prune(build.PruneOptions{Unused: time.Hour}, id)
	prune(build.PruneOptions{Keep: 17 << 20}, "")
	id = b.fail(dockerfile("FROM busybox\nRUN exit 1\n"))
	b.later()
	b.later()
	prune(build.PruneOptions{Unused: 5 * time.Hour}, id)
	prune(build.PruneOptions{Unused: time.Hour}, "")
	b.fail(dockerfile("FROM busybox\nRUN exit 1\n"))
	prune(build.PruneOptions{}, "")
}

// kept are the ids of what is kept.
func (b *bench) kept() string {
	b.Helper()
	failures, err := b.Failures(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	var ids []string
	for _, f := range failures {
		ids = append(ids, f.ID)
	}
	return strings.Join(ids, " ")
}

// A proxy may be called with a password: it is the network's, not the step's.
func TestAFailureKeepsNoProxy(t *testing.T) {
	b := runs(t)
	req := dockerfile("FROM busybox\nRUN exit 1\n")
	req.Language.Args = map[string]string{"HTTP_PROXY": "http://user:secretpassword@proxy:3128"}
	b.fail(req)
	nowhere(t, b.Store.Root(), "secretpassword")
}
