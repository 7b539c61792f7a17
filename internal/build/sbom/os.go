package sbom

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/tree"
)

// maxOS bounds os-release, in bytes.
const maxOS = 64 << 10

// readOS reads os-release; a file system may have none.
func readOS(fsys tree.FS) (OS, error) {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		real, err := tree.Resolve(fsys, name)
		if err != nil {
			continue // a link to nowhere is as good as none
		}
		info, err := fsys.Lstat(real)
		if err != nil || !info.Mode().IsRegular() {
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errdefs.IsNotFound(err) {
				return OS{}, fmt.Errorf("read %s: %w", real, err)
			}
			continue
		}
		f, err := fsys.Open(real)
		if err != nil {
			return OS{}, fmt.Errorf("read %s: %w", real, err)
		}
		in := &tracked{r: f}
		os := parseOS(io.LimitReader(in, maxOS))
		f.Close()
		if in.err != nil {
			return OS{}, fmt.Errorf("read %s: %w", real, in.err)
		}
		return os, nil
	}
	return OS{}, nil
}

// parseOS reads os-release(5): shell assignments without expansion.
func parseOS(r io.Reader) OS {
	var os OS
	fields := map[string]*string{"ID": &os.ID, "VERSION_ID": &os.Version, "PRETTY_NAME": &os.Name}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		field := fields[key]
		if !ok || field == nil || len(value) > maxField || !utf8.ValidString(value) {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		*field = value
	}
	os.ID = strings.ToLower(os.ID)
	return os
}
