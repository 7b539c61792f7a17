package network

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// forwarder makes a connection of this process for each that a container
// begins.
type forwarder struct {
	*netstack
	gateway netip.Addr
}

// stream is a connection that ends in each direction by itself.
type stream interface {
	net.Conn
	CloseWrite() error
}

// tcp connects first: the container is to see a refusal as one.
func (f *forwarder) tcp(r *tcp.ForwarderRequest) {
	conn, err := f.dial("tcp", r.ID())
	if err != nil {
		r.Complete(true)
		return
	}
	var queue waiter.Queue
	endpoint, failure := r.CreateEndpoint(&queue)
	r.Complete(failure != nil)
	if failure != nil {
		conn.Close()
		return
	}
	inner := gonet.NewTCPConn(&queue, endpoint)
	if !f.do(func() { exchange(f.ctx, conn.(*net.TCPConn), inner) }) {
		conn.Close()
		inner.Close()
	}
}

// exchange copies both ways until both sides have said all.
func exchange(ctx context.Context, a, b stream) {
	defer a.Close()
	defer b.Close()
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	var both sync.WaitGroup
	for _, way := range [][2]stream{{a, b}, {b, a}} {
		both.Go(func() {
			if _, err := io.Copy(way[0], way[1]); err != nil {
				a.Close()
				b.Close()
				return
			}
			_ = way[0].CloseWrite()
		})
	}
	both.Wait()
}

// udp keeps one socket for each flow until it has been silent for a while. It
// tells whether it has taken the packet.
func (f *forwarder) udp(r *udp.ForwarderRequest) bool {
	var queue waiter.Queue
	endpoint, failure := r.CreateEndpoint(&queue)
	if failure != nil {
		return false
	}
	inner := gonet.NewUDPConn(&queue, endpoint)
	conn, err := f.dial("udp", r.ID())
	if err != nil {
		inner.Close()
		return false
	}
	both := func() { conn.Close(); inner.Close() }
	stop := context.AfterFunc(f.ctx, both)
	way := func(dst, src net.Conn) {
		defer both()
		buffer := make([]byte, 64<<10)
		for {
			n, err := src.Read(buffer)
			if err != nil {
				return
			}
			idle := time.Now().Add(idleFlow)
			_, _ = conn.SetReadDeadline(idle), inner.SetReadDeadline(idle)
			if _, err := dst.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	idle := time.Now().Add(idleFlow)
	_, _ = conn.SetReadDeadline(idle), inner.SetReadDeadline(idle)
	out := f.do(func() { way(conn, inner); stop() })
	if !out || !f.do(func() { way(inner, conn) }) {
		both()
	}
	return true
}

// dial opens the connection that stands for id. A container with the right to
// write packets of its own can name any address; those that mean this machine's
// loopback are nobody's.
func (f *forwarder) dial(protocol string, id stack.TransportEndpointID) (net.Conn, error) {
	to := netip.AddrPortFrom(netip.AddrFrom4(id.LocalAddress.As4()), id.LocalPort)
	switch addr := to.Addr(); {
	case addr == f.gateway && to.Port() == 53:
		server, err := resolver()
		if err != nil {
			return nil, err
		}
		to = netip.AddrPortFrom(server, 53)
	case addr == f.gateway, addr.IsLoopback(), addr.IsUnspecified(), addr.IsMulticast(), addr == broadcast:
		return nil, errdefs.ErrPermissionDenied
	}
	dialer := net.Dialer{Timeout: 30 * time.Second}
	return dialer.DialContext(f.ctx, protocol, to.String())
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// resolver is the first server of the host's resolv.conf(5), which may change
// while a container runs.
func resolver() (netip.Addr, error) {
	file, err := os.Open("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	if err != nil {
		return netip.Addr{}, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "nameserver" {
			return netip.ParseAddr(fields[1])
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
}
