package network

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/shaleproject/shale/internal/sys"
)

// netstack is the wire through a TCP/IP stack of this process's own, which
// turns what comes out of the container's interface into connections of this
// process. It needs no program and no device: the container's interface is one
// of a pair, and the other, in a network namespace that nobody else sees, is
// read through a packet socket. With that socket all of it goes.
type netstack struct {
	stack *stack.Stack
	fd    int // the packet socket; 0 before there is one

	mu      sync.Mutex // serving grows only while ctx lives
	serving sync.WaitGroup
	ctx     context.Context //nolint:containedctx // ends the connections, not a call
	cancel  context.CancelFunc
}

// A larger packet is less work for a byte; a socket's buffer must hold several.
const netstackMTU = 16 << 10

func newNetstack() *netstack {
	n := &netstack{}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

func (n *netstack) connect(pid int, a *Attachment) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	a.proxy.inside = ns // and closed with it
	if n.fd, err = openPair(ns, a); err != nil {
		return fmt.Errorf("make interface: %w", permission(err))
	}
	if _, err := within(ns, func() (int, error) { return 0, checksumInKernel("eth0") }); err != nil {
		return fmt.Errorf("make interface: %w", err)
	}
	if err := configure(ns, a.IP, a.Gateway); err != nil {
		return fmt.Errorf("set up interface: %w", err)
	}
	return n.serve(a)
}

// openPair makes the pair of interfaces, one of them in ns, and returns a
// packet socket on the other.
func openPair(ns netns.NsHandle, a *Attachment) (fd int, err error) {
	err = sys.OwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "container", netstackMTU
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerHardwareAddr, pair.PeerNamespace = "eth0", a.MAC, netlink.NsFd(ns)
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		ours, err := netlink.LinkByName(attrs.Name)
		if err != nil {
			return err
		}
		// Bound to an interface that is down, the socket would begin with
		// an error. It keeps the namespace when the thread ends.
		if err := netlink.LinkSetUp(ours); err != nil {
			return err
		}
		fd, err = openPacketSocket(ours.Attrs().Index)
		return err
	})
	return fd, err
}

// openPacketSocket returns a socket for what arrives at an interface: packet(7).
func openPacketSocket(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("open packet socket: %w", err)
	}
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // network byte order
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20), // as much of it as net.core.rmem_max allows
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
	if err != nil {
		return 0, errors.Join(fmt.Errorf("set up packet socket: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// checksumInKernel makes the kernel do by itself what it leaves to good
// network cards: sums, and with them cutting data into packets. Its other end
// is none.
func checksumInKernel(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // struct ifreq is larger than what this call reads of it
	}{}
	value := struct{ command, on uint32 }{unix.ETHTOOL_STXCSUM, 0}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	request.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("switch off checksum offload of %s: %w", device, errno)
	}
	runtime.KeepAlive(&value)
	return nil
}

// serve begins to answer the packets of the container.
func (n *netstack) serve(a *Attachment) error {
	link, err := fdbased.New(&fdbased.Options{
		FDs: []int{n.fd}, IsPacketSocket: []bool{true}, PreConfigured: true,
		MTU: netstackMTU, EthernetHeader: true,
		Address:            tcpip.LinkAddress(macOf(a.Gateway)),
		PacketDispatchMode: fdbased.RecvMMsg,
	})
	if err != nil {
		return fmt.Errorf("open link: %w", err)
	}
	const nic = 1
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	n.stack = s
	// Before there is a link: packets are on their way.
	f := &forwarder{netstack: n, gateway: a.Gateway}
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, 0, 1024, f.tcp).HandlePacket)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s, f.udp).HandlePacket)
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	sack := tcpip.TCPSACKEnabled(true)
	own := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(a.Gateway.As4()), PrefixLen: a.IP.Bits()},
	}
	for _, failure := range []tcpip.Error{
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack),
		s.CreateNIC(nic, link),
		s.AddProtocolAddress(nic, own, stack.AddressProperties{}),
		// It answers in the name of whomever the container calls.
		s.SetSpoofing(nic, true),
		s.SetPromiscuousMode(nic, true),
	} {
		if failure != nil {
			return fmt.Errorf("set up network stack: %s", failure)
		}
	}
	return nil
}

// do runs f in the background, or tells that it is too late for that.
func (n *netstack) do(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return false
	}
	n.serving.Go(f)
	return true
}

// withdraw has nothing to do: the proxy is the only way in.
func (n *netstack) withdraw([]Port) error { return nil }

// Close ends every connection, and with the socket the pair of interfaces.
func (n *netstack) Close() error {
	n.mu.Lock()
	n.cancel()
	n.mu.Unlock()
	if n.stack != nil {
		n.stack.Destroy()
	}
	n.serving.Wait()
	if n.fd == 0 {
		return nil
	}
	return unix.Close(n.fd)
}
