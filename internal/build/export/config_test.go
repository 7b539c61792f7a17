package export

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/ref"
)

var (
	early = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now   = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
)

// config is what a front end hands over for a base with one layer, an ENV, a
// RUN and a CMD.
func config(t *testing.T) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "extra": map[string]string{"kept": "<&>"},
		"config": map[string]any{"Cmd": []string{"x"}},
		"history": []ocispec.History{
			{Created: &early, CreatedBy: "base"},
			{CreatedBy: "ENV", EmptyLayer: true},
			{CreatedBy: "RUN"},
			{CreatedBy: "CMD", EmptyLayer: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func layers() []ref.Layer {
	return []ref.Layer{
		{Digest: digest.FromString("base")},
		{Digest: digest.FromString("run"), Created: built, By: "RUN"},
	}
}

func export(t *testing.T, epoch *time.Time, layers []ref.Layer) (ocispec.Image, []byte) {
	t.Helper()
	base, err := json.Marshal(ocispec.Image{History: []ocispec.History{{Created: &early, CreatedBy: "base"}}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := Config(config(t), base, layers, epoch, now)
	if err != nil {
		t.Fatal(err)
	}
	var img ocispec.Image
	if err := json.Unmarshal(data, &img); err != nil {
		t.Fatal(err)
	}
	return img, data
}

func times(img ocispec.Image) []time.Time {
	var out []time.Time
	for _, h := range img.History {
		out = append(out, *h.Created)
	}
	return append(out, *img.Created)
}

func expect(t *testing.T, got []time.Time, want ...time.Time) {
	t.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		t.Errorf("times are %s, want %s", g, w)
	}
}

func TestHistoryHasTheTimesOfItsLayers(t *testing.T) {
	img, data := export(t, nil, layers())
	expect(t, times(img), early, built, built, built, built)
	if len(img.RootFS.DiffIDs) != 2 {
		t.Errorf("layers are %v", img.RootFS.DiffIDs)
	}
	var fields struct{ Extra map[string]string }
	if err := json.Unmarshal(data, &fields); err != nil || fields.Extra["kept"] != "<&>" {
		t.Errorf("fields that we do not know: %v, error %v", fields, err)
	}
}

func TestTheEpochBoundsAllButTheBase(t *testing.T) {
	epoch := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)
	img, _ := export(t, &epoch, layers())
	expect(t, times(img), early, epoch, epoch, epoch, epoch)
}

func TestALayerWithoutHistoryGetsOne(t *testing.T) {
	img, _ := export(t, nil, append(layers(), ref.Layer{Digest: digest.FromString("more"), Created: now, By: "merge"}))
	if last := img.History[len(img.History)-1]; last.CreatedBy != "merge" || last.EmptyLayer {
		t.Errorf("last entry is %+v", last)
	}
}

func TestHistoryWithoutLayersIsEmpty(t *testing.T) {
	img, _ := export(t, nil, layers()[:1])
	if h := img.History[2]; !h.EmptyLayer {
		t.Errorf("entry without a layer is %+v", h)
	}
}
