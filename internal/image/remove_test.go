package image

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
)

func (w *world) used(image digest.Digest, running bool) {
	w.Users = func(context.Context) ([]User, error) {
		return []User{{Container: "0123456789abcdef", Image: image, Running: running}}, nil
	}
}

// lines joins what Remove says.
func lines(removed []Removed) string {
	var b strings.Builder
	for _, r := range removed {
		if r.Untagged != "" {
			b.WriteString("Untagged: " + r.Untagged + "\n")
		} else {
			b.WriteString("Deleted: " + r.Deleted + "\n")
		}
	}
	return b.String()
}

func TestANameGoesAndWithTheLastOneTheImage(t *testing.T) {
	w := newWorld(t)
	img := w.local(epoch, [][]byte{base, top}, "one:latest", "two:latest")
	w.local(epoch, [][]byte{base}, "base:latest")

	got := lines(must(w.Remove(t.Context(), "one", RemoveOptions{}))(t))
	if want := "Untagged: one:latest\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	got = lines(must(w.Remove(t.Context(), "two", RemoveOptions{}))(t))
	want := "Untagged: two:latest\nDeleted: " + img.ConfigDigest.String() + "\nDeleted: " + img.DiffIDs[1].String() + "\n"
	if got != want {
		t.Errorf("said %q, want %q: the layer below is another image's", got, want)
	}
	for d, there := range map[digest.Digest]bool{img.ConfigDigest: false, img.DiffIDs[1]: false, img.DiffIDs[0]: true} {
		if _, err := w.Store.Stat(d); (err == nil) != there {
			t.Errorf("%s: %v", d, err)
		}
	}
	if _, err := w.Remove(t.Context(), "two", RemoveOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("a second time: %v", err)
	}
}

func TestTheLastTagOfARepositoryTakesItsDigestsAlong(t *testing.T) {
	w := newWorld(t)
	w.put("reg.test", "app", "v1", newRemote(t, amd64, layer.Gzip, base))
	desc := must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
	got := lines(must(w.Remove(t.Context(), "reg.test/app:v1", RemoveOptions{}))(t))
	if want := "Untagged: reg.test/app:v1\nUntagged: reg.test/app@" + desc.Digest.String() + "\nDeleted: "; !strings.HasPrefix(got, want) {
		t.Errorf("said %q, want %q first", got, want)
	}
	if refs := w.refs(); len(refs) != 0 {
		t.Errorf("left: %q", refs)
	}
}

