package server

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
)

// getBlob answers GET and HEAD, with one range if one is asked for.
func (s *server) getBlob(w http.ResponseWriter, req *http.Request, t target) error {
	ctx, h := req.Context(), w.Header()
	wanted := req.Header.Get("Range")
	if req.Method == http.MethodHead || wanted != "" {
		desc, err := s.registry.ResolveBlob(ctx, t.repo, t.digest)
		if err != nil {
			return err
		}
		span, partial, err := parseRange(wanted, desc.Size)
		if err != nil {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", desc.Size))
			return err
		}
		if req.Method == http.MethodHead {
			blobHeader(h, t, desc.Size)
			w.WriteHeader(http.StatusOK)
			return nil
		}
		if partial {
			return s.sendRange(w, req, t, span, desc.Size)
		}
	}
	b, err := s.registry.GetBlob(ctx, t.repo, t.digest)
	if err != nil {
		return err
	}
	defer b.Close()
	size := b.Descriptor().Size
	blobHeader(h, t, size)
	w.WriteHeader(http.StatusOK)
	s.copyOut(w, req, b, size)
	return nil
}

func (s *server) sendRange(w http.ResponseWriter, req *http.Request, t target, span span, size int64) error {
	b, err := s.registry.GetBlobRange(req.Context(), t.repo, t.digest, span.from, span.to)
	if err != nil {
		return err
	}
	defer b.Close()
	blobHeader(w.Header(), t, span.to-span.from)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", span.from, span.to-1, size))
	w.WriteHeader(http.StatusPartialContent)
	s.copyOut(w, req, b, span.to-span.from)
	return nil
}

func blobHeader(h http.Header, t target, length int64) {
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", string(t.digest))
	h.Set("Etag", `"`+string(t.digest)+`"`)
	h.Set("Cache-Control", "max-age=31536000, immutable") // a digest never means anything else
	h.Set("X-Content-Type-Options", "nosniff")
}

// slice is how many bytes are sent before the deadline is moved.
const slice = 4 << 20

// copyOut sends n bytes of b. The kernel copies them if b is a file. An error
// can no longer be told but by the end of the connection, which net/http sees
// to when less than Content-Length was written.
func (s *server) copyOut(w http.ResponseWriter, req *http.Request, b io.Reader, n int64) {
	if f, ok := b.(interface{ File() *os.File }); ok {
		b = f.File()
	}
	control := http.NewResponseController(w)
	for n > 0 {
		_ = control.SetWriteDeadline(time.Now().Add(s.times.slice))
		sent, err := io.Copy(w, &io.LimitedReader{R: b, N: min(n, slice)})
		if n -= sent; err != nil || sent == 0 {
			s.log.DebugContext(req.Context(), "blob not sent to its end", "path", req.URL.Path, "left", n, "error", err)
			return
		}
	}
}

// span is a range of bytes, to excluded.
type span struct{ from, to int64 }

// parseRange parses a Range header for a blob of size bytes (RFC 9110, section
// 14.2). What is malformed, of another unit or of several ranges is ignored, as
// the RFC allows; a range outside the blob is an error.
func parseRange(s string, size int64) (r span, partial bool, err error) {
	s, ok := strings.CutPrefix(s, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(s), "-")
	if !ok || !dash || strings.Contains(s, ",") {
		return span{}, false, nil
	}
	from, errFrom := strconv.ParseUint(first, 10, 63)
	to, errTo := strconv.ParseUint(last, 10, 63)
	switch {
	case first == "" && errTo == nil: // the last bytes
		r = span{max(0, size-int64(to)), size}
		if to == 0 {
			return span{}, false, ociregistry.ErrRangeInvalid
		}
	case errFrom == nil && last == "":
		r = span{int64(from), size}
	case errFrom == nil && errTo == nil && from <= to:
		r = span{int64(from), min(int64(to), size-1) + 1}
	default:
		return span{}, false, nil
	}
	if r.from >= size {
		return span{}, false, ociregistry.ErrRangeInvalid
	}
	return r, true, nil
}
