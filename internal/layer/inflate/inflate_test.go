package inflate

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

func pack(t testing.TB, data []byte, level int) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func inflate(data []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = io.Copy(&b, r)
	return b.Bytes(), err
}

// corpus is data of several kinds.
func corpus(t testing.TB) map[string][]byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	skewed := make([]byte, 700_000) // long codes
	for i := range skewed {
		skewed[i] = byte(rnd.ExpFloat64() * 12)
	}
	var near []byte // matches of every small distance and length
	for len(near) < 400_000 {
		d, n := 1+rnd.IntN(40), 3+rnd.IntN(300)
		near = append(near, byte(rnd.Uint32()), byte(rnd.Uint32()))
		for range n {
			near = append(near, near[max(0, len(near)-d)])
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	var src bytes.Buffer
	files, _ := filepath.Glob("../*.go")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		src.Write(b)
	}
	return map[string][]byte{
		"empty": {}, "byte": {7}, "zeros": make([]byte, 1<<20), "noise": noise, "skewed": skewed, "near": near,
		"binary": self[:min(len(self), 2<<20)], "text": src.Bytes(), "far": append(append(bytes.Clone(noise[:32768]), noise[:32768]...), noise[:40000]...),
	}
}

func TestReadsWhatEncodersWrite(t *testing.T) {
	for name, data := range corpus(t) {
		for _, level := range []int{gzip.HuffmanOnly, 0, 1, 5, 6, 9} {
			packed := pack(t, data, level)
			got, err := inflate(packed)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s level %d: %d bytes of %d, %v", name, level, len(got), len(data), err)
			}
			r, err := NewReader(iotest.HalfReader(bytes.NewReader(packed)))
			if err != nil {
				t.Fatal(err)
			}
			if got, err = io.ReadAll(iotest.OneByteReader(io.LimitReader(r, 5000))); err != nil || !bytes.Equal(got, data[:min(len(data), 5000)]) {
				t.Errorf("%s level %d, byte by byte: %v", name, level, err)
			}
		}
		var b bytes.Buffer
		w, _ := stdgzip.NewWriterLevel(&b, 9)
		w.Name, w.Comment, w.Extra = "n", "c", []byte("extra")
		w.Write(data)
		w.Close()
		twice := append(bytes.Clone(b.Bytes()), b.Bytes()...)
		if got, err := inflate(twice); err != nil || !bytes.Equal(got, append(bytes.Clone(data), data...)) {
			t.Errorf("%s, two members with names: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestFixedCodes(t *testing.T) {
	// flate writes fixed codes for what is short.
	for _, data := range []string{"a", "hello hello hello", strings.Repeat("ab", 40)} {
		var b bytes.Buffer
		w, _ := stdgzip.NewWriterLevel(&b, flate.BestCompression)
		io.WriteString(w, data)
		w.Close()
		if got, err := inflate(b.Bytes()); err != nil || string(got) != data {
			t.Errorf("%q: %q, %v", data, got, err)
		}
	}
}

// A changed byte gives an error, or what compress/gzip reads.
func TestDamageIsFound(t *testing.T) {
	data := corpus(t)["binary"][:60_000]
	for _, level := range []int{0, 1, 6} {
		packed := pack(t, data, level)
		for i := 0; i < len(packed); i += 1 + len(packed)/1500 {
			broken := bytes.Clone(packed)
			broken[i] ^= 1 << (i % 8)
			got, err := inflate(broken)
			if err == nil && !bytes.Equal(got, data) {
				t.Fatalf("level %d: byte %d: no error", level, i)
			}
			if _, err := inflate(packed[:i]); err == nil {
				t.Fatalf("level %d: cut at %d: no error", level, i)
			}
		}
		broken := bytes.Clone(packed)
		broken[len(broken)-6] ^= 1
		if _, err := inflate(broken); !errors.Is(err, ErrChecksum) {
			t.Error(err)
		}
		if _, err := inflate(append(bytes.Clone(packed), "garbage behind"...)); !errors.Is(err, ErrFormat) {
			t.Error(err)
		}
	}
}

func TestErrorsOfTheSourceComeBack(t *testing.T) {
	lost := errors.New("lost")
	packed := pack(t, corpus(t)["text"], 6)
	r, err := NewReader(io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(lost)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, lost) {
		t.Error(err)
	}
}

// Whatever compress/gzip reads, this reads, and the other way round.
func FuzzInflate(f *testing.F) {
	f.Add(pack(f, []byte("hello hello hello"), 6))
	f.Add(pack(f, corpus(f)["skewed"][:3000], 9))
	f.Add(pack(f, corpus(f)["near"][:3000], 6))
	f.Fuzz(func(t *testing.T, body []byte) {
		// Raw deflate data without a checksum goes deeper.
		data := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0}, body...)
		if len(body) > 10 && body[0] == 0x1f {
			data = body
		}
		if data[3]&0xe0 != 0 {
			return // reserved flags: RFC 1952 wants an error, compress/gzip reads on
		}
		got, err := inflate(data)
		r, stdErr := stdgzip.NewReader(bytes.NewReader(data))
		if stdErr != nil {
			return
		}
		want, stdErr := io.ReadAll(r)
		if errors.Is(stdErr, stdgzip.ErrChecksum) != errors.Is(err, ErrChecksum) {
			t.Fatalf("%v, not %v", err, stdErr)
		}
		if (err == nil) != (stdErr == nil) {
			t.Fatalf("%v, not %v", err, stdErr)
		}
		if !bytes.HasPrefix(got, want) && !bytes.HasPrefix(want, got) || err == nil && len(got) != len(want) {
			t.Fatal("other bytes")
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	data := corpus(b)["binary"]
	data = append(data, corpus(b)["text"]...)
	packed := pack(b, data, 6)
	for name, open := range map[string]func(io.Reader) (io.WriterTo, error){
		"shale":     func(r io.Reader) (io.WriterTo, error) { return NewReader(r) },
		"klauspost": func(r io.Reader) (io.WriterTo, error) { return gzip.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				r, err := open(bytes.NewReader(packed))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := r.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
