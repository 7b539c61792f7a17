package ops

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/attest"
	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/layer"
)

// download is a file that is fetched over HTTP: ADD of a URL, or a context
// that is one. With a checksum the file is known without asking for it;
// without, it is fetched every time and the steps after it go by its content.
type download struct {
	tools    *Tools
	url      string
	name     string
	checksum digest.Digest
	mode     int64
	uid, gid int
	header   http.Header
	secret   string // the id of the secret that is the Authorization header
}

func newDownload(t *Tools, op *pb.SourceOp) (*download, error) {
	d := &download{tools: t, url: op.Identifier, name: op.Attrs[pb.AttrHTTPFilename], mode: 0o600, header: http.Header{}}
	if d.name == "" {
		d.name = "download"
		if u, err := url.Parse(d.url); err == nil && path.Base(u.Path) != "." && path.Base(u.Path) != "/" {
			d.name = path.Base(u.Path)
		}
	}
	if d.name != path.Base(d.name) || d.name == ".." || d.name == "." || d.name == "/" {
		return nil, fmt.Errorf("download %s: file name %q: %w", d, d.name, errdefs.ErrInvalidArgument)
	}
	if op.Attrs[pb.AttrHTTPSignatureVerify] != "" || op.Attrs[pb.AttrHTTPSignatureVerifyPubKey] != "" {
		return nil, fmt.Errorf("download %s: verify its signature: %w", d, errdefs.ErrNotImplemented)
	}
	if sum := op.Attrs[pb.AttrHTTPChecksum]; sum != "" {
		var err error
		if d.checksum, err = digest.Parse(sum); err != nil {
			return nil, fmt.Errorf("download %s: checksum %q: %w", d, sum, errdefs.ErrInvalidArgument)
		}
	}
	var uid, gid int64
	for attr, to := range map[string]*int64{pb.AttrHTTPPerm: &d.mode, pb.AttrHTTPUID: &uid, pb.AttrHTTPGID: &gid} {
		if value := op.Attrs[attr]; value != "" {
			n, err := strconv.ParseInt(value, 0, 64)
			if err != nil || n < 0 || n > 1<<32-1 {
				return nil, fmt.Errorf("download %s: %s %q: %w", d, attr, value, errdefs.ErrInvalidArgument)
			}
			*to = n
		}
	}
	d.uid, d.gid = int(uid), int(gid)
	for attr, value := range op.Attrs {
		if name, ok := strings.CutPrefix(attr, pb.AttrHTTPHeaderPrefix); ok {
			d.header.Set(name, value)
		}
	}
	d.secret = op.Attrs[pb.AttrHTTPAuthHeaderSecret]
	return d, nil
}

// String is the URL without a password or a signature, and without the user,
// whose name may be a token.
func (op *download) String() string { return attest.Scrub(op.url, nil) }

func (op *download) Key() []byte {
	if op.checksum == "" {
		return nil
	}
	return op.tools.key("http", fmt.Appendf(nil, "%s\x00%s\x00%o\x00%d\x00%d", op.checksum, op.name, op.mode, op.uid, op.gid))
}

func (op *download) Sees(int) *cache.View { return nil }

