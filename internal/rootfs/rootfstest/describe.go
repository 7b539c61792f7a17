package rootfstest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/shaleproject/shale/internal/sys"
)

// tree is a line for each file below a directory, by name. Equal lines mean that no program could
// tell the files apart, but by inode number and directory size.
type tree map[string]string

const sameAs = " same as "

func describe(t *testing.T, root string) tree {
	t.Helper()
	got := make(tree)
	type inode struct{ dev, ino uint64 }
	links := make(map[inode]string) // to the first name that has it
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		line, err := describeFile(path, info)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		id := inode{st.Dev, st.Ino}
		if first, ok := links[id]; ok && !d.IsDir() {
			line += sameAs + first
		} else {
			links[id] = name
		}
		got[name] = line
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

func describeFile(path string, info fs.FileInfo) (string, error) {
	st := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%s %d:%d %d", info.Mode(), st.Uid, st.Gid, info.ModTime().Unix())
	switch mode := info.Mode(); {
	case mode.IsDir():
	case mode.IsRegular():
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d links %s", st.Nlink, describeContent(string(data)))
		if int64(len(data)) != info.Size() {
			line += fmt.Sprintf(" of %d bytes", info.Size())
		}
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += " -> " + target
	case mode&fs.ModeDevice != 0:
		line += fmt.Sprintf(" rdev %#x", st.Rdev)
	}
	xattrs, err := sys.Xattrs(path)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		line += fmt.Sprintf(" %s=%q", name, xattrs[name])
	}
	return line, nil
}

func describeContent(data string) string {
	if len(data) <= 40 {
		return fmt.Sprintf("%q", data)
	}
	return fmt.Sprintf("%d bytes %.8x", len(data), sha256.Sum256([]byte(data)))
}

// names lists the files of a tree with what distinguishes them in the tests of
// stacking: "name" for directories, "name=content" for the rest.
func (f tree) names() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		line := f[name]
		if _, content, ok := strings.Cut(line, ` links "`); ok {
			content, _, _ = strings.Cut(content, `"`)
			name += "=" + content
		}
		if name != "." {
			list = append(list, name)
		}
	}
	return strings.Join(list, " ")
}

// equal reports every difference between two trees.
func equal(t *testing.T, got, want tree) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if line, ok := got[name]; !ok {
			t.Errorf("%s is missing: %s", short(name), want[name])
		} else if line != want[name] {
			t.Errorf("%s\n got %s\nwant %s", short(name), line, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s should not be there: %s", short(name), got[name])
		}
	}
}

func short(name string) string {
	if len(name) > 80 {
		return name[:40] + "…" + name[len(name)-30:]
	}
	return name
}
