package network

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Port is a port of a container that the host publishes.
type Port struct {
	// HostIP is the address of the host that answers. The zero value means
	// all, IPv4 and IPv6.
	HostIP netip.Addr `json:",omitzero"`

	// HostPort of 0 means one that is free.
	HostPort uint16

	ContainerPort uint16

	// Protocol is "tcp" or "udp".
	Protocol string
}

func (p Port) String() string {
	host := "0.0.0.0"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("%s -> %d/%s", netAddress(host, p.HostPort), p.ContainerPort, p.Protocol)
}

func netAddress(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(port))
}

// ParsePort reads the value of Docker's --publish,
// [[IP:][HOSTPORT[-LAST]]:]PORT[-LAST][/PROTOCOL], and returns a Port for each
// port of a range. What does not parse ends in [errdefs.ErrInvalidArgument].
func ParsePort(spec string) ([]Port, error) {
	ports, err := parsePort(spec)
	if err != nil {
		return nil, fmt.Errorf("parse published port %q: %w: %w", spec, err, errdefs.ErrInvalidArgument)
	}
	return ports, nil
}

func parsePort(spec string) ([]Port, error) {
	rest, protocol, found := strings.Cut(spec, "/")
	if !found {
		protocol = "tcp"
	}
	if protocol = strings.ToLower(protocol); protocol != "tcp" && protocol != "udp" {
		return nil, fmt.Errorf("protocol %q is neither tcp nor udp", protocol)
	}
	hostIP, host, container, err := splitPort(rest)
	if err != nil {
		return nil, err
	}
	first, last, err := portRange(container)
	if err != nil {
		return nil, err
	}
	hostFirst, hostLast := uint16(0), uint16(0)
	if host != "" {
		if hostFirst, hostLast, err = portRange(host); err != nil {
			return nil, err
		}
		if hostLast-hostFirst != last-first {
			return nil, fmt.Errorf("ranges %s and %s have different lengths", host, container)
		}
	}
	var ports []Port
	for i := range int(last-first) + 1 {
		p := Port{HostIP: hostIP, ContainerPort: first + uint16(i), Protocol: protocol}
		if host != "" {
			p.HostPort = hostFirst + uint16(i)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// splitPort takes "ip:host:container" apart; an IPv6 address stands in
// brackets.
func splitPort(s string) (ip netip.Addr, host, container string, err error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return ip, "", s, nil
	}
	s, container = s[:colon], s[colon+1:]
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return ip, "", "", fmt.Errorf("address is not closed with ]")
		}
		ip, err = netip.ParseAddr(s[1:end])
		return ip, strings.TrimPrefix(s[end+1:], ":"), container, err
	}
	if colon = strings.LastIndexByte(s, ':'); colon >= 0 {
		ip, err = netip.ParseAddr(s[:colon])
		return ip, s[colon+1:], container, err
	}
	if strings.Contains(s, ".") {
		ip, err = netip.ParseAddr(s)
		return ip, "", container, err
	}
	return ip, s, container, nil
}

func portRange(s string) (first, last uint16, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if first, err = portNumber(a); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = portNumber(b); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("range %s runs backwards", s)
	}
	return first, last, nil
}

func portNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
	}
	return uint16(n), nil
}
