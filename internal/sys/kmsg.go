//go:build linux

package sys

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelComplaint returns the last line that the file system of the given type
// wrote into the kernel's log, or "" if there is none or the caller may not read
// it. overlay and erofs say there, and only there, why they refuse.
func kernelComplaint(kind string) string {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	last := ""
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) {
			continue // EPIPE: the record was overwritten before we came to it
		}
		if err != nil || n == 0 {
			return last
		}
		// Documentation/ABI/testing/dev-kmsg: "prefix,sequence,time,flags;text\n…"
		_, text, _ := strings.Cut(string(buf[:n]), ";")
		text, _, _ = strings.Cut(text, "\n")
		if strings.HasPrefix(text, kind) {
			last = text
		}
	}
}
