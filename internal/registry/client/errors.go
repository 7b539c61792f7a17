package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"unicode"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
)

// Error is why a registry did not do what it was asked. Its chain holds a
// class of errdefs and, where the registry gave a reason of the distribution
// specification, that as well: [ociregistry.ErrManifestUnknown] and so on.
type Error struct {
	// Op is what was attempted and on what: "get manifest ghcr.io/a/b:latest".
	Op string

	// Host is the registry's name as the user knows it.
	Host string

	// Status is the HTTP status of the answer, 0 if there was none.
	Status int

	hint         string
	class, cause error
}

// Hint returns a line for the user on what to do about it, or "".
func (e *Error) Hint() string { return e.hint }

// Error returns one line.
func (e *Error) Error() string { return e.Op + ": " + e.cause.Error() }

// Unwrap returns the class and the cause.
func (e *Error) Unwrap() []error { return []error{e.class, e.cause} }

// dataLoss is an error of class [errdefs.ErrDataLoss] that is also kind, one of
// the errors of package ociregistry.
func dataLoss(kind error, format string, args ...any) error {
	return &badBytes{fmt.Sprintf(format, args...), kind}
}

type badBytes struct {
	text string
	kind error
}

func (e *badBytes) Error() string   { return e.text }
func (e *badBytes) Unwrap() []error { return []error{errdefs.ErrDataLoss, e.kind} }

// refused is an error of the client itself: what the registry asked for is not
// done.
type refused struct {
	text, hint string
}

func (e *refused) Error() string { return e.text }
func (e *refused) Unwrap() error { return errdefs.ErrPermissionDenied }

// fail makes an [Error] of err, which is whatever net/http, ociclient or this
// package returned for op. kind is what is unknown when an answer without a
// body says 404.
func (r *registry) fail(op string, kind, err error) error {
	if err == nil {
		return nil
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	if errors.Is(err, context.Canceled) && !errors.Is(err, errStalled) {
		return fmt.Errorf("%s: %w", op, context.Canceled)
	}
	e := &Error{Op: op, Host: r.name, cause: err}
	var answer ociregistry.HTTPError
	var no *refused
	switch {
	case errors.As(err, &answer):
		r.explain(e, kind, answer)
	case errors.As(err, &no):
		e.class, e.cause, e.hint = errdefs.ErrPermissionDenied, no, no.hint
	case classOf(err) != nil:
		e.class, e.cause = classOf(err), tidy(err)
	case errors.Is(err, ociregistry.ErrUnsupported):
		e.class = errdefs.ErrNotImplemented
	case errors.Is(err, ociregistry.ErrSizeInvalid), errors.Is(err, ociregistry.ErrDigestInvalid):
		e.class = errdefs.ErrDataLoss
	default:
		e.class, e.cause = errdefs.ErrUnavailable, tidy(err)
		if why := unreachable(err); why != "" {
			e.cause = errors.New("registry unreachable: " + why)
		}
	}
	return e
}

// explain fills in e from the answer of the registry.
func (r *registry) explain(e *Error, kind error, answer ociregistry.HTTPError) {
	e.Status = answer.StatusCode()
	e.class = classOfStatus(e.Status)
	text := reason(answer)
	switch e.Status {
	case http.StatusUnauthorized:
		e.hint, e.cause = r.explainLogin(text)
		return
	case http.StatusForbidden:
		if text == "" {
			text = "access denied"
		}
		if r.auth.anonymous() {
			e.hint = "log in with: shale login " + r.name
		}
	case http.StatusNotFound:
		e.cause = kind
		if len(answer.ResponseBody()) == 0 {
			return // to a HEAD, say, of which ociclient makes a name unknown
		}
		for _, what := range []ociregistry.Error{
			ociregistry.ErrNameUnknown, ociregistry.ErrManifestUnknown, ociregistry.ErrBlobUnknown,
			ociregistry.ErrBlobUploadUnknown, ociregistry.ErrManifestBlobUnknown,
		} {
			if errors.Is(answer, what) {
				e.cause = what
			}
		}
		if errors.Is(e.cause, ociregistry.ErrManifestBlobUnknown) && text != "" {
			e.cause = &said{text, ociregistry.ErrManifestBlobUnknown} // it says which
		}
		return
	case http.StatusMethodNotAllowed:
		e.cause = ociregistry.ErrUnsupported
		return
	}
	if text == "" {
		text = strings.ToLower(http.StatusText(e.Status))
	}
	e.cause = &said{fmt.Sprintf("registry %s answers %d: %s", r.name, e.Status, text), errors.Unwrap(answer)}
}

// said is an answer in words that keeps its OCI error code for errors.Is.
type said struct {
	text string
	code error
}

func (e *said) Error() string { return e.text }
func (e *said) Unwrap() error { return e.code }

func (r *registry) explainLogin(text string) (hint string, cause error) {
	hint = "log in with: shale login " + r.name
	if r.auth.anonymous() {
		return hint, &said{"the repository does not exist or needs a login", ociregistry.ErrUnauthorized}
	}
	if text == "" {
		text = "login not accepted"
	}
	return hint, &said{fmt.Sprintf("registry %s answers 401: %s", r.name, text), ociregistry.ErrUnauthorized}
}

// reason returns what the body of answer says, as one short line: it is a
// stranger's text and will be shown on a terminal.
func reason(answer ociregistry.HTTPError) string {
	var wire ociregistry.WireErrors
	if json.Unmarshal(answer.ResponseBody(), &wire) != nil || len(wire.Errors) == 0 {
		return ""
	}
	text := wire.Errors[0].Message
	if text == "" {
		text = strings.ToLower(strings.ReplaceAll(wire.Errors[0].Code_, "_", " "))
	}
	return oneLine(text)
}

func oneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(c rune) bool {
		return unicode.IsSpace(c) || !unicode.IsPrint(c)
	}), " ")
	const longest = 200 // bytes
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

