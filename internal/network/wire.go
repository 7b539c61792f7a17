package network

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/shaleproject/shale/internal/sys"
)

// wire is how packets of one container travel.
type wire interface {
	// connect gives the network namespace of process pid its interface, and
	// the published ports of a their way in.
	connect(pid int, a *Attachment) error

	// withdraw closes the ways that connect opened beside the sockets of the
	// published ports, as long as these still keep others away from them.
	withdraw(ports []Port) error

	// Close gives back what the wire holds, when nothing uses it any longer.
	// The interface goes with the container's network namespace.
	Close() error
}

// configure gives the interface eth0 of ns its address and its gateway, and
// wakes it and lo up.
func configure(ns netns.NsHandle, ip netip.Prefix, gateway netip.Addr) error {
	inside, err := netlink.NewHandleAt(ns, syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer inside.Close()
	if lo, err := inside.LinkByName("lo"); err == nil {
		if err := inside.LinkSetUp(lo); err != nil {
			return err
		}
	}
	eth, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := inside.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(ip)}); err != nil {
		return fmt.Errorf("add address %s: %w", ip, err)
	}
	if err := inside.LinkSetUp(eth); err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway.AsSlice()}
	if err := inside.RouteAdd(route); err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	return nil
}

// within runs f on a thread that is in the network namespace ns, if that is
// open: sockets that f itself makes belong there. Goroutines that f starts are
// elsewhere.
func within[T any](ns netns.NsHandle, f func() (T, error)) (value T, err error) {
	if !ns.IsOpen() {
		return f()
	}
	err = sys.OwnThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		value, err = f()
		return err
	})
	return value, err
}
