package cache

import (
	"context"
	"crypto/sha256"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/ref"
)

// Ingredient is an input of a step as a recipe has it: a source, by what it
// is, or another step, by its recipe.
type Ingredient struct {
	Source *ref.Ref
	Recipe string
	Output int // of the other step
}

// Recipes tells whether anybody wants to know recipes: they are for caches of
// others alone.
func (c *Cache) Recipes() bool { return c.Collect || c.Imports() }

// Imports tells whether there are caches of others to look into.
func (c *Cache) Imports() bool { return len(c.sources) > 0 }

// Recipe is the key of a step by how its inputs are made, down to the sources
// and what can be seen of them. Unlike the keys of records it is known before
// any step has run, and unlike them it takes a step's word for what the next one
// gets: it finds results of others, never a record of this store.
func (c *Cache) Recipe(ctx context.Context, step []byte, in []Ingredient, sees func(int) *View) (string, error) {
	h := sha256.New()
	field(h, []byte(version+".recipe"))
	field(h, step)
	for i, ingredient := range in {
		r := ingredient.Source
		switch {
		case r == nil:
			field(h, []byte("step"))
			field(h, []byte(ingredient.Recipe))
			field(h, []byte(strconv.Itoa(ingredient.Output)))
		case r.Direct():
			view := sees(i)
			if view == nil {
				view = &whole
			}
			d, err := c.content(ctx, r, view, nil)
			if err != nil {
				return "", err
			}
			field(h, []byte("content"))
			field(h, []byte(d))
		default:
			field(h, []byte("layers"))
			for _, l := range r.Known() {
				field(h, []byte(l.Digest))
			}
		}
	}
	return digest.NewDigest(digest.SHA256, h).Encoded(), nil
}

// ByRecipe returns what a cache of others has for a recipe, or nil, and the
// entry that says so: its inputs are not known.
func (c *Cache) ByRecipe(ctx context.Context, recipe string) ([]*ref.Ref, *Entry, error) {
	e := &Entry{cache: c, Recipe: recipe, bare: true}
	refs, err := c.imported(ctx, e)
	return refs, e, err
}

// Taken notes that refs are taken for what the step of e yields.
func (c *Cache) Taken(e *Entry, refs []*ref.Ref) { c.note(e, refs) }

// keys are those under which others may find e.
func (e *Entry) keys(ctx context.Context) ([]string, error) {
	var keys []string
	if !e.bare {
		quick, err := e.quickKey(ctx)
		if err != nil {
			return nil, err
		}
		content, err := e.contentKey(ctx)
		if err != nil {
			return nil, err
		}
		if keys = append(keys, quick); content != quick {
			keys = append(keys, content)
		}
	}
	if e.Recipe != "" {
		keys = append(keys, e.Recipe)
	}
	if len(keys) == 0 {
		return nil, errdefs.ErrInternal.WithMessage("a step without a key")
	}
	return keys, nil
}
