package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/registry/server"
)

// toxic is a fault of the network: how a connection ends after so many bytes in
// one direction.
type toxic struct {
	up    bool // counts bytes to the registry, not from it
	after int
	how   string // "RST", "FIN", "stall"
}

// proxy stands between client and registry. Toxics act one after another, each
// once, on whatever connection carries the byte.
type proxy struct {
	addr string

	mu     sync.Mutex
	toxics []toxic
	count  int // bytes since the first toxic was armed
	down   int64
	stop   chan struct{}
}

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), stop: make(chan struct{})}
	t.Cleanup(func() { close(p.stop); l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			go p.pump(c, s, true)
			go p.pump(s, c, false)
		}
	}()
	return p
}

func (p *proxy) arm(toxics ...toxic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toxics, p.count, p.down = toxics, 0, 0
}

// left returns how many toxics have not acted yet.
func (p *proxy) left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.toxics)
}

// pass says how many of n bytes may pass, and what happens then.
func (p *proxy) pass(n int, up bool) (int, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !up {
		p.down += int64(n)
	}
	if len(p.toxics) == 0 || p.toxics[0].up != up {
		return n, ""
	}
	t := p.toxics[0]
	if p.count+n <= t.after {
		p.count += n
		return n, ""
	}
	n = t.after - p.count
	p.toxics, p.count = p.toxics[1:], 0
	return n, t.how
}

