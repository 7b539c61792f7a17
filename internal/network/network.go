// Package network connects containers: bridges, addresses, published ports.
//
// The state is the machine's, not a store's: interfaces and firewall rules
// vanish with a reboot, and so does the directory that remembers them (under
// /run). Three rules keep it whole without a daemon:
//
//   - an address is leased by a locked file, which dies with the process that
//     holds the container;
//   - the interface of a container dies with its network namespace;
//   - a published port is a socket of that same process. The firewall's map
//     of ports only shortens the way of packets from other machines; an entry
//     that outlived its socket is replaced by whoever takes the port next.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/shaleproject/shale/internal/sys"
)

// Networks are the networks of this machine. It is safe for concurrent use by
// any number of processes that name the same directory.
type Networks struct {
	dir string

	// device is the interface of the default bridge and the name of the
	// firewall table that belongs to it.
	device string

	// user says that there is no right to touch the machine's interfaces.
	user bool
}

// Machine returns the networks that all of root's processes on this machine
// share. Their state is on a file system that a reboot empties; with another
// place for it the same addresses would be lent twice. Nothing is made before
// it is needed.
func Machine() *Networks { return &Networks{dir: "/run/shale/network", device: "shale0"} }

// ForUser returns the networks of an ordinary user, who is root of a user
// namespace: each container has one of its own, from which a process of the
// user's passes on what leaves. They keep no state.
func ForUser() *Networks { return &Networks{user: true} }

// Endpoint says how a container wants to be connected. The zero value is a
// container on the default bridge that publishes nothing.
type Endpoint struct {
	// ContainerID is written into the lease, for whoever debugs.
	ContainerID string

	// Ports are published on the host. A zero HostPort is chosen by the
	// kernel.
	Ports []Port
}

// Attachment is a connected container. It must be closed by the process that
// made it; if that process dies, the kernel closes all that matters.
type Attachment struct {
	// IP is the container's address, Gateway that of the bridge.
	IP      netip.Prefix
	Gateway netip.Addr
	MAC     net.HardwareAddr

	// Host is the address at which the container reaches the host. The zero
	// value says that there is none.
	Host netip.Addr

	// DNS is to be asked for names in place of the host's resolver, which may
	// listen on the host's loopback only. The zero value says that there is
	// nobody in its place.
	DNS netip.Addr

	// Ports are the published ports with the host ports that they got.
	Ports []Port

	wire  wire
	proxy *proxy
}

// Reserve takes an address and the host ports of o, before there is a
// container that could use them: a port that somebody else has is found out
// here. It ends in [errdefs.ErrUnavailable] for a port that is taken.
//
// The attachment is to be connected with [Attachment.Connect] and closed by
// the caller.
func (n *Networks) Reserve(ctx context.Context, o Endpoint) (_ *Attachment, err error) {
	a, err := n.attachment(o)
	if err != nil {
		return nil, err
	}
	if a.proxy, err = publish(ctx, a.IP.Addr(), o.Ports); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.Ports = a.proxy.ports
	return a, nil
}

// attachment takes an address.
func (n *Networks) attachment(o Endpoint) (*Attachment, error) {
	if n.user {
		return userAttachment()
	}
	lock, err := n.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()

	b, err := n.bridge()
	if err != nil {
		return nil, err
	}
	l, err := takeLease(filepath.Join(n.dir, b.Name), b, o.ContainerID)
	if err != nil {
		return nil, err
	}
	return &Attachment{
		IP: netip.PrefixFrom(l.addr, b.Subnet.Bits()), MAC: macOf(l.addr),
		Gateway: b.Gateway, Host: b.Gateway,
		wire: &bridgePort{bridge: b, lease: l},
	}, nil
}

// lock serialises what changes interfaces, rules and leases.
func (n *Networks) lock() (*sys.FileLock, error) {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make network directory: %w", err)
	}
	lock, err := sys.Lock(filepath.Join(n.dir, "lock"), sys.Exclusive)
	if err != nil {
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	return lock, nil
}

// Attach is [Networks.Reserve] and [Attachment.Connect] in one.
func (n *Networks) Attach(ctx context.Context, pid int, o Endpoint) (*Attachment, error) {
	a, err := n.Reserve(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := a.Connect(pid); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// Connect gives the network namespace of process pid an interface eth0 with
// the reserved address, and lets the published ports answer.
func (a *Attachment) Connect(pid int) error {
	if err := a.wire.connect(pid, a); err != nil {
		return err
	}
	a.proxy.serve()
	return nil
}

// Close gives back the address and the ports. The interface goes with the
// container's network namespace.
func (a *Attachment) Close() error {
	var errs []error
	if a.proxy != nil {
		errs = append(errs, a.wire.withdraw(a.proxy.ports), a.proxy.Close())
	}
	return errors.Join(append(errs, a.wire.Close())...)
}

// macOf derives an address that stays the same for the same IP, so that
// neighbours' tables stay right: locally administered, as Docker forms it.
func macOf(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

// linkName is the host's end of the pair whose other end is eth0 of ip.
func linkName(ip netip.Addr) string {
	b := ip.As4()
	return fmt.Sprintf("shale%02x%02x%02x%02x", b[0], b[1], b[2], b[3])
}