func classOfStatus(status int) error {
	switch {
	case status == http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case status == http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case status == http.StatusNotFound:
		return errdefs.ErrNotFound
	case status == http.StatusMethodNotAllowed:
		return errdefs.ErrNotImplemented
	case status == http.StatusConflict:
		return errdefs.ErrConflict
	case status == http.StatusRequestedRangeNotSatisfiable:
		return errdefs.ErrOutOfRange
	case status == http.StatusTooManyRequests:
		return errdefs.ErrResourceExhausted
	case status == http.StatusRequestTimeout, status >= 500:
		return errdefs.ErrUnavailable
	case status >= 400:
		return errdefs.ErrInvalidArgument
	}
	return errdefs.ErrUnknown
}

// classOf returns the class that err already has, or nil.
func classOf(err error) error {
	for _, class := range []error{
		errdefs.ErrDataLoss, errdefs.ErrNotFound, errdefs.ErrInvalidArgument, errdefs.ErrUnauthenticated,
		errdefs.ErrPermissionDenied, errdefs.ErrNotImplemented, errdefs.ErrUnavailable, errdefs.ErrOutOfRange,
		errdefs.ErrResourceExhausted, errdefs.ErrFailedPrecondition,
	} {
		if errors.Is(err, class) {
			return class
		}
	}
	return nil
}

// tidy takes the frames of net/http off err: the method, the URL (which may
// hold a signature) and "cannot do HTTP request".
func tidy(err error) error {
	var frame *url.Error
	if errors.As(err, &frame) {
		return tidy(frame.Err)
	}
	return err
}

// unreachable says in a few words why there was no answer, or "" if err has
// another reason.
func unreachable(err error) string {
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var plain tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return "look up host: " + oneLine(dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &name):
		return "verify certificate: " + oneLine(tidy(err).Error())
	case errors.As(err, &plain):
		return "it does not speak TLS (plain http is for loopback and --insecure-registry)"
	case errors.Is(err, errStalled):
		return errStalled.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection breaks"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return oneLine(op.Err.Error())
	}
	return ""
}
