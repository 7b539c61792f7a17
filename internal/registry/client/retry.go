package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// clock is time as the client sees it; tests bring their own.
type clock struct {
	now    func() time.Time
	sleep  func(context.Context, time.Duration) error
	jitter func() float64 // in [0, 1)
}

func systemClock() clock {
	return clock{now: time.Now, jitter: rand.Float64, sleep: func(ctx context.Context, d time.Duration) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}
}

const (
	firstDelay    = 500 * time.Millisecond
	longestDelay  = 15 * time.Second
	longestWait   = 60 * time.Second       // of what a Retry-After may ask for
	retryInterval = 100 * time.Millisecond // between any two retries to one host
	breaks        = 5                      // retries after a broken connection
	connects      = 2                      // retries after one that could not be made
)

// retry sends a request again when the connection breaks or the answer says
// that it is the moment that is wrong, not the request. It never sends a body
// twice that cannot be had twice.
type retry struct {
	next    http.RoundTripper
	clock   clock
	budget  time.Duration
	waiting func(host string, why error, d time.Duration)

	mu   sync.Mutex
	last map[string]time.Time // by host: when the latest retry was allowed to go
}

// RoundTrip sends req until it is answered, cannot be answered, or the budget
// of time is spent.
func (r *retry) RoundTrip(req *http.Request) (*http.Response, error) {
	again := canRepeat(req)
	start := r.clock.now()
	for try := 0; ; try++ {
		resp, err := r.next.RoundTrip(req)
		if !again || req.Context().Err() != nil || try >= triesFor(resp, err) {
			return resp, err
		}
		wait := r.delay(req.URL.Host, try, resp)
		if r.clock.now().Add(wait).Sub(start) > r.budget {
			return resp, err
		}
		why := err
		if resp != nil {
			why = errors.New(resp.Status)
			drain(resp)
		}
		if r.waiting != nil {
			r.waiting(req.URL.Host, why, wait)
		}
		if err := r.clock.sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
	}
}

// canRepeat reports whether sending req twice does no harm. A PATCH moves the
// end of an upload, so whoever sent it has to ask where that is first.
func canRepeat(req *http.Request) bool {
	hasBody := req.Body != nil && req.Body != http.NoBody
	return req.Method != http.MethodPatch && (!hasBody || req.GetBody != nil)
}

// triesFor returns how many times a request with this outcome may be repeated.
func triesFor(resp *http.Response, err error) int {
	if err != nil {
		return triesAfter(err)
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		// Without a Retry-After it may well be a quota that lasts for hours.
		if resp.Header.Get("Retry-After") != "" {
			return 8
		}
		return 4
	case http.StatusInternalServerError:
		return 3
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 1000 // the budget ends it
	}
	return 0
}

// triesAfter returns how many times to try again after err. A name that does
// not exist and a certificate that does not verify stay so; a registry that is
// just starting refuses connections for a moment; anything else that goes wrong
// on the way may go well the next time.
func triesAfter(err error) int {
	var dns *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	dial := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.As(err, &dns):
		if dns.IsNotFound || !dns.IsTemporary {
			return 0
		}
		return connects
	case dial:
		return connects
	case errors.Is(err, context.Canceled), classOf(err) != nil:
		return 0
	case errors.As(err, &certificate), errors.As(err, &plain), op != nil && op.Op == "remote error": // a TLS alert
		return 0
	}
	return breaks
}

// delay returns how long to wait before retry number try (from 0) to host:
// what the answer asks for, else exponentially more with jitter. Retries to one
// host are kept retryInterval apart, however many requests fail at once.
func (r *retry) delay(host string, try int, resp *http.Response) time.Duration {
	now := r.clock.now()
	wait := min(firstDelay<<min(try, 10), longestDelay)
	wait = wait/2 + time.Duration(r.clock.jitter()*float64(wait/2))
	if resp != nil {
		if asked, ok := retryAfter(resp.Header.Get("Retry-After"), now); ok {
			wait = max(wait/8, min(asked, longestWait))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := now.Add(wait)
	if earliest := r.last[host].Add(retryInterval); at.Before(earliest) {
		at = earliest
	}
	r.last[host] = at
	return at.Sub(now)
}

// retryAfter parses seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(s string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, false
}

// drain makes resp's connection usable again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}
