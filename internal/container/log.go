package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// entry is a line of a log in Docker's json-file format.
type entry struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// longest is how much of a line goes into one entry, in bytes; Docker's
// json-file splits there, too.
const longest = 16 << 10

// logWriter writes what a container says to its log, line by line.
type logWriter struct {
	mu   sync.Mutex
	file *os.File
	now  func() time.Time
}

func openLog(path string, now func() time.Time) (*logWriter, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &logWriter{file: file, now: now}, nil
}

func (l *logWriter) Close() error { return l.file.Close() }

// stream returns a writer for one of the container's streams. Its Close
// writes a last line that did not end.
func (l *logWriter) stream(name string) io.WriteCloser { return &logStream{log: l, name: name} }

type logStream struct {
	log  *logWriter
	name string
	rest []byte
}

func (s *logStream) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	var out bytes.Buffer
	now := s.log.now().UTC()
	for {
		n := bytes.IndexByte(s.rest, '\n') + 1
		if n == 0 && len(s.rest) < longest {
			break
		}
		if n == 0 || n > longest {
			n = longest
		}
		if err := s.encode(&out, s.rest[:n], now); err != nil {
			return 0, err
		}
		s.rest = s.rest[n:]
	}
	return len(p), s.flush(&out)
}

func (s *logStream) Close() error {
	if len(s.rest) == 0 {
		return nil
	}
	var out bytes.Buffer
	if err := s.encode(&out, s.rest, s.log.now().UTC()); err != nil {
		return err
	}
	s.rest = nil
	return s.flush(&out)
}

func (s *logStream) encode(out *bytes.Buffer, line []byte, now time.Time) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(entry{string(line), s.name, now})
}

// flush appends with one write, which keeps the lines of two streams apart.
func (s *logStream) flush(out *bytes.Buffer) error {
	if out.Len() == 0 {
		return nil
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	n, err := s.log.file.Write(out.Bytes())
	if err != nil && n > 0 {
		// Half a line would spoil the next.
		if info, serr := s.log.file.Stat(); serr == nil {
			err = errors.Join(err, s.log.file.Truncate(info.Size()-int64(n)))
		}
	}
	return err
}
