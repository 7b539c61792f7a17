package store

import (
	"cuelabs.dev/go/oci/ociregistry"
)

// Registry is the repositories "<prefix>/<repo>" of s as a registry.
func (s *Store) Registry(prefix string) ociregistry.Interface { return (*ociregistry.Funcs)(nil) }
