package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/sys"
)

// lease is an address that one process holds: a locked file named after it.
type lease struct {
	addr netip.Addr
	file string
	lock *sys.FileLock
}

// takeLease returns the address after the one that was given last, so that an
// address rests as long as can be before it is given again. The caller holds
// the lock of the networks.
func takeLease(dir string, b bridge, holder string) (*lease, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make lease directory: %w", err)
	}
	lastFile := filepath.Join(dir, "last")
	last := b.Gateway
	if data, err := os.ReadFile(lastFile); err == nil {
		if addr, err := netip.ParseAddr(strings.TrimSpace(string(data))); err == nil && b.Subnet.Contains(addr) {
			last = addr
		}
	}
	for addr := b.next(last); addr != last; addr = b.next(addr) {
		l, err := tryLease(filepath.Join(dir, addr.String()), addr, holder)
		if errdefs.IsUnavailable(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("lease address %s: %w", addr, err)
		}
		return l, os.WriteFile(lastFile, []byte(addr.String()), 0o600)
	}
	return nil, fmt.Errorf("lease address: all of %s are in use: %w", b.Subnet, errdefs.ErrResourceExhausted)
}

// next is the address after addr that a container may have; behind the last
// comes the first.
func (b bridge) next(addr netip.Addr) netip.Addr {
	addr = addr.Next()
	if !b.Subnet.Contains(addr.Next()) { // the broadcast address, or beyond
		addr = b.Gateway.Next()
	}
	return addr
}

func tryLease(file string, addr netip.Addr, holder string) (*lease, error) {
	lock, err := sys.TryLock(file, sys.Exclusive)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(holder+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &lease{addr, file, lock}, nil
}

// Close gives the address back.
func (l *lease) Close() error {
	// Removed before it is unlocked: whoever opens the name next makes a
	// new file, and the lock of the networks lets only one do so.
	return errors.Join(os.Remove(l.file), l.lock.Close())
}

// anyLease reports whether a living process holds an address of dir. What the
// dead left is removed.
func anyLease(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err != nil {
			continue
		}
		file := filepath.Join(dir, e.Name())
		lock, err := sys.TryLock(file, sys.Exclusive)
		if errdefs.IsUnavailable(err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if err := errors.Join(os.Remove(file), lock.Close()); err != nil {
			return false, err
		}
	}
	return false, nil
}
