//go:build linux

package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mountEscaper writes a path as mount options in /proc/PID/mountinfo have it.
var mountEscaper = strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`, ",", `\054`)

// Mounted reports whether a mount in some mount namespace of the machine has
// dir, or what lies below it, as source or overlay layer. It sees the
// namespaces of the processes that the caller may look into.
func Mounted(dir string) (bool, error) {
	// Threads, because a process in [PrivateMounts] is in two namespaces.
	threads, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	if err != nil {
		return false, fmt.Errorf("look for mounts of %s: %w", dir, err)
	}
	name := mountEscaper.Replace(filepath.Clean(dir))
	seen := make(map[string]bool)
	for _, thread := range threads {
		ns, err := os.Readlink(thread + "/ns/mnt")
		if err != nil || seen[ns] {
			continue
		}
		data, err := os.ReadFile(thread + "/mountinfo")
		if err != nil {
			continue // ended meanwhile, or not ours
		}
		seen[ns] = true
		for line := range strings.Lines(string(data)) {
			// proc_pid_mountinfo(5): after " - " come type, source and options.
			_, source, _ := strings.Cut(line, " - ")
			if mentions(source, name) {
				return true, nil
			}
		}
	}
	return false, nil
}

// mentions reports whether name is in s as a whole path or the beginning of one.
func mentions(s, name string) bool {
	for {
		_, rest, found := strings.Cut(s, name)
		if !found {
			return false
		}
		if rest == "" || strings.ContainsRune("/, :\n", rune(rest[0])) {
			return true
		}
		s = rest
	}
}
