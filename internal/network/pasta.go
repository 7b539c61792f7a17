package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/shaleproject/shale/internal/sys"
)

// pastaPatience is how long pasta may take to make its interface; a few
// milliseconds are usual.
const pastaPatience = 10 * time.Second

// pasta is the wire through pasta(1) of passt: a process that turns what comes
// out of the container's interface into connections of its own. What goes in
// comes through our proxy: pasta would lead connections from the host's
// loopback to that of the container.
type pasta struct {
	program string

	process *exec.Cmd
	said    bytes.Buffer
	ended   chan struct{}
	err     error // why it ended; after ended
}

func (p *pasta) connect(pid int, a *Attachment) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	a.proxy.inside = ns // and closed with it
	routes, stop := make(chan netlink.RouteUpdate, 16), make(chan struct{})
	defer close(stop)
	if err := netlink.RouteSubscribeWithOptions(routes, stop, netlink.RouteSubscribeOptions{Namespace: &ns}); err != nil {
		return fmt.Errorf("watch routes of process %d: %w", pid, err)
	}
	if err := p.start(pid, a); err != nil {
		return fmt.Errorf("start %s: %w", p.program, err)
	}
	// The default route is the last thing that it sets up.
	timeout := time.NewTimer(pastaPatience)
	defer timeout.Stop()
	for {
		select {
		case r, open := <-routes:
			if open && r.Gw.Equal(net.IP(a.Gateway.AsSlice())) {
				return nil
			}
			if !open {
				routes = nil
			}
		case <-p.ended:
			return fmt.Errorf("connect container through %s: %w", p.program, p.failure())
		case <-timeout.C:
			return fmt.Errorf("connect container through %s: no interface after %s: %w", p.program, pastaPatience, errdefs.ErrUnavailable)
		}
	}
}

// arguments are pasta's, all that it would guess included: it forwards no port
// by itself, and neither the host's loopback nor its own address stands behind
// the gateway.
func (p *pasta) arguments(a *Attachment, namespace string) []string {
	mask := net.IP(ipNet(a.IP).Mask)
	return []string{
		"pasta", "--foreground", "--quiet", "--ipv4-only", "--config-net",
		"--ns-ifname", "eth0", "--ns-mac-addr", a.MAC.String(),
		"--address", a.IP.Addr().String(), "--netmask", mask.String(), "--gateway", a.Gateway.String(),
		"--dns-forward", a.DNS.String(), "--no-map-gw", "--no-dhcp",
		"--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none",
		"--netns", namespace,
	}
}

// start starts pasta for the network of process pid. It ends with this
// process at the latest.
func (p *pasta) start(pid int, a *Attachment) error {
	// Of a process that has more rights than pasta keeps, pasta may not open
	// /proc/PID/ns. Only pasta sees these mounts.
	const dir, file = "/tmp", "netns"
	mounts := []sys.Mount{
		{Type: "tmpfs", Source: "tmpfs", Target: dir, Files: []sys.File{{Name: file, Mode: 0o600}}},
		{Source: fmt.Sprintf("/proc/%d/ns/net", pid), Target: dir + "/" + file, Flags: sys.Bind},
	}
	p.process = &exec.Cmd{
		Path: p.program, Args: p.arguments(a, dir+"/"+file), Dir: "/", Env: []string{},
		Stdout: &p.said, Stderr: &p.said,
		SysProcAttr: &syscall.SysProcAttr{
			Pdeathsig: syscall.SIGKILL,
			Setpgid:   true, // Ctrl-C is for the container
		},
	}
	started := make(chan error, 1)
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		running := false
		err := sys.PrivateMounts(func() error {
			if err := sys.MountAll(mounts); err != nil {
				return err
			}
			if err := p.process.Start(); err != nil {
				return err
			}
			running = true
			started <- nil
			return p.process.Wait()
		})
		if !running {
			started <- err
		}
		p.err = err
	}()
	err := <-started
	if err != nil {
		<-p.ended
	}
	return err
}

// failure says why pasta has ended, in its own words. Without a system log
// it complains about that, too.
func (p *pasta) failure() error {
	var lines []string
	for line := range strings.Lines(p.said.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Failed to send ") {
			lines = append(lines, line)
		}
	}
	err := p.err
	if err == nil {
		err = errors.New("it has ended")
	}
	return fmt.Errorf("%s: %w: %w", strings.Join(lines, "; "), err, errdefs.ErrUnavailable)
}

// withdraw has nothing to do: the proxy is the only way in.
func (p *pasta) withdraw([]Port) error { return nil }

// Close ends pasta.
func (p *pasta) Close() error {
	if p.ended == nil {
		return nil
	}
	select {
	case <-p.ended:
	default:
		_ = p.process.Process.Kill() // it may end just now
		<-p.ended
	}
	return nil
}
