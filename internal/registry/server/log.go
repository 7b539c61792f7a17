package server

import (
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"
)

// logged writes a line for each request when it has been answered, and adds
// the header by which clients know a registry of the second version.
func logged(next http.Handler, log *slog.Logger, patience time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		start := time.Now()
		r := &response{ResponseWriter: w, control: http.NewResponseController(w), patience: patience}
		_ = r.control.SetWriteDeadline(time.Time{}) // of the request before
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		defer func() {
			user, _, _ := req.BasicAuth()
			log.InfoContext(req.Context(), "request",
				"method", req.Method, "path", req.URL.Path, "status", r.status, "bytes", r.bytes,
				"duration", time.Since(start), "remote", req.RemoteAddr, "user", user)
		}()
		next.ServeHTTP(r, req)
	})
}

// contained makes an answer of a panic, so that it ends one request only.
func contained(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			log.ErrorContext(req.Context(), "request panics", "method", req.Method, "path", req.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if r, ok := w.(*response); ok && r.status == 0 {
				answer(w, http.StatusInternalServerError, "UNKNOWN", "internal error")
				return
			}
			panic(http.ErrAbortHandler) // half an answer is none
		}()
		next.ServeHTTP(w, req)
	})
}

// response remembers what was answered, and gives the client some time to take
// it. It keeps ReadFrom, and so sendfile.
type response struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration

	status int
	bytes  int64
}

// Unwrap is for [http.ResponseController].
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *response) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
		_ = r.control.SetWriteDeadline(time.Now().Add(r.patience))
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *response) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

func (r *response) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}