func (p *proxy) pump(from, to net.Conn, up bool) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			n, how := p.pass(n, up)
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
			switch how {
			case "RST":
				for _, c := range []net.Conn{from, to} {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				return
			case "FIN":
				return
			case "stall":
				<-p.stop
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// toxicRegistry returns a registry in memory behind a proxy.
func toxicRegistry(t *testing.T, stall time.Duration) (ociregistry.Interface, *proxy) {
	t.Helper()
	s := httptest.NewServer(server.New(ocimem.New(), server.Options{}))
	t.Cleanup(s.CloseClientConnections)
	p := startProxy(t, s.Listener.Addr().String())
	c := newClient(Config{}, newFakeClock().clock(), limits{stall: stall, commit: stall, budget: 70 * time.Second})
	r, err := c.Registry(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	return r, p
}

// Row 16 of the scoreboard: each fault once, at each kind of place.
func TestTransfersSurviveOneBreakAnywhere(t *testing.T) {
	const size = 1 << 20
	data, desc := randomBlob(size)
	r, p := toxicRegistry(t, 100*time.Millisecond)
	_, manifest := pushImage(t, r, "a", data)
	ctx := t.Context()
	read := func() error {
		b, err := r.GetBlob(ctx, "a", desc.Digest)
		if err != nil {
			return err
		}
		defer b.Close()
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("%d bytes: %w", len(got), errors.Join(err, errIf(!bytes.Equal(got, data), "content differs")))
		}
		return nil
	}
	tag := func() error {
		b, err := r.GetTag(ctx, "a", "v1")
		if err == nil && !bytes.Equal(must(io.ReadAll(b)), manifest) {
			err = errors.New("manifest differs")
		}
		return err
	}
	n := 0
	push := func() error { // other bytes each time, so that the registry hasn't got them
		n++
		data := append(bytes.Clone(data), byte(n), byte(n>>8))
		d := ociregistry.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		_, err := r.PushBlob(ctx, "a", d, bytes.NewReader(data))
		return err
	}
	for _, test := range []struct {
		name  string
		do    func() error
		up    bool
		cuts  []int
		extra int64 // bytes that may come again
	}{
		{"blob", read, false, []int{0, 1, 100, 600, 1000, size / 2, size}, size / 20},
		{"manifest", tag, false, []int{0, 1, 100, 400}, 4 << 10},
		{"upload", push, true, []int{0, 1, 300, 700, size / 2, size, size + 200}, 4 << 10},
		{"answer to an upload", push, false, []int{0, 1, 100, 250, 400}, 4 << 10},
	} {
		for _, how := range []string{"RST", "FIN", "stall"} {
			for _, cut := range test.cuts {
				p.arm(toxic{test.up, cut, how})
				if err := test.do(); err != nil {
					t.Errorf("%s, %s after %d: %v", test.name, how, cut, err)
				}
				if p.left() > 0 {
					t.Errorf("%s, %s after %d: nothing broke", test.name, how, cut)
				}
				// A reset throws away what the kernels hold, which may be all.
				if limit := size + 4096 + test.extra; how != "RST" && p.down > limit {
					t.Errorf("%s, %s after %d: %d bytes fetched", test.name, how, cut, p.down)
				}
			}
		}
	}
}

func errIf(cond bool, text string) error {
	if cond {
		return errors.New(text)
	}
	return nil
}

func must(data []byte, _ error) []byte { return data }

func TestReadGivesUpAfterThreeBreaksWithoutAByte(t *testing.T) {
	data, desc := randomBlob(100_000)
	var requests, resumed atomic.Int32
	h := func(w http.ResponseWriter, req *http.Request) {
		requests.Add(1)
		if strings.HasPrefix(req.Header.Get("Range"), "bytes=50000-") {
			resumed.Add(1)
			w.Header().Set("Content-Range", "bytes 50000-99999/100000")
			w.Header().Set("Content-Length", "50000")
			w.WriteHeader(206)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(data[:50_000])
		panic(http.ErrAbortHandler)
	}
	r, _, _ := open(t, http.HandlerFunc(h), Config{})
	b, err := r.GetBlob(t.Context(), "a", desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(b)
	if len(got) != 50_000 || !errors.Is(err, ociregistry.ErrSizeInvalid) || !errdefs.IsDataLoss(err) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, again := b.Read(make([]byte, 1)); again == nil || again == io.EOF {
		t.Errorf("read after the end: %v", again)
	}
	if resumed.Load() != noProgress {
		t.Errorf("%d resumes", resumed.Load())
	}
}

func TestCancelEndsAReadAtOnce(t *testing.T) {
	_, desc := randomBlob(100_000)
	ctx, cancel := context.WithCancel(t.Context())
	r, _, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.(http.Flusher).Flush()
		cancel()
		<-req.Context().Done()
	}), Config{})
	b, err := r.GetBlob(ctx, "a", desc.Digest)
	if err == nil {
		_, err = io.ReadAll(b)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Whoever gives up a push does not wait for a registry that has gone silent.
func TestGivingUpAnUploadDoesNotWaitForTheRegistry(t *testing.T) {
	t.Parallel()
	var asked atomic.Bool
	r, _, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			w.Header().Set("Location", "/v2/a/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		asked.Store(true)
		<-req.Context().Done()
	}), Config{})
	ctx, cancel := context.WithCancel(t.Context())
	w, err := r.PushBlobChunked(ctx, "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := w.Cancel(); err != nil || !asked.Load() {
		t.Errorf("cancel: %v; the registry was told: %v", err, asked.Load())
	}
}

// Row 17 of the scoreboard: whatever is wrong with the bytes is an error, and
// of the right class.
func TestWrongBytesAreRefused(t *testing.T) {
	data, desc := randomBlob(10_000)
	other, otherDesc := randomBlob(10_001)
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	md := digest.FromBytes(manifest)
	const index = "application/vnd.oci.image.index.v1+json"
	type answer = func(w http.ResponseWriter, req *http.Request, try int32)
	send := func(status int, body []byte, header ...string) answer {
		return func(w http.ResponseWriter, _ *http.Request, _ int32) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}
	}
	abort := func(after answer) answer {
		return func(w http.ResponseWriter, req *http.Request, try int32) {
			after(w, req, try)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	chunked := func(body []byte) answer {
		return func(w http.ResponseWriter, req *http.Request, _ int32) {
			if req.Method == "HEAD" {
				w.Header().Set("Content-Length", "10000")
				return
			}
			w.(http.Flusher).Flush()
			_, _ = w.Write(body)
		}
	}
	first := func(a, b answer) answer {
		return func(w http.ResponseWriter, req *http.Request, try int32) {
			if try == 1 {
				a(w, req, try)
			} else {
				b(w, req, try)
			}
		}
	}
	flipped := bytes.Clone(data)
	flipped[5000] ^= 1
	half := abort(send(200, data[:5000], "Content-Length", "10000"))
	for name, h := range map[string]answer{
		"one bit":                          send(200, flipped),
		"another blob":                     send(200, other),
		"shorter, honest length":           send(200, data[:9999]),
		"longer, honest length":            send(200, append(bytes.Clone(data), 0)),
		"empty":                            send(200, nil),
		"shorter than its length":          abort(send(200, data[:9999], "Content-Length", "10000")),
		"gzip":                             send(200, data, "Content-Encoding", "gzip"),
		"deflate, gzip":                    send(200, data, "Content-Encoding", "deflate, gzip"),
		"another digest claimed":           send(200, data, "Docker-Content-Digest", string(otherDesc.Digest)),
		"chunked, shorter":                 chunked(data[:9000]),
		"chunked, longer":                  chunked(append(bytes.Clone(data), 1, 2, 3)),
		"chunked, wrong":                   chunked(flipped),
		"range nobody asked for":           send(206, data[:5000], "Content-Range", "bytes 5000-9999/10000"),
		"range without a range":            send(206, data),
		"other bytes on resume":            first(half, send(206, other[5000:10000], "Content-Range", "bytes 5000-9999/10000")),
		"other size on resume":             first(half, send(206, data[5000:], "Content-Range", "bytes 5000-9999/10001")),
		"other place on resume":            first(half, send(206, data[4999:], "Content-Range", "bytes 4999-9999/10000")),
		"everything, but other, on resume": first(half, send(200, flipped[:10000:10000])),
		"shorter on resume":                first(half, send(200, data[:6000])),
		"digest changes on resume":         first(half, send(206, data[5000:], "Content-Range", "bytes 5000-9999/10000", "Docker-Content-Digest", string(otherDesc.Digest))),
		"gzip on resume":                   first(half, send(206, data[5000:], "Content-Range", "bytes 5000-9999/10000", "Content-Encoding", "gzip")),
	} {
		var tries atomic.Int32
		r, _, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			n := int32(0)
			if req.Method == "GET" && req.URL.Path != "/v2/" {
				n = tries.Add(1)
			}
			h(w, req, n)
		}), Config{})
		b, err := r.GetBlob(t.Context(), "a", desc.Digest)
		if err == nil {
			got := make([]byte, 20_000)
			var n int
			n, err = io.ReadFull(b, got[:max(1, b.Descriptor().Size)]) // does not ask for the end of file
			if err == nil {
				_, err = b.Read(got[n:])
			}
			b.Close()
		}
		if !errdefs.IsDataLoss(err) {
			t.Errorf("blob, %s: %v", name, err)
		}
	}
	for name, h := range map[string]answer{
		"another":                 send(200, []byte(`{"schemaVersion":2}`), "Content-Type", index),
		"cut":                     send(200, manifest[:50], "Content-Type", index),
		"gzip":                    send(200, manifest, "Content-Type", index, "Content-Encoding", "gzip"),
		"too large":               send(200, bytes.Repeat([]byte(" "), maxManifest+1), "Content-Type", index),
		"claims another digest":   send(200, manifest, "Content-Type", index, "Docker-Content-Digest", string(desc.Digest)),
		"breaks again and again":  abort(send(200, manifest[:50], "Content-Length", "91")),
		"another digest, chunked": chunked([]byte("{}")),
	} {
		for _, byTag := range []bool{false, true} {
			if byTag && (name == "another" || name == "cut" || name == "another digest, chunked") {
				continue // a tag may be anything; that it isn't a manifest is seen below
			}
			r, _, _ := open(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { h(w, req, 0) }), Config{})
			var err error
			if byTag {
				_, err = r.GetTag(t.Context(), "a", "v1")
			} else {
				_, err = r.GetManifest(t.Context(), "a", md)
			}
			if !errdefs.IsDataLoss(err) {
				t.Errorf("manifest, %s, by tag %v: %v", name, byTag, err)
			}
		}
	}
}

