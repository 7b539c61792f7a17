package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netns"
)

// proxy answers on published ports and passes on what it gets. Its sockets
// are what reserves a port: they exist before the container does, and no
// longer than their process.
//
// Packets from other machines take the shorter way through the firewall's map
// where there is one; the proxy serves the machine itself, containers that
// call the host, and IPv6.
type proxy struct {
	to    netip.Addr
	ports []Port

	// inside is the network namespace from which the container is reached;
	// -1 is that of the process.
	inside netns.NsHandle

	tcp []listener
	udp []packetListener

	serving sync.WaitGroup
	ctx     context.Context //nolint:containedctx // ends the connections, not a call
	cancel  context.CancelFunc
}

type listener struct {
	net.Listener
	port uint16 // of the container
}

type packetListener struct {
	*net.UDPConn
	port uint16
}

// publish opens a socket for each of ports. Connections wait in the sockets'
// queues until serve is called.
func publish(ctx context.Context, to netip.Addr, ports []Port) (_ *proxy, err error) {
	p := &proxy{to: to, ports: slices.Clone(ports), inside: netns.None()}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	for i := range p.ports {
		if err := p.listen(&p.ports[i]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// listen opens port's socket and fills in the host port if the kernel chose
// it. A port without an address answers on IPv4 and IPv6: one socket does both
// unless IPv6 is switched off.
func (p *proxy) listen(port *Port) error {
	host := ""
	if port.HostIP.IsValid() {
		host = port.HostIP.String()
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(port.HostPort)))
	var config net.ListenConfig
	switch port.Protocol {
	case "udp":
		conn, err := config.ListenPacket(p.ctx, "udp", address)
		if err != nil {
			return taken(port, err)
		}
		udp := conn.(*net.UDPConn)
		port.HostPort = udp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		p.udp = append(p.udp, packetListener{udp, port.ContainerPort})
	default:
		l, err := config.Listen(p.ctx, "tcp", address)
		if err != nil {
			return taken(port, err)
		}
		port.HostPort = l.Addr().(*net.TCPAddr).AddrPort().Port()
		p.tcp = append(p.tcp, listener{l, port.ContainerPort})
	}
	return nil
}

func taken(port *Port, err error) error {
	host := "0.0.0.0"
	if port.HostIP.IsValid() {
		host = port.HostIP.String()
	}
	address := netAddress(host, port.HostPort)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("publish port %s: port is already allocated: %w", address, errdefs.ErrUnavailable)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("publish port %s: no right to use ports below net.ipv4.ip_unprivileged_port_start: %w", address, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("publish port %s: %w", address, err)
}

// serve begins to pass on connections. It does not wait.
func (p *proxy) serve() {
	for _, l := range p.tcp {
		p.serving.Go(func() { p.accept(l) })
	}
	for _, l := range p.udp {
		p.serving.Go(func() { p.relayPackets(l) })
	}
}

// Close closes the sockets and every connection, and waits for their end.
func (p *proxy) Close() error {
	p.cancel()
	var errs []error
	for _, l := range p.tcp {
		errs = append(errs, l.Close())
	}
	for _, l := range p.udp {
		errs = append(errs, l.Close())
	}
	p.serving.Wait()
	if p.inside.IsOpen() {
		errs = append(errs, p.inside.Close())
	}
	return errors.Join(errs...)
}

func (p *proxy) accept(l listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, say: the queue keeps the others.
			select {
			case <-p.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		p.serving.Go(func() { p.relay(conn.(*net.TCPConn), l.port) })
	}
}

// relay copies both ways until both sides have said all.
func (p *proxy) relay(outer *net.TCPConn, port uint16) {
	defer outer.Close()
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := within(p.inside, func() (net.Conn, error) {
		return dialer.DialContext(p.ctx, "tcp", netip.AddrPortFrom(p.to, port).String())
	})
	if err != nil {
		// The container does not listen (yet): the caller sees a reset, as
		// it would without us in between.
		_ = outer.SetLinger(0)
		return
	}
	inner := conn.(*net.TCPConn)
	defer inner.Close()
	stop := context.AfterFunc(p.ctx, func() { outer.Close(); inner.Close() })
	defer stop()

	var both sync.WaitGroup
	both.Go(func() { pass(inner, outer) })
	both.Go(func() { pass(outer, inner) })
	both.Wait()
}

// pass copies src to dst (splice(2) does it in the kernel) and then the end
// of the stream.
func pass(dst, src *net.TCPConn) {
	_, err := io.Copy(dst, src)
	if err != nil {
		_ = dst.SetLinger(0)
		dst.Close()
		return
	}
	_ = dst.CloseWrite()
}

// idleFlow is how long a UDP flow lives after its last packet; the kernel
// keeps an unanswered one for 30 s and an answered one for 120.
const idleFlow = 90 * time.Second

// relayPackets keeps one socket to the container for each peer, so that
// answers find their way back.
func (p *proxy) relayPackets(l packetListener) {
	var mu sync.Mutex
	flows := make(map[netip.AddrPort]*net.UDPConn)
	stop := context.AfterFunc(p.ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		for _, flow := range flows {
			flow.Close()
		}
	})
	defer stop()

	buffer := make([]byte, 64<<10)
	for {
		n, peer, err := l.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		mu.Lock()
		flow := flows[peer]
		if flow == nil && p.ctx.Err() == nil {
			flow, err = within(p.inside, func() (*net.UDPConn, error) {
				return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.to, l.port)))
			})
			if err == nil {
				flows[peer] = flow
				p.serving.Go(func() {
					answerPackets(l.UDPConn, flow, peer)
					mu.Lock()
					delete(flows, peer)
					mu.Unlock()
				})
			}
		}
		mu.Unlock()
		if flow != nil {
			_ = flow.SetReadDeadline(time.Now().Add(idleFlow))
			_, _ = flow.Write(buffer[:n])
		}
	}
}

func answerPackets(outer, flow *net.UDPConn, peer netip.AddrPort) {
	defer flow.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := flow.Read(buffer)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return
		}
		_ = flow.SetReadDeadline(time.Now().Add(idleFlow))
		if _, err := outer.WriteToUDPAddrPort(buffer[:n], peer); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}
