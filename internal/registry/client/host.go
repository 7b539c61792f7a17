package client

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/net/publicsuffix"
)

// dockerHub is the name that people and references use; hubOrigin is where
// its API lives.
const (
	dockerHub = "docker.io"
	hubOrigin = "registry-1.docker.io"
)

// origin is what credentials are bound to: a scheme, a host and a port.
type origin struct {
	scheme, host string // host as in a URL, without the default port
}

func originOf(u *url.URL) origin {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if scheme == "https" {
		host = strings.TrimSuffix(host, ":443")
	} else if scheme == "http" {
		host = strings.TrimSuffix(host, ":80")
	}
	return origin{scheme, host}
}

func (o origin) String() string { return o.scheme + "://" + o.host }

// canonicalHost returns the host to connect to for a registry called name.
func canonicalHost(name string) (string, error) {
	host := strings.ToLower(name)
	switch host {
	case dockerHub, "index.docker.io":
		return hubOrigin, nil
	}
	u, err := url.Parse("https://" + host + "/")
	if err != nil || host == "" || u.Host != host || u.Hostname() == "" || strings.ContainsAny(host, " \t@\\") {
		return "", fmt.Errorf("use registry %q: not a host name with an optional port: %w", name, errdefs.ErrInvalidArgument)
	}
	return host, nil
}

// hostname returns host without its port, and without the brackets of an IPv6
// address.
func hostname(host string) string {
	return (&url.URL{Host: host}).Hostname()
}

// isLoopback reports whether host names this machine and no other.
func isLoopback(host string) bool {
	name := strings.TrimSuffix(hostname(host), ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true // RFC 6761, section 6.3
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// isLocal reports whether host is this machine or an address that every
// machine has for itself, such as that of a cloud's metadata service: nothing
// that a stranger may point the client to.
func isLocal(host string) bool {
	addr, err := netip.ParseAddr(hostname(host))
	if err != nil {
		return isLoopback(host)
	}
	addr = addr.Unmap()
	return addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified()
}

// insecureHosts is what [Config.Insecure] says, parsed.
type insecureHosts struct {
	hosts []string
	nets  []netip.Prefix
}

func parseInsecure(list []string) insecureHosts {
	var in insecureHosts
	for _, s := range list {
		s = strings.ToLower(strings.TrimSpace(s))
		s = strings.TrimPrefix(strings.TrimPrefix(s, "http://"), "https://")
		s = strings.TrimSuffix(s, "/")
		if p, err := netip.ParsePrefix(s); err == nil {
			in.nets = append(in.nets, p.Masked())
		} else if s != "" {
			in.hosts = append(in.hosts, s)
		}
	}
	return in
}

// allows reports whether host may be spoken to in the clear. A name without a
// port in the list stands for every port. Names are not resolved: an answer of
// the DNS must not be what turns encryption off.
func (in insecureHosts) allows(host string) bool {
	host = strings.ToLower(host)
	if isLoopback(host) || slices.Contains(in.hosts, host) || slices.Contains(in.hosts, hostname(host)) {
		return true
	}
	addr, err := netip.ParseAddr(hostname(host))
	if err != nil {
		return false
	}
	addr = addr.Unmap()
	return slices.ContainsFunc(in.nets, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// relatives are token servers and upload hosts outside a registry's own
// registrable domain, as the operators of these registries document them.
// A leading dot stands for all subdomains.
func relatives(host string) []string {
	switch {
	case strings.HasSuffix(host, ".scw.cloud"):
		return []string{"api.scaleway.com"}
	case host == "nvcr.io":
		return []string{"authn.nvidia.com"}
	}
	return nil
}

// paired reports whether target may be sent what belongs to registry: its
// credentials when target is its token server, the content of an upload.
//
// It may if it is the same origin, if both are https and share a registrable
// domain (registry-1.docker.io and auth.docker.io, registry.gitlab.com and
// gitlab.com), or if a table says so. Addresses and single-label names have no
// registrable domain: there only the same origin will do.
func (c *Client) paired(registry, target origin) bool {
	if registry == target {
		return true
	}
	if registry.scheme == "https" && target.scheme != "https" {
		return false
	}
	list := slices.Concat(c.config.Realms[registry.host], relatives(registry.host))
	if registry.host == hubOrigin {
		list = append(list, c.config.Realms[dockerHub]...)
	}
	if slices.Contains(list, target.host) {
		return true
	}
	if registry.scheme != "https" || net.ParseIP(hostname(target.host)) != nil || net.ParseIP(hostname(registry.host)) != nil {
		return false
	}
	if portOf(target.host) != "" && portOf(target.host) != portOf(registry.host) {
		return false
	}
	a, errA := publicsuffix.EffectiveTLDPlusOne(hostname(registry.host))
	b, errB := publicsuffix.EffectiveTLDPlusOne(hostname(target.host))
	return errA == nil && errB == nil && a == b
}

func portOf(host string) string { return (&url.URL{Host: host}).Port() }
