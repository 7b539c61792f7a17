//go:build linux

package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Mount says what is to be mounted where. It is a value: it can be kept,
// compared and sent as JSON.
type Mount struct {
	// Type is the file system type; it is not looked at if Flags has Bind.
	Type string `json:"type,omitempty"`
	// Source is the file, directory or device; some types take any word.
	Source string `json:"source,omitempty"`
	// Root, if Flags has Bind, is the directory that Source lies in and does
	// not lead out of, whatever links others put there ([OpenInRoot]).
	Root   string `json:"root,omitempty"`
	Target string `json:"target"`
	// Flags are the numbers of mount(2): ReadOnly, NoDev, Bind and so on.
	Flags uintptr `json:"flags,omitempty"`
	// Data holds the options of the file system, "key=value" or "key", between
	// commas. A backslash takes the next character as it is; [Option] writes
	// that form.
	Data string `json:"data,omitempty"`
	// Layers are the lower directories of an overlay, lowest first.
	Layers []string `json:"layers,omitempty"`
	// Files are what a new tmpfs begins with. They are not part of the JSON:
	// they may be secrets.
	Files []File `json:"-"`
}

// Flags of a [Mount], as mount(2) numbers them.
const (
	ReadOnly    uintptr = unix.MS_RDONLY
	NoSuid      uintptr = unix.MS_NOSUID
	NoDev       uintptr = unix.MS_NODEV
	NoExec      uintptr = unix.MS_NOEXEC
	NoAtime     uintptr = unix.MS_NOATIME
	NoSymFollow uintptr = unix.MS_NOSYMFOLLOW
	// Bind shows the file or directory Source at Target.
	Bind uintptr = unix.MS_BIND
	// Recursive extends Bind, and the flags and propagation that come with it,
	// to whatever is mounted below Source.
	Recursive uintptr = unix.MS_REC
)

const propagation = unix.MS_SHARED | unix.MS_SLAVE | unix.MS_PRIVATE | unix.MS_UNBINDABLE

// attributes pairs the flags that belong to a mount, not to its file system,
// with their names in mount_setattr(2).
var attributes = []struct {
	flag uintptr
	attr uint64
}{
	{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
	{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
	{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
	{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
	{unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME},
	{unix.MS_STRICTATIME, unix.MOUNT_ATTR_STRICTATIME},
	{unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
	{unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
	{unix.MS_RELATIME, unix.MOUNT_ATTR_RELATIME},
}

// Option returns one element of [Mount.Data].
func Option(key, value string) string {
	return key + "=" + strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(value)
}

// MountAll makes mounts in their order, each as soon as the one before is
// there. A missing Target is made: a directory, or an empty file where a file
// is bound. After an error the mounts made so far are still there; they go
// with the namespace ([PrivateMounts]).
//
// It needs Linux 5.12. An error carries what the file system had to say, and is an
// [errdefs.ErrPermissionDenied], [errdefs.ErrNotImplemented] (the kernel does
// not know the type or an option) or [errdefs.ErrInvalidArgument] where it can
// be told.
func MountAll(mounts []Mount) error {
	for _, m := range mounts {
		if err := m.make(); err != nil {
			what := m.Type
			if m.Flags&Bind != 0 {
				what = m.Source
			}
			return fmt.Errorf("mount %s at %s: %w", what, m.Target, classify(err))
		}
	}
	return nil
}

func (m Mount) make() error {
	attr, err := m.attr()
	if err != nil {
		return err
	}
	var fd int
	switch {
	case m.Flags&Bind != 0:
		fd, err = m.clone(attr)
	case m.Type == "overlay":
		fd, err = m.overlay(attr)
	default:
		fd, err = m.create(attr)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := m.makeTarget(fd); err != nil {
		return err
	}
	err = unix.MoveMount(fd, "", unix.AT_FDCWD, m.Target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// attr translates Flags and refuses what it does not know.
func (m Mount) attr() (unix.MountAttr, error) {
	var a unix.MountAttr
	rest := m.Flags &^ (Bind | Recursive)
	for _, t := range attributes {
		if rest&t.flag != 0 {
			a.Attr_set |= t.attr
			rest &^= t.flag
		}
	}
	if a.Attr_set&unix.MOUNT_ATTR__ATIME != 0 || m.Flags&unix.MS_RELATIME != 0 {
		a.Attr_clr |= unix.MOUNT_ATTR__ATIME // the three exclude each other: mount_setattr(2)
	}
	a.Propagation = uint64(rest & propagation)
	if rest &^= propagation; rest != 0 {
		return a, fmt.Errorf("mount flags %#x: %w", rest, errdefs.ErrInvalidArgument)
	}
	return a, nil
}

// clone returns a detached copy of the mount tree at Source, with attributes.
func (m Mount) clone(a unix.MountAttr) (int, error) {
	deep := uint(0)
	if m.Flags&Recursive != 0 {
		deep = unix.AT_RECURSIVE
	}
	fd, err := m.openSource(deep)
	if err != nil {
		return -1, fmt.Errorf("open source: %w", err)
	}
	if a == (unix.MountAttr{}) {
		return fd, nil
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|deep, &a); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set mount flags: %w", err)
	}
	return fd, nil
}

func (m Mount) openSource(flags uint) (int, error) {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if m.Root == "" {
		return unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	}
	dir, err := OpenInRoot(m.Root, m.Source, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	return unix.OpenTree(int(dir.Fd()), "", flags|unix.AT_EMPTY_PATH)
}

// create returns a detached mount of a new file system.
func (m Mount) create(a unix.MountAttr) (int, error) {
	fs, err := openFS(m.Type)
	if err != nil {
		return -1, err
	}
	defer fs.Close()
	if m.Source != "" {
		fs.set("source", m.Source)
	}
	fs.setAll(m.Data)
	if m.Flags&ReadOnly != 0 {
		fs.flag("ro")
	}
	fd, err := fs.mount(a)
	if err != nil || len(m.Files) == 0 {
		return fd, err
	}
	if err := fill(fd, m.Files); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// makeTarget makes Target if it is missing: what kind it has to be, the root of
// the mount open as fd tells.
func (m Mount) makeTarget(fd int) error {
	_, err := os.Lstat(m.Target)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	dir := m.Target
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir {
		dir = filepath.Dir(dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if isDir {
		return nil
	}
	f, err := os.OpenFile(m.Target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
