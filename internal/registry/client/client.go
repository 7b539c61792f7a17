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
	"net/http"
	"net/url"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
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
	clock  clock
	hosts  *hosts            // each request to its host
	retry  *retry            // the same, with patience
	probe  http.RoundTripper // the same, without

	mu         sync.Mutex
	registries map[string]ociregistry.Interface
}

// New returns a client. It reads nothing and connects to nothing yet.
func New(config Config) *Client {
	return newClient(config, systemClock(), limits{
		stall:  30 * time.Second,
		commit: 5 * time.Minute,
		budget: 70 * time.Second,
	})
}

func newClient(config Config, clock clock, limits limits) *Client {
	c := &Client{config: config, clock: clock, registries: map[string]ociregistry.Interface{}}
	c.hosts = &hosts{
		config: &c.config, insecure: parseInsecure(config.Insecure), limits: limits,
		transports: map[string]http.RoundTripper{},
	}
	c.retry = &retry{
		next: c.hosts, clock: clock, budget: limits.budget, waiting: config.Waiting,
		last: map[string]time.Time{},
	}
	c.probe = c.hosts
	return c
}

// Registry returns the registry called host, a name with an optional port.
// "docker.io" means registry-1.docker.io. The host is not contacted yet.
func (c *Client) Registry(host string) (ociregistry.Interface, error) {
	at, err := canonicalHost(host)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.registries[at]; r != nil {
		return r, nil
	}
	if at == hubOrigin {
		host = dockerHub
	}
	own, err := c.newRegistry(host, at)
	if err != nil {
		return nil, err
	}
	r := ociregistry.Interface(own)
	if mirrors := c.config.Mirrors[host]; len(mirrors) > 0 {
		if r, err = c.mirrored(own, mirrors); err != nil {
			return nil, err
		}
	}
	c.registries[at] = r
	return r, nil
}
