package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// client sends signed requests about objects of a bucket.
type client struct {
	http   *http.Client
	base   *url.URL // with the bucket
	region string
	auth   Credentials
	now    func() time.Time
}

func newClient(b Bucket, transport http.RoundTripper, now func() time.Time) (client, error) {
	c := client{region: b.Region, auth: b.Credentials, now: now, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if b.Name == "" || strings.ContainsAny(b.Name, "/?#@: ") {
		return c, fmt.Errorf("bucket %q: %w", b.Name, errdefs.ErrInvalidArgument)
	}
	if len(b.Names) == 0 || b.Names[0] == "" {
		return c, fmt.Errorf("bucket %s: no name for the cache: %w", b.Name, errdefs.ErrInvalidArgument)
	}
	if !c.auth.complete() {
		return c, fmt.Errorf("bucket %s: no credentials in access_key_id and secret_access_key, the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a profile: %w", b.Name, errdefs.ErrUnauthenticated)
	}
	endpoint := b.Endpoint
	if endpoint == "" {
		endpoint = "https://s3." + b.Region + ".amazonaws.com"
		if strings.HasPrefix(b.Region, "cn-") {
			endpoint += ".cn"
		}
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return c, fmt.Errorf("endpoint of bucket %s: want http(s)://HOST[:PORT]: %w", b.Name, errdefs.ErrInvalidArgument)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	if b.Endpoint != "" && b.PathStyle {
		u.Path += "/" + b.Name
	} else {
		u.Host = b.Name + "." + u.Host
	}
	c.base = u
	return c, nil
}

// request is about one object.
type request struct {
	method, key string
	header      map[string]string
	body        io.Reader // nil, or size bytes with the SHA-256 sum, in hex
	size        int64
	sum         string
}

// attempts is how often a request is sent at most, and pause how long is waited
// after the first time; after each further one twice as long.
const (
	attempts = 3
	pause    = 200 * time.Millisecond
)

// do sends r, again if the server can't answer now, and returns the response
// to what has succeeded. The caller closes its body.
//
// Errors end in the class that fits the server's status, and have its words.
func (c *client) do(ctx context.Context, r request) (*http.Response, error) {
	for n := 1; ; n++ {
		resp, again, err := c.once(ctx, r)
		if err == nil {
			return resp, nil
		}
		at, seekable := r.body.(io.ReaderAt)
		if !again || n == attempts || ctx.Err() != nil || r.body != nil && !seekable {
			return nil, err
		}
		if seekable { // the request that failed may still be reading
			r.body = io.NewSectionReader(at, 0, r.size)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause << (n - 1)):
		}
	}
}

// once sends r once, and says whether a failure may be the last.
func (c *client) once(ctx context.Context, r request) (_ *http.Response, again bool, err error) {
	var body io.Reader
	sum := emptySum
	if r.body != nil {
		sum = r.sum
		if body = io.NopCloser(r.body); r.size == 0 {
			body = http.NoBody
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base.String(), body)
	if err != nil {
		return nil, false, err
	}
	req.ContentLength = r.size
	req.URL.Path = c.base.Path + "/" + r.key
	req.URL.RawPath = escape(req.URL.Path)
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	c.auth.sign(req, c.region, sum, c.now())
	// Not signed: these are what others on the way may change.
	req.Header.Set("User-Agent", "shale")
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, false, cause
		}
		if uerr := (*url.Error)(nil); errors.As(err, &uerr) {
			err = uerr.Err
		}
		return nil, true, err
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, false, nil
	}
	defer resp.Body.Close()
	busy := resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented || resp.StatusCode == http.StatusTooManyRequests
	return nil, busy, c.refusal(resp)
}

// refusal is what the server says instead of doing what it was asked. What it
// was told in confidence it may not have printed.
func (c *client) refusal(resp *http.Response) error {
	var class error = errdefs.ErrUnknown
	switch code := resp.StatusCode; {
	case code >= 300 && code < 400:
		return fmt.Errorf("server answers %s: the bucket is in another region: %w", resp.Status, errdefs.ErrInvalidArgument)
	case code == http.StatusNotFound:
		class = errdefs.ErrNotFound
	case code == http.StatusUnauthorized:
		class = errdefs.ErrUnauthenticated
	case code == http.StatusForbidden:
		class = errdefs.ErrPermissionDenied
	case code == http.StatusBadRequest:
		class = errdefs.ErrInvalidArgument
	case code >= 500 || code == http.StatusTooManyRequests:
		class = errdefs.ErrUnavailable
	}
	var said struct{ Code, Message string }
	text := ""
	if data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10)); err == nil && xml.Unmarshal(data, &said) == nil {
		if text = said.Code; said.Message != "" {
			text = fmt.Sprintf("%s %.200q", said.Code, said.Message)
		}
	}
	for _, secret := range []string{c.auth.Secret, c.auth.Token, c.auth.KeyID} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	if text == "" {
		text = http.StatusText(resp.StatusCode)
	}
	return fmt.Errorf("server answers %d %s: %w", resp.StatusCode, text, class)
}
