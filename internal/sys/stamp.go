//go:build linux

package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// Stamp tells one state of a file or directory from another: while it stays
// the same nothing in a directory was made, removed or replaced.
//
// The kernel's clock for files stands still between ticks. A change that comes
// right after a look may leave the stamp as it is; see [Stamp.Settled].
type Stamp struct {
	Dev, Ino        uint64
	Changed, Edited int64 // ctime and mtime in nanoseconds
}

// StampOf returns the stamp of what is at path. It follows no link.
func StampOf(path string) (Stamp, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Lstat(path, &st) }); err != nil {
		return Stamp{}, pathError("stat", path, err)
	}
	return Stamp{Dev: st.Dev, Ino: st.Ino, Changed: st.Ctim.Nano(), Edited: st.Mtim.Nano()}, nil
}

// settling is longer than a tick of any file system's clock: FAT's is 2 s.
const settling = 3 * time.Second

// Settled says whether the last change was so long before now that a further
// one would show.
func (s Stamp) Settled(now time.Time) bool {
	return now.Sub(time.Unix(0, max(s.Changed, s.Edited))) > settling
}
