package image

import (
	"cmp"
	"context"
	"encoding/json"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// ListOptions chooses what List returns.
type ListOptions struct {
	// Filters are Docker's for images: dangling, label, label!, before,
	// since, until, reference. See [Filters].
	Filters Filters
}

// Summary is one image in a list, with all its names.
type Summary struct {
	ID digest.Digest

	// RepoTags and RepoDigests are familiar names, sorted: "busybox:latest",
	// "busybox@sha256:…". Both empty means that the image is dangling.
	RepoTags    []string
	RepoDigests []string

	Created  time.Time
	Size     int64 // of the uncompressed layers, in bytes
	Platform ocispec.Platform

	// Targets are the manifests and indexes that the names point at.
	Targets []ocispec.Descriptor

	names  []store.Ref
	labels string // JSON
}

// Labels returns the labels of the image's config.
func (s *Summary) Labels() map[string]string {
	var labels map[string]string
	if s.labels != "" && json.Unmarshal([]byte(s.labels), &labels) != nil {
		return nil
	}
	return labels
}

// Dangling says whether no tag points at the image.
func (s *Summary) Dangling() bool { return len(s.RepoTags) == 0 }

// Row is a line of the table of images: one name of one image. Fields that
// have no value hold "<none>".
type Row struct {
	Repository, Tag string
	Digest          digest.Digest
	*Summary
}

// none stands in tables for what is not there.
const none = "<none>"

// Rows spreads an image over the lines of Docker's table: one for each tag,
// or, with digests, for each pair of tag and digest of a repository; then the
// repositories that only a digest names.
func (s *Summary) Rows(digests bool) []Row {
	var rows []Row
	add := func(repo, tag string, d digest.Digest) {
		rows = append(rows, Row{Repository: repo, Tag: tag, Digest: d, Summary: s})
	}
	known := make(map[string][]digest.Digest)
	for _, name := range s.RepoDigests {
		repo, _, d := splitRef(name)
		known[repo] = append(known[repo], d)
	}
	tagged := make(map[string]bool)
	for _, name := range s.RepoTags {
		repo, tag, _ := splitRef(name)
		tagged[repo] = true
		if !digests || len(known[repo]) == 0 {
			add(repo, tag, none)
			continue
		}
		for _, d := range known[repo] {
			add(repo, tag, d)
		}
	}
	for _, name := range s.RepoDigests {
		repo, _, d := splitRef(name)
		switch {
		case tagged[repo]:
		case digests:
			add(repo, none, d)
		default:
			tagged[repo] = true
			add(repo, none, none)
		}
	}
	if len(rows) == 0 {
		add(none, none, none)
	}
	return rows
}

// List returns the images that have a name, and those that lost it, newest
// first.
func (i *Images) List(ctx context.Context, o ListOptions) ([]Summary, error) {
	records, err := i.records(ctx)
	if err != nil {
		return nil, err
	}
	all := summaries(records)
	keep, err := i.filter(ctx, o.Filters, all)
	if err != nil {
		return nil, err
	}
	out := make([]Summary, 0, len(all))
	for _, s := range all {
		if keep(s) {
			out = append(out, *s)
		}
	}
	return out, nil
}

// summaries gathers records by image id.
func summaries(records []*record) []*Summary {
	byID := make(map[digest.Digest]*Summary, len(records))
	var all []*Summary
	for _, r := range records {
		s := byID[r.ID]
		if s == nil {
			s = &Summary{ID: r.ID, Created: r.Created, Size: r.Size, Platform: r.Platform, labels: r.Labels}
			byID[r.ID] = s
			all = append(all, s)
		}
		s.Targets = append(s.Targets, r.desc)
		s.names = append(s.names, r.refs...)
		for _, ref := range r.refs {
			switch _, tag, d := splitRef(ref.Name); {
			case tag != "":
				s.RepoTags = append(s.RepoTags, Familiar(ref.Name))
			case d != "" && !strings.HasPrefix(ref.Name, dangling):
				s.RepoDigests = append(s.RepoDigests, Familiar(ref.Name))
			}
		}
	}
	for _, s := range all {
		slices.Sort(s.RepoTags)
		slices.Sort(s.RepoDigests)
	}
	slices.SortFunc(all, func(a, b *Summary) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		if c := slices.Compare(a.RepoTags, b.RepoTags); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return all
}

// matchesReference says whether pattern, with * and ? as in file names, fits
// a familiar name in one of the ways that Docker accepts: the whole name, the
// name without its tag, or either of them without docker.io/library/.
func matchesReference(pattern, familiar string) bool {
	named, err := reference.ParseNormalizedNamed(familiar)
	if err != nil {
		return false
	}
	if ok, err := reference.FamiliarMatch(pattern, named); ok && err == nil {
		return true
	}
	for _, spelling := range []string{named.String(), named.Name()} {
		if ok, err := path.Match(pattern, spelling); ok && err == nil {
			return true
		}
	}
	return false
}
