package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
)

// gate is the round tripper that ociclient and this package hand their
// requests to. It knows the one origin that the registry is, and what may go
// elsewhere: reads that follow a redirect, and uploads to a paired host; both
// without any credential.
type gate struct {
	client *Client
	name   string // of the registry, for the user
	host   string
	auth   *auth             // requests to the origin
	bare   http.RoundTripper // all others

	probing chan struct{} // held by the one request that finds out the scheme
	scheme  string        // guarded by probing; "" until known
}

// RoundTrip sends req where it may go.
func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	scheme, err := g.findScheme(req.Context())
	if err != nil {
		closeBody(req)
		return nil, err
	}
	home := originOf(&url.URL{Scheme: scheme, Host: g.host})
	req = req.Clone(req.Context())
	// Requests are made for https before the scheme is known, and registries
	// behind a proxy that ends TLS name themselves in plain http. Neither may
	// change how the origin is spoken to.
	if strings.EqualFold(req.URL.Host, g.host) || originOf(req.URL) == home {
		req.URL.Scheme, req.URL.Host = scheme, g.host
		return g.auth.RoundTrip(req)
	}
	if err := g.mayLeave(home, req); err != nil {
		closeBody(req)
		return nil, err
	}
	// https://fetch.spec.whatwg.org/ calls these credentials; and a Referer
	// would tell the other host a signed address.
	for _, name := range []string{"Authorization", "Cookie", "Referer", "Proxy-Authorization"} {
		req.Header.Del(name)
	}
	return g.bare.RoundTrip(req)
}

// mayLeave says whether req, which is not for the registry's origin home, may
// be sent.
func (g *gate) mayLeave(home origin, req *http.Request) error {
	target := originOf(req.URL)
	read := req.Method == http.MethodGet || req.Method == http.MethodHead
	switch {
	case req.URL.User != nil:
		return &refused{text: fmt.Sprintf("registry %s sends on to an address with a password", g.name)}
	case home.scheme == "https" && target.scheme != "https":
		return &refused{text: fmt.Sprintf("registry %s sends on to an address without TLS: %s", g.name, target)}
	case isLocal(target.host) && !isLocal(home.host):
		return &refused{text: fmt.Sprintf("registry %s sends on to an address of this machine: %s", g.name, target)}
	case read && req.Response != nil: // net/http follows a redirect
		return nil
	case !g.client.paired(home, target):
		return &refused{text: fmt.Sprintf("registry %s sends a %s on to %s, which is not known to belong to it", g.name, req.Method, target.host)}
	}
	return nil
}

// findScheme returns how the registry is spoken to: https, unless it is one
// that may be spoken to in the clear and does not answer TLS. The answer holds
// for the life of the client.
func (g *gate) findScheme(ctx context.Context) (string, error) {
	select {
	case g.probing <- struct{}{}:
		defer func() { <-g.probing }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if g.scheme != "" {
		return g.scheme, nil
	}
	if !g.client.hosts.insecure.allows(g.host) {
		g.scheme = "https"
		return g.scheme, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+g.host+"/v2/", nil)
	if err != nil {
		return "", err
	}
	resp, err := g.client.probe.RoundTrip(req)
	if err == nil {
		drain(resp)
		g.scheme = "https"
		return g.scheme, nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if !notTLS(err) {
		return "", err
	}
	g.scheme = "http"
	return g.scheme, nil
}

// notTLS reports whether err is what a TLS handshake ends in when the other
// side does not speak TLS: it answers in clear text, hangs up, or waits for
// the end of a line.
func notTLS(err error) bool {
	var record tls.RecordHeaderError
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	var timeout net.Error
	return errors.As(err, &record) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.As(err, &timeout) && timeout.Timeout()
}
