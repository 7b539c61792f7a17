package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/errdefs"
)

// LogOptions say what Logs writes.
type LogOptions struct {
	// Follow goes on until the container has ended.
	Follow bool
	// Timestamps puts the time before each line.
	Timestamps bool
	// Tail is how many lines from the end; negative means all.
	Tail int
	// Since and Until bound the time; zero means no bound.
	Since, Until time.Time
}

// followInterval is how often a log that is followed is looked at.
const followInterval = 25 * time.Millisecond

// Logs writes what a container has written to out and errout. With the
// terminal there is only out.
func (c *Containers) Logs(ctx context.Context, name string, o LogOptions, out, errout io.Writer) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	if r.config.Life.LogDriver == "none" {
		return because(errdefs.ErrNotImplemented, "configured logging driver does not support reading")
	}
	file, err := os.Open(r.path(logFile))
	for errors.Is(err, fs.ErrNotExist) {
		if !o.Follow || !r.running {
			return nil
		}
		if err := sleep(ctx, followInterval); err != nil {
			return err
		}
		if err := c.reload(r); err != nil {
			return err
		}
		file, err = os.Open(r.path(logFile))
	}
	if err != nil {
		return fmt.Errorf("read log of %s: %w", name, err)
	}
	defer file.Close()
	if o.Tail >= 0 {
		if err := seekTail(file, o.Tail); err != nil {
			return fmt.Errorf("read log of %s: %w", name, err)
		}
	}
	reader := bufio.NewReaderSize(file, 64<<10)
	var rest []byte
	for {
		// What was there before the end is looked at once more after it.
		over := !o.Follow
		if o.Follow {
			if err := c.reload(r); errors.Is(err, errdefs.ErrNotFound) {
				r.running = false
			} else if err != nil {
				return err
			}
			over = !r.running
		}
		rest, err = copyLog(reader, rest, o, out, errout)
		if err != nil || over {
			return err
		}
		if err := sleep(ctx, followInterval); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// copyLog writes the entries that r has and returns the start of one that
// isn't complete.
func copyLog(r *bufio.Reader, rest []byte, o LogOptions, out, errout io.Writer) ([]byte, error) {
	for {
		line, err := r.ReadBytes('\n')
		rest = append(rest, line...)
		if errors.Is(err, io.EOF) {
			return rest, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		var e entry
		if err := json.Unmarshal(rest, &e); err != nil {
			return nil, fmt.Errorf("read log: %w: %w", err, errdefs.ErrDataLoss)
		}
		rest = rest[:0]
		if !o.Since.IsZero() && e.Time.Before(o.Since) || !o.Until.IsZero() && e.Time.After(o.Until) {
			continue
		}
		w := out
		if e.Stream == "stderr" {
			w = errout
		}
		if w == nil {
			continue
		}
		text := e.Log
		if o.Timestamps {
			text = e.Time.UTC().Format("2006-01-02T15:04:05.000000000Z") + " " + text
		}
		if _, err := io.WriteString(w, text); err != nil {
			return nil, err
		}
	}
}

// seekTail goes to where the last n lines begin.
func seekTail(file *os.File, n int) error {
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return err
	}
	block := make([]byte, 64<<10)
	lines := 0
	for at := end; at > 0; {
		size := min(at, int64(len(block)))
		at -= size
		if _, err := file.ReadAt(block[:size], at); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if block[i] != '\n' || at+i == end-1 {
				continue
			}
			if lines++; lines == n {
				_, err := file.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}
