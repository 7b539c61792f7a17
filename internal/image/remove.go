package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// RemoveOptions says how far Remove goes.
type RemoveOptions struct {
	// Force removes an image with several names by its id, and one that a
	// stopped container uses.
	Force bool

	// NoPrune keeps content that nothing refers to any more.
	NoPrune bool

	// Platform removes one image of an index only.
	Platform *ocispec.Platform
}

// Removed is one line of what Remove says: one of its fields is set.
type Removed struct {
	Untagged string `json:",omitempty"` // a familiar name
	Deleted  string `json:",omitempty"` // the digest of an image or a layer
}

// Remove takes a name away from an image and, with the last one, the image.
// An id takes away all names, if they are of one repository or with Force.
//
// The rules are Docker's: a name goes unless it is the last one and a
// container uses the image; an image that a container uses goes only if the
// container is stopped and Force is set. Those are [errdefs.ErrConflict].
func (i *Images) Remove(ctx context.Context, name string, o RemoveOptions) ([]Removed, error) {
	// Two processes that each take one of the last two names away must not
	// both believe that the other is left.
	lock, err := i.lock(ctx, namesLock)
	if err != nil {
		return nil, err
	}
	defer lock.Remove()
	ref, err := i.find(ctx, name)
	if err != nil {
		return nil, err
	}
	records, err := i.records(ctx)
	if err != nil {
		return nil, err
	}
	all := summaries(records)
	at := slices.IndexFunc(all, func(s *Summary) bool { return s.leadsTo(ref.desc.Digest) })
	if at < 0 {
		return nil, noSuchImage(name)
	}
	if o.Platform != nil && !serves(all[at].Platform, *o.Platform) {
		return nil, fmt.Errorf("remove image %s: %w", name, &otherPlatform{all[at].Platform, *o.Platform})
	}
	users, err := i.users(ctx, all[at].ID)
	if err != nil {
		return nil, err
	}
	r := &removal{images: i, image: all[at], users: users, o: o}
	if ref.name != "" {
		err = r.name(ref.name)
	} else {
		err = r.id(name)
	}
	if r.gone {
		err = errors.Join(err, r.collect(ctx))
	}
	return r.lines, err
}

// namesLock is the lock under which names move away from images.
const namesLock = "names"

// leadsTo says whether one of the names of s points at d.
func (s *Summary) leadsTo(d digest.Digest) bool {
	return slices.ContainsFunc(s.Targets, func(t ocispec.Descriptor) bool { return t.Digest == d })
}

func (i *Images) users(ctx context.Context, id digest.Digest) ([]User, error) {
	if i.Users == nil {
		return nil, nil
	}
	users, err := i.Users(ctx)
	if err != nil {
		return nil, err
	}
	users = slices.DeleteFunc(users, func(u User) bool { return u.Image != id })
	slices.SortStableFunc(users, func(a, b User) int { // running ones first
		switch {
		case a.Running == b.Running:
			return strings.Compare(a.Container, b.Container)
		case a.Running:
			return -1
		}
		return 1
	})
	return users, nil
}

// removal is one Remove on its way.
type removal struct {
	images *Images
	image  *Summary
	users  []User
	o      RemoveOptions
	lines  []Removed
	gone   bool // nothing names the image any more
}

// name takes one name away.
func (r *removal) name(name string) error {
	repo, tag, _ := splitRef(name)
	last := r.singleReference()
	if last && len(r.users) > 0 && !r.o.Force {
		return conflict("unable to remove repository reference %q (must force) - container %.12s is using its referenced image %s",
			Familiar(name), r.users[0].Container, short(r.image.ID))
	}
	if err := r.untag(name); err != nil {
		return err
	}
	// With a repository's last tag go the digests that it is known by there.
	if tag != "" && !slices.ContainsFunc(r.image.names, func(ref store.Ref) bool {
		other, t, _ := splitRef(ref.Name)
		return other == repo && t != ""
	}) {
		for _, ref := range slices.Clone(r.image.names) {
			if other, _, _ := splitRef(ref.Name); other == repo {
				if err := r.untag(ref.Name); err != nil {
					return err
				}
			}
		}
	}
	if slices.ContainsFunc(r.image.names, func(ref store.Ref) bool { return !strings.HasPrefix(ref.Name, dangling) }) {
		return nil
	}
	if len(r.users) > 0 && r.users[0].Running {
		return r.keepNameless()
	}
	return r.all()
}

// id takes all names away.
func (r *removal) id(given string) error {
	for _, u := range r.users {
		switch {
		case u.Running:
			return conflict("unable to delete %s (cannot be forced) - image is being used by running container %.12s", short(r.image.ID), u.Container)
		case !r.o.Force:
			return conflict("unable to delete %s (must be forced) - image is being used by stopped container %.12s", short(r.image.ID), u.Container)
		}
	}
	if !r.o.Force && !r.singleReference() {
		return conflict("unable to delete %s (must be forced) - image is referenced in multiple repositories", short(r.image.ID))
	}
	return r.all()
}

// singleReference says whether the image has at most one tag and is known by
// digest in no other repository than the tag's.
func (r *removal) singleReference() bool {
	repository, tags := "", 0
	for _, ref := range r.image.names {
		repo, tag, _ := splitRef(ref.Name)
		if repo == "" {
			continue
		}
		if repository == "" {
			repository = repo
		}
		if tag != "" {
			tags++
		}
		if tags > 1 || repo != repository {
			return false
		}
	}
	return true
}

// untag removes a ref and notes it.
func (r *removal) untag(name string) error {
	if err := r.images.Store.DeleteRef(name); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	r.image.names = slices.DeleteFunc(r.image.names, func(ref store.Ref) bool { return ref.Name == name })
	if !strings.HasPrefix(name, dangling) {
		r.lines = append(r.lines, Removed{Untagged: Familiar(name)})
	}
	return nil
}

// all removes every ref that is left and notes that the image is gone.
func (r *removal) all() error {
	for _, ref := range slices.Clone(r.image.names) {
		if err := r.untag(ref.Name); err != nil {
			return err
		}
	}
	r.gone = true
	return nil
}

// keepNameless keeps an image that a running container uses, without a name.
func (r *removal) keepNameless() error {
	target := r.image.Targets[0]
	return r.images.Store.SetRef(dangling+target.Digest.String(), target)
}

// collect removes the content that only this image referred to and notes what
// went.
func (r *removal) collect(ctx context.Context) error {
	r.lines = append(r.lines, Removed{Deleted: r.image.ID.String()})
	if r.o.NoPrune {
		return nil
	}
	gone, _, err := r.images.discard(ctx, r.image.Targets)
	for _, d := range gone {
		r.lines = append(r.lines, Removed{Deleted: d.String()})
	}
	return err
}

func conflict(format string, args ...any) error {
	return errdefs.ErrConflict.WithMessage("conflict: " + fmt.Sprintf(format, args...))
}
