//go:build linux

package sys

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// usernsRecord is the file that names a user namespace: "user:[4026532263]",
// a space, the id of the boot of the machine during which this was so, and a
// newline. Whoever has it open has it locked.
type usernsRecord struct {
	lock *FileLock
	path string
}

func openRecord(path string) (*usernsRecord, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	lock, err := Lock(path, Exclusive)
	if err != nil {
		return nil, err
	}
	return &usernsRecord{lock, path}, nil
}

// Close gives others their turn.
func (r *usernsRecord) Close() error { return r.lock.Close() }

// namespace returns the namespace, open, if there is a process in it; else nil.
func (r *usernsRecord) namespace() *os.File {
	data, err := io.ReadAll(io.LimitReader(r.lock.File(), 200))
	if err != nil {
		return nil
	}
	name, boot, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	if name == "" || boot != bootID() {
		return nil
	}
	if own, err := os.Readlink("/proc/self/ns/user"); err != nil || own == name {
		return nil
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/user")
	if err != nil {
		return nil
	}
	for _, link := range links {
		// The links of other users' processes can't be read.
		if got, err := os.Readlink(link); err != nil || got != name {
			continue
		}
		ns, err := os.Open(link)
		if err != nil {
			continue // it has just ended
		}
		// The number of its process may be another's by now.
		if got, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", ns.Fd())); err == nil && got == name {
			return ns
		}
		ns.Close()
	}
	return nil
}

// set names the namespace of process pid. The file is written in place: what a
// crash leaves half names no namespace.
func (r *usernsRecord) set(pid int) error {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s\n", name, bootID())
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// bootID is different after each start of the machine.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(data))
}
