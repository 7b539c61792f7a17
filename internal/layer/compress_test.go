package layer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
)

// sample is text that compresses about as well as a layer.
func sample(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		switch r.IntN(3) {
		case 0:
			b = fmt.Appendf(b, "usr/share/doc/%d/copyright %d\n", r.IntN(50), r.IntN(1000))
		case 1:
			for range 8 {
				b = append(b, byte(r.Uint32()))
			}
		default:
			if len(b) > 100 {
				at := r.IntN(len(b) - 50)
				b = append(b, b[at:at+50]...)
			}
		}
	}
	return b[:n]
}

func pack(t testing.TB, data []byte, c Compression, level int, piece int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := Compress(&b, c, level)
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		n := min(piece, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCompressGivesTheSameBytesAtAnyThreadCount(t *testing.T) {
	data := sample(5<<20 + 12345)
	for _, c := range []Compression{Gzip, Zstd} {
		for _, level := range []int{0, 1} {
			want := ""
			for _, threads := range []int{1, 2, 7} {
				for _, piece := range []int{len(data), 99_991} {
					old := runtime.GOMAXPROCS(threads)
					got := fmt.Sprintf("%x", sha256.Sum256(pack(t, data, c, level, piece)))
					runtime.GOMAXPROCS(old)
					if want == "" {
						want = got
					}
					if got != want {
						t.Errorf("%s level %d: %d threads, pieces of %d: other bytes", c, level, threads, piece)
					}
				}
			}
		}
	}
}

// The digests of pushed layers hang on these bytes. If a new version of a
// library changes them, that must be known.
func TestCompressedBytesStayAsTheyAre(t *testing.T) {
	data := sample(5 << 20)
	for c, want := range map[Compression]string{
		Gzip: "9fb843b1fe730fb7",
		Zstd: "46f5cd75abde3edc",
	} {
		if got := fmt.Sprintf("%x", sha256.Sum256(pack(t, data, c, 0, 1<<20)))[:16]; got != want {
			t.Errorf("%s: %s, was %s", c, got, want)
		}
	}
}

func TestOthersReadWhatCompressWrites(t *testing.T) {
	for c, tool := range map[Compression]string{Gzip: "gzip", Zstd: "zstd"} {
		for _, n := range []int{0, 1, 1 << 20, 4<<20 + 1} {
			data := sample(n)
			packed := pack(t, data, c, 0, 1<<16)
			r, form, err := Decompress(bytes.NewReader(packed))
			if err != nil || form != c {
				t.Fatalf("%s of %d bytes: %v, %v", c, n, form, err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s of %d bytes: we read %d bytes, %v", c, n, len(got), err)
			}
			r.Close()
			if _, err := exec.LookPath(tool); err != nil {
				t.Logf("%s is not installed", tool)
				continue
			}
			cmd := exec.Command(tool, "-dc")
			cmd.Stdin = bytes.NewReader(packed)
			if got, err := cmd.Output(); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s of %d bytes: it reads %d bytes, %v", tool, n, len(got), err)
			}
		}
	}
}

func TestDecompressReadsWhatOthersWrite(t *testing.T) {
	data := sample(250_000)
	for _, c := range []struct {
		form Compression
		cmd  []string
	}{
		{Gzip, []string{"gzip", "-c"}},
		{Gzip, []string{"pigz", "-c"}},
		{Gzip, []string{"igzip", "-c"}},
		{Zstd, []string{"zstd", "-c"}},
		{Zstd, []string{"zstd", "-c", "--ultra", "-22"}},
		{Bzip2, []string{"bzip2", "-c"}},
		{Xz, []string{"xz", "-c"}},
		{Xz, []string{"xz", "-c", "-9"}},
		{Xz, []string{"xz", "-c", "--check=sha256", "--block-size=100000"}},
		{Xz, []string{"xz", "-c", "--check=none"}},
		{None, []string{"cat"}},
	} {
		if _, err := exec.LookPath(c.cmd[0]); err != nil {
			t.Logf("%s is not installed", c.cmd[0])
			continue
		}
		cmd := exec.Command(c.cmd[0], c.cmd[1:]...)
		cmd.Stdin = bytes.NewReader(data)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		streams := map[string][]byte{"one": packed}
		if c.form != None {
			streams["two"] = append(bytes.Clone(packed), packed...)
		}
		for what, stream := range streams {
			want := data
			if what == "two" {
				want = append(bytes.Clone(data), data...)
			}
			r, form, err := Decompress(iotest.HalfReader(bytes.NewReader(stream)))
			if err != nil || form != c.form {
				t.Errorf("%v: %v, %v", c.cmd, form, err)
				continue
			}
			var out bytes.Buffer
			if _, err := io.Copy(&out, r); err != nil || !bytes.Equal(out.Bytes(), want) {
				t.Errorf("%v: %s: %d bytes, %v", c.cmd, what, out.Len(), err)
			}
			r.Close()
		}
	}
}

func TestDamagedStreamsEndInAnErrorAndNothingElse(t *testing.T) {
	data := sample(150_000)
	streams := map[Compression][]byte{Gzip: pack(t, data, Gzip, 0, 1<<20), Zstd: pack(t, data, Zstd, 0, 1<<20)}
	for form, tool := range map[Compression]string{Bzip2: "bzip2", Xz: "xz"} {
		cmd := exec.Command(tool, "-c")
		cmd.Stdin = bytes.NewReader(data)
		if packed, err := cmd.Output(); err == nil {
			streams[form] = packed
		}
	}
	before := runtime.NumGoroutine()
	for form, packed := range streams {
		for i := 1; i < 40; i++ {
			cut := packed[:len(packed)*i/40]
			if got, err := unpackAll(bytes.NewReader(cut)); !errdefs.IsInvalidArgument(err) && len(cut) > 6 {
				t.Errorf("%s cut at %d of %d: %d bytes, %v", form, len(cut), len(packed), got, err)
			}
			broken := bytes.Clone(packed)
			broken[len(broken)*i/40] ^= 0x55
			if n, err := unpackAll(bytes.NewReader(broken)); err == nil && form != None && n == len(data) {
				t.Logf("%s with a changed byte %d reads whole", form, len(broken)*i/40)
			}
		}
		lost := errors.New("connection lost")
		_, err := unpackAll(io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(lost)))
		if !errors.Is(err, lost) || errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: error of the source becomes %v", form, err)
		}
	}
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func unpackAll(r io.Reader) (int, error) {
	d, _, err := Decompress(r)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	n, err := io.Copy(io.Discard, d)
	return int(n), err
}

func TestWindowsThatAreTooLargeAreRefused(t *testing.T) {
	// RFC 8878 3.1.1.1.2: exponent 31, a window of 2 TiB.
	zstd := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00}
	if _, err := unpackAll(bytes.NewReader(zstd)); err == nil {
		t.Error("zstd: no error")
	}
	cmd := exec.Command("xz", "-c", "--lzma2=dict=1GiB")
	cmd.Stdin = strings.NewReader("x")
	if packed, err := cmd.Output(); err != nil {
		t.Logf("xz: %v", err)
	} else if _, err := unpackAll(bytes.NewReader(packed)); err == nil || !strings.Contains(err.Error(), "dictionary of") {
		t.Errorf("xz: %v", err)
	}
}

func TestCompressReportsWhatItsWriterSays(t *testing.T) {
	full := errors.New("disk full")
	for _, c := range []Compression{Gzip, Zstd} {
		w, err := Compress(&limited{n: 1000, err: full}, c, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(sample(9 << 20))
		if closeErr := w.Close(); !errors.Is(errors.Join(err, closeErr), full) {
			t.Errorf("%s: %v, %v", c, err, closeErr)
		}
	}
	if _, err := Compress(io.Discard, Xz, 0); !errdefs.IsNotImplemented(err) {
		t.Error(err)
	}
	if _, err := Compress(io.Discard, Gzip, 10); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

type limited struct {
	n   int
	err error
}

func (l *limited) Write(p []byte) (int, error) {
	if l.n -= len(p); l.n < 0 {
		return 0, l.err
	}
	return len(p), nil
}

func BenchmarkInflate(b *testing.B) {
	data := sample(16 << 20)
	for _, c := range []Compression{Gzip, Zstd} {
		packed := pack(b, data, c, 0, 1<<20)
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := unpackAll(bytes.NewReader(packed)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
