package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
)

// mirrored is a registry that is read from its mirrors first. A mirror that
// fails, or has not got something, is passed over; what is wrong about it is
// never the user's error. It gets its own credentials, not the registry's.
type mirrored struct {
	ociregistry.Interface
	mirrors []mirror
}

type mirror struct {
	ociregistry.Interface
	prefix string // of repositories: the path of the mirror's URL
}

func (c *Client) mirrored(own *registry, names []string) (ociregistry.Interface, error) {
	m := &mirrored{Interface: own}
	for _, name := range names {
		address := name
		if !strings.Contains(address, "://") {
			address = "https://" + address
		}
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.User != nil {
			return nil, fmt.Errorf("use mirror %q of %s: not a host or URL: %w", name, own.name, errdefs.ErrInvalidArgument)
		}
		if u.Scheme == "http" && !c.hosts.insecure.allows(u.Host) {
			return nil, fmt.Errorf("use mirror %q of %s: plain http is for loopback and insecure registries: %w", name, own.name, errdefs.ErrInvalidArgument)
		}
		r, err := c.newRegistry(u.Host, strings.ToLower(u.Host))
		if err != nil {
			return nil, err
		}
		prefix := strings.Trim(u.Path, "/")
		if prefix != "" {
			prefix += "/"
		}
		m.mirrors = append(m.mirrors, mirror{r, prefix})
	}
	return m, nil
}

// first returns the first answer of a mirror, or the registry's own.
func first[T any](ctx context.Context, m *mirrored, repo string, get func(r ociregistry.Interface, repo string) (T, error)) (T, error) {
	for _, mirror := range m.mirrors {
		v, err := get(mirror.Interface, mirror.prefix+repo)
		if err == nil {
			return v, nil
		}
		if errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return v, err
		}
	}
	return get(m.Interface, repo)
}

func (m *mirrored) GetBlob(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.BlobReader, error) {
	return first(ctx, m, repo, func(r ociregistry.Interface, repo string) (ociregistry.BlobReader, error) {
		return r.GetBlob(ctx, repo, d)
	})
}

func (m *mirrored) GetBlobRange(ctx context.Context, repo string, d ociregistry.Digest, o0, o1 int64) (ociregistry.BlobReader, error) {
	return first(ctx, m, repo, func(r ociregistry.Interface, repo string) (ociregistry.BlobReader, error) {
		return r.GetBlobRange(ctx, repo, d, o0, o1)
	})
}

func (m *mirrored) GetManifest(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.BlobReader, error) {
	return first(ctx, m, repo, func(r ociregistry.Interface, repo string) (ociregistry.BlobReader, error) {
		return r.GetManifest(ctx, repo, d)
	})
}

func (m *mirrored) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	return first(ctx, m, repo, func(r ociregistry.Interface, repo string) (ociregistry.BlobReader, error) {
		return r.GetTag(ctx, repo, tag)
	})
}

func (m *mirrored) ResolveBlob(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.Descriptor, error) {
	return first(ctx, m, repo, func(r ociregistry.Interface, repo string) (ociregistry.Descriptor, error) {
		return r.ResolveBlob(ctx, repo, d)
	})
}

func (m *mirrored) ResolveManifest(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.Descriptor, error) {
	return first(ctx, m, repo, func(r ociregistry.Interface, repo string) (ociregistry.Descriptor, error) {
		return r.ResolveManifest(ctx, repo, d)
	})
}

func (m *mirrored) ResolveTag(ctx context.Context, repo, tag string) (ociregistry.Descriptor, error) {
	return first(ctx, m, repo, func(r ociregistry.Interface, repo string) (ociregistry.Descriptor, error) {
		return r.ResolveTag(ctx, repo, tag)
	})
}
