package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// HostDevice reads the device node at path, to be made under the same path in
// a sandbox.
func HostDevice(path string) (specs.LinuxDevice, error) {
	info, err := os.Stat(path)
	if err != nil {
		return specs.LinuxDevice{}, fmt.Errorf("read device: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeDevice == 0 {
		return specs.LinuxDevice{}, because(errdefs.ErrInvalidArgument, "read device: %s is not a device", path)
	}
	kind := "b"
	if info.Mode()&fs.ModeCharDevice != 0 {
		kind = "c"
	}
	mode := info.Mode().Perm()
	return specs.LinuxDevice{
		Path: path, Type: kind,
		Major: int64(unix.Major(stat.Rdev)), Minor: int64(unix.Minor(stat.Rdev)),
		FileMode: &mode, UID: &stat.Uid, GID: &stat.Gid,
	}, nil
}

// hostDevices are the nodes below /dev, for a privileged sandbox. What the
// sandbox has of its own is left out.
func hostDevices() ([]specs.LinuxDevice, error) {
	var devices []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			// A node that has just gone, or a directory that is not ours to read.
			return nil //nolint:nilerr
		}
		switch path {
		case "/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case "/dev/console", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx":
			return nil
		}
		if d.Type()&fs.ModeDevice == 0 {
			return nil
		}
		if device, err := HostDevice(path); err == nil {
			devices = append(devices, device)
		}
		return nil
	})
	return devices, err
}
