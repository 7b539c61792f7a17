package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
)

// What archive/tar reads of a tar that has an index is what the index shows.
func FuzzIndex(f *testing.F) {
	f.Add(tortureOf(f, 3, 16)[:30<<10])
	f.Add(tarOf(f, reg("a", "x"), lnk("b", "a"), sym("c", "b"), reg(".wh.d", "")))
	f.Add(tarOf(f, reg("d/.wh..wh..opq", ""), dev("n", 1, 3), sym("l", "d"), reg("l/x", "y")))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		for i := 0; i+recordSize <= len(data); i += recordSize { // else few pass the checksum
			if rec := data[i:][:recordSize]; string(rec[257:262]) == "ustar" {
				checksum(rec)
			}
		}
		x := NewIndexer(dir)
		defer x.Close()
		if _, err := x.Write(data); err != nil {
			return
		}
		var out growing
		info, err := x.Finish(&out)
		if err != nil {
			return
		}
		sameIndex(t, data)
		fsys, err := Open(bytes.NewReader(out.b), info.IndexSize, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][32]byte{}
		err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil || !d.Type().IsRegular() || fi.Size() > 1<<20 {
				return err
			}
			b, err := fs.ReadFile(fsys, name)
			got[name] = sha256.Sum256(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		agree(t, data, got)
	})
}

// agree compares the files whose names are simple and come once.
func agree(t *testing.T, data []byte, got map[string][32]byte) {
	seen, links := map[string]int{}, false
	sums := map[string][32]byte{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		name := path.Clean(strings.TrimLeft(h.Name, "/"))
		seen[name]++
		links = links || h.Typeflag == tar.TypeSymlink
		if h.Typeflag != tar.TypeReg || h.Size > 1<<20 || strings.Contains(name, whiteoutPrefix) {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return
		}
		sums[name] = sha256.Sum256(b)
	}
	for name, sum := range sums {
		if seen[name] == 1 && !links && got[name] != sum {
			t.Errorf("%q differs from what archive/tar reads", name)
		}
	}
}

// growing is a file in memory.
type growing struct{ b []byte }

func (g *growing) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(g.b) {
		g.b = append(g.b, make([]byte, need-len(g.b))...)
	}
	return copy(g.b[off:], p), nil
}

// A damaged index ends in errors.
func FuzzOpen(f *testing.F) {
	for _, data := range [][]byte{tarOf(f, reg("a/b", "x"), sym("c", strings.Repeat("d", 600))), tortureOf(f, 30, 16)} {
		x := NewIndexer(f.TempDir())
		x.Write(data)
		var out growing
		if _, err := x.Finish(&out); err != nil {
			f.Fatal(err)
		}
		f.Add(out.b)
	}
	f.Fuzz(func(t *testing.T, index []byte) {
		if len(index) > superOffset+blockSize { // so that more than the checksum is tried
			b := bytes.Clone(index)
			clear(b[superOffset+4 : superOffset+8])
			binary.LittleEndian.PutUint32(b[superOffset+4:], ^crc32.Checksum(b[superOffset:superOffset+blockSize], crc32.MakeTable(crc32.Castagnoli)))
			index = b
		}
		fsys, err := Open(bytes.NewReader(index), int64(len(index)), bytes.NewReader(make([]byte, 4096)))
		if err != nil {
			return
		}
		n := 0
		_ = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if n++; n > 1000 || err != nil || strings.Count(name, "/") > 20 {
				return fs.SkipAll
			}
			if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
				if g, err := fsys.Open(name); err == nil {
					io.CopyN(io.Discard, g, 10000)
				}
			}
			fsys.ReadLink(name)
			return nil
		})
	})
}

func FuzzDecompress(f *testing.F) {
	for _, c := range []Compression{Gzip, Zstd} {
		f.Add(pack(f, sample(3000), c, 0, 1000))
	}
	f.Add([]byte("BZh91AY&SY"))
	f.Add([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46})
	if b, err := os.ReadFile("/usr/share/doc/xz-utils/NEWS.gz"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := Decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		io.CopyN(io.Discard, r, 1<<20)
	})
}
