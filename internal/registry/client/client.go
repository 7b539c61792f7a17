// Package client speaks to registries over HTTP. It makes an
// [ociregistry.Interface] of a host name.
//
// What always holds:
//
//   - credentials and tokens go to the origin that they were made for and to
//     token servers paired with it, never through plain http to a host that is
//     neither loopback nor named in [Config.Insecure], never along a redirect;
//   - bytes that do not have the size and digest that were asked for end in an
//     error of class [errdefs.ErrDataLoss], before or at the end of the read;
//   - a request that can be sent again is sent again when the network or the
//     registry stumbles, within a budget of time;
//   - every error is one line and ends in an errdefs class; see [Error].
//
// The protocol is the OCI distribution specification 1.1 and, for tokens,
// https://distribution.github.io/distribution/spec/auth/.
package client

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
)

// Config says how registries are reached. The zero value reaches public
// registries anonymously.
type Config struct {
	// DockerConfigDir is the directory of Docker's config.json, which holds
	// credentials, and of certs.d. Empty means no credentials.
	DockerConfigDir string

	// Insecure lists hosts ("registry.lan", "registry.lan:5000") and networks
	// ("10.0.0.0/8") that may be spoken to over plain http or unverified TLS.
	// Loopback hosts always may.
	Insecure []string

	// Mirrors are asked before the host that is the key, in order, each a
	// host or a URL. They are only read from.
	Mirrors map[string][]string

	// Realms lists, for a registry host, further hosts that may be sent its
	// credentials when it names them as token server, or its uploads.
	Realms map[string][]string

	// Transport carries the requests. If it is nil or an [*http.Transport],
	// each host gets a copy with the TLS settings that it needs; any other is
	// used as it is.
	Transport http.RoundTripper

	// Proxy chooses a proxy for a request; nil means none. It is not looked
	// at when Transport is set.
	Proxy func(*http.Request) (*url.URL, error)

	// UserAgent is sent with every request.
	UserAgent string

	// Waiting, if not nil, is told that a request to host will be tried again
	// in d, and why.
	Waiting func(host string, why error, d time.Duration)
}

// Client reaches any number of registries. It keeps connections, tokens and
// what it learned about hosts; make one for a process.
type Client struct {
	config Config

	mu         sync.Mutex
	registries map[string]ociregistry.Interface
}

// New returns a client. It reads nothing and connects to nothing yet.
func New(c Config) *Client {
	return &Client{config: c, registries: map[string]ociregistry.Interface{}}
}

// Registry returns the registry at host, a name with an optional port.
// "docker.io" means registry-1.docker.io. The host is not contacted yet.
func (c *Client) Registry(host string) (ociregistry.Interface, error) {
	return nil, errdefs.ErrNotImplemented
}

// Credentials is what config.json or a credential helper holds for a host.
// The zero value is nobody.
type Credentials struct {
	Username, Password string

	// IdentityToken is exchanged for access tokens; it stands in place of
	// the password.
	IdentityToken string

	// RegistryToken is sent to the registry as it is.
	RegistryToken string
}

// Login asks host whether it accepts cred. It returns what should be stored,
// or an error of class [errdefs.ErrUnauthenticated].
func (c *Client) Login(ctx context.Context, host string, cred Credentials) (Credentials, error) {
	return Credentials{}, errdefs.ErrNotImplemented
}

// Credentials returns what is stored for host. A credential helper that is
// missing or broken is an error, never a reason to look elsewhere.
func (c *Client) Credentials(ctx context.Context, host string) (Credentials, error) {
	return Credentials{}, errdefs.ErrNotImplemented
}

// Store keeps cred for host where config.json says credentials are kept. It
// returns the name of the file, or of the helper, that holds them now.
func (c *Client) Store(ctx context.Context, host string, cred Credentials) (where string, err error) {
	return "", errdefs.ErrNotImplemented
}

// Erase forgets what is stored for host. It reports whether there was
// something.
func (c *Client) Erase(ctx context.Context, host string) (found bool, err error) {
	return false, errdefs.ErrNotImplemented
}
