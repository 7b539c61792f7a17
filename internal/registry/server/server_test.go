package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"
)

// start serves r and returns the address of the site.
func start(t *testing.T, r ociregistry.Interface, o Options) string {
	t.Helper()
	s := httptest.NewServer(New(r, o))
	t.Cleanup(s.Close)
	return s.URL
}

// call makes one request and returns the answer and its body.
func call(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

func wantStatus(t *testing.T, what string, resp *http.Response, body string, status int) {
	t.Helper()
	if resp.StatusCode != status {
		t.Errorf("%s: status %d, want %d: %s", what, resp.StatusCode, status, body)
	}
}

func push(t *testing.T, r ociregistry.Interface, repo, text string) digest.Digest {
	t.Helper()
	d := digest.FromString(text)
	if _, err := r.PushBlob(t.Context(), repo, ociregistry.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(text))}, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBlobRanges(t *testing.T) {
	r := ocimem.New()
	d := push(t, r, "a/b", "0123456789")
	url := start(t, r, Options{}) + "/v2/a/b/blobs/" + string(d)
	for _, test := range []struct {
		ask    string
		status int
		body   string
		rng    string
	}{
		{"", 200, "0123456789", ""},
		{"bytes=0-", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=3-5", 206, "345", "bytes 3-5/10"},
		{"bytes=8-99", 206, "89", "bytes 8-9/10"},
		{"bytes=-3", 206, "789", "bytes 7-9/10"},
		{"bytes=-99", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=10-", 416, "", "bytes */10"},
		{"bytes=99-100", 416, "", "bytes */10"},
		{"bytes=-0", 416, "", "bytes */10"},
		{"bytes=5-3", 200, "0123456789", ""},
		{"bytes=0-1,3-4", 200, "0123456789", ""},
		{"bytes=99999999999999999999-", 200, "0123456789", ""},
		{"lines=1-2", 200, "0123456789", ""},
	} {
		resp, body := call(t, "GET", url, "", "Range", test.ask)
		wantStatus(t, test.ask, resp, body, test.status)
		if test.status != 416 && body != test.body {
			t.Errorf("%s: %q, want %q", test.ask, body, test.body)
		}
		if got := resp.Header.Get("Content-Range"); got != test.rng {
			t.Errorf("%s: Content-Range %q, want %q", test.ask, got, test.rng)
		}
	}
	resp, _ := call(t, "HEAD", url, "")
	if resp.ContentLength != 10 || resp.Header.Get("Docker-Content-Digest") != string(d) || resp.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("HEAD: %d, %v", resp.ContentLength, resp.Header)
	}
}

func TestUploadsTakeChunksInOrderOnly(t *testing.T) {
	r := ocimem.New()
	site := start(t, r, Options{})
	resp, body := call(t, "POST", site+"/v2/a/b/blobs/uploads/", "")
	wantStatus(t, "POST", resp, body, 202)
	at := site + resp.Header.Get("Location")

	resp, body = call(t, "PATCH", at, "01234", "Content-Range", "0-4")
	wantStatus(t, "first chunk", resp, body, 202)
	if got := resp.Header.Get("Range"); got != "0-4" {
		t.Errorf("Range %q", got)
	}
	for _, wrong := range []string{"0-4", "6-10", "4-8", "x", "9-5"} {
		resp, body = call(t, "PATCH", at, "56789", "Content-Range", wrong)
		wantStatus(t, "chunk at "+wrong, resp, body, 416)
	}
	resp, body = call(t, "PATCH", at, "567", "Content-Range", "5-9")
	wantStatus(t, "chunk with another length", resp, body, 400)
	resp, body = call(t, "GET", at, "")
	wantStatus(t, "status", resp, body, 204)
	if got := resp.Header.Get("Range"); got != "0-4" {
		t.Errorf("Range %q after refused chunks", got)
	}
	resp, body = call(t, "PATCH", at, "56", "Content-Range", "bytes 5-6/*")
	wantStatus(t, "second chunk", resp, body, 202)
	resp, body = call(t, "PATCH", at, "7")
	wantStatus(t, "chunk without a place", resp, body, 202)
	d := digest.FromString("0123456789")
	resp, body = call(t, "PUT", at+"?digest="+string(d), "89")
	wantStatus(t, "end", resp, body, 201)
	resp, body = call(t, "GET", site+resp.Header.Get("Location"), "")
	if wantStatus(t, "read", resp, body, 200); body != "0123456789" {
		t.Errorf("read %q", body)
	}
	for _, bad := range []string{"sha256:" + strings.Repeat("0", 64), "sha256:../../x", "md5:x", ""} {
		resp, _ = call(t, "POST", site+"/v2/a/b/blobs/uploads/", "")
		resp, body = call(t, "PUT", site+resp.Header.Get("Location")+"?digest="+bad, "89")
		wantStatus(t, "digest "+bad, resp, body, 400)
	}
	resp, body = call(t, "POST", site+"/v2/a/b/blobs/uploads/?digest="+string(digest.FromString("x")), "x")
	wantStatus(t, "whole", resp, body, 201)
	resp, body = call(t, "POST", site+"/v2/c/blobs/uploads/?from=a/b&mount="+string(d), "")
	wantStatus(t, "mount", resp, body, 201)
	resp, body = call(t, "POST", site+"/v2/c/blobs/uploads/?from=a/b&mount="+string(digest.FromString("no")), "")
	wantStatus(t, "mount of what is not there", resp, body, 202)
	resp, body = call(t, "DELETE", site+resp.Header.Get("Location"), "")
	wantStatus(t, "cancel", resp, body, 204)
}

// S01: CVE-2017-11468.
func TestManifestsLargerThanTheLimitAreRefusedUnread(t *testing.T) {
	site := start(t, ocimem.New(), Options{})
	big := strings.Repeat(" ", MaxManifest+1)
	resp, body := call(t, "PUT", site+"/v2/a/manifests/x", big, "Content-Type", ocispec.MediaTypeImageManifest)
	wantStatus(t, "declared", resp, body, 413)
	req, err := http.NewRequest("PUT", site+"/v2/a/manifests/x", io.LimitReader(zeros{}, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	resp, err = http.DefaultClient.Do(req)
	if err != nil { // the server hung up before everything was sent
		return
	}
	defer resp.Body.Close()
	wantStatus(t, "streamed", resp, "", 413)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// S02: CVE-2023-2253.
func TestListsArePaged(t *testing.T) {
	r := ocimem.NewWithConfig(&ocimem.Config{LaxChildReferences: true})
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	const n = longestPage + 5
	for i := range n {
		if _, err := r.PushManifest(t.Context(), "a", fmt.Sprintf("t%05d", i), manifest, ocispec.MediaTypeImageIndex); err != nil {
			t.Fatal(err)
		}
	}
	site := start(t, r, Options{})
	for _, test := range []struct {
		query       string
		status, len int
		more        bool
	}{
		{"", 200, longestPage, true}, {"?n=2147483648", 200, longestPage, true}, {"?n=99999999999999999999999", 200, longestPage, true},
		{"?n=3", 200, 3, true}, {"?n=0", 200, 0, false}, {"?n=-1", 400, 0, false}, {"?n=x", 400, 0, false},
		{"?last=t01002", 200, 2, false}, {"?last=zzz", 200, 0, false}, {"?last=%00%ff", 200, longestPage, true},
	} {
		resp, body := call(t, "GET", site+"/v2/a/tags/list"+test.query, "")
		wantStatus(t, test.query, resp, body, test.status)
		var got struct{ Tags []string }
		if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Tags) != test.len {
			t.Errorf("%s: %d tags, want %d, %v", test.query, len(got.Tags), test.len, err)
		}
		if more := resp.Header.Get("Link") != ""; more != test.more {
			t.Errorf("%s: Link %q", test.query, resp.Header.Get("Link"))
		}
	}
	resp, _ := call(t, "GET", site+"/v2/a/tags/list?n=1000", "")
	link, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	resp, body := call(t, "GET", site+link, "")
	if strings.Count(body, `"t0`) != 5 {
		t.Errorf("second page %d: %s", resp.StatusCode, body)
	}
	if _, body = call(t, "GET", site+"/v2/_catalog?n=5", ""); body != `{"repositories":["a"]}` {
		t.Errorf("catalog %s", body)
	}
	resp, body = call(t, "GET", site+"/v2/b/tags/list?n=0", "")
	wantStatus(t, "tags of nothing", resp, body, 404)
}

// S07: nothing that isn't a plain path of the specification gets anywhere.
func TestOddPathsAreRefused(t *testing.T) {
	r := ocimem.New()
	d := string(push(t, r, "a", "x"))
	addr := strings.TrimPrefix(start(t, r, Options{}), "http://")
	long := strings.Repeat("a", 256)
	for _, path := range []string{
		"/", "/v1/", "/v2/../../etc/passwd", "/v2/a/../b/tags/list", "/v2/%2e%2e/tags/list", "/v2/a%2fb/tags/list", "/v2/a%5cb/tags/list",
		"/v2/a//b/tags/list", "/v2/_uploads/tags/list", "/v2/A/tags/list", "/v2/a/./tags/list", "/v2/" + long + "/tags/list", "/v2/-/tags/list",
		"/v2/a/blobs/sha256:../../x", "/v2/a/blobs/" + strings.ToUpper(d), "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", "/v2/a/blobs/", "/v2/a/blobs/" + d + "/", "/v2/a%00/blobs/" + d,
		"/v2/a/blobs/uploads/../../x", "/v2/a/blobs/uploads/%2e%2e%2fx", "/v2/a/blobs/uploads/....", "/v2/a/manifests/..", "/v2/a/manifests/" + strings.Repeat("t", 129), "/v2/a/manifests/", "/v2/a/tags", "/v2/a", "/v2/" + d,
		"/v2/a/referrers/x", "/v2/tags/list", "/v2/blobs/" + d, "/v2//blobs/" + d,
	} {
		for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"} {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", method, path)
			answer, err := io.ReadAll(c)
			c.Close()
			if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 40")) {
				t.Errorf("%s %s: %.60q, %v", method, path, answer, err)
			}
		}
	}
	resp, body := call(t, "GET", "http://"+addr+"/v2/a/blobs/"+strings.Replace(d, ":", "%3A", 1), "")
	wantStatus(t, "escaped colon", resp, body, 200)
}

func TestOnlyUsersAreServed(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(name, []byte("# people\n\nalice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	users, err := ReadUsers(name)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	site := start(t, ocimem.New(), Options{Users: users, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	for _, path := range []string{"/v2/", "/v2/_catalog", "/v2/a/tags/list", "/v2/a/manifests/x", "/nothing"} {
		resp, body := call(t, "GET", site+path, "")
		wantStatus(t, path, resp, body, 401)
		if !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: %q", path, resp.Header.Get("WWW-Authenticate"))
		}
	}
	for _, pair := range []string{"alice:wrong", "bob:secret", ":", "alice:", "alice:secret:", "alice:secret"} {
		req, err := http.NewRequest("GET", site+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		user, password, _ := strings.Cut(pair, ":")
		for range 2 {
			req.SetBasicAuth(user, password)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if ok := resp.StatusCode == 200; ok != (pair == "alice:secret") {
				t.Errorf("%s: %d", pair, resp.StatusCode)
			}
		}
	}
	if text := lines.String(); strings.Contains(text, "secret") || strings.Contains(text, "wrong") || !strings.Contains(text, "user=alice") {
		t.Errorf("log:\n%s", text)
	}
	for _, bad := range []string{"alice:{SHA}xyz", "alice", ":" + string(hash), "alice:secret"} {
		if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadUsers(name); err == nil {
			t.Errorf("%q is taken for a user", bad)
		}
	}
}

func TestPanicEndsOneRequestOnly(t *testing.T) {
	broken := &ociregistry.Funcs{ResolveBlob_: func(context.Context, string, ociregistry.Digest) (ociregistry.Descriptor, error) {
		panic("oh")
	}}
	site := start(t, broken, Options{})
	for range 2 {
		resp, body := call(t, "HEAD", site+"/v2/a/blobs/"+string(digest.FromString("x")), "")
		wantStatus(t, "panic", resp, body, 500)
	}
	resp, body := call(t, "GET", site+"/v2/", "")
	wantStatus(t, "after it", resp, body, 200)
	resp, body = call(t, "DELETE", site+"/v2/a/manifests/x", "")
	wantStatus(t, "unsupported", resp, body, 405)
}

func TestReferrersAreFilteredByType(t *testing.T) {
	r := ocimem.New()
	site := start(t, r, Options{})
	empty := push(t, r, "a", "{}")
	subject := digest.FromString("subject")
	for _, kind := range []string{"application/x.one", "application/x.two"} {
		m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"subject":{"mediaType":%[1]q,"digest":%[4]q,"size":7}}`,
			ocispec.MediaTypeImageManifest, kind, empty, subject)
		resp, body := call(t, "PUT", site+"/v2/a/manifests/"+string(digest.FromString(m)), m, "Content-Type", ocispec.MediaTypeImageManifest)
		wantStatus(t, "PUT", resp, body, 201)
		if resp.Header.Get("OCI-Subject") != string(subject) {
			t.Errorf("OCI-Subject %q", resp.Header.Get("OCI-Subject"))
		}
	}
	for query, want := range map[string]int{"": 2, "?artifactType=application/x.one": 1, "?artifactType=application/x.none": 0} {
		resp, body := call(t, "GET", site+"/v2/a/referrers/"+string(subject)+query, "")
		wantStatus(t, query, resp, body, 200)
		if n := strings.Count(body, `"artifactType"`); n != want {
			t.Errorf("%q: %d referrers, want %d: %s", query, n, want, body)
		}
		if filtered := resp.Header.Get("OCI-Filters-Applied") == "artifactType"; filtered != (query != "") {
			t.Errorf("%q: filter header %q", query, resp.Header.Get("OCI-Filters-Applied"))
		}
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, New(ocimem.New(), Options{})) }()
	resp, body := call(t, "GET", "http://"+l.Addr().String()+"/v2/", "")
	wantStatus(t, "ping", resp, body, 200)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

// Row 34 of the reliability list: who holds a connection without using it
// loses it, and nobody else notices.
func TestSlowPeersAreCutOff(t *testing.T) {
	r := ocimem.New()
	big := strings.Repeat("x", 64<<20)
	d := push(t, r, "a", big)
	short := times{header: 200 * time.Millisecond, idle: 200 * time.Millisecond, slice: 200 * time.Millisecond, keep: time.Minute, grace: time.Second}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, newHandler(r, Options{}, short), short) }()
	addr := l.Addr().String()
	resp, _ := call(t, "POST", "http://"+addr+"/v2/a/blobs/uploads/", "")
	at := resp.Header.Get("Location")

	for name, request := range map[string]string{
		"half a header":       "GET /v2/ HTTP/1.1\r\nHost: x\r\n",
		"no body":             "PATCH " + at + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"half a body":         "PATCH " + at + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
		"half a manifest":     "PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
		"half a chunk":        "PUT " + at + "?digest=" + string(d) + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"nobody takes a blob": "GET /v2/a/blobs/" + string(d) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "nobody") {
			continue // it must not be read; that it ends is seen below
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%s: not cut off: %v", name, err)
		}
		if strings.HasPrefix(string(answer), "HTTP/1.1 20") {
			t.Errorf("%s: %q", name, answer)
		}
	}
	resp, body := call(t, "GET", "http://"+addr+"/v2/", "")
	wantStatus(t, "good client", resp, body, 200)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDisturbedUploadGoesOnWhereItStopped(t *testing.T) {
	site := start(t, ocimem.New(), Options{})
	resp, _ := call(t, "POST", site+"/v2/a/blobs/uploads/", "")
	at := resp.Header.Get("Location")
	c, err := net.Dial("tcp", strings.TrimPrefix(site, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234", at)
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.ReadAll(c)
	c.Close()
	resp, body := call(t, "GET", site+at, "")
	if wantStatus(t, "status", resp, body, 204); resp.Header.Get("Range") != "0-4" {
		t.Fatalf("Range %q", resp.Header.Get("Range"))
	}
	resp, body = call(t, "PUT", site+at+"?digest="+string(digest.FromString("0123456789")), "56789", "Content-Range", "5-9")
	wantStatus(t, "rest", resp, body, 201)
}
