package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// The file of a record is a line with the digest of all that follows, for a
// cache that is wrong is worse than none; a line of JSON, the head; and the
// data as they are.

const (
	digestLine = len("sha256:") + 2*sha256.Size + 1

	// maxRecordHead bounds the second line: some 50,000 digests.
	maxRecordHead = 4 << 20

	// recordWindow is how much of a record is in memory while it is written
	// or verified, in bytes.
	recordWindow = 64 << 10
)

// recordHead is the second line of the file of a record.
type recordHead struct {
	Key   string          `json:"key"`
	Holds []digest.Digest `json:"holds,omitempty"`
}

// RecordFile is a record whose data are on disk. It stays as it was when it
// was opened, whatever becomes of the record. It is safe for concurrent use.
type RecordFile struct {
	Holds   []digest.Digest
	Updated time.Time
	Used    time.Time

	key  string
	data interface {
		io.ReaderAt
		Size() int64
	}
	memory []byte   // the data, if the file fitted into the window
	file   *os.File // nil if it did
}

// ReadAt reads from the data of the record; see [io.ReaderAt].
func (r *RecordFile) ReadAt(p []byte, off int64) (int, error) { return r.data.ReadAt(p, off) }

// Size returns the length of the data in bytes.
func (r *RecordFile) Size() int64 { return r.data.Size() }

// Close gives the file back. Reading fails from now on.
func (r *RecordFile) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// record returns the record with its data, which are in memory.
func (r *RecordFile) record() Record {
	return Record{Data: r.memory, Holds: r.Holds, Updated: r.Updated, Used: r.Used}
}

// openRecord opens the file of a record, which is no use of it. The whole file
// is compared with its first line on the way, through a buffer of at most window
// bytes; a file that fits into it stays there. What is no record, or a spoiled
// one, is an [errdefs.ErrDataLoss]. The caller closes it.
func openRecord(path string, window int64) (*RecordFile, error) {
	f, err := sys.OpenQuiet(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errdefs.ErrNotFound
		}
		return nil, err
	}
	r, err := newRecordFile(f, window)
	if err != nil || r.file == nil {
		f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

func newRecordFile(f *os.File, window int64) (*RecordFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	buf := make([]byte, min(size, window))
	if err := verifyRecord(f, size, buf); err != nil {
		return nil, err
	}
	r := &RecordFile{Updated: info.ModTime(), Used: sys.AccessTime(info)}
	var whole io.ReaderAt = f
	if size <= window {
		whole = bytes.NewReader(buf)
	}
	line, err := bufio.NewReaderSize(io.NewSectionReader(whole, int64(digestLine), min(size, maxRecordHead)), 512).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var head recordHead
	if err == nil {
		err = json.Unmarshal(line, &head)
	}
	if err != nil {
		return nil, fmt.Errorf("second line: %w: %w", err, errdefs.ErrDataLoss)
	}
	r.key, r.Holds = head.Key, head.Holds
	start := int64(digestLine + len(line))
	if size <= window {
		r.memory = buf[start:]
		r.data = bytes.NewReader(r.memory)
	} else {
		r.file, r.data = f, io.NewSectionReader(f, start, size-start)
	}
	return r, nil
}

// verifyRecord reads f, of size bytes, through buf.
func verifyRecord(f *os.File, size int64, buf []byte) error {
	var want [digestLine]byte
	h := sha256.New()
	for off := int64(0); off < size; {
		part := buf[:min(int64(len(buf)), size-off)]
		if n, err := f.ReadAt(part, off); n < len(part) && !errors.Is(err, io.EOF) {
			return err
		} else if n < len(part) {
			return fmt.Errorf("file became shorter: %w", errdefs.ErrDataLoss)
		}
		n := 0
		if off == 0 {
			n = copy(want[:], part)
		}
		h.Write(part[n:])
		off += int64(len(part))
	}
	if string(want[:]) != digestOf(h) {
		return fmt.Errorf("first line is not the digest of the rest: %w", errdefs.ErrDataLoss)
	}
	return nil
}

// digestOf returns the first line of a file whose rest h has seen.
func digestOf(h hash.Hash) string {
	return string(digest.NewDigest(digest.SHA256, h)) + "\n"
}

// recordWriter writes the file of a record. The first line is filled in last.
type recordWriter struct {
	file *os.File
	hash hash.Hash
	buf  []byte // what is not written yet
	off  int64  // where it goes
	err  error  // the first that failed
}

// writeRecord writes the file of a record into f, with the data that write
// gives it.
func writeRecord(f *os.File, head recordHead, write func(io.Writer) error) error {
	line, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if len(line) >= maxRecordHead {
		return fmt.Errorf("key and digests of %d bytes, at most %d can be: %w", len(line), maxRecordHead-1, errdefs.ErrInvalidArgument)
	}
	w := &recordWriter{file: f, hash: sha256.New(), buf: make([]byte, digestLine, 1<<10)}
	w.Write(append(line, '\n'))
	if err := write(w); err != nil {
		return err
	}
	return w.finish()
}

// Write adds data. What is longer than the buffer goes past it.
func (w *recordWriter) Write(p []byte) (int, error) {
	if len(w.buf)+len(p) > recordWindow {
		w.flush(w.buf)
		w.buf = w.buf[:0]
	}
	if len(p) > recordWindow {
		w.flush(p)
	} else {
		w.buf = append(w.buf, p...)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// flush writes what is next. The first time it begins with room for the line.
func (w *recordWriter) flush(p []byte) {
	if w.off == 0 {
		w.hash.Write(p[digestLine:])
	} else {
		w.hash.Write(p)
	}
	w.writeAt(p, w.off)
	w.off += int64(len(p))
}

func (w *recordWriter) writeAt(p []byte, off int64) {
	if w.err == nil {
		_, w.err = w.file.WriteAt(p, off)
		writeback(w.file, off, len(p))
	}
}

// finish writes the first line and what is left: at once, if that is all.
func (w *recordWriter) finish() error {
	if w.off > 0 {
		w.flush(w.buf)
		w.writeAt([]byte(digestOf(w.hash)), 0)
		return w.err
	}
	w.hash.Write(w.buf[digestLine:])
	copy(w.buf, digestOf(w.hash))
	w.writeAt(w.buf, 0)
	return w.err
}
