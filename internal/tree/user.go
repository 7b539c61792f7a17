package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
)

// maxUserFile bounds /etc/passwd and /etc/group, as in BuildKit.
const maxUserFile = 10 << 20

// LookupUser reads "user", "user:group" or numbers in their place as --chown
// takes them, looking names up in /etc/passwd and /etc/group of fsys. A number
// alone is user and group.
//
// A name that is not there gives [errdefs.ErrNotFound] together with the owner
// that BuildKit takes then without a word: 0 for the part it does not know.
func LookupUser(fsys FS, spec string) (Owner, error) {
	name, group, _ := strings.Cut(spec, ":")
	owner, err := userNamed(fsys, name)
	if group == "" {
		return owner, err
	}
	gid, groupErr := LookupGroup(fsys, group)
	if groupErr == nil {
		owner.GID = gid
	}
	return owner, errors.Join(err, groupErr)
}

// userNamed returns the user and its group.
func userNamed(fsys FS, name string) (Owner, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return Owner{uint32(id), uint32(id)}, nil
	}
	f, err := userFile(fsys, "/etc/passwd")
	if err != nil {
		return Owner{}, fmt.Errorf("look up user %q: %w", name, err)
	}
	defer f.Close()
	users, err := user.ParsePasswdFilter(f, func(u user.User) bool { return u.Name == name })
	if err != nil {
		return Owner{}, fmt.Errorf("look up user %q: read /etc/passwd: %w", name, err)
	}
	if len(users) == 0 {
		return Owner{}, fmt.Errorf("look up user %q in /etc/passwd: %w", name, errdefs.ErrNotFound)
	}
	return ownerOf("user", name, users[0].Uid, users[0].Gid)
}

// LookupGroup returns the number of a group, which may be a number already, with
// errors like those of [LookupUser].
func LookupGroup(fsys FS, name string) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	f, err := userFile(fsys, "/etc/group")
	if err != nil {
		return 0, fmt.Errorf("look up group %q: %w", name, err)
	}
	defer f.Close()
	groups, err := user.ParseGroupFilter(f, func(g user.Group) bool { return g.Name == name })
	if err != nil {
		return 0, fmt.Errorf("look up group %q: read /etc/group: %w", name, err)
	}
	if len(groups) == 0 {
		return 0, fmt.Errorf("look up group %q in /etc/group: %w", name, errdefs.ErrNotFound)
	}
	owner, err := ownerOf("group", name, groups[0].Gid, groups[0].Gid)
	return owner.GID, err
}

func ownerOf(what, name string, uid, gid int) (Owner, error) {
	if uid < 0 || gid < 0 || int64(uid) >= 1<<32 || int64(gid) >= 1<<32 {
		return Owner{}, fmt.Errorf("look up %s %q: %d:%d: %w", what, name, uid, gid,
			errdefs.ErrInvalidArgument.WithMessage("number out of range"))
	}
	return Owner{uint32(uid), uint32(gid)}, nil
}

// userFile opens a file of accounts, which a step of the build may have put
// there: links are followed inside fsys only, nothing but a regular file of
// bounded size is read.
func userFile(fsys FS, path string) (io.ReadCloser, error) {
	real, err := Resolve(fsys, path)
	if err != nil {
		return nil, classed(err)
	}
	info, err := fsys.Lstat(real)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("%s: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if info.Size() > maxUserFile {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s exceeds %d bytes", path, maxUserFile))
	}
	return fsys.Open(real)
}
