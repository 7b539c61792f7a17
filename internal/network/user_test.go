package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// withoutPasta are networks of an ordinary user whose packets go through the
// stack that is linked in. Root plays the user: it owns the containers'
// namespaces as the user owns theirs.
func withoutPasta(t *testing.T) *Networks {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	t.Setenv("PATH", "/nowhere")
	if w, ok := chooseWire().(*netstack); !ok {
		t.Fatalf("without pasta the wire is %T", w)
	}
	return ForUser()
}

func TestPublishedPortsAnswerWithoutRightOnInterfaces(t *testing.T) {
	path := os.Getenv("PATH")
	n := withoutPasta(t)
	a, c := run(t, n, fmt.Sprint(containerPort), fmt.Sprintf("%d/udp", containerPort))
	for _, p := range a.Ports {
		for _, address := range []string{"127.0.0.1", "::1"} {
			answer, err := ask(p.Protocol, net.JoinHostPort(address, fmt.Sprint(p.HostPort)))
			if err != nil {
				t.Errorf("%s on %s: %v", p.Protocol, address, err)
			}
			if netip.MustParseAddr(answer).IsLoopback() {
				t.Errorf("%s from %s arrives on the container's loopback", p.Protocol, address)
			}
		}
	}
	// The kernel numbers a namespace for its neighbours: those that share a
	// pair of interfaces with it.
	if id, err := netlink.GetNetNsIdByPid(c.Process.Pid); err != nil || id != -1 {
		t.Errorf("the machine has an interface that leads into the container: namespace %d, %v", id, err)
	}
	t.Setenv("PATH", path) // for nsenter
	if answer, err := dialFrom(c.Process.Pid, netip.AddrPortFrom(a.Gateway, containerPort).String()); err == nil {
		t.Errorf("the gateway answers: %s", answer)
	}
}

func TestAContainerReachesTheHostButNotItsLoopback(t *testing.T) {
	host := outwards()
	if !host.IsValid() {
		t.Skip("no route leads out of this machine")
	}
	path := os.Getenv("PATH")
	n := withoutPasta(t)
	a, c := run(t, n)
	t.Setenv("PATH", path) // for nsenter
	if a.Host != host {
		t.Errorf("the host is said to be at %s, is at %s", a.Host, host)
	}
	public, private := serve(t, netip.AddrPortFrom(host, 0)), serve(t, netip.MustParseAddrPort("127.0.0.1:0"))
	if answer, err := dialFrom(c.Process.Pid, public.String()); err != nil || answer != "served" {
		t.Errorf("host: %q, %v", answer, err)
	}
	for _, addr := range []netip.Addr{host, a.Gateway} {
		address := netip.AddrPortFrom(addr, private.Port()).String()
		if answer, err := dialFrom(c.Process.Pid, address); err == nil {
			t.Errorf("%s leads to the host's loopback: %s", address, answer)
		}
	}
}

// serve answers connections to a port of addr until the test ends.
func serve(t *testing.T, addr netip.AddrPort) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "served")
			conn.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// A packet that a container made by hand can name any address.
func TestNobodyForwardsToTheLoopbackOfTheHost(t *testing.T) {
	f := &forwarder{netstack: newNetstack(), gateway: netip.MustParseAddr("10.96.0.1")}
	port := serve(t, netip.MustParseAddrPort("0.0.0.0:0")).Port()
	for _, address := range []string{"127.0.0.1", "127.9.9.9", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.96.0.1"} {
		id := stack.TransportEndpointID{LocalAddress: tcpip.AddrFrom4(netip.MustParseAddr(address).As4()), LocalPort: port}
		for _, protocol := range []string{"tcp", "udp"} {
			if _, err := f.dial(protocol, id); !errors.Is(err, errdefs.ErrPermissionDenied) {
				t.Errorf("%s to %s: %v", protocol, address, err)
			}
		}
	}
}

func TestAPortThatIsTakenIsFoundOutWithoutRoot(t *testing.T) {
	port := Port{HostPort: serve(t, netip.MustParseAddrPort("0.0.0.0:0")).Port(), ContainerPort: 80, Protocol: "tcp"}
	if _, err := ForUser().Reserve(t.Context(), Endpoint{Ports: []Port{port}}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