// C08: a document that two parsers may read differently is no manifest.
func TestAmbiguousManifestsAreRefused(t *testing.T) {
	const image, index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	for _, test := range []struct {
		header, body, want string
	}{
		{image, `{"mediaType":"` + image + `","layers":[]}`, image},
		{image, `{"layers":[]}`, image},
		{image + "; charset=utf-8", `{"layers":[]}`, image},
		{"application/json", `{"mediaType":"` + image + `","layers":[]}`, image},
		{"", `{"manifests":[]}`, index},
		{"text/plain", `{"layers":[]}`, image},
		{image, `{"mediaType":"` + index + `","manifests":[]}`, ""},
		{index, `{"manifests":[],"layers":[]}`, ""},
		{index, `{"manifests":[],"config":{}}`, ""},
		{image, `{"layers":[],"layers":[]}`, ""},
		{image, `{"layers":[],"Layers":[]}`, ""},
		{image, `{"layers":[]} {}`, ""},
		{image, "\ufeff" + `{"layers":[]}`, ""},
		{image, `[]`, ""}, {image, ``, ""}, {image, `null`, ""}, {image, `{"layers":[]`, ""}, {image, `{"layers":[}`, ""}, {image, `{x}`, ""},
	} {
		got, err := manifestType(test.header, []byte(test.body))
		if got != test.want || (err == nil) != (test.want != "") || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s %s: %q, %v", test.header, test.body, got, err)
		}
	}
}

