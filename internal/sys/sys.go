//go:build linux

// Package sys is shale's whole acquaintance with Linux: mounts, namespaces,
// id maps, file locks, extended attributes, reflinks.
//
// It is the only package that carries build tags and imports
// golang.org/x/sys. Nothing here knows what an image or a layer is. Paths are
// taken as trusted and followed through symbolic links, unless the name of the
// function says otherwise ([OpenInRoot]); descriptors are close-on-exec; a
// system call that a signal interrupts is made again.
package sys

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// fault is an errno with the errdefs class that callers branch on. It reads
// like the errno alone.
type fault struct {
	error
	class error
}

func (f fault) Unwrap() []error { return []error{f.error, f.class} }

// classify gives err, if it is an errno that has a class, that class.
func classify(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.EEXIST, unix.ENOTEMPTY:
		return fault{err, errdefs.ErrAlreadyExists}
	case unix.ENOENT, unix.ENOTDIR:
		return fault{err, errdefs.ErrNotFound}
	case unix.EPERM, unix.EACCES:
		return fault{err, errdefs.ErrPermissionDenied}
	case unix.ENOSYS, unix.EOPNOTSUPP, unix.ENODEV:
		return fault{err, errdefs.ErrNotImplemented}
	case unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE:
		return fault{err, errdefs.ErrResourceExhausted}
	}
	return err
}

// retry calls f until it returns something other than EINTR.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func pathError(verb, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, path, classify(err))
}
