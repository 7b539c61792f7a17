package container

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/network"
)

// Where resolv.conf of a machine with systemd-resolved points at the servers
// themselves; its /etc/resolv.conf names a loopback address, which is
// another machine's inside a network namespace.
const (
	hostResolv     = "/etc/resolv.conf"
	resolvedResolv = "/run/systemd/resolve/resolv.conf"
)

// publicDNS is what is left if the host names no server that a container
// could reach. They are Docker's.
var publicDNS = []string{"8.8.8.8", "8.8.4.4"}

// writeFiles writes hosts, hostname and resolv.conf for the container, which
// is connected through a or not at all, and returns their mounts. They lie beside the root file
// system and are mounted on it; what the image has there is not opened.
func (r *record) writeFiles(a *network.Attachment) ([]specs.Mount, error) {
	if a == nil {
		a = &network.Attachment{}
	}
	n := &r.config.Network
	resolv, err := resolvConf(n, a.DNS)
	if err != nil {
		return nil, err
	}
	var mounts []specs.Mount
	for _, f := range []struct{ name, content string }{
		{"hostname", n.Hostname + "\n"},
		{"hosts", hosts(n, a.IP, a.Host)},
		{"resolv.conf", resolv},
	} {
		target := "/etc/" + f.name
		if r.mounted(target) {
			continue
		}
		if err := os.WriteFile(r.path(f.name), []byte(f.content), 0o644); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.name, err)
		}
		// umask
		if err := os.Chmod(r.path(f.name), 0o644); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.name, err)
		}
		options := []string{"bind", "rprivate"}
		if r.config.Security.ReadOnly {
			options = append(options, "ro")
		}
		mounts = append(mounts, specs.Mount{Destination: target, Type: "bind", Source: r.path(f.name), Options: options})
	}
	return mounts, nil
}

// mounted tells whether the person mounts something at target.
func (r *record) mounted(target string) bool {
	for _, m := range r.config.Mounts {
		if m.Target == target {
			return true
		}
	}
	return false
}

// hosts names the container, which has address ip, and the machine below it,
// which is at host.
func hosts(n *Network, ip netip.Prefix, host netip.Addr) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	for _, h := range n.ExtraHosts {
		i := strings.IndexAny(h, ":=")
		name, address := h[:i], h[i+1:]
		if address == "host-gateway" && host.IsValid() {
			address = host.String()
		}
		fmt.Fprintf(&b, "%s\t%s\n", strings.Trim(address, "[]"), name)
	}
	if ip.IsValid() {
		name := n.Hostname
		if n.Domainname != "" {
			name = n.Hostname + "." + n.Domainname + " " + n.Hostname
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip.Addr(), name)
	}
	return b.String()
}

// resolvConf is the host's, with what n changes. The server instead, if any,
// stands for the host's.
func resolvConf(n *Network, instead netip.Addr) (string, error) {
	servers, search, options, err := hostDNS(n.Mode == "host")
	if err != nil {
		return "", err
	}
	switch {
	case len(n.DNS) > 0:
		servers = n.DNS
	case instead.IsValid():
		servers = []string{instead.String()}
	case len(servers) == 0 && n.Mode != "host":
		servers = publicDNS
	}
	if len(n.DNSSearch) > 0 {
		search = n.DNSSearch
		if len(search) == 1 && search[0] == "." {
			search = nil
		}
	}
	if len(n.DNSOptions) > 0 {
		options = n.DNSOptions
	}
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String(), nil
}

// hostDNS reads resolv.conf(5) of the host. Loopback servers count only for
// who shares its network.
func hostDNS(loopback bool) (servers, search, options []string, err error) {
	data, err := os.ReadFile(hostResolv)
	if err == nil && !loopback && strings.Contains(string(data), "127.0.0.53") {
		if real, rerr := os.ReadFile(resolvedResolv); rerr == nil {
			data = real
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, fmt.Errorf("read DNS servers: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			ip, err := netip.ParseAddr(fields[1])
			if err == nil && (loopback || !ip.IsLoopback()) {
				servers = append(servers, fields[1])
			}
		case "search", "domain":
			search = fields[1:]
		case "options":
			options = fields[1:]
		}
	}
	return servers, search, options, nil
}
