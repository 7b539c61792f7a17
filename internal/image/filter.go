package image

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Filters are the --filter options of a command: values by key. Values of one
// key are alternatives, except labels, which must all be there; different
// keys must all agree.
type Filters map[string][]string

// ParseFilters reads "key=value" and "key!=value", which becomes the key
// "key!". Errors are [errdefs.ErrInvalidArgument].
func ParseFilters(args []string) (Filters, error) {
	f := make(Filters)
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, malformed("parse filter %q: want key=value", arg)
		}
		key = strings.ToLower(strings.TrimSpace(key))
		f[key] = append(f[key], strings.TrimSpace(value))
	}
	return f, nil
}

// check refuses keys that are not in known.
func (f Filters) check(known ...string) error {
	for key := range f {
		if !slices.Contains(known, key) {
			return malformed("invalid filter '%s'", key)
		}
	}
	return nil
}

// flag reads a boolean key. ok says whether it is there at all.
func (f Filters) flag(key string) (value, ok bool, err error) {
	values := f[key]
	if len(values) == 0 {
		return false, false, nil
	}
	for _, v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return false, false, malformed("invalid filter '%s=%s': not a boolean", key, v)
		}
		value = b
	}
	return value, true, nil
}

// labels says whether have satisfies the label and label! keys.
func (f Filters) labels(labels func() map[string]string) bool {
	if len(f["label"])+len(f["label!"]) == 0 {
		return true
	}
	have := labels()
	match := func(want string) bool {
		key, value, hasValue := strings.Cut(want, "=")
		got, ok := have[key]
		return ok && (!hasValue || got == value)
	}
	for _, want := range f["label"] {
		if !match(want) {
			return false
		}
	}
	return !slices.ContainsFunc(f["label!"], match)
}

// until returns the latest moment that the until key allows; zero if it is
// absent. A value is a moment (RFC 3339, a date, Unix seconds) or a span
// before now ("24h").
func (f Filters) until(now time.Time) (time.Time, error) {
	switch values := f["until"]; len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
		return parseTime(values[0], now)
	default:
		return time.Time{}, malformed("more than one until filter specified")
	}
}

// timeLayouts are the forms that Docker documents for until.
var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04:05.999999999",
	"2006-01-02T15:04", "2006-01-02Z07:00", "2006-01-02",
}

func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		return time.UnixMicro(int64(sec * 1e6)), nil
	}
	return time.Time{}, malformed("parse time %q: want a duration, an RFC 3339 time or Unix seconds", s)
}

// filter returns the predicate that f is for a list of images.
func (i *Images) filter(ctx context.Context, f Filters, all []*Summary) (func(*Summary) bool, error) {
	if err := f.check("dangling", "label", "label!", "before", "since", "until", "reference"); err != nil {
		return nil, err
	}
	danglingOnly, hasDangling, err := f.flag("dangling")
	if err != nil {
		return nil, err
	}
	until, err := f.until(i.Now())
	if err != nil {
		return nil, err
	}
	before, err := i.createdBounds(ctx, f["before"], all)
	if err != nil {
		return nil, err
	}
	since, err := i.createdBounds(ctx, f["since"], all)
	if err != nil {
		return nil, err
	}
	return func(s *Summary) bool {
		if hasDangling && s.Dangling() != danglingOnly || !f.labels(s.Labels) {
			return false
		}
		if !until.IsZero() && s.Created.After(until) {
			return false
		}
		for _, t := range before {
			if !s.Created.Before(t) {
				return false
			}
		}
		for _, t := range since {
			if !s.Created.After(t) {
				return false
			}
		}
		return f.references(s)
	}, nil
}

// references applies the reference key: the image stays if one of its names
// matches one of the patterns, and keeps only the names that do.
func (f Filters) references(s *Summary) bool {
	patterns := f["reference"]
	if len(patterns) == 0 {
		return true
	}
	miss := func(name string) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool { return matchesReference(p, name) })
	}
	s.RepoTags = slices.DeleteFunc(s.RepoTags, miss)
	s.RepoDigests = slices.DeleteFunc(s.RepoDigests, miss)
	return len(s.RepoTags)+len(s.RepoDigests) > 0
}

// createdBounds returns when the named images were created.
func (i *Images) createdBounds(ctx context.Context, names []string, all []*Summary) ([]time.Time, error) {
	var bounds []time.Time
	for _, name := range names {
		img, err := i.Get(ctx, name, nil)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(all, func(s *Summary) bool { return s.ID == img.ConfigDigest })
		if at < 0 {
			return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("no such image: %s", name))
		}
		bounds = append(bounds, all[at].Created)
	}
	return bounds, nil
}
