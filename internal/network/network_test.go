package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The test binary plays the container too: in a network namespace of its own
// it answers TCP and UDP with the address of whoever asks.
func TestMain(m *testing.M) {
	switch os.Getenv("SHALE_NETWORK_TEST") {
	case "container":
		containerMain()
	case "dial":
		dialMain()
	}
	os.Exit(m.Run())
}

const containerPort = 7007

func containerMain() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan() // connected
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", containerPort))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	u, err := net.ListenPacket("udp", fmt.Sprintf(":%d", containerPort))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() {
		buffer := make([]byte, 1500)
		for {
			_, peer, err := u.ReadFrom(buffer)
			if err == nil {
				_, _ = u.WriteTo([]byte(peer.(*net.UDPAddr).IP.String()), peer)
			}
		}
	}()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, conn.RemoteAddr().(*net.TCPAddr).IP.String())
			conn.Close()
		}
	}()
	fmt.Println("ready")
	lines.Scan() // until the test is over
	os.Exit(0)
}

func dialMain() {
	answer, err := ask("tcp", os.Getenv("SHALE_NETWORK_TEST_ADDRESS"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Print(answer)
	os.Exit(0)
}

// ask connects to address and returns what it is told.
func ask(protocol, address string) (string, error) {
	patience, err := time.ParseDuration(os.Getenv("SHALE_NETWORK_TEST_PATIENCE"))
	if err != nil {
		patience = 5 * time.Second
	}
	conn, err := net.DialTimeout(protocol, address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if protocol == "udp" {
		if _, err := conn.Write([]byte("?")); err != nil {
			return "", err
		}
		buffer := make([]byte, 1500)
		n, err := conn.Read(buffer)
		return string(buffer[:n]), err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// process is the test binary in a network namespace of its own.
type process struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"SHALE_NETWORK_TEST=container"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return &process{cmd, in, bufio.NewReader(out)}
}

func (p *process) ready(t *testing.T) {
	t.Helper()
	fmt.Fprintln(p.in)
	if line, err := p.out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("container says %q (%v)", line, err)
	}
}

// networks is a set of networks of the test's own.
func networks(t *testing.T) *Networks {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes interfaces and firewall rules")
	}
	n := &Networks{dir: t.TempDir(), device: "shaletest0"}
	t.Cleanup(func() {
		if err := n.Prune(); err != nil {
			t.Error(err)
		}
		if _, err := netlink.LinkByName(n.device); err == nil {
			t.Errorf("interface %s is left", n.device)
		}
	})
	return n
}

func run(t *testing.T, n *Networks, ports ...string) (*Attachment, *process) {
	t.Helper()
	var endpoint Endpoint
	for _, spec := range ports {
		p, err := ParsePort(spec)
		if err != nil {
			t.Fatal(err)
		}
		endpoint.Ports = append(endpoint.Ports, p...)
	}
	c := start(t)
	a, err := n.Attach(t.Context(), c.Process.Pid, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	c.ready(t)
	return a, c
}

func TestPublishedPortsAnswerOnEveryAddressOfTheMachine(t *testing.T) {
	n := networks(t)
	a, _ := run(t, n, fmt.Sprint(containerPort), fmt.Sprintf("%d/udp", containerPort))
	for _, p := range a.Ports {
		for _, address := range addresses(t) {
			_, err := ask(p.Protocol, net.JoinHostPort(address, fmt.Sprint(p.HostPort)))
			// Other programs may take an address away at any time.
			if err != nil && slices.Contains(addresses(t), address) {
				t.Errorf("%s on %s: %v", p.Protocol, address, err)
			}
		}
	}
}

// addresses are those of this machine that a client could name.
func addresses(t *testing.T) []string {
	t.Helper()
	list := []string{"127.0.0.1", "::1"}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range own {
		if ip := addr.(*net.IPNet).IP; !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			list = append(list, ip.String())
		}
	}
	return list
}

func TestAPortBoundToOneAddressAnswersThereOnly(t *testing.T) {
	n := networks(t)
	a, _ := run(t, n, fmt.Sprintf("127.0.0.2::%d", containerPort))
	port := fmt.Sprint(a.Ports[0].HostPort)
	if _, err := ask("tcp", "127.0.0.2:"+port); err != nil {
		t.Error(err)
	}
	if _, err := ask("tcp", "127.0.0.1:"+port); err == nil {
		t.Error("answers on 127.0.0.1")
	}
}

func TestContainersSeeEachOther(t *testing.T) {
	n := networks(t)
	a, _ := run(t, n)
	_, b := run(t, n)
	answer, err := dialFrom(b.Process.Pid, netip.AddrPortFrom(a.IP.Addr(), containerPort).String())
	if err != nil {
		t.Fatal(answer, err)
	}
}

// A machine beside this one reaches the port, sees the source address kept,
// and does not reach ports that are not published.
func TestAnotherMachineReachesPublishedPortsOnly(t *testing.T) {
	n := networks(t)
	a, _ := run(t, n, fmt.Sprint(containerPort))
	other := start(t)
	neighbour(t, other.Process.Pid)

	answer, err := dialFrom(other.Process.Pid, fmt.Sprintf("198.51.100.1:%d", a.Ports[0].HostPort))
	if err != nil {
		t.Fatal(answer, err)
	}
	if answer != "198.51.100.2" {
		t.Errorf("the container saw %s, not the caller's address", answer)
	}
	if answer, err := dialFrom(other.Process.Pid, netip.AddrPortFrom(a.IP.Addr(), containerPort).String(), "SHALE_NETWORK_TEST_PATIENCE=1s"); err == nil {
		t.Errorf("reaches the container's own address: %s", answer)
	}
}

// neighbour wires the network namespace of pid to this machine as another
// host, 198.51.100.2, that uses us as its router.
func neighbour(t *testing.T, pid int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "shaletestpeer"
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerNamespace = netlink.NsPid(pid)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(netlink.LinkAdd(veth))
	t.Cleanup(func() { _ = netlink.LinkDel(veth) })
	link, err := netlink.LinkByName(attrs.Name)
	check(err)
	address := func(s string) *netlink.Addr {
		a, err := netlink.ParseAddr(s)
		check(err)
		return a
	}
	check(netlink.AddrAdd(link, address("198.51.100.1/24")))
	check(netlink.LinkSetUp(link))
	ns, err := netns.GetFromPid(pid)
	check(err)
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns)
	check(err)
	defer inside.Close()
	eth, err := inside.LinkByName("eth0")
	check(err)
	check(inside.AddrAdd(eth, address("198.51.100.2/24")))
	check(inside.LinkSetUp(eth))
	check(inside.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IPv4(198, 51, 100, 1)}))
}

