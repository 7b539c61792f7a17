package network

import (
	"os/exec"
	"syscall"
	"testing"
)

// The network part of a start: address, sockets, interface, rules.
func BenchmarkAttach(b *testing.B) {
	n := &Networks{dir: b.TempDir(), device: "shaletest0"}
	defer n.Prune()
	keep, err := n.Reserve(b.Context(), Endpoint{})
	if err != nil {
		b.Skip(err)
	}
	defer keep.Close()
	for b.Loop() {
		b.StopTimer()
		cmd := namespace(b)
		b.StartTimer()
		a, err := n.Attach(b.Context(), cmd.Process.Pid, Endpoint{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = a.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		b.StartTimer()
	}
}

// namespace is a process that does nothing in a network namespace of its own.
func namespace(b *testing.B) *exec.Cmd {
	b.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Skip(err)
	}
	return cmd
}
