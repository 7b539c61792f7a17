package rootfstest

import (
	"archive/tar"
	"bytes"
	"testing"
	"time"
)

// member is one member of a layer tar.
type member struct {
	tar.Header
	content string
}

// noon is when everything was last changed.
var noon = time.Date(2020, time.February, 29, 12, 0, 0, 0, time.UTC)

func file(name, content string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: noon}, content}
}

func dir(name string) member {
	return member{tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: noon}, ""}
}

func symlink(name, target string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777, ModTime: noon}, ""}
}

func hardlink(name, target string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o644, ModTime: noon}, ""}
}

func device(name string, kind byte, major, minor int64) member {
	return member{tar.Header{Name: name, Typeflag: kind, Mode: 0o600, ModTime: noon, Devmajor: major, Devminor: minor}, ""}
}

func whiteout(dir, name string) member { return file(dir+".wh."+name, "") }
func opaque(dir string) member         { return file(dir+"/.wh..wh..opq", "") }

func (m member) mode(mode int64) member {
	m.Mode = mode
	return m
}

func (m member) owner(uid, gid int) member {
	m.Uid, m.Gid = uid, gid
	return m
}

func (m member) xattr(name, value string) member {
	records := map[string]string{"SCHILY.xattr." + name: value}
	for k, v := range m.PAXRecords {
		records[k] = v
	}
	m.PAXRecords = records
	return m
}

// archive is a tar as a stranger may have made it, not as we would.
func archive(t *testing.T, members ...member) []byte {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for _, m := range members {
		h := m.Header
		h.Size = int64(len(m.content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}
