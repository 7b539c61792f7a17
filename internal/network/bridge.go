package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// bridge is a network of containers on this machine: a Linux bridge with an
// address of its own, which is the containers' gateway.
type bridge struct {
	Name      string // the network's name
	Interface string
	Index     int // of the interface; another index is another interface
	Subnet    netip.Prefix
	Gateway   netip.Addr
}

// defaultBridge is the network of containers that don't ask for one.
const defaultBridge = "bridge"

// bridge returns the default network, which it makes if it isn't there. The
// caller holds the lock.
//
// The file is written when everything is in place, so that a process that was
// killed half-way leaves work that is done again, not work that is believed
// done.
func (n *Networks) bridge() (bridge, error) {
	file := filepath.Join(n.dir, defaultBridge+".json")
	link, err := netlink.LinkByName(n.device)
	if isNoLink(err) {
		link, err = nil, nil
	}
	if err != nil {
		return bridge{}, fmt.Errorf("look up interface %s: %w", n.device, err)
	}
	var known bridge
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &known) == nil &&
		link != nil && link.Attrs().Index == known.Index {
		return known, known.ensureRules()
	}
	b, err := makeBridge(n.device, link)
	if err != nil {
		return bridge{}, fmt.Errorf("make bridge %s: %w", n.device, err)
	}
	data, err := json.Marshal(b)
	if err != nil {
		return bridge{}, err
	}
	aside := file + ".new"
	if err := os.WriteFile(aside, data, 0o600); err != nil {
		return bridge{}, err
	}
	return b, os.Rename(aside, file)
}

// makeBridge sets up the default bridge; link is the interface if it exists.
// Each step may have been done before.
func makeBridge(device string, link netlink.Link) (bridge, error) {
	b := bridge{Name: defaultBridge, Interface: device}
	if link != nil {
		b.Subnet = subnetOf(link)
	}
	if !b.Subnet.IsValid() {
		var err error
		if b.Subnet, err = freeSubnet(); err != nil {
			return b, err
		}
	}
	b.Gateway = b.Subnet.Addr().Next()
	if link == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = b.Interface
		// A bridge takes the lowest address of its ports unless it has one
		// that was given; a gateway must not change with every container.
		attrs.HardwareAddr = macOf(b.Gateway)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return b, permission(err)
		}
		var err error
		if link, err = netlink.LinkByName(b.Interface); err != nil {
			return b, err
		}
	}
	b.Index = link.Attrs().Index
	address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(b.Gateway, b.Subnet.Bits()))}
	if err := netlink.AddrAdd(link, address); err != nil && !errors.Is(err, syscall.EEXIST) {
		return b, fmt.Errorf("add address %s: %w", address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return b, err
	}
	if err := enableForwarding(); err != nil {
		return b, err
	}
	return b, b.ensureRules()
}

// enableForwarding lets the machine pass on packets of its containers, as
// Docker does.
func enableForwarding() error {
	const file = "/proc/sys/net/ipv4/ip_forward"
	if data, err := os.ReadFile(file); err == nil && len(data) > 0 && data[0] == '1' {
		return nil
	}
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		return fmt.Errorf("enable forwarding: %w", err)
	}
	return nil
}

// bridgePort is the wire of a container that is joined to a bridge.
type bridgePort struct {
	bridge
	lease *lease
}

func (p *bridgePort) connect(pid int, a *Attachment) error {
	if err := p.join(pid, linkName(a.IP.Addr()), a.IP, a.MAC); err != nil {
		return fmt.Errorf("connect container to %s: %w", p.Interface, err)
	}
	if err := p.forward(a.Ports, a.IP.Addr()); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	return nil
}

func (p *bridgePort) withdraw(ports []Port) error { return p.unforward(ports, p.lease.addr) }

func (p *bridgePort) Close() error { return p.lease.Close() }

// join makes the pair of interfaces that joins the network namespace of
// pid to the bridge, and configures the container's end.
func (b bridge) join(pid int, host string, ip netip.Prefix, mac net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = host
	attrs.MasterIndex = b.Index
	attrs.Flags = net.FlagUp
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerHardwareAddr = mac
	veth.PeerNamespace = netlink.NsPid(pid)
	err := netlink.LinkAdd(veth)
	if errors.Is(err, syscall.EEXIST) {
		// The namespace of the address's last holder is still being taken
		// down by the kernel.
		if old, gone := netlink.LinkByName(host); gone == nil {
			_ = netlink.LinkDel(old)
		}
		err = netlink.LinkAdd(veth)
	}
	if err != nil {
		return fmt.Errorf("make interface: %w", permission(err))
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	return configure(ns, ip, b.Gateway)
}

// Prune removes the interface and the firewall rules if no container uses
// them. The next container makes them again.
func (n *Networks) Prune() error {
	lock, err := n.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	used, err := anyLease(filepath.Join(n.dir, defaultBridge))
	if err != nil || used {
		return err
	}
	if link, err := netlink.LinkByName(n.device); err == nil {
		if err := netlink.LinkDel(link); err != nil {
			return fmt.Errorf("remove interface %s: %w", n.device, err)
		}
	}
	if err := removeRules(n.device); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(n.dir, defaultBridge+".json"))
}

func isNoLink(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}

func permission(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrPermissionDenied)
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
