package rootfstest

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/sys"
)

// capability is security.capability with cap_net_bind_service+ep, revision 2:
// struct vfs_cap_data of linux/capability.h.
func capability() string {
	var b bytes.Buffer
	for _, word := range []uint32{0x02000001, 1 << 10, 0, 0, 0} {
		_ = binary.Write(&b, binary.LittleEndian, word) // into memory
	}
	return b.String()
}

// kinds is a layer with every kind of file that an image can hold.
func kinds() []member {
	long := strings.Repeat("n", 255)
	deep := strings.Repeat("deep/", 60)
	members := []member{
		dir(".").mode(0o755),
		dir("d"),
		dir("d/sticky").mode(0o1777),
		dir("d/setgid").mode(0o2750).owner(1000, 50),
		dir("d/closed").mode(0),
		file("d/closed/inside", "x").mode(0),
		file("d/setuid", "run me").mode(0o4755),
		file("d/setgid-file", "run me").mode(0o2711).owner(1000, 50),
		file("d/owned", "mine").owner(1000, 1001),
		file("d/far", "away").owner(65000, 65000),
		file("d/xattr", "x").xattr("user.note", "\x00binary\xff"),
		file("d/cap", "x").xattr("security.capability", capability()),
		dir("d/dirattr").xattr("user.dir", "yes"),
		symlink("d/link", "owned"),
		symlink("d/dangling", "/no/such/file"),
		symlink("d/longlink", strings.Repeat("../", 300)+"end"),
		file("d/"+long, "long"),
		hardlink("d/owned2", "d/owned"),
		hardlink("hard2", "d/owned"),
		file("d/ünï\ncode", "name"),
		device("d/fifo", tar.TypeFifo, 0, 0),
		device("d/null", tar.TypeChar, 1, 3).mode(0o666),
		device("d/disk", tar.TypeBlock, 259, 65537),
	}
	for i := range strings.Count(deep, "/") {
		members = append(members, dir(strings.TrimSuffix(deep[:5*(i+1)], "/")))
	}
	members = append(members, file(deep+"bottom", "reached"))
	for _, size := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 1<<20 + 3} {
		members = append(members, file(fmt.Sprint("size", size), strings.Repeat("0123456789abcde", size/15+1)[:size]))
	}
	return members
}

// expected is the tree of a layer that members make, the first of them its root.
func expected(members []member) tree {
	want := make(tree)
	nlink := make(map[string]int)
	for _, m := range members {
		if m.Typeflag == tar.TypeLink {
			nlink[m.Linkname]++
		}
	}
	byName := make(map[string]member)
	for _, m := range members {
		name := filepath.Clean(m.Name)
		suffix := ""
		if m.Typeflag == tar.TypeLink {
			suffix = sameAs + m.Linkname
			m = byName[m.Linkname]
		}
		byName[name] = m
		isDevice := m.Typeflag == tar.TypeChar || m.Typeflag == tar.TypeBlock
		if isDevice && plain() {
			continue // mknod(2) of a device needs real root
		}
		if alone() {
			m.Uid, m.Gid = 0, 0
		}
		line := fmt.Sprintf("%s %d:%d %d", m.FileInfo().Mode(), m.Uid, m.Gid, m.ModTime.Unix())
		switch {
		case m.Typeflag == tar.TypeReg:
			line += fmt.Sprintf(" %d links %s", 1+nlink[filepath.Clean(m.Name)], describeContent(m.content))
		case m.Typeflag == tar.TypeSymlink:
			line += " -> " + m.Linkname
		case isDevice:
			line += fmt.Sprintf(" rdev %#x", makedev(m.Devmajor, m.Devminor))
		}
		for _, attr := range []string{"security.capability", "user.dir", "user.note"} {
			if value, ok := m.PAXRecords["SCHILY.xattr."+attr]; ok {
				line += fmt.Sprintf(" %s=%q", attr, value)
			}
		}
		want[name] = line + suffix
	}
	return want
}

// makedev is makedev(3).
func makedev(major, minor int64) uint64 {
	return uint64(minor&0xff | major&0xfff<<8 | minor&^0xff<<12 | major&^0xfff<<32)
}

func testFiles(t *testing.T, b *bench) {
	members := kinds()
	got := b.shown(t, b.layer(t, members...))
	equal(t, got, expected(members))
}

func testSparse(t *testing.T, b *bench) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip(err)
	}
	src := t.TempDir()
	path := filepath.Join(src, "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 1 << 20, 5<<20 + 17} {
		if _, err := f.WriteAt([]byte("island"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "posix"} {
		data, err := exec.Command(gnu, "-C", src, "-S", "-c", "--format="+format, "--owner=0", "--group=0", "-f", "-", "sparse").Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 1<<20 {
			t.Fatalf("tar made no sparse member: %d bytes", len(data))
		}
		p := b.place(t, false)
		b.mounted(t, []digest.Digest{b.ingest(t, data)}, p, func() {
			got, err := os.ReadFile(p.path("sparse"))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %v", format, len(got), err)
			}
		})
	}
}

func testPrograms(t *testing.T, b *bench) {
	program, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	l := b.layer(t, file("true", string(content)).mode(0o4755), device("null", tar.TypeChar, 1, 3).mode(0o666))
	for _, writable := range []bool{false, true} {
		p := b.place(t, writable)
		b.mounted(t, []digest.Digest{l}, p, func() {
			if out, err := exec.Command(p.path("true")).CombinedOutput(); err != nil {
				t.Errorf("run a program: %v %s", err, out)
			}
			var st syscall.Statfs_t
			if err := syscall.Statfs(p.path(""), &st); err != nil {
				t.Error(err)
			}
			// statfs(2) numbers these flags as mount(2) does.
			if uintptr(st.Flags)&(sys.NoSuid|sys.NoDev|sys.NoExec) != 0 && !plain() {
				t.Errorf("the tree is mounted with flags %#x", st.Flags)
			}
			info, err := os.Stat(p.path("true"))
			if err != nil || info.Mode()&fs.ModeSetuid == 0 {
				t.Errorf("setuid is gone: %v", err)
			}
			if plain() {
				return
			}
			if f, err := os.OpenFile(p.path("null"), os.O_WRONLY, 0); err != nil {
				t.Error(err)
			} else if err := f.Close(); err != nil {
				t.Error(err)
			}
			// What lies below the tree is not a way around its flags.
			if out, err := exec.Command(filepath.Join(p.at, "layers/0/true")).CombinedOutput(); err == nil {
				t.Errorf("a program ran in the mount of a layer: %s", out)
			}
		})
	}
}
