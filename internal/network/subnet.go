package network

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
)

// subnetOf is the IPv4 network of link's first address; the zero value if it
// has none.
func subnetOf(link netlink.Link) netip.Prefix {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) == 0 {
		return netip.Prefix{}
	}
	return prefixOf(addrs[0].IPNet.IP, addrs[0].IPNet.Mask)
}

// freeSubnet returns the first of our candidates that no route of the machine
// touches: a container that hides the office's file server is a bad surprise.
// Docker's 172.17 to 172.31 and podman's 10.88 are left to them.
func freeSubnet() (netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list routes: %w", err)
	}
	var taken []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p := prefixOf(r.Dst.IP, r.Dst.Mask); p.IsValid() && p.Bits() > 0 {
			taken = append(taken, p)
		}
	}
	for second := byte(96); second < 128; second++ {
		candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second, 0, 0}), 16)
		if !overlapsAny(candidate, taken) {
			return candidate, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("choose a subnet: 10.96.0.0/16 to 10.127.0.0/16 are all in use: %w", errdefs.ErrUnavailable)
}

func overlapsAny(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if p.Overlaps(o) {
			return true
		}
	}
	return false
}

func prefixOf(ip, mask []byte) netip.Prefix {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}
	}
	bits := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			bits++
		}
	}
	return netip.PrefixFrom(addr.Unmap(), bits).Masked()
}
