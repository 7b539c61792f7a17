package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
)

// writeError answers with err in the form of the distribution specification,
// "Error Codes".
func (s *server) writeError(w http.ResponseWriter, req *http.Request, err error) {
	if body, ok := req.Body.(*manifestBody); ok && body.err != nil {
		err = body.err
	}
	status, code, text := translate(req, err)
	if status >= 500 {
		s.log.ErrorContext(req.Context(), "request fails", "method", req.Method, "path", req.URL.Path, "error", err)
	}
	answer(w, status, code, text)
}

func answer(w http.ResponseWriter, status int, code, text string) {
	data, err := json.Marshal(ociregistry.WireErrors{Errors: []ociregistry.WireError{{Code_: code, Message: text}}})
	if err != nil {
		status, data = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Header().Del("Cache-Control")
	w.Header().Del("Etag")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// translate is the one table from errors to what HTTP and the specification
// call them. What the server did wrong is not told in detail.
func translate(req *http.Request, err error) (status int, code, text string) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "manifest is larger than " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout, "BLOB_UPLOAD_INVALID", "no data for too long"
	case errors.Is(err, context.Canceled):
		return 499, "UNKNOWN", "the client has gone" // nginx's word; only the log sees it
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return http.StatusInsufficientStorage, "UNKNOWN", "no space left"
	}
	var own ociregistry.Error
	if errors.As(err, &own) {
		code = own.Code()
		if status = statusOf(code); status != 0 {
			return status, code, brief(err)
		}
	}
	var answered ociregistry.HTTPError
	if errors.As(err, &answered) && answered.StatusCode() >= 400 && answered.StatusCode() < 500 {
		if code == "" && answered.StatusCode() == http.StatusNotFound {
			code = unknown(req.URL.Path)
		} else if code == "" {
			code = "UNSUPPORTED"
		}
		return answered.StatusCode(), code, brief(err)
	}
	return translateClass(req, err)
}

func statusOf(code string) int {
	switch code {
	case "BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_UNKNOWN":
		return http.StatusNotFound
	case "BLOB_UPLOAD_INVALID", "DIGEST_INVALID", "MANIFEST_INVALID", "NAME_INVALID", "SIZE_INVALID":
		return http.StatusBadRequest
	case "RANGE_INVALID":
		return http.StatusRequestedRangeNotSatisfiable
	case "UNSUPPORTED":
		return http.StatusMethodNotAllowed
	case "UNAUTHORIZED":
		return http.StatusUnauthorized
	case "DENIED":
		return http.StatusForbidden
	case "TOOMANYREQUESTS":
		return http.StatusTooManyRequests
	}
	return 0
}

func translateClass(req *http.Request, err error) (status int, code, text string) {
	switch {
	case errdefs.IsNotFound(err):
		return http.StatusNotFound, unknown(req.URL.Path), brief(err)
	case errdefs.IsInvalidArgument(err):
		return http.StatusBadRequest, "MANIFEST_INVALID", brief(err)
	case errdefs.IsOutOfRange(err):
		return http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", brief(err)
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err), errdefs.IsFailedPrecondition(err):
		return http.StatusConflict, "DENIED", brief(err)
	case errdefs.IsPermissionDenied(err), errdefs.IsUnauthorized(err):
		return http.StatusForbidden, "DENIED", "access denied"
	case errdefs.IsResourceExhausted(err):
		return http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many requests"
	case errdefs.IsNotImplemented(err):
		return http.StatusMethodNotAllowed, "UNSUPPORTED", "not supported"
	case errdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable, "UNKNOWN", "not available at the moment"
	}
	return http.StatusInternalServerError, "UNKNOWN", "internal error"
}

// unknown is the code for what is not there, by what the path is about.
func unknown(path string) string {
	switch {
	case strings.Contains(path, "/blobs/uploads/"):
		return "BLOB_UPLOAD_UNKNOWN"
	case strings.Contains(path, "/blobs/"):
		return "BLOB_UNKNOWN"
	case strings.Contains(path, "/manifests/"):
		return "MANIFEST_UNKNOWN"
	}
	return "NAME_UNKNOWN"
}

func brief(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	const longest = 200 // bytes
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

func notAllowed(w http.ResponseWriter, methods string) error {
	w.Header().Set("Allow", methods)
	return ociregistry.ErrUnsupported
}