// dialFrom asks address from within the network namespace of pid.
func dialFrom(pid int, address string, env ...string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(pid), "-n", self)
	cmd.Env = append(env, "SHALE_NETWORK_TEST=dial", "SHALE_NETWORK_TEST_ADDRESS="+address, "PATH="+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestAPortThatIsTakenIsFoundOutBeforeTheStart(t *testing.T) {
	n := networks(t)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := Port{HostPort: l.Addr().(*net.TCPAddr).AddrPort().Port(), ContainerPort: 80, Protocol: "tcp"}
	_, err = n.Reserve(t.Context(), Endpoint{Ports: []Port{port}})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "already allocated") {
		t.Errorf("got %v", err)
	}
	if used, err := anyLease(n.dir + "/bridge"); used || err != nil {
		t.Errorf("an address is left: %v, %v", used, err)
	}
}

func TestAddressesRestBeforeTheyAreGivenAgain(t *testing.T) {
	n := networks(t)
	seen := make(map[netip.Addr]bool)
	for range 5 {
		a, err := n.Reserve(context.Background(), Endpoint{})
		if err != nil {
			t.Fatal(err)
		}
		if seen[a.IP.Addr()] {
			t.Errorf("%s was given twice", a.IP)
		}
		seen[a.IP.Addr()] = true
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLeasesWrapAround(t *testing.T) {
	b := bridge{Subnet: netip.MustParsePrefix("10.0.0.0/29"), Gateway: netip.MustParseAddr("10.0.0.1")}
	dir := t.TempDir()
	var held []*lease
	for {
		l, err := takeLease(dir, b, "x")
		if errors.Is(err, errdefs.ErrResourceExhausted) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
	}
	if len(held) != 5 {
		t.Errorf("a /29 gave %d addresses, want 5", len(held))
	}
	for _, l := range held {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := takeLease(dir, b, "x"); err != nil {
		t.Error(err)
	}
}