func (op *download) Run(ctx context.Context, _ []*ref.Ref, step *solver.Step) ([]*ref.Ref, error) {
	dir, err := op.tools.Lease.TempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file, err := os.Create(filepath.Join(dir, "download"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	modified, err := op.fetch(ctx, file, step)
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", op, err)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if op.tools.Epoch != nil && modified.After(*op.tools.Epoch) {
		modified = *op.tools.Epoch
	}
	l, err := op.tools.Pool.Write(ctx, ref.Layer{Created: op.tools.now(), By: "download " + op.String()}, func(w *layer.Writer) error {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: op.name, Size: size, Mode: op.mode, Uid: op.uid, Gid: op.gid, ModTime: modified,
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err := w.ReadFrom(file)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []*ref.Ref{op.tools.Pool.Stack([]ref.Layer{l})}, nil
}

// fetch copies what is at the URL to w and returns when it was last modified.
// A server that doesn't say means 1970, as in BuildKit.
func (op *download) fetch(ctx context.Context, w io.Writer, step *solver.Step) (time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, op.url, nil)
	if err != nil {
		return time.Time{}, err
	}
	req.Header = op.header.Clone()
	req.Header.Set("User-Agent", "shale")
	if err := op.authorize(req); err != nil {
		return time.Time{}, err
	}
	resp, err := (&http.Client{Transport: op.tools.Transport, CheckRedirect: sameOrigin}).Do(req)
	if err != nil {
		return time.Time{}, reason(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return time.Time{}, statusError(resp.StatusCode)
	}
	sum := digest.SHA256.Digester()
	if op.checksum != "" {
		sum = op.checksum.Algorithm().Digester()
	}
	counted := &counter{step: step, total: max(resp.ContentLength, 0)}
	if _, err := io.Copy(io.MultiWriter(w, sum.Hash(), counted), resp.Body); err != nil {
		return time.Time{}, err
	}
	counted.report(true)
	op.tools.found(op.url, sum.Digest().String())
	if op.checksum != "" && sum.Digest() != op.checksum {
		return time.Time{}, fmt.Errorf("its digest is %s, not %s: %w", sum.Digest(), op.checksum, errdefs.ErrFailedPrecondition)
	}
	modified, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		return time.Unix(0, 0).UTC(), nil
	}
	op.tools.dated(op.url, modified.UTC())
	return modified.UTC(), nil
}

// reason is what lies behind an error of package http, which repeats the URL.
func reason(err error) error {
	if uerr := (*url.Error)(nil); errors.As(err, &uerr) {
		return uerr.Err
	}
	return err
}

func statusError(code int) error {
	var class error = errdefs.ErrUnknown
	switch {
	case code == http.StatusNotFound || code == http.StatusGone:
		class = errdefs.ErrNotFound
	case code == http.StatusUnauthorized:
		class = errdefs.ErrUnauthenticated
	case code == http.StatusForbidden:
		class = errdefs.ErrPermissionDenied
	case code >= 500:
		class = errdefs.ErrUnavailable
	}
	return fmt.Errorf("server answers %d %s: %w", code, http.StatusText(code), class)
}

// sameOrigin lets a redirect take credentials along only within one origin
// (RFC 6454): scheme, host and port. The client itself would send them to
// other ports, to subdomains and unencrypted. What was left once stays so.
func sameOrigin(req *http.Request, via []*http.Request) error {
	const most = 10 // as net/http has it
	if len(via) >= most {
		return fmt.Errorf("more than %d redirects: %w", most, errdefs.ErrFailedPrecondition)
	}
	for _, before := range via {
		if origin(before.URL) != origin(req.URL) {
			req.Header.Del("Authorization")
			req.Header.Del("Cookie")
		}
	}
	return nil
}

func origin(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	case u.Scheme == "http":
		port = "80"
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// authorize adds the secret that the step names, or one that is named after
// the server.
func (op *download) authorize(req *http.Request) error {
	secrets := op.tools.Runner.Secrets
	if op.secret != "" {
		value, ok := secrets[op.secret]
		if !ok {
			return noSecret(op.secret)
		}
		req.Header.Set("Authorization", oneLine(value))
		return nil
	}
	host := req.URL.Hostname()
	if value, ok := secrets["HTTP_AUTH_HEADER_"+host]; ok {
		req.Header.Set("Authorization", oneLine(value))
	}
	if value, ok := secrets["HTTP_AUTH_TOKEN_"+host]; ok {
		req.Header.Set("Authorization", "Bearer "+oneLine(value))
	}
	return nil
}

// counter shows how far a download has come.
type counter struct {
	step           *solver.Step
	current, total int64
	shown          int64
}

// every is after how many bytes the display hears of a download again.
const every = 1 << 20

func (c *counter) Write(p []byte) (int, error) {
	c.current += int64(len(p))
	if c.current-c.shown >= every {
		c.report(false)
	}
	return len(p), nil
}

func (c *counter) report(done bool) {
	c.shown = c.current
	c.step.Progress("downloading", c.current, c.total, done)
}
