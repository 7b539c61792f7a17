package network

import (
	"fmt"
	"net/netip"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
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
func within[T any](ns netns.NsHandle, f func() (T, error)) (T, error) {
	if !ns.IsOpen() {
		return f()
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody
		// else finds itself in ns.
		runtime.LockOSThread()
		var r result
		if r.err = netns.Set(ns); r.err != nil {
			r.err = fmt.Errorf("enter network namespace: %w", r.err)
		} else {
			r.value, r.err = f()
		}
		done <- r
	}()
	r := <-done
	return r.value, r.err
}
