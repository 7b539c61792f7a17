package layer

import (
	"archive/tar"
	"path"
	"strings"
)

// Names that mean something else than a file (image-spec layer.md,
// "Whiteouts"). What else begins with metaPrefix is bookkeeping of aufs, which
// old Docker layers hold and every engine skips.
const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh."
	opaqueName     = ".wh..wh..opq"
)

// Limits of Linux that no file can exceed (limits.h).
const (
	maxName = 255
	maxPath = 4095
)

// cleanName brings the name of a member to the form of io/fs: "." is the root,
// no slash begins or ends it. A name that leads out of the root is refused.
func cleanName(name string) (string, error) {
	return inRoot(name, name, "name")
}

// cleanLink does the same for the target of a hard link, which is a name in
// the layer, too.
func cleanLink(m *member) (string, error) {
	if m.link == "" {
		return "", refuse(m.name, "hard link to nothing")
	}
	return inRoot(m.name, m.link, "hard link to "+m.link)
}

func inRoot(member, name, what string) (string, error) {
	if name == "" {
		return "", refuse(member, "empty name")
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", refuse(member, "%s holds a NUL byte", what)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", refuse(member, "%s leaves the root of the layer", what)
	}
	if len(clean) > maxPath {
		return "", refuse(clip(member), "%s has more than %d bytes", clip(what), maxPath)
	}
	for rest := clean; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if rest == "" {
			part = strings.TrimPrefix(part, whiteoutPrefix)
		}
		if len(part) > maxName {
			return "", refuse(clip(member), "%s has a part of more than %d bytes", clip(what), maxName)
		}
	}
	return clean, nil
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// marker is what a name says beside naming a file.
type marker int

const (
	plain marker = iota
	whiteout
	opaque
	ignored
)

// markerOf splits a clean name into its directory and its last part, and says
// what the latter is. For a whiteout, base is the name that it hides.
func markerOf(member, clean string) (dir, base string, mark marker, err error) {
	dir, base = path.Split(clean)
	dir = path.Clean(dir)
	if !strings.Contains(clean, whiteoutPrefix) {
		return dir, base, plain, nil
	}
	if dir != "." {
		for part := range strings.SplitSeq(dir, "/") {
			if strings.HasPrefix(part, metaPrefix) {
				return dir, base, ignored, nil
			}
			if strings.HasPrefix(part, whiteoutPrefix) {
				return "", "", 0, refuse(member, "lies below a whiteout")
			}
		}
	}
	switch hidden, found := strings.CutPrefix(base, whiteoutPrefix); {
	case base == opaqueName:
		return dir, "", opaque, nil
	case strings.HasPrefix(base, metaPrefix):
		return dir, base, ignored, nil
	case !found:
		return dir, base, plain, nil
	case hidden == "" || hidden == "." || hidden == "..":
		return "", "", 0, refuse(member, "whiteout of nothing")
	default:
		return dir, hidden, whiteout, nil
	}
}

// kindName is what people call a type of member.
func kindName(kind byte) string {
	switch kind {
	case tar.TypeReg:
		return "file"
	case tar.TypeLink:
		return "hard link"
	case tar.TypeSymlink:
		return "symbolic link"
	case tar.TypeChar, tar.TypeBlock:
		return "device"
	case tar.TypeDir:
		return "directory"
	case tar.TypeFifo:
		return "FIFO"
	}
	return "type " + string(rune(kind))
}
