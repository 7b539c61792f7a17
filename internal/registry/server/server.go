// Package server serves an [ociregistry.Interface] over HTTP, as the OCI
// distribution specification 1.1 says.
//
// ociserver does the manifests and the referrers. This package does what it
// leaves open or gets wrong: blobs (ranges, sendfile), uploads (order, cancel,
// mounts that fall back to an upload), paged lists, limits on sizes and times,
// authentication, the access log. No request can make it hold more than one
// manifest, [MaxManifest] bytes, in memory.
package server

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

// MaxManifest is the size in bytes of the largest manifest that is taken:
// what distribution and zot take (the specification asks for 4 MB at least).
const MaxManifest = 4 << 20

// times are how long a peer may take. A blob of any size may be sent and
// fetched, as long as it moves. They are values so that a test can shorten
// them.
type times struct {
	header time.Duration // to send the headers
	idle   time.Duration // without a byte of a request's body
	slice  time.Duration // to take [slice] bytes of a blob; less than 70 KB/s is a connection held open for its own sake
	keep   time.Duration // between two requests
	grace  time.Duration // to end what runs when the server stops
}

func usualTimes() times {
	return times{header: 10 * time.Second, idle: 30 * time.Second, slice: time.Minute, keep: 2 * time.Minute, grace: 10 * time.Second}
}

// Options of a server. The zero value serves everybody and logs nothing.
type Options struct {
	// Log gets a line for each request, without credentials or queries.
	Log *slog.Logger

	// Users, if not nil, must know a user for a request to be served.
	Users *Users
}

// New returns the handler that serves r at the root of a site.
//
// Of r it needs that PushBlobChunkedResume with the offset -1 goes on where the
// upload stands, that an upload which is being written to can't be resumed, and
// that an unknown one is [ociregistry.ErrBlobUploadUnknown]. A blob goes out
// with sendfile(2) if its reader has a method File() *os.File, or SyscallConn.
func New(r ociregistry.Interface, o Options) http.Handler {
	return newHandler(r, o, usualTimes())
}

func newHandler(r ociregistry.Interface, o Options, times times) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &server{registry: r, log: o.Log, times: times}
	s.rest = ociserver.New(manifests{r}, &ociserver.Options{WriteError: s.writeError})
	var h http.Handler = s
	if o.Users != nil {
		h = o.Users.guard(h)
	}
	return logged(contained(h, o.Log), o.Log, times.slice)
}

type server struct {
	registry ociregistry.Interface
	log      *slog.Logger
	times    times
	rest     http.Handler // ociserver
}

// ServeHTTP routes a request.
func (s *server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if err := s.serve(w, req); err != nil {
		s.writeError(w, req, err)
	}
}

func (s *server) serve(w http.ResponseWriter, req *http.Request) error {
	body := &idleBody{ReadCloser: req.Body, control: http.NewResponseController(w), idle: s.times.idle}
	req.Body = body
	defer body.over()
	t, err := parse(req)
	if err != nil {
		return err
	}
	switch t.kind {
	case uploads:
		if req.Method != http.MethodPost {
			return notAllowed(w, http.MethodPost)
		}
		return s.startUpload(w, req, t)
	case upload:
		switch req.Method {
		case http.MethodGet:
			return s.uploadStatus(w, req, t)
		case http.MethodPatch:
			return s.uploadChunk(w, req, t)
		case http.MethodPut:
			return s.endUpload(w, req, t)
		case http.MethodDelete:
			return s.cancelUpload(w, req, t)
		}
		return notAllowed(w, "GET, PATCH, PUT, DELETE")
	case blob:
		switch req.Method {
		case http.MethodGet, http.MethodHead:
			return s.getBlob(w, req, t)
		case http.MethodDelete:
			s.rest.ServeHTTP(w, req)
			return nil
		}
		return notAllowed(w, "GET, HEAD, DELETE")
	case tags, catalog:
		if req.Method != http.MethodGet {
			return notAllowed(w, http.MethodGet)
		}
		return s.list(w, req, t)
	case manifest:
		return s.manifest(w, req, t)
	}
	s.rest.ServeHTTP(w, req)
	return nil
}

// Serve answers requests on l with h until ctx is done, then gives those that
// are running ten seconds to end. It closes l. For TLS, l is a listener of
// package [crypto/tls].
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	return serve(ctx, l, h, usualTimes())
}

func serve(ctx context.Context, l net.Listener, h http.Handler, times times) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: times.header,
		IdleTimeout:       times.keep,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // what it says is about strangers' connections
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), times.grace)
		defer cancel()
		if s.Shutdown(grace) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if stop() { // it ended by itself
		return err
	}
	<-ended
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
