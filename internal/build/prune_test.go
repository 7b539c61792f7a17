package build_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/image"
)

func TestPruneKeepsTheCacheMountsThatWereUsedLately(t *testing.T) {
	b := runs(t)
	b.now = time.Now() // records are measured by the real clock
	use := func(id string) {
		b.build(dockerfile("FROM busybox\nRUN --mount=type=cache,id=" + id + ",target=/c dd if=/dev/zero of=/c/f bs=1024 count=100 # " + b.clock().String() + "\n"))
	}
	use("one")
	b.later()
	use("two")
	b.later()
	use("one") // again: two is the least recently used now
	prune := func(o build.PruneOptions) build.Pruned {
		t.Helper()
		p, err := b.Prune(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	equal(t, "nothing is that old", prune(build.PruneOptions{Unused: 3 * time.Hour}).Mounts, 0)
	equal(t, "all fits", prune(build.PruneOptions{Keep: 250 << 10}).Mounts, 0)
	equal(t, "one has to go", prune(build.PruneOptions{Keep: 150 << 10}).Mounts, 1)
	b.later()
	equal(t, "the other was used lately", prune(build.PruneOptions{Unused: 2 * time.Hour}).Mounts, 0)
	b.later()
	equal(t, "the other is old", prune(build.PruneOptions{Unused: 90 * time.Minute}).Mounts, 1)
}

func TestUsageListsEveryStepOnce(t *testing.T) {
	b, ctx := newBench(t), application(t)
	b.build(dir(ctx, "app"))
	text := "FROM scratch AS made\nCOPY first /first\nFROM scratch\nCOPY --from=made /first /second\n"
	other := directory(t, map[string]string{"Dockerfile": text, "first": strings.Repeat("x", 5000)})
	o := b.build(dir(other))
	if _, err := b.Images.Remove(t.Context(), o.ID().String(), image.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	entries, err := b.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shared, private := map[string]bool{}, map[string]bool{}
	for _, e := range entries {
		switch {
		case e.Kind != "regular":
		case e.Shared:
			shared[e.Description] = true
		case private[e.Description]:
			t.Errorf("%s is listed twice", e.Description)
		default:
			private[e.Description] = true
			if e.Size < 5000 {
				t.Errorf("%s has %d bytes", e.Description, e.Size)
			}
		}
	}
	equal(t, "in images", shared, map[string]bool{copyFirst: true, copySrc: true, workdir: true})
	equal(t, "else", private, map[string]bool{"[made 1/1] COPY first /first": true, "[stage-1 1/1] COPY --from=made /first /second": true})
}
