package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// record is what a list needs to know of one image, derived from its
// manifest and config. All records of a store lie in one cache entry: reading
// it is one file for five hundred images.
type record struct {
	ID       digest.Digest
	Created  time.Time
	Size     int64
	Platform ocispec.Platform

	// Labels are the config's, as JSON: few lists look at them.
	Labels string

	// Children says how many images of an index were in the store when the
	// record was made. If there are more or fewer now, it is made again.
	Children int

	desc ocispec.Descriptor // what the refs point at
	refs []store.Ref        // all that point at desc
}

// The kind and the only key of the cache that holds the records.
const (
	recordsKind = "summary"
	recordsKey  = "images"
)

// records returns one record for each thing that a ref points at. A ref whose
// image can't be read (another process is removing it, or the store is
// damaged) is left out: `shale fsck` speaks of those.
func (i *Images) records(ctx context.Context) ([]*record, error) {
	refs, err := i.Store.Refs(ctx)
	if err != nil {
		return nil, err
	}
	cached := i.cachedRecords()
	fresh := false
	byTarget := make(map[digest.Digest]*record, len(refs))
	for _, ref := range refs {
		r := byTarget[ref.Descriptor.Digest]
		if r == nil {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if r = cached[ref.Descriptor.Digest]; r == nil || !i.current(r, ref.Descriptor) {
				if r, err = i.makeRecord(ref.Descriptor); err != nil {
					continue
				}
				fresh = true
			}
			r.desc = ref.Descriptor
			byTarget[ref.Descriptor.Digest] = r
		}
		r.refs = append(r.refs, ref)
	}
	if fresh {
		i.cacheRecords(byTarget)
	}
	list := slices.Collect(maps.Values(byTarget))
	slices.SortFunc(list, func(a, b *record) int { return cmp.Compare(a.desc.Digest, b.desc.Digest) })
	return list, nil
}

func (i *Images) cachedRecords() map[digest.Digest]*record {
	entry, err := i.Store.Cache(recordsKind).Get(recordsKey)
	if err != nil {
		return nil // derived: whatever is wrong with it, it is made again
	}
	cached := make(map[digest.Digest]*record)
	for line := range strings.Lines(string(entry.Data)) {
		if target, r, ok := parseRecord(strings.TrimSuffix(line, "\n")); ok {
			cached[target] = r
		}
	}
	return cached
}

// cacheRecords writes the records down. Two processes may do so at once; the
// loser's images are looked at again by the next list.
func (i *Images) cacheRecords(byTarget map[digest.Digest]*record) {
	var data []byte
	for target, r := range byTarget {
		data = r.append(data, target)
	}
	_ = i.Store.Cache(recordsKind).Put(recordsKey, store.Record{Data: data})
}

// append writes a record as a line of fields with tabs between them, which is
// read ten times as fast as JSON.
func (r *record) append(b []byte, target digest.Digest) []byte {
	var created string
	if !r.Created.IsZero() {
		created = r.Created.Format(time.RFC3339Nano)
	}
	p := r.Platform
	for _, field := range []string{
		target.String(), r.ID.String(), created, strconv.FormatInt(r.Size, 10), strconv.Itoa(r.Children),
		p.OS, p.Architecture, p.Variant, p.OSVersion,
	} {
		b = append(append(b, strings.Map(fieldRune, field)...), '\t')
	}
	return append(append(b, r.Labels...), '\n') // JSON has no raw tab or newline
}

// fieldRune keeps what a config says from breaking the lines.
func fieldRune(r rune) rune {
	if r < ' ' {
		return '?'
	}
	return r
}

func parseRecord(line string) (target digest.Digest, r *record, ok bool) {
	f := strings.SplitN(line, "\t", 10)
	if len(f) != 10 {
		return "", nil, false
	}
	r = &record{ID: digest.Digest(f[1]), Labels: f[9]}
	r.Platform = ocispec.Platform{OS: f[5], Architecture: f[6], Variant: f[7], OSVersion: f[8]}
	var err, err2, err3 error
	if f[2] != "" {
		r.Created, err = time.Parse(time.RFC3339Nano, f[2])
	}
	r.Size, err2 = strconv.ParseInt(f[3], 10, 64)
	r.Children, err3 = strconv.Atoi(f[4])
	return digest.Digest(f[0]), r, errors.Join(err, err2, err3) == nil
}

// current says whether the record still tells the truth: what an index leads
// to changes when another platform of it is pulled or removed.
func (i *Images) current(r *record, desc ocispec.Descriptor) bool {
	if r.Children == 0 {
		return true
	}
	doc, err := i.document(desc)
	return err == nil && doc.index != nil && len(i.present(doc.index, i.Platform, true)) == r.Children
}

func (i *Images) makeRecord(desc ocispec.Descriptor) (*record, error) {
	img, err := i.open(desc, nil)
	if err != nil {
		return nil, err
	}
	r := &record{
		ID:       img.ConfigDigest,
		Platform: img.Config.Platform,
		Size:     i.size(img.DiffIDs),
	}
	if labels := img.Config.Config.Labels; len(labels) > 0 {
		if data, err := json.Marshal(labels); err == nil {
			r.Labels = string(data)
		}
	}
	if img.Config.Created != nil {
		r.Created = img.Config.Created.UTC()
	}
	if img.Manifest.Digest != desc.Digest {
		doc, err := i.document(desc)
		if err != nil || doc.index == nil {
			return nil, errdefs.ErrNotFound
		}
		r.Children = len(i.present(doc.index, i.Platform, true))
	}
	return r, nil
}

// size sums the uncompressed layers, in bytes. A layer that appears twice
// counts twice, as it does in Docker.
func (i *Images) size(layers []digest.Digest) int64 {
	var sum int64
	for _, d := range layers {
		if n, err := i.Store.Stat(d); err == nil {
			sum += n
		}
	}
	return sum
}
