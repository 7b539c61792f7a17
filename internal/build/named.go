package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// addNamed adds a context of --build-context: a directory, or what the scheme
// of value says. What the front end fetches by itself it gets as it is.
func (c *contexts) addNamed(ctx context.Context, name, value string) error {
	key, err := contextName(name)
	if err != nil {
		return err
	}
	option := "context:" + key
	if stage, ok := strings.CutPrefix(value, "target:"); ok {
		if stage == "" {
			return fmt.Errorf("%s names no stage: %w", value, errdefs.ErrInvalidArgument)
		}
		c.stages[key] = stage
		return nil
	}
	scheme, rest, remote := strings.Cut(value, "://")
	switch {
	case scheme == "oci-layout" && remote:
		c.options[option], err = c.layout(ctx, rest)
		return err
	case strings.HasPrefix(value, "github.com/"): // the front end wants a scheme
		c.options[option] = "https://" + value
		return nil
	case remote || isURL().MatchString(value):
		c.options[option] = value
		return nil
	}
	t, err := c.dir(value)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: no such directory: %w", value, errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	c.trees[key] = t
	c.options[option] = "local:" + key
	return nil
}

// layout adds an image in an OCI layout and returns the name that the front
// end has for it. Which image is meant is decided here and now.
func (c *contexts) layout(ctx context.Context, value string) (string, error) {
	dir, tag, err := splitLayout(value)
	if err != nil {
		return "", err
	}
	place, err := c.images.LayoutImage(dir, tag)
	if err != nil {
		return "", err
	}
	d, err := place.Resolve(ctx)
	if err != nil {
		return "", err
	}
	if place, err = c.images.Layout(dir, d.String()); err != nil {
		return "", err
	}
	id := "layout-" + strconv.Itoa(len(c.layouts))
	c.layouts[id] = place
	return "oci-layout://" + id + "@" + d.String(), nil
}

// splitLayout takes PATH[:TAG][@DIGEST] apart. With a digest the tag means
// nothing.
func splitLayout(value string) (dir, tag string, err error) {
	dir, sum, pinned := strings.Cut(value, "@")
	if at := strings.LastIndexByte(dir, ':'); at > strings.LastIndexByte(dir, '/') {
		dir, tag = dir[:at], dir[at+1:]
	}
	if pinned {
		if _, err := digest.Parse(sum); err != nil {
			return "", "", fmt.Errorf("oci-layout://%s: digest %q: %w", value, sum, errdefs.ErrInvalidArgument)
		}
		tag = sum
	}
	if dir == "" {
		return "", "", fmt.Errorf("oci-layout://%s names no directory: %w", value, errdefs.ErrInvalidArgument)
	}
	return dir, tag, nil
}
