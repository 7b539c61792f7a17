package sbom

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strconv"

	"github.com/package-url/packageurl-go"
)

// rpmDatabases are where rpm keeps what is installed: in SQLite, in a format
// of its own, or, before 2020, in Berkeley DB.
var rpmDatabases = set(
	"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite",
	"usr/lib/sysimage/rpm/Packages", "usr/lib/sysimage/rpm/Packages.db", "usr/lib/sysimage/rpm/rpmdb.sqlite",
)

// maxRPM bounds what is read of a database, in bytes.
const maxRPM = 512 << 20

// rpm reads a database of rpm.
func (r *reader) rpm(name string, size int64) error {
	in, err := r.open(name, size, maxRPM)
	if err != nil || in == nil {
		return err
	}
	defer in.Close()
	header := func(blob []byte) error {
		r.header(name, blob)
		return nil
	}
	switch path.Base(name) {
	case "rpmdb.sqlite":
		var db *sqlite
		if db, err = openSQLite(in, size); err == nil {
			err = db.table("Packages", func(row [][]byte) error { // hnum, blob
				if len(row) != 2 {
					return errDatabase
				}
				return header(row[1])
			})
		}
	case "Packages.db":
		err = readNDB(in, header)
	default:
		err = fmt.Errorf("databases of rpm in Berkeley DB are not read")
	}
	if in.err != nil {
		return fmt.Errorf("read %s: %w", name, in.err)
	}
	if err != nil {
		r.skip(name, err.Error())
	}
	return nil
}

// readNDB reads the headers of rpm's own database (rpm, lib/backend/ndb/
// rpmpkg.c): slots of 16 bytes, which say in which block of 16 bytes a header
// begins. Numbers are little-endian.
func readNDB(r io.ReaderAt, yield func([]byte) error) error {
	const page, slot, block = 4096, 16, 16
	u32 := binary.LittleEndian.Uint32
	head := make([]byte, page)
	if _, err := r.ReadAt(head, 0); err != nil || string(head[:4]) != "RpmP" || u32(head[4:]) != 0 {
		return errDatabase
	}
	pages := u32(head[12:])
	if pages > 1<<12 {
		return errDatabase
	}
	for p := range int64(pages) {
		if _, err := r.ReadAt(head, p*page); err != nil {
			return errDatabase
		}
		for at := 0; at < page; at += slot {
			if p == 0 && at < 2*slot {
				continue // the head of the database
			}
			s := head[at:]
			if string(s[:4]) != "Slot" || u32(s[8:]) == 0 {
				continue // free
			}
			blob := make([]byte, 16)
			offset := int64(u32(s[8:])) * block
			if _, err := r.ReadAt(blob, offset); err != nil || string(blob[:4]) != "BlbS" || u32(blob[12:]) > maxRow {
				return errDatabase
			}
			blob = make([]byte, u32(blob[12:]))
			if _, err := r.ReadAt(blob, offset+16); err != nil {
				return errDatabase
			}
			if err := yield(blob); err != nil {
				return err
			}
		}
	}
	return nil
}

// Tags of a header, and the types of their values (rpm, docs/manual/tags.md
// and format_header.md).
const (
	rpmName, rpmVersion, rpmRelease, rpmEpoch = 1000, 1001, 1002, 1003
	rpmLicense, rpmArch, rpmSource            = 1014, 1022, 1044

	rpmInt32, rpmString, rpmTranslated = 4, 6, 9
)

// header reads the header of one installed package: how many entries there
// are, how many bytes of data, then the entries and the data.
func (r *reader) header(source string, blob []byte) {
	fields, ok := rpmFields(blob)
	if !ok {
		r.skip(source, "a malformed header of a package")
		return
	}
	name := fields[rpmName]
	if name == "gpg-pubkey" {
		return // a key that somebody trusts, not a package
	}
	version := fields[rpmVersion]
	if fields[rpmRelease] != "" {
		version += "-" + fields[rpmRelease]
	}
	qualifiers := r.distroQualifiers()
	for key, tag := range map[string]uint32{"arch": rpmArch, "epoch": rpmEpoch, "upstream": rpmSource} {
		if fields[tag] != "" {
			qualifiers[key] = fields[tag]
		}
	}
	p := Package{Kind: packageurl.TypeRPM, Name: name, Version: version, License: fields[rpmLicense], Source: source,
		URL: packageURL(packageurl.TypeRPM, r.out.OS.ID, name, version, qualifiers)}
	if epoch := fields[rpmEpoch]; epoch != "" {
		p.Version = epoch + ":" + version
	}
	r.add(p)
}

func rpmFields(blob []byte) (map[uint32]string, bool) {
	if len(blob) < 8 {
		return nil, false
	}
	u32 := binary.BigEndian.Uint32
	entries, rest := int64(u32(blob)), blob[8:]
	if entries*16 > int64(len(rest)) {
		return nil, false
	}
	data := rest[entries*16:]
	fields := map[uint32]string{}
	for e := rest[:entries*16]; len(e) > 0; e = e[16:] {
		tag, kind, offset := u32(e), u32(e[4:]), int64(u32(e[8:]))
		if offset > int64(len(data)) {
			return nil, false
		}
		value := data[offset:]
		switch tag {
		case rpmName, rpmVersion, rpmRelease, rpmLicense, rpmArch, rpmSource:
			end := bytes.IndexByte(value, 0)
			if end < 0 || kind != rpmString && kind != rpmTranslated {
				return nil, false
			}
			fields[tag] = string(value[:end])
		case rpmEpoch:
			if kind != rpmInt32 || len(value) < 4 {
				return nil, false
			}
			fields[tag] = strconv.FormatUint(uint64(u32(value)), 10)
		}
	}
	return fields, true
}
