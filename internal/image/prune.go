package image

import (
	"context"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PruneOptions says what Prune removes.
type PruneOptions struct {
	// All includes images that have a name but no container.
	All bool

	// Filters are until, label, label!, dangling.
	Filters Filters
}

// Pruned is what Prune removed.
type Pruned struct {
	Removed   []Removed
	Reclaimed int64 // bytes
}

// Prune removes images that no container uses: those without a tag, or all.
func (i *Images) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	var out Pruned
	if err := o.Filters.check("dangling", "label", "label!", "until"); err != nil {
		return out, err
	}
	only, set, err := o.Filters.flag("dangling")
	if err != nil {
		return out, err
	}
	all := o.All || set && !only
	until, err := o.Filters.until(i.Now())
	if err != nil {
		return out, err
	}
	lock, err := i.lock(ctx, namesLock)
	if err != nil {
		return out, err
	}
	defer lock.Remove()
	records, err := i.records(ctx)
	if err != nil {
		return out, err
	}
	var users []User
	if i.Users != nil {
		if users, err = i.Users(ctx); err != nil {
			return out, err
		}
	}
	var targets []ocispec.Descriptor
	for _, s := range summaries(records) {
		used := slices.ContainsFunc(users, func(u User) bool { return u.Image == s.ID })
		if used || !all && !s.Dangling() || !o.Filters.labels(s.Labels) || !until.IsZero() && s.Created.After(until) {
			continue
		}
		r := &removal{images: i, image: s}
		err := r.all()
		out.Removed = append(out.Removed, r.lines...)
		if err != nil {
			return out, err
		}
		out.Removed = append(out.Removed, Removed{Deleted: s.ID.String()})
		targets = append(targets, s.Targets...)
	}
	if len(targets) == 0 {
		return out, nil
	}
	gone, bytes, err := i.discard(ctx, targets)
	for _, d := range gone {
		out.Removed = append(out.Removed, Removed{Deleted: d.String()})
	}
	out.Reclaimed = bytes
	return out, err
}