func TestAnImageInUseIsKept(t *testing.T) {
	for _, test := range []struct {
		name    string
		running bool
		force   bool
		byID    bool
		says    string // the conflict; empty: it goes
		remains bool
	}{
		{name: "stopped, by name", says: "(must force) - container 0123456789ab is using its referenced image", remains: true},
		{name: "running, by name", running: true, says: "(must force) - container 0123456789ab", remains: true},
		{name: "running, by name, forced", running: true, force: true, remains: true},
		{name: "stopped, by name, forced", force: true},
		{name: "stopped, by id", byID: true, says: "(must be forced) - image is being used by stopped container 0123456789ab", remains: true},
		{name: "running, by id", byID: true, running: true, says: "(cannot be forced) - image is being used by running container", remains: true},
		{name: "running, by id, forced", byID: true, running: true, force: true, says: "(cannot be forced)", remains: true},
		{name: "stopped, by id, forced", byID: true, force: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			img := w.local(epoch, [][]byte{base}, "app:latest")
			w.used(img.ConfigDigest, test.running)
			name := "app"
			if test.byID {
				name = short(img.ConfigDigest)
			}
			_, err := w.Remove(t.Context(), name, RemoveOptions{Force: test.force})
			switch {
			case test.says == "" && err != nil:
				t.Error(err)
			case test.says != "" && (!errdefs.IsConflict(err) || !strings.Contains(err.Error(), test.says)):
				t.Errorf("got %v, want a conflict with %q", err, test.says)
			}
			_, err = w.Get(t.Context(), img.ConfigDigest.String(), nil)
			if (err == nil) != test.remains {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestAnIDWithSeveralNamesNeedsForce(t *testing.T) {
	w := newWorld(t)
	img := w.local(epoch, [][]byte{base}, "one:latest", "two:latest")
	_, err := w.Remove(t.Context(), short(img.ConfigDigest), RemoveOptions{})
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "referenced in multiple repositories") {
		t.Errorf("got %v", err)
	}
	got := lines(must(w.Remove(t.Context(), short(img.ConfigDigest), RemoveOptions{Force: true}))(t))
	if want := "Untagged: one:latest\nUntagged: two:latest\nDeleted: "; !strings.HasPrefix(got, want) {
		t.Errorf("said %q", got)
	}
}

func TestAnIDMayBeShortened(t *testing.T) {
	w := newWorld(t)
	ids := make(map[string]int)
	var img *Image
	for n := range 20 { // more than there are digits: two begin alike
		img = w.local(epoch.Add(time.Duration(n)*time.Second), [][]byte{base}, "app:v"+string(rune('a'+n)))
		ids[img.ConfigDigest.Encoded()[:1]]++
	}
	if got := must(w.Get(t.Context(), img.ConfigDigest.Encoded()[:12], nil))(t); got.ConfigDigest != img.ConfigDigest {
		t.Error("another image was found")
	}
	for prefix, n := range ids {
		_, err := w.Get(t.Context(), prefix, nil)
		if n > 1 && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "ambiguous")) {
			t.Errorf("%s is the start of %d ids: %v", prefix, n, err)
		}
	}
}

func TestANameIsMovedAndTheOldImageKept(t *testing.T) {
	w := newWorld(t)
	old := w.local(epoch, [][]byte{base}, "app:latest")
	w.local(epoch, [][]byte{top}, "app:latest")
	list := must(w.List(t.Context(), ListOptions{Filters: Filters{"dangling": {"true"}}}))(t)
	if len(list) != 1 || list[0].ID != old.ConfigDigest {
		t.Fatalf("dangling: %v", list)
	}
	fine(t, w.Tag(t.Context(), short(old.ConfigDigest), "old:latest"))
	if refs := w.refs(); slices.ContainsFunc(refs, func(s string) bool { return strings.HasPrefix(s, "@") }) {
		t.Errorf("the image has a name again, but also %q", refs)
	}
}

func TestPruneTakesWhatNobodyUses(t *testing.T) {
	w := newWorld(t)
	old := w.local(epoch, [][]byte{base}, "app:latest")
	img := w.local(epoch.Add(time.Hour), [][]byte{top}, "app:latest")
	pruned := must(w.Prune(t.Context(), PruneOptions{Filters: Filters{"until": {"1h"}}}))(t)
	if len(pruned.Removed) != 0 { // the clock stands at epoch
		t.Errorf("took %v", pruned.Removed)
	}
	pruned = must(w.Prune(t.Context(), PruneOptions{}))(t)
	if got := lines(pruned.Removed); !strings.HasPrefix(got, "Deleted: "+old.ConfigDigest.String()) || pruned.Reclaimed == 0 {
		t.Errorf("took %q, %d bytes", got, pruned.Reclaimed)
	}
	w.used(img.ConfigDigest, false)
	if pruned = must(w.Prune(t.Context(), PruneOptions{All: true}))(t); len(pruned.Removed) != 0 {
		t.Errorf("took %v, which a container uses", pruned.Removed)
	}
	w.Users = nil
	pruned = must(w.Prune(t.Context(), PruneOptions{All: true}))(t)
	if got := lines(pruned.Removed); !strings.HasPrefix(got, "Untagged: app:latest\nDeleted: "+img.ConfigDigest.String()) {
		t.Errorf("took %q", got)
	}
	if _, err := w.Prune(t.Context(), PruneOptions{Filters: Filters{"nonsense": {"x"}}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown filter: %v", err)
	}
}
