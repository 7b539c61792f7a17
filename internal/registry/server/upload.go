package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociref"
)

// An upload's address holds the registry's own identifier, whatever that is
// made of.
func encodeUpload(id string) string { return base64.RawURLEncoding.EncodeToString([]byte(id)) }

func decodeUpload(s string) (string, error) {
	id, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil && len(id) == 0 {
		err = errors.New("empty")
	}
	return string(id), err
}

// startUpload answers POST: it opens an upload (end-4a), takes a whole blob
// (end-4b), or mounts one (end-11). A mount that isn't possible, for whatever
// reason, becomes an upload: whoever may not read the source learns nothing.
func (s *server) startUpload(w http.ResponseWriter, req *http.Request, t target) error {
	q := req.URL.Query()
	if mount, from := q.Get("mount"), q.Get("from"); mount != "" {
		if !ociref.IsValidDigest(mount) {
			return fmt.Errorf("malformed digest: %w", ociregistry.ErrDigestInvalid)
		}
		if ociref.IsValidRepository(from) && len(from) <= longestName {
			if _, err := s.registry.MountBlob(req.Context(), from, t.repo, ociregistry.Digest(mount)); err == nil {
				created(w, t.repo, ociregistry.Digest(mount))
				return nil
			}
		}
	} else if d := q.Get("digest"); d != "" {
		return s.takeWhole(w, req, t, d)
	}
	u, err := s.registry.PushBlobChunked(req.Context(), t.repo, 0)
	if err != nil {
		return err
	}
	defer u.Close()
	if least := u.ChunkSize(); least > 0 {
		w.Header().Set("OCI-Chunk-Min-Length", strconv.Itoa(least))
	}
	progress(w, t.repo, u)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// takeWhole takes a blob that is the body of the POST.
func (s *server) takeWhole(w http.ResponseWriter, req *http.Request, t target, d string) error {
	if !ociref.IsValidDigest(d) {
		return fmt.Errorf("malformed digest: %w", ociregistry.ErrDigestInvalid)
	}
	u, err := s.registry.PushBlobChunked(req.Context(), t.repo, 0)
	if err != nil {
		return err
	}
	return finishUpload(w, req, t, u, ociregistry.Digest(d))
}

// uploadStatus answers GET: how far an upload is (end-13).
func (s *server) uploadStatus(w http.ResponseWriter, req *http.Request, t target) error {
	u, err := s.registry.PushBlobChunkedResume(req.Context(), t.repo, t.upload, -1, 0)
	if err != nil {
		return err
	}
	defer u.Close()
	progress(w, t.repo, u)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// uploadChunk answers PATCH: it appends to an upload (end-5). A chunk that says
// where it belongs is refused with 416 unless that is where the upload stands;
// one that doesn't say is the stream of docker push.
func (s *server) uploadChunk(w http.ResponseWriter, req *http.Request, t target) error {
	u, err := s.resume(w, req, t)
	if err != nil {
		return err
	}
	_, err = copyIn(u, req.Body)
	// What has come is kept even if the rest hasn't: the client may go on.
	if err := errors.Join(err, u.Close()); err != nil {
		return err
	}
	progress(w, t.repo, u)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// endUpload answers PUT: the rest of a blob, which may be all or nothing of it,
// and its digest (end-6).
func (s *server) endUpload(w http.ResponseWriter, req *http.Request, t target) error {
	d := req.URL.Query().Get("digest")
	if !ociref.IsValidDigest(d) {
		return fmt.Errorf("malformed digest: %w", ociregistry.ErrDigestInvalid)
	}
	u, err := s.resume(w, req, t)
	if err != nil {
		return err
	}
	return finishUpload(w, req, t, u, ociregistry.Digest(d))
}

func finishUpload(w http.ResponseWriter, req *http.Request, t target, u ociregistry.BlobWriter, d ociregistry.Digest) error {
	if _, err := copyIn(u, req.Body); err != nil {
		return errors.Join(err, u.Close())
	}
	if _, err := u.Commit(d); err != nil {
		// Nothing that is appended can make it right.
		return errors.Join(err, u.Cancel())
	}
	created(w, t.repo, d)
	return nil
}

// cancelUpload answers DELETE.
func (s *server) cancelUpload(w http.ResponseWriter, req *http.Request, t target) error {
	u, err := s.registry.PushBlobChunkedResume(req.Context(), t.repo, t.upload, -1, 0)
	if err != nil {
		return err
	}
	if err := u.Cancel(); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// resume opens the upload that a chunk is for, at the place where the chunk
// belongs.
func (s *server) resume(w http.ResponseWriter, req *http.Request, t target) (ociregistry.BlobWriter, error) {
	start, length, err := contentRange(req.Header.Get("Content-Range"))
	if err != nil {
		return nil, err
	}
	if length >= 0 && req.ContentLength >= 0 && length != req.ContentLength {
		return nil, fmt.Errorf("Content-Range and Content-Length differ: %w", ociregistry.ErrSizeInvalid)
	}
	u, err := s.registry.PushBlobChunkedResume(req.Context(), t.repo, t.upload, start, int(max(0, min(length, slice))))
	if err != nil {
		return nil, err
	}
	if start >= 0 && start != u.Size() {
		progress(w, t.repo, u)
		return nil, errors.Join(ociregistry.ErrRangeInvalid, u.Close())
	}
	return u, nil
}

// contentRange parses the specification's form of the header, "0-1023", and
// the one of RFC 9110, "bytes 0-1023/*". Without the header both are -1.
func contentRange(s string) (start, length int64, err error) {
	if s == "" {
		return -1, -1, nil
	}
	s = strings.TrimPrefix(s, "bytes ")
	s, _, _ = strings.Cut(s, "/")
	first, last, _ := strings.Cut(s, "-")
	from, errFrom := strconv.ParseUint(first, 10, 63)
	to, errTo := strconv.ParseUint(last, 10, 63)
	if errFrom != nil || errTo != nil || to < from {
		return 0, 0, fmt.Errorf("malformed Content-Range: %w", ociregistry.ErrRangeInvalid)
	}
	return int64(from), int64(to-from) + 1, nil
}

// progress says where and at which byte an upload goes on. For an empty one
// that is "0-0", as distribution has always said.
func progress(w http.ResponseWriter, repo string, u ociregistry.BlobWriter) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+encodeUpload(u.ID()))
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, u.Size()-1)))
	w.Header().Set("Content-Length", "0")
}

func created(w http.ResponseWriter, repo string, d ociregistry.Digest) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+string(d))
	w.Header().Set("Docker-Content-Digest", string(d))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
}

// buffers hold what is between the network and an upload. io.Copy's 32 KiB
// make two system calls of what can be one.
var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func copyIn(u ociregistry.BlobWriter, body io.Reader) (int64, error) {
	buffer := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{u}, body, buffer[:])
}

// idleBody is the body of a request whose sender must keep sending.
type idleBody struct {
	io.ReadCloser
	control *http.ResponseController
	idle    time.Duration
	ended   bool
}

func (b *idleBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.idle))
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		// From here on net/http only waits for the client to go away, while
		// we may hash for minutes.
		b.ended = true
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// over limits the time that net/http takes to throw away what nobody read. The
// next request on the connection has its own deadline.
func (b *idleBody) over() {
	if !b.ended {
		_ = b.control.SetReadDeadline(time.Now().Add(b.idle))
	}
}
