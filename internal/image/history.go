package image

import (
	"context"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// HistoryEntry is one step of how an image was made.
type HistoryEntry struct {
	ID        string // the image's for the last step, "<missing>" for the others
	Created   time.Time
	CreatedBy string
	Size      int64 // of the step's layer, in bytes; 0 if it made none
	Comment   string
	Tags      []string
}

// missing is what Docker shows for steps that are no images.
const missing = "<missing>"

// History tells how an image was made, the last step first. Layers that the
// config's history does not account for come as steps that say nothing.
func (i *Images) History(ctx context.Context, name string, platform *ocispec.Platform) ([]HistoryEntry, error) {
	img, err := i.Get(ctx, name, platform)
	if err != nil {
		return nil, err
	}
	var entries []HistoryEntry
	layers := img.DiffIDs
	for _, h := range img.Config.History {
		e := HistoryEntry{ID: missing, CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			e.Created = *h.Created
		}
		if !h.EmptyLayer && len(layers) > 0 {
			e.Size = i.size(layers[:1])
			layers = layers[1:]
		}
		entries = append(entries, e)
	}
	for range layers {
		entries = append(entries, HistoryEntry{ID: missing, Size: i.size(layers[:1])})
		layers = layers[1:]
	}
	slices.Reverse(entries)
	if len(entries) > 0 {
		entries[0].ID = img.ConfigDigest.String()
		if s, err := i.summary(ctx, img.ConfigDigest); err != nil {
			return nil, err
		} else if s != nil {
			entries[0].Tags = s.RepoTags
		}
	}
	return entries, nil
}
