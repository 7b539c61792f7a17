package image

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
)

// note is what is known of a compressed layer whose bytes may be gone: which
// layer it holds and which repositories have it. Notes are a cache; they are
// written only for bytes that were verified, and losing them costs time only.
type note struct {
	DiffID    digest.Digest `json:"diffID"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"` // of the compressed blob, in bytes

	// Sources are repositories ("docker.io/library/busybox") that were seen
	// to hold the blob, the latest first.
	Sources []string `json:"sources,omitempty"`

	// Made is the [encoder] of ours that gives these very bytes ("gzip 3");
	// empty if somebody else made them.
	Made string `json:"made,omitempty"`
}

// oldDefault is the level that 0 means in notes that have it: first versions
// wrote down what they were told, not what they did.
const oldDefault = 3

// madeBy reads what a note says of who made a blob. It is false for blobs of
// others.
func (n note) madeBy() (encoder, bool) {
	name, number, _ := strings.Cut(n.Made, " ")
	level, err := strconv.Atoi(number)
	if err != nil {
		return encoder{}, false
	}
	if level == 0 {
		level = oldDefault
	}
	for _, how := range []layer.Compression{layer.Gzip, layer.Zstd} {
		if how.String() == name {
			return encoder{how, level}, true
		}
	}
	return encoder{}, false
}

// Kinds of cache records: notes by the digest of the compressed blob, and the
// digests of the compressed blobs of a layer by its DiffID.
const (
	notesKind = "blob"
	formsKind = "layer-forms"

	maxSources = 8
	maxForms   = 8
)

func (i *Images) note(blob digest.Digest) (note, bool) {
	var n note
	r, err := i.Store.Cache(notesKind).Get(blob.String())
	if err != nil || json.Unmarshal(r.Data, &n) != nil {
		return note{}, false
	}
	return n, true
}

// remember writes down what n says of blob and adds the sources that are
// known already. A note is a cache: an error to write it is no error.
func (i *Images) remember(blob digest.Digest, n note) {
	n.Sources = slices.DeleteFunc(n.Sources, func(s string) bool { return s == "" }) // of a place that others can't look into
	old, known := i.note(blob)
	if known && old.DiffID == n.DiffID {
		for _, s := range old.Sources {
			if len(n.Sources) < maxSources && !slices.Contains(n.Sources, s) {
				n.Sources = append(n.Sources, s)
			}
		}
		if n.Made == "" {
			n.Made = old.Made
		}
	}
	if !known || old.DiffID != n.DiffID || old.Made != n.Made || !slices.Equal(old.Sources, n.Sources) {
		i.putCache(notesKind, blob, n)
	}
	forms := i.forms(n.DiffID)
	if !slices.Contains(forms, blob) {
		forms = append([]digest.Digest{blob}, forms...)
		i.putCache(formsKind, n.DiffID, forms[:min(len(forms), maxForms)])
	}
}

// seen adds a source to a note that is there already.
func (i *Images) seen(blob digest.Digest, source string) {
	if source == "" {
		return
	}
	n, ok := i.note(blob)
	if !ok || len(n.Sources) > 0 && n.Sources[0] == source {
		return
	}
	n.Sources = slices.DeleteFunc(n.Sources, func(s string) bool { return s == source })
	n.Sources = append([]string{source}, n.Sources...)
	n.Sources = n.Sources[:min(len(n.Sources), maxSources)]
	i.putCache(notesKind, blob, n)
}

// forms returns the compressed blobs that are known for a layer, the latest
// first.
func (i *Images) forms(diffID digest.Digest) []digest.Digest {
	var forms []digest.Digest
	r, err := i.Store.Cache(formsKind).Get(diffID.String())
	if err != nil || json.Unmarshal(r.Data, &forms) != nil {
		return nil
	}
	return forms
}

func (i *Images) putCache(kind string, key digest.Digest, v any) {
	if data, err := json.Marshal(v); err == nil {
		_ = i.Store.Cache(kind).Put(key.String(), store.Record{Data: data})
	}
}
