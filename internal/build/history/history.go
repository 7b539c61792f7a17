// Package history keeps what builds have said: a record and the whole log of
// each, for the last of them.
//
// A build is one file, <store>/cache/builds/<time>-<id>: a head of fixed size
// with the record, and the log behind it. The file is made when there is much
// to say or when the build ends, and never synced: a build that is cached must
// not pay for it. Losing one loses a memory and nothing else.
package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build/export"
	"github.com/shaleproject/shale/internal/build/ids"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// Record is what is known of a build.
type Record struct {
	ID         string    `json:"id"`
	Context    string    `json:"context"`
	Dockerfile string    `json:"dockerfile,omitempty"`
	Target     string    `json:"target,omitempty"`
	Names      []string  `json:"names,omitempty"`
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended,omitzero"` // zero while it runs, and for good if it was killed
	Status     Status    `json:"status"`
	Steps      int       `json:"steps"`
	Cached     int       `json:"cached"`
	Error      string    `json:"error,omitempty"`
	Kept       bool      `json:"kept,omitempty"` // its failed step could be debugged by the id when it ended
	Log        int64     `json:"log"`            // bytes
	Cut        bool      `json:"cut,omitempty"`  // the log had more

	path string
}

// Duration is how long the build took; 0 if that is not known.
func (r *Record) Duration() time.Duration {
	if r.Ended.IsZero() {
		return 0
	}
	return r.Ended.Sub(r.Started)
}

// Status is how a build ended, in buildx's words.
type Status string

// The states of a build.
const (
	Running     Status = "Running"
	Completed   Status = "Completed"
	Failed      Status = "Error"
	Canceled    Status = "Canceled"
	Interrupted Status = "Interrupted" // its process was killed
)

const (
	headSize  = 4096      // bytes of the head
	maxBuilds = 50        // that are kept
	maxLog    = 64 << 20  // bytes of one log
	maxLogs   = 512 << 20 // bytes of all
	maxError  = 1 << 10   // bytes of the text of an error
	maxName   = 512       // bytes of anything else in a head
)

func dirOf(s *store.Store) string { return filepath.Join(s.Root(), "cache", "builds") }

// head is r as a file begins.
func (r *Record) head() ([]byte, error) {
	short := *r
	for field, most := range map[*string]int{&short.Context: maxName, &short.Dockerfile: maxName, &short.Target: maxName / 4, &short.Error: maxError} {
		*field = cut(*field, most)
	}
	short.Names = nil
	left := maxName
	for _, name := range r.Names {
		if left -= len(name) + 3; left >= 0 {
			short.Names = append(short.Names, name)
		}
	}
	data, err := export.Marshal(&short)
	if err == nil && len(data) >= headSize { // control characters, written out
		short.Context, short.Dockerfile, short.Target, short.Error, short.Names = "", "", "", "", nil
		data, err = export.Marshal(&short)
	}
	if err != nil {
		return nil, err
	}
	head := bytes.Repeat([]byte{' '}, headSize)
	copy(head, data)
	head[headSize-1] = '\n'
	return head, nil
}

func cut(text string, most int) string {
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// List returns the builds, the latest first.
func List(s *store.Store) ([]Record, error) {
	entries, err := os.ReadDir(dirOf(s))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list builds: %w", err)
	}
	var all []Record
	for _, e := range slices.Backward(entries) { // names begin with the time
		r, err := read(filepath.Join(dirOf(s), e.Name()))
		if err == nil {
			all = append(all, r)
		}
	}
	return all, nil
}

func read(path string) (Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return Record{}, err
	}
	defer f.Close()
	r := Record{path: path}
	head := make([]byte, headSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return r, err
	}
	if err := json.Unmarshal(head, &r); err != nil {
		return r, err
	}
	if r.Status != Running {
		return r, nil
	}
	if info, err := f.Stat(); err == nil {
		r.Log = info.Size() - headSize
	}
	alive, err := sys.LockedElsewhere(f)
	if !alive {
		r.Status = Interrupted
	}
	return r, err
}

// Latest returns the build that began last.
func Latest(s *store.Store) (Record, error) {
	all, err := List(s)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("there is no build yet: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return Record{}, err
	}
	return all[0], nil
}

// Find returns the build called id, or whose id begins with it. No build is
// called "".
func Find(s *store.Store, id string) (Record, error) {
	all, err := List(s)
	if err != nil {
		return Record{}, err
	}
	return ids.Find(all, id, "build", func(r Record) string { return r.ID })
}

// WriteLog copies the log of r to w.
func (r *Record) WriteLog(w io.Writer) error {
	f, err := os.Open(r.path)
	if err != nil {
		return fmt.Errorf("read log of build %s: %w", r.ID, err)
	}
	defer f.Close()
	if _, err := f.Seek(headSize, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// Remove forgets the build, unless it is running.
func (r *Record) Remove() error {
	if r.Status == Running {
		return fmt.Errorf("remove build %s: it is running: %w", r.ID, errdefs.ErrFailedPrecondition)
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove build %s: %w", r.ID, err)
	}
	return nil
}

// trim drops the oldest builds of dir beyond what is kept. With sizes it looks
// at those, too.
func trim(dir string, sizes bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	total := int64(0)
	for i, e := range slices.Backward(entries) {
		if sizes {
			if info, err := e.Info(); err == nil {
				total += info.Size()
			}
		}
		if n := len(entries) - i; n == 1 || n <= maxBuilds && total <= maxLogs {
			continue
		}
		r, err := read(filepath.Join(dir, e.Name()))
		if err == nil && r.Status == Running {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
