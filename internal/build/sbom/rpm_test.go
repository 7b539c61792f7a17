package sbom

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// rpmHeader is what rpm keeps of a package. padding makes it as long as those
// of packages with many files.
func rpmHeader(name, version, release string, epoch uint32, padding int) []byte {
	var entries, data []byte
	add := func(tag, kind uint32, value []byte) {
		for _, n := range []uint32{tag, kind, uint32(len(data)), 1} {
			entries = binary.BigEndian.AppendUint32(entries, n)
		}
		data = append(data, value...)
	}
	if epoch > 0 {
		add(rpmEpoch, rpmInt32, binary.BigEndian.AppendUint32(nil, epoch))
	}
	for tag, value := range map[uint32]string{
		rpmName: name, rpmVersion: version, rpmRelease: release, rpmArch: "x86_64",
		rpmLicense: "GPLv3+", rpmSource: name + "-" + version + ".src.rpm", 5000: strings.Repeat("x", padding),
	} {
		add(tag, rpmString, append([]byte(value), 0))
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(entries)/16))
	head = binary.BigEndian.AppendUint32(head, uint32(len(data)))
	return slices.Concat(head, entries, data)
}

// rpmHeaders are a few hundred packages, some of which need further pages.
func rpmHeaders() [][]byte {
	list := [][]byte{rpmHeader("bash", "5.2.26", "1.fc40", 0, 100), rpmHeader("gpg-pubkey", "1", "2", 0, 0), rpmHeader("shadow-utils", "4.15", "1", 2, 100_000)}
	for n := range 300 {
		list = append(list, rpmHeader(fmt.Sprintf("p%03d", n), "1", "1", 0, n*37))
	}
	return list
}

// sqliteOf has SQLite itself write a database of headers, as rpm lays it out.
func sqliteOf(t testing.TB, page int, headers [][]byte) []byte {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3, which brings SQLite, is not installed")
	}
	name := filepath.Join(t.TempDir(), "db")
	var in bytes.Buffer
	for _, h := range headers {
		fmt.Fprintln(&in, hex.EncodeToString(h))
	}
	cmd := exec.Command("python3", "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("PRAGMA page_size = " + sys.argv[2])
db.execute("CREATE TABLE Other (key BLOB NOT NULL)")
db.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
for line in sys.stdin:
    db.execute("INSERT INTO Packages (blob) VALUES (?)", (bytes.fromhex(line),))
db.commit()`, name, fmt.Sprint(page))
	cmd.Stdin = &in
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("python3 without sqlite3: %s", out)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// ndbOf lays headers out as rpm's own database does.
func ndbOf(headers [][]byte) []byte {
	u32 := binary.LittleEndian.AppendUint32
	const pages = 2
	db := u32(u32(u32(u32([]byte("RpmP"), 0), 1), pages), uint32(len(headers)+1))
	db = append(db, make([]byte, 32-len(db))...)
	var blobs []byte
	for n, h := range headers {
		db = u32(u32(u32(append(db, "Slot"...), uint32(n+1)), uint32((pages*4096+len(blobs))/16)), uint32(len(h)/16+2))
		blobs = u32(u32(u32(append(blobs, "BlbS"...), uint32(n+1)), 1), uint32(len(h)))
		blobs = append(append(blobs, h...), make([]byte, 32-len(h)%16)...)
	}
	for len(db) < pages*4096 {
		db = append(db, "Slot\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	}
	return append(db, blobs...)
}

func TestEveryDatabaseOfRPMIsRead(t *testing.T) {
	headers := rpmHeaders()
	for what, db := range map[string]struct {
		name string
		data []byte
	}{
		"sqlite with small pages": {"usr/lib/sysimage/rpm/rpmdb.sqlite", sqliteOf(t, 512, headers)},
		"sqlite":                  {"var/lib/rpm/rpmdb.sqlite", sqliteOf(t, 4096, headers)},
		"sqlite with large pages": {"var/lib/rpm/rpmdb.sqlite", sqliteOf(t, 65536, headers)},
		"ndb":                     {"usr/lib/sysimage/rpm/Packages.db", ndbOf(headers)},
	} {
		inv := read(t, fstest.MapFS{db.name: {Data: db.data, Mode: 0o644}, "etc/os-release": file("ID=fedora\nVERSION_ID=40\n")})
		got := urls(inv)
		if len(got) != 302 || len(inv.Skipped) != 0 {
			t.Errorf("%s: %d packages, skipped %q", what, len(got), inv.Skipped)
			continue
		}
		expect(t, what, []string{got[0], got[301]}, []string{
			"pkg:rpm/fedora/bash@5.2.26-1.fc40?arch=x86_64&distro=fedora-40&upstream=bash-5.2.26.src.rpm",
			"pkg:rpm/fedora/shadow-utils@4.15-1?arch=x86_64&distro=fedora-40&epoch=2&upstream=shadow-utils-4.15.src.rpm",
		})
		if p := inv.Packages[301]; p.Version != "2:4.15-1" || p.License != "GPLv3+" {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

// Rows that lie in one place would make much of a small file: here 131 kB
// become 60 MB, and of the largest that is read 16 TB.
func TestRowsOfADatabaseShareNoBytes(t *testing.T) {
	const page, rows, size = 65536, 1000, 60000
	u16 := binary.BigEndian.PutUint16
	db := make([]byte, 2*page)
	copy(db, "SQLite format 3\x00\x00\x01")
	schema := "\x06\x17\x1d\x1d\x01\x0dtablePackagesPackages\x02"
	head := db[100:]
	head[0] = leafPage
	u16(head[3:], 1)
	u16(head[8:], 1000)
	copy(db[1000:], fmt.Sprintf("%c\x01%s", len(schema), schema))
	root := db[page:]
	root[0] = leafPage
	u16(root[3:], rows)
	for n := range rows {
		u16(root[8+2*n:], 3000)
	}
	// The size, the rowid, and of the record: its head's size and types NULL
	// and BLOB. Numbers have 7 bits a byte.
	blob := 2*(size-5) + 12
	copy(root[3000:], []byte{size>>14 | 0x80, size>>7&0x7f | 0x80, size & 0x7f, 1, 5, 0, byte(blob>>14 | 0x80), byte(blob>>7&0x7f | 0x80), byte(blob & 0x7f)})
	s, err := openSQLite(bytes.NewReader(db), int64(len(db)))
	if err != nil {
		t.Fatal(err)
	}
	seen, sum := 0, 0
	err = s.table("Packages", func(row [][]byte) error {
		seen++
		for _, column := range row {
			sum += len(column)
		}
		return nil
	})
	if !errors.Is(err, errDatabase) || seen == 0 || sum > len(db) {
		t.Errorf("error is %v; %d rows have %d bytes", err, seen, sum)
	}
}

func FuzzRPM(f *testing.F) {
	few := rpmHeaders()[:3]
	f.Add(ndbOf(few))
	f.Add(rpmHeader("a", "1", "2", 3, 4))
	f.Add(append([]byte("SQLite format 3\x00\x02\x00"), make([]byte, 2048)...))
	if _, err := exec.LookPath("python3"); err == nil {
		f.Add(sqliteOf(f, 512, rpmHeaders()[:2]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := fstest.MapFS{}
		for name := range rpmDatabases {
			fsys[name] = &fstest.MapFile{Data: data, Mode: 0o644}
		}
		if _, err := Read(t.Context(), fsys); err != nil {
			t.Fatal(err)
		}
		rpmFields(data)
	})
}
