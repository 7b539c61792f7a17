//go:build linux

package sys

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. Its methods act on the files in it, each named by
// its last part alone: no method follows a symbolic link or leaves the
// directory, whatever somebody else does to the tree meanwhile.
type Dir struct{ f *os.File }

// Inode is what a [Dir] says about a file: all that a copy of it needs.
type Inode struct {
	Dev, Ino     uint64
	Mode         uint32 // type and permissions, as in stat(2)
	Nlink        uint64
	UID, GID     uint32
	Rdev         uint64
	Size         int64
	ModTime      time.Time
	Major, Minor uint32 // of Rdev
}

// OpenDir opens the directory at path, which may be reached through symbolic
// links.
func OpenDir(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open directory", path, err)
	}
	return &Dir{os.NewFile(uintptr(fd), path)}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.f.Close() }

// Path returns the name under which the directory was opened, for messages.
func (d *Dir) Path() string { return d.f.Name() }

func (d *Dir) fd() int { return int(d.f.Fd()) }

// do calls f with a name that was checked and adds verb and name to its error.
func (d *Dir) do(verb, name string, f func() error) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return pathError(verb, name, unix.EINVAL)
	}
	if err := retry(f); err != nil {
		return pathError(verb, d.f.Name()+"/"+name, err)
	}
	return nil
}

// Dir opens a directory in d.
func (d *Dir) Dir(name string) (*Dir, error) {
	f, err := d.open("open directory", name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{f}, nil
}

// Open opens a file in d. Flags and mode are those of open(2).
func (d *Dir) Open(name string, flags int, mode uint32) (*os.File, error) {
	return d.open("open", name, flags, mode)
}

func (d *Dir) open(verb, name string, flags int, mode uint32) (f *os.File, err error) {
	err = d.do(verb, name, func() error {
		fd, err := unix.Openat(d.fd(), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if err == nil {
			f = os.NewFile(uintptr(fd), d.f.Name()+"/"+name)
		}
		return err
	})
	return f, err
}

// Names returns the names in the directory, in no order.
func (d *Dir) Names() ([]string, error) {
	if _, err := d.f.Seek(0, 0); err != nil {
		return nil, pathError("list", d.f.Name(), errnoOf(err))
	}
	names, err := d.f.Readdirnames(-1)
	if err != nil {
		return nil, pathError("list", d.f.Name(), errnoOf(err))
	}
	return names, nil
}

// Self describes the directory itself.
func (d *Dir) Self() (Inode, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(d.fd(), &st) }); err != nil {
		return Inode{}, pathError("stat", d.f.Name(), err)
	}
	return inodeOf(&st), nil
}

// Stat describes a file in d.
func (d *Dir) Stat(name string) (Inode, error) {
	var st unix.Stat_t
	err := d.do("stat", name, func() error {
		return unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return inodeOf(&st), err
}

func inodeOf(st *unix.Stat_t) Inode {
	return Inode{
		Dev: uint64(st.Dev), Ino: st.Ino, Mode: st.Mode, Nlink: uint64(st.Nlink), UID: st.Uid, GID: st.Gid,
		Rdev: uint64(st.Rdev), Size: st.Size, ModTime: time.Unix(st.Mtim.Unix()),
		Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev)),
	}
}

// Mkdir makes a directory.
func (d *Dir) Mkdir(name string, mode uint32) error {
	return d.do("make directory", name, func() error { return unix.Mkdirat(d.fd(), name, mode) })
}

// Mknod makes a device, FIFO or socket: mode has the type, rdev the number as
// [Inode.Rdev] has it.
func (d *Dir) Mknod(name string, mode uint32, rdev uint64) error {
	return d.do("make node", name, func() error { return unix.Mknodat(d.fd(), name, mode, int(rdev)) })
}

// Symlink makes a symbolic link to target.
func (d *Dir) Symlink(target, name string) error {
	return d.do("make symbolic link", name, func() error { return unix.Symlinkat(target, d.fd(), name) })
}

