package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// inode names a file that may have several names.
type inode struct{ device, number uint64 }

// addMember writes one file. Sockets are left out.
func addMember(out *tar.Writer, dir *os.Root, name, member string, info fs.FileInfo, seen map[inode]string) error {
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = dir.Readlink(name); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = member, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && info.Mode().IsRegular() && stat.Nlink > 1 {
		id := inode{stat.Dev, stat.Ino}
		if first, found := seen[id]; found {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return out.WriteHeader(h)
		}
		seen[id] = member
	}
	if err := out.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// As much as the header says: the file may grow meanwhile.
	_, err = io.CopyN(out, f, h.Size)
	return err
}

// extract unpacks a tar below root and nowhere else. Owners are kept if owners
// says so.
func extract(ctx context.Context, root *os.Root, r io.Reader, owners bool) error {
	in := tar.NewReader(r)
	var dirs []*tar.Header // their modes and times come last
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		h.Name = path.Clean("./" + path.Clean("/" + h.Name)[1:])
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h)
		}
		if err := extractMember(root, h, in); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
		if err := settleMember(root, h, owners); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
	for _, h := range dirs {
		if h.Name == "." {
			continue // the directory itself stays as it is
		}
		if err := errors.Join(root.Chmod(h.Name, h.FileInfo().Mode()), root.Chtimes(h.Name, h.ModTime, h.ModTime)); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
	return nil
}

// extractMember makes one file.
func extractMember(root *os.Root, h *tar.Header, content io.Reader) error {
	if dir := path.Dir(h.Name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeDir {
		if info, err := root.Stat(h.Name); err == nil && info.IsDir() {
			return nil
		}
		return root.Mkdir(h.Name, 0o700)
	}
	if info, err := root.Lstat(h.Name); err == nil {
		if info.IsDir() {
			return because(errdefs.ErrInvalidArgument, "a directory is in the place of a file")
		}
		if err := root.Remove(h.Name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, h.Name)
	case tar.TypeLink:
		return root.Link(path.Clean("./"+path.Clean("/" + h.Linkname)[1:]), h.Name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return makeNode(root, h)
	}
	return because(errdefs.ErrInvalidArgument, "a member of type %q", h.Typeflag)
}

// makeNode makes a device or FIFO in the directory that root opens: os.Root
// has no method for it.
func makeNode(root *os.Root, h *tar.Header) error {
	dir, err := root.Open(path.Dir(h.Name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	return unix.Mknodat(int(dir.Fd()), path.Base(h.Name), kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// settleMember gives a file its owner, mode and time.
func settleMember(root *os.Root, h *tar.Header, owners bool) error {
	if h.Typeflag == tar.TypeLink || h.Name == "." {
		return nil
	}
	if owners {
		if err := root.Lchown(h.Name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeDir {
		return nil
	}
	// After the owner: a change of owner takes the set-id bits away.
	return errors.Join(root.Chmod(h.Name, h.FileInfo().Mode()), root.Chtimes(h.Name, h.ModTime, h.ModTime))
}
