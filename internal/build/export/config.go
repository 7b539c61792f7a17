// Package export turns the result of a build into what the user asked for:
// the config of an image, a directory, a tar.
package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/ref"
)

// DiffIDs are the digests of layers.
func DiffIDs(layers []ref.Layer) []digest.Digest {
	ids := make([]digest.Digest, len(layers))
	for i, l := range layers {
		ids[i] = l.Digest
	}
	return ids
}

// Config completes the config that the front end has made: it knows the
// commands, we know the layers and the times. base is the config of the base
// image, nil for scratch. No time is later than epoch unless it is nil; now
// is the time of an image that has no other. The rules are those of
// BuildKit's exporter/containerimage/writer.go.
func Config(config, base []byte, layers []ref.Layer, epoch *time.Time, now time.Time) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	var known ocispec.Image
	err := json.Unmarshal(config, &fields)
	if err == nil {
		err = json.Unmarshal(config, &known)
	}
	if err != nil {
		return nil, fmt.Errorf("read config of the front end: %w", err)
	}
	if known.OS == "" || known.Architecture == "" {
		return nil, fmt.Errorf("read config of the front end: it has no platform: %w", errdefs.ErrInvalidArgument)
	}
	history := complete(known.History, layers, now)
	if epoch != nil {
		clamp(history, baseHistory(base), *epoch)
	}
	for name, value := range map[string]any{
		"rootfs":  ocispec.RootFS{Type: "layers", DiffIDs: DiffIDs(layers)},
		"history": history,
		"created": created(known.Created, history, epoch, now),
	} {
		data, err := Marshal(value)
		if err != nil {
			return nil, err
		}
		fields[name] = data
	}
	return Marshal(fields)
}

// created is when the image was made: as the config says, else when the last
// entry of the history was.
func created(said *time.Time, history []ocispec.History, epoch *time.Time, now time.Time) time.Time {
	at := now
	for _, h := range history {
		if h.Created != nil {
			at = *h.Created
		}
	}
	if said != nil {
		at = *said
	}
	if epoch != nil && at.After(*epoch) {
		at = *epoch
	}
	return at
}

// Marshal is json.Marshal that leaves <, > and & alone, which commands are
// full of.
func Marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// complete gives every layer a history entry and every entry a time.
func complete(history []ocispec.History, layers []ref.Layer, now time.Time) []ocispec.History {
	history = slices.Clone(history)
	entries := 0
	for i, h := range history {
		if h.EmptyLayer {
			continue
		}
		if entries >= len(layers) {
			history[i].EmptyLayer = true // an image whose config says more than it has
			continue
		}
		if h.Created == nil {
			history[i].Created = timeOf(layers[entries])
		}
		entries++
	}
	for _, l := range layers[entries:] {
		history = append(history, ocispec.History{Created: timeOf(l), CreatedBy: l.By, Comment: "buildkit.exporter.image.v0"})
	}
	fillTimes(history, now)
	return history
}

func timeOf(l ref.Layer) *time.Time {
	if l.Created.IsZero() {
		return nil
	}
	t := l.Created
	return &t
}

// fillTimes gives entries without a time that of the first new layer, and
// later ones that of the layer before them.
func fillTimes(history []ocispec.History, now time.Time) {
	at, missing := &now, false
	for _, h := range history {
		if h.Created == nil {
			missing = true
			continue
		}
		at = h.Created
		if missing {
			break
		}
	}
	missing = false
	for i, h := range history {
		switch {
		case h.Created == nil:
			missing = true
			history[i].Created = at
		case missing:
			at = h.Created
		}
	}
}

// clamp sets the times of entries that the base image doesn't have to at
// most epoch.
func clamp(history, base []ocispec.History, epoch time.Time) {
	diverged := false
	for i, h := range history {
		if !diverged && i < len(base) && reflect.DeepEqual(h, base[i]) {
			continue
		}
		diverged = true
		if h.Created == nil || h.Created.After(epoch) {
			history[i].Created = &epoch
		}
	}
}

func baseHistory(base []byte) []ocispec.History {
	var config ocispec.Image
	if len(base) == 0 || json.Unmarshal(base, &config) != nil {
		return nil
	}
	return config.History
}