// Link gives the file from in old a second name in d.
func (d *Dir) Link(old *Dir, from, name string) error {
	return d.do("make hard link", name, func() error { return unix.Linkat(old.fd(), from, d.fd(), name, 0) })
}

// Readlink returns the target of a symbolic link.
func (d *Dir) Readlink(name string) (target string, err error) {
	err = d.do("read link", name, func() error {
		b, err := sizedLink(func(b []byte) (int, error) { return unix.Readlinkat(d.fd(), name, b) })
		target = string(b)
		return err
	})
	return target, err
}

// sizedLink calls read with a buffer that is larger than what it returns.
func sizedLink(read func(b []byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n, err := read(b)
		if err != nil || n < size {
			return b[:max(n, 0)], err
		}
	}
}

// Remove removes a file, or an empty directory.
func (d *Dir) Remove(name string) error {
	return d.do("remove", name, func() error {
		err := unix.Unlinkat(d.fd(), name, 0)
		if err == unix.EISDIR {
			err = unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR)
		}
		return err
	})
}

// Chown gives a file an owner.
func (d *Dir) Chown(name string, uid, gid uint32) error {
	return d.do("change owner of", name, func() error {
		return unix.Fchownat(d.fd(), name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Chmod gives a file its permissions, 07777. A symbolic link has none: that is
// an [errdefs.ErrNotImplemented].
func (d *Dir) Chmod(name string, mode uint32) error {
	return d.do("change mode of", name, func() error {
		err := unix.Fchmodat(d.fd(), name, mode, unix.AT_SYMLINK_NOFOLLOW)
		if err != unix.EOPNOTSUPP {
			return err
		}
		// Before Linux 6.6 the call knows no flags: hold the file, look what it
		// is, and change what is held.
		fd, err := unix.Openat(d.fd(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
	})
}

// SetModTime sets the time of the last modification, and leaves that of the
// last access.
func (d *Dir) SetModTime(name string, t time.Time) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: t.Unix(), Nsec: int64(t.Nanosecond())}}
	return d.do("set time of", name, func() error {
		return unix.UtimesNanoAt(d.fd(), name, times, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// SetXattr sets an extended attribute of a file.
func (d *Dir) SetXattr(name, attr string, value []byte) error {
	return d.do("set extended attribute "+attr+" of", name, func() error {
		return unix.Lsetxattr(d.magic(name), attr, value, 0)
	})
}

// Xattrs returns the extended attributes of a file.
func (d *Dir) Xattrs(name string) (attrs map[string][]byte, err error) {
	err = d.do("read extended attributes of", name, func() error {
		attrs, err = Xattrs(d.magic(name))
		return err
	})
	return attrs, err
}

// SelfXattrs returns the extended attributes of the directory itself.
func (d *Dir) SelfXattrs() (map[string][]byte, error) { return Xattrs(d.magic(".")) }

// magic returns a path that leads to a file in the directory wherever that is
// now. The calls for extended attributes take no directory before Linux 6.13.
func (d *Dir) magic(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.fd(), name)
}

// SetSelf gives the directory itself owner, permissions and time, in this
// order. An owner of -1 is left as it is.
func (d *Dir) SetSelf(uid, gid int, mode uint32, t time.Time) error {
	fd := d.fd()
	err := retry(func() error { return unix.Fchown(fd, uid, gid) })
	if err == nil {
		err = retry(func() error { return unix.Fchmod(fd, mode) })
	}
	if err == nil {
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: t.Unix(), Nsec: int64(t.Nanosecond())}}
		err = retry(func() error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times, 0)
		})
	}
	return pathError("set attributes of", d.f.Name(), err)
}

// SetSelfXattr sets an extended attribute of the directory itself.
func (d *Dir) SetSelfXattr(attr string, value []byte) error {
	err := retry(func() error { return unix.Fsetxattr(d.fd(), attr, value, 0) })
	return pathError("set extended attribute "+attr+" of", d.f.Name(), err)
}