// C06: a digest or a name that isn't one never gets into an address.
func TestMalformedNamesAreRefusedBeforeTheyAreSent(t *testing.T) {
	var requests atomic.Int32
	r, _, _ := open(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }), Config{})
	ctx := t.Context()
	for _, d := range []string{"sha256:../../x", "", "sha256:", "sha256:abc", "sha256:" + strings.Repeat("A", 64), "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + strings.Repeat("a", 65536), "x"} {
		for _, do := range []func() error{
			func() error { _, err := r.GetBlob(ctx, "a", digest.Digest(d)); return err },
			func() error { _, err := r.GetManifest(ctx, "a", digest.Digest(d)); return err },
			func() error { _, err := r.ResolveBlob(ctx, "a", digest.Digest(d)); return err },
			func() error { _, err := r.MountBlob(ctx, "b", "a", digest.Digest(d)); return err },
			func() error {
				_, err := r.PushBlob(ctx, "a", ociregistry.Descriptor{Digest: digest.Digest(d)}, strings.NewReader(""))
				return err
			},
		} {
			if err := do(); !errdefs.IsInvalidArgument(err) || len(err.Error()) > 70_000 {
				t.Errorf("%.80s: %v", d, err)
			}
		}
	}
	for _, repo := range []string{"", "A", "../x", "a//b", "a?x=y", "a#b", "-"} {
		if _, err := r.GetTag(ctx, repo, "x"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("repository %q: %v", repo, err)
		}
		if _, err := r.PushBlobChunked(ctx, repo, 0); !errdefs.IsInvalidArgument(err) {
			t.Errorf("repository %q: %v", repo, err)
		}
	}
	for _, tag := range []string{"", "a/b", "..", "a b", "a?b", strings.Repeat("x", 129)} {
		if _, err := r.GetTag(ctx, "a", tag); !errdefs.IsInvalidArgument(err) {
			t.Errorf("tag %q: %v", tag, err)
		}
		if _, err := r.ResolveTag(ctx, "a", tag); !errdefs.IsInvalidArgument(err) {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
	if requests.Load() > 0 {
		t.Errorf("%d requests were sent", requests.Load())
	}
	for _, host := range []string{"", "a b", "a/b", "u@h", "http://h", "h?x", "h#x", "[::1", "h\x00"} {
		if _, err := New(Config{}).Registry(host); !errdefs.IsInvalidArgument(err) {
			t.Errorf("host %q: %v", host, err)
		}
	}
}
