package image

import (
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
)

func TestFiltersChooseImages(t *testing.T) {
	w := newWorld(t)
	for n, name := range []string{"first:v1", "second:v1", "reg.test/team/third:v2"} {
		w.local(epoch.Add(time.Duration(n)*time.Hour), [][]byte{base}, name)
	}
	w.put("reg.test", "labelled", "latest", newRemote(t, amd64, layer.Gzip, top))
	must(w.Pull(t.Context(), "reg.test/labelled", PullOptions{}))(t)
	for _, test := range []struct {
		filters []string
		want    []string
	}{
		{nil, []string{"reg.test/team/third:v2", "second:v1", "first:v1", "reg.test/labelled:latest"}},
		{[]string{"reference=first"}, []string{"first:v1"}},
		{[]string{"reference=*:v1"}, []string{"second:v1", "first:v1"}},
		{[]string{"reference=first:v1", "reference=second"}, []string{"second:v1", "first:v1"}},
		{[]string{"reference=reg.test/team/*"}, []string{"reg.test/team/third:v2"}},
		{[]string{"reference=nothing"}, nil},
		{[]string{"label=arch=amd64"}, []string{"reg.test/labelled:latest"}},
		{[]string{"label!=arch"}, []string{"reg.test/team/third:v2", "second:v1", "first:v1"}},
		{[]string{"label=arch=arm64"}, nil},
		{[]string{"before=second:v1"}, []string{"first:v1", "reg.test/labelled:latest"}},
		{[]string{"since=second:v1"}, []string{"reg.test/team/third:v2"}},
		{[]string{"dangling=true"}, nil},
		{[]string{"until=2026-01-02T04:00:00Z"}, []string{"first:v1", "reg.test/labelled:latest"}},
	} {
		f := must(ParseFilters(test.filters))(t)
		var got []string
		for _, s := range must(w.List(t.Context(), ListOptions{Filters: f}))(t) {
			got = append(got, s.RepoTags...)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%q gave %q, want %q", test.filters, got, test.want)
		}
	}
	for _, bad := range [][]string{{"nonsense"}, {"nonsense=1"}, {"dangling=perhaps"}, {"until=whenever"}} {
		f, err := ParseFilters(bad)
		if err == nil {
			_, err = w.List(t.Context(), ListOptions{Filters: f})
		}
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestRowsAreThoseOfDocker(t *testing.T) {
	d := digest.FromString("x")
	s := Summary{
		RepoTags:    []string{"a:v1", "a:v2", "b:latest"},
		RepoDigests: []string{"a@" + d.String(), "c@" + d.String()},
	}
	var plain, digests []string
	for _, r := range s.Rows(false) {
		plain = append(plain, r.Repository+" "+r.Tag)
	}
	for _, r := range s.Rows(true) {
		digests = append(digests, r.Repository+" "+r.Tag+" "+r.Digest.String()[:6])
	}
	if want := []string{"a v1", "a v2", "b latest", "c <none>"}; !slices.Equal(plain, want) {
		t.Errorf("rows %q, want %q", plain, want)
	}
	if want := []string{"a v1 sha256", "a v2 sha256", "b latest <none>", "c <none> sha256"}; !slices.Equal(digests, want) {
		t.Errorf("rows with digests %q, want %q", digests, want)
	}
	if rows := (&Summary{}).Rows(false); len(rows) != 1 || rows[0].Repository != none || rows[0].Tag != none {
		t.Errorf("a dangling image: %v", rows)
	}
}

func TestHistoryAccountsForEveryLayer(t *testing.T) {
	w := newWorld(t)
	img := w.local(epoch, [][]byte{base, top}, "app:latest")
	entries := must(w.History(t.Context(), "app", nil))(t)
	if len(entries) != 3 {
		t.Fatalf("%d entries", len(entries))
	}
	if e := entries[0]; e.ID != img.ConfigDigest.String() || e.Size != 0 || e.CreatedBy != `CMD ["sh"]` || !slices.Equal(e.Tags, []string{"app:latest"}) {
		t.Errorf("last step: %+v", e)
	}
	if e := entries[1]; e.ID != missing || e.Size != int64(len(top)) || e.Comment != "buildkit.dockerfile.v0" {
		t.Errorf("step before: %+v", e)
	}
}

func TestTheListFollowsWhatOthersDo(t *testing.T) {
	w := newWorld(t)
	w.putIndex("docker.io", "library/multi", "latest", newRemote(t, amd64, layer.Gzip, base), newRemote(t, arm64, layer.Gzip, top))
	must(w.Pull(t.Context(), "multi", PullOptions{Platform: &arm64}))(t)
	first := must(w.List(t.Context(), ListOptions{}))(t)
	if len(first) != 1 || first[0].Platform.Architecture != "arm64" {
		t.Fatalf("list: %+v", first)
	}
	must(w.Pull(t.Context(), "multi", PullOptions{}))(t)
	second := must(w.List(t.Context(), ListOptions{}))(t)
	if len(second) != 1 || second[0].Platform.Architecture != "amd64" {
		t.Errorf("the list still shows the platform that was there before: %+v", second)
	}
	trees := must(w.Trees(t.Context(), ListOptions{}))(t)
	if len(trees) != 1 || len(trees[0].Platforms) != 2 || trees[0].Platforms[0].Platform != "linux/amd64" {
		t.Errorf("trees: %+v", trees)
	}
}
