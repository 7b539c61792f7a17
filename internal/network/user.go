package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunDevice makes the interface of which pasta is the other end.
const tunDevice = "/dev/net/tun"

// userAttachment is the attachment of a container in a network of its own.
// The addresses can be the same for each.
func userAttachment() (*Attachment, error) {
	subnet, err := freeSubnet()
	if err != nil {
		return nil, err
	}
	gateway := subnet.Addr().Next()
	ip := gateway.Next()
	return &Attachment{
		IP: netip.PrefixFrom(ip, subnet.Bits()), MAC: macOf(ip),
		// Nobody else is there; the gateway may as well answer for DNS.
		Gateway: gateway, DNS: gateway, Host: outwards(),
		wire: chooseWire(),
	}, nil
}

// chooseWire returns how packets leave without any right on the machine's
// interfaces: through pasta, which is fast, or else through a stack of our own.
func chooseWire() wire {
	if program, err := findPasta(); err == nil {
		return &pasta{program: program}
	}
	return newNetstack()
}

// Describe says in one word how containers are connected if nobody asks for
// something else, and why that way.
func (n *Networks) Describe() (name, why string) {
	if !n.user {
		return defaultBridge, "root may make interfaces and firewall rules"
	}
	program, err := findPasta()
	if err != nil {
		return "netstack", "a network stack in shale itself, because " + err.Error()
	}
	return "pasta", program + " makes packets connections, because an ordinary user may not make a bridge"
}

// findPasta returns the path of pasta(1) if it can work here.
func findPasta() (string, error) {
	program, err := exec.LookPath("pasta")
	if err != nil {
		return "", errors.New("pasta, which is faster, is not installed (package passt)")
	}
	if err := unix.Access(tunDevice, unix.R_OK|unix.W_OK); err != nil {
		return "", fmt.Errorf("pasta can't open %s: %w", tunDevice, err)
	}
	if !outwards().IsValid() {
		return "", errors.New("pasta needs a route that leads out of the machine")
	}
	return program, nil
}

// outwards is the IPv4 address that the host has for the rest of the world;
// the zero value without a default route.
func outwards() netip.Addr {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil || !slices.ContainsFunc(routes, isDefault) {
		return netip.Addr{}
	}
	// TEST-NET-2 of RFC 5737 is nobody's, and nothing is sent.
	routes, err = netlink.RouteGet(net.IPv4(198, 51, 100, 1))
	if err != nil || len(routes) == 0 {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(routes[0].Src)
	return addr.Unmap()
}

func isDefault(r netlink.Route) bool {
	return r.Dst == nil || r.Dst.IP.IsUnspecified() && prefixOf(r.Dst.IP, r.Dst.Mask).Bits() == 0
}
