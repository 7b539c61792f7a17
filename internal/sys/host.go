//go:build linux

package sys

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// KernelRelease returns the release of the running kernel: "6.12.48-amd64".
func KernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown" // uname(2): fails only for a bad pointer
	}
	return unix.ByteSliceToString(u.Release[:])
}

// fileSystems names the magic numbers of statfs(2) that we have something to
// say about. ext4 has that of ext2.
var fileSystems = map[uint32]string{
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.NFS_SUPER_MAGIC:       "nfs",
	unix.FUSE_SUPER_MAGIC:      "fuse",
	unix.EROFS_SUPER_MAGIC_V1:  "erofs",
	unix.V9FS_MAGIC:            "9p",
	unix.ECRYPTFS_SUPER_MAGIC:  "ecryptfs",
	unix.F2FS_SUPER_MAGIC:      "f2fs",
	0x2fc12fc1:                 "zfs",
}

// FileSystem returns the type of the file system that holds path: "ext4", or
// its magic number in hexadecimal if it is not among those that we know.
func FileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return "", pathError("find file system of", path, err)
	}
	magic := uint32(st.Type)
	if name, ok := fileSystems[magic]; ok {
		return name, nil
	}
	return fmt.Sprintf("%#x", magic), nil
}

// Free returns how many bytes of the file system that holds path an ordinary
// user may still fill, and how many there are in all.
func Free(path string) (free, all uint64, err error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return 0, 0, pathError("find free space of", path, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// EffectiveCapabilities returns the capabilities that the process can use, as a
// hexadecimal mask; "" if /proc does not say.
func EffectiveCapabilities() string {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if mask, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strings.TrimSpace(mask)
		}
	}
	return ""
}
