package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// errStalled ends a request that makes no progress.
var errStalled = errors.New("no data for too long")

// limits are how long the client waits. They are fields of a client so that a
// test can shorten them.
type limits struct {
	stall  time.Duration // for the next byte, and for the headers of an answer to a read
	commit time.Duration // for the answer to a write: the registry may hash gigabytes first
	budget time.Duration // for all tries of one request
}

// hosts is the lowest layer: it carries a request to whatever host it names,
// with the TLS settings of that host. Nothing above it can make it speak plain
// http to a host that has not been allowed that.
type hosts struct {
	config   *Config
	insecure insecureHosts
	limits   limits

	mu         sync.Mutex
	transports map[string]http.RoundTripper
}

// RoundTrip sends req. Its body must make progress, its answer as well: see
// [limits].
func (h *hosts) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !(req.URL.Scheme == "http" && h.insecure.allows(req.URL.Host)) {
		closeBody(req)
		return nil, &refused{
			text: fmt.Sprintf("plain http to %s refused", req.URL.Host),
			hint: "allow it with: --insecure-registry " + req.URL.Host,
		}
	}
	t, err := h.transport(req.URL.Host)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	stalled := func() { cancel(errStalled) }
	asking := newWatchdog(h.limits.commit, stalled)
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		asking.set(h.limits.stall)
	}
	req = req.Clone(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watchedBody{req.Body, asking, h.limits}
	}
	if h.config.UserAgent != "" {
		req.Header.Set("User-Agent", h.config.UserAgent)
	}
	// ociclient's idea. Some servers never answer it, and a second is lost.
	req.Header.Del("Expect")
	// Bytes have to arrive as they are hashed: no transparent compression.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := t.RoundTrip(req)
	asking.end() // the transport may go on reading the body
	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
		cancel(nil)
		return nil, err
	}
	reading := newWatchdog(h.limits.stall, stalled)
	reading.stop()
	resp.Body = &answerBody{body: resp.Body, ctx: ctx, cancel: cancel, dog: reading, stall: h.limits.stall}
	return resp, nil
}

// transport returns the transport for host.
func (h *hosts) transport(host string) (http.RoundTripper, error) {
	if h.config.Transport != nil {
		if _, standard := h.config.Transport.(*http.Transport); !standard {
			return h.config.Transport, nil
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.transports[host]; t != nil {
		return t, nil
	}
	t := &http.Transport{
		Proxy:               h.config.Proxy,
		DialContext:         (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 16,
		// HTTP/1.1 only: one connection for each blob moves more than all of
		// them in one, and none waits for another.
		// A blob is read in large pieces; net/http's 4 KiB cost system calls.
		ReadBufferSize:  128 << 10,
		WriteBufferSize: 128 << 10,
	}
	if own, ok := h.config.Transport.(*http.Transport); ok {
		t = own.Clone()
	}
	t.DisableCompression = true
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	trusted, err := h.certificates(host, t.TLSClientConfig)
	if err != nil {
		return nil, err
	}
	if !trusted && h.insecure.allows(host) {
		t.TLSClientConfig.InsecureSkipVerify = true
	}
	h.transports[host] = t
	return t, nil
}

// certificates adds what certs.d holds for host: *.crt are further roots, and
// NAME.cert with NAME.key is shown to the registry. It reports whether there
// were roots. See https://docs.docker.com/engine/security/certificates/.
func (h *hosts) certificates(host string, c *tls.Config) (trusted bool, err error) {
	dirs := []string{"/etc/docker/certs.d"}
	if h.config.DockerConfigDir != "" {
		dirs = append(dirs, filepath.Join(h.config.DockerConfigDir, "certs.d"))
	}
	for _, dir := range dirs {
		dir = filepath.Join(dir, host)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return false, fmt.Errorf("read certificates for %s: %w", host, err)
		}
		for _, entry := range entries {
			name := filepath.Join(dir, entry.Name())
			switch filepath.Ext(name) {
			case ".crt":
				if err := addRoots(c, name); err != nil {
					return false, err
				}
				trusted = true
			case ".cert":
				pair, err := tls.LoadX509KeyPair(name, strings.TrimSuffix(name, ".cert")+".key")
				if err != nil {
					return false, fmt.Errorf("load certificate %s: %w", name, err)
				}
				c.Certificates = append(c.Certificates, pair)
			}
		}
	}
	return trusted, nil
}

func addRoots(c *tls.Config, name string) error {
	pem, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	if c.RootCAs == nil {
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			c.RootCAs = x509.NewCertPool()
		}
	}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("read certificate %s: no PEM certificate in it: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// watchdog calls a function unless it is stopped or set anew in time.
type watchdog struct {
	mu    sync.Mutex
	timer *time.Timer
	ended bool
}

func newWatchdog(d time.Duration, f func()) *watchdog {
	return &watchdog{timer: time.AfterFunc(d, f)}
}

func (d *watchdog) set(wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		d.timer.Reset(wait)
	}
}

func (d *watchdog) stop() { d.timer.Stop() }

// end stops d for good.
func (d *watchdog) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.timer.Stop()
}

// watchedBody is the body of a request. Each read of the transport shows that
// the other side is taking it; after the last one, it has its time to answer.
// The time that the source takes is not the network's.
type watchedBody struct {
	io.ReadCloser
	dog    *watchdog
	limits limits
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.dog.stop()
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.dog.set(b.limits.commit)
	} else {
		b.dog.set(b.limits.stall)
	}
	return n, err
}

// answerBody is the body of an answer. Only the time inside Read counts, so a
// slow consumer is not taken for a slow network.
type answerBody struct {
	body   io.ReadCloser
	ctx    context.Context //nolint:containedctx // the request's own, to tell a stall from a cancellation
	cancel context.CancelCauseFunc
	dog    *watchdog
	stall  time.Duration
}

func (b *answerBody) Read(p []byte) (int, error) {
	b.dog.set(b.stall)
	n, err := b.body.Read(p)
	b.dog.stop()
	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (b *answerBody) Close() error {
	b.dog.end()
	err := b.body.Close()
	b.cancel(nil)
	return err
}
