package client

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/registry/server"
)

// tokenRegistry is a registry with a token server of its own, as GitHub's.
// Tokens are numbered; only the ones in good are taken.
type tokenRegistry struct {
	registry http.Handler
	life     int // seconds

	mu     sync.Mutex
	issued int
	good   map[string]string // token: its scope
	asked  []url.Values
	modes  []string // how each token was asked for
	refuse int      // status of the GET way, if not 0
}

func (s *tokenRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/token" {
		s.token(w, req)
		return
	}
	repo := strings.Split(strings.TrimPrefix(req.URL.Path, "/v2/"), "/")[0]
	action := "pull"
	if req.Method != "GET" && req.Method != "HEAD" {
		action = "push"
	}
	s.mu.Lock()
	scope, ok := s.good[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")]
	s.mu.Unlock()
	if ok && (repo == "" || strings.Contains(scope, repo) && strings.Contains(scope, action)) {
		s.registry.ServeHTTP(w, req)
		return
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="svc",scope="repository:%s:%s"`, req.Host, repo, action))
	w.WriteHeader(401)
}

func (s *tokenRegistry) token(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = req.ParseForm()
	user, password, _ := req.BasicAuth()
	mode := req.Method + " " + user + ":" + password
	if grant := req.PostForm.Get("grant_type"); grant != "" {
		mode = "POST " + grant + " " + req.PostForm.Get("username") + req.PostForm.Get("refresh_token") + ":" + req.PostForm.Get("password")
	}
	s.modes = append(s.modes, mode)
	if req.Method == "GET" && s.refuse != 0 {
		w.WriteHeader(s.refuse)
		return
	}
	if strings.Contains(mode, "wrong") {
		w.WriteHeader(401)
		return
	}
	s.asked = append(s.asked, req.Form)
	s.issued++
	name := fmt.Sprintf("token-%d", s.issued)
	s.good[name] = strings.Join(req.Form["scope"], " ")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": name, "expires_in": s.life})
}

func (s *tokenRegistry) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.good)
}

func openTokens(t *testing.T, cred string) (*tokenRegistry, ociregistry.Interface, *fakeClock, string) {
	t.Helper()
	s := &tokenRegistry{registry: server.New(ocimem.New(), server.Options{}), life: 300, good: map[string]string{}}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	host := h.Listener.Addr().String()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(fmt.Sprintf(`{"auths":{%q:%s}}`, host, cred)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, f := testClient(t, Config{DockerConfigDir: dir})
	r, err := c.Registry(host)
	if err != nil {
		t.Fatal(err)
	}
	return s, r, f, host
}

func TestOneTokenDoesForAPushAndAPullUntilItExpires(t *testing.T) {
	s, r, clock, _ := openTokens(t, password)
	layer, _ := randomBlob(10_000)
	ctx := t.Context()
	pushImage(t, r, "a", layer)
	pull := func() {
		t.Helper()
		b, err := r.GetTag(ctx, "a", "v1")
		readAll(t, b, err)
	}
	pull()
	if s.issued != 1 || s.modes[0] != "GET alice:s3cret" || s.asked[0].Get("scope") != "repository:a:pull,push" || s.asked[0].Get("service") != "svc" {
		t.Errorf("%d tokens, %q, %v", s.issued, s.modes, s.asked)
	}
	clock.advance(285 * time.Second)
	pull()
	if s.issued != 1 {
		t.Errorf("%d tokens before the first expires", s.issued)
	}
	clock.advance(6 * time.Second) // less than the spare time is left
	pull()
	if s.issued != 2 {
		t.Errorf("%d tokens after the first expired", s.issued)
	}
	s.revoke() // long before it expires
	pull()
	if s.issued != 3 {
		t.Errorf("%d tokens after one was not taken", s.issued)
	}
}

func TestManyRequestsShareOneToken(t *testing.T) {
	s, r, _, _ := openTokens(t, password)
	layer, desc := randomBlob(10_000)
	pushImage(t, r, "a", layer)
	s.revoke()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := r.ResolveBlob(t.Context(), "a", desc.Digest); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s.issued > 3 {
		t.Errorf("%d tokens for 20 requests", s.issued)
	}
}

func TestTokensAreAskedForInTheWayTheServerKnows(t *testing.T) {
	for _, test := range []struct {
		cred   string
		refuse int
		modes  string
		ok     bool
	}{
		{password, 0, "GET alice:s3cret", true},
		{"{}", 0, "GET :", true},
		{password, 405, "GET alice:s3cret, POST password alice:s3cret", true},
		{password, 404, "GET alice:s3cret, POST password alice:s3cret", true},
		{password, 403, "GET alice:s3cret", false},
		{idToken, 0, "POST refresh_token refresh-me:", true},
		{`{"auth":"YWxpY2U6d3Jvbmc="}`, 0, "GET alice:wrong", false},
		{`{"registrytoken":"given"}`, 0, "", false},
	} {
		s, r, _, host := openTokens(t, test.cred)
		s.refuse = test.refuse
		_, err := r.PushManifest(t.Context(), "a", "v1", []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), "application/vnd.oci.image.index.v1+json")
		if (err == nil) != test.ok || strings.Join(s.modes, ", ") != test.modes {
			t.Errorf("%s: %v, %q", test.cred, err, s.modes)
		}
		var e *Error
		if !test.ok && (!errors.As(err, &e) || (e.Hint() == "") != (test.refuse == 403) || strings.Contains(err.Error(), "wrong") || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s at %s: %v", test.cred, host, err)
		}
	}
}

func TestLoginChecksThroughTheTokenServer(t *testing.T) {
	_, _, _, host := openTokens(t, "{}")
	c, _ := testClient(t, Config{})
	if _, err := c.Login(t.Context(), host, Credentials{Username: "alice", Password: "s3cret"}); err != nil {
		t.Error(err)
	}
	_, err := c.Login(t.Context(), host, Credentials{Username: "alice", Password: "wrong"})
	if !errdefs.IsUnauthorized(err) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("%v", err)
	}
}

func TestChallenges(t *testing.T) {
	type p = map[string]string
	for header, want := range map[string][]challenge{
		`Basic realm="x"`:                               {{"basic", p{"realm": "x"}}},
		`BEARER Realm="https://a/t",service="s"`:        {{"bearer", p{"realm": "https://a/t", "service": "s"}}},
		`Bearer realm="r",service="",scope="a b"`:       {{"bearer", p{"realm": "r", "service": "", "scope": "a b"}}},
		`Bearer realm="a\"b\\c",error=x`:                {{"bearer", p{"realm": `a"b\c`, "error": "x"}}},
		`Basic realm="x", Bearer realm="y",service="z"`: {{"basic", p{"realm": "x"}}, {"bearer", p{"realm": "y", "service": "z"}}},
		`Negotiate, Basic realm="x"`:                    {{"negotiate", p{}}, {"basic", p{"realm": "x"}}},
		`Bearer realm="first",realm="second"`:           {{"bearer", p{"realm": "first"}}},
		`Bearer realm = "spaced" , service = s`:         {{"bearer", p{"realm": "spaced", "service": "s"}}},
		`Bearer realm="open`:                            {{"bearer", p{}}},
		`Bearer`:                                        {{"bearer", p{}}},
		``:                                              nil,
		`=x`:                                            nil,
		`,,,`:                                           nil,
		"Bearer realm=\"x\x00y\",scope=\"r:a:pull,push\"": {{"bearer", p{"realm": "x\x00y", "scope": "r:a:pull,push"}}},
	} {
		if got := parseChallenges(header); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %v\nwant %v", header, got, want)
		}
	}
	c := choose(challenges(http.Header{"Www-Authenticate": {`Basic realm="b"`, `Bearer realm="t"`}}))
	if c == nil || c.scheme != "bearer" {
		t.Errorf("chose %v", c)
	}
}

func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://a/t",service="s",scope="repository:a:pull"`, `Basic realm="x", Negotiate`, `a="b`, `\`, `Bearer a="\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges(s) {
			if c.scheme == "" || c.params == nil {
				t.Errorf("%q: %v", s, c)
			}
		}
	})
}

func FuzzManifestType(f *testing.F) {
	f.Add("application/vnd.oci.image.manifest.v1+json", `{"layers":[]}`)
	f.Add("", `{"a":{"b":[1,2,{}]},"A":1}`)
	f.Fuzz(func(t *testing.T, header, body string) {
		if _, err := manifestType(header, []byte(body)); err == nil && !json.Valid([]byte(body)) {
			t.Errorf("%q is taken for JSON", body)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-1/2")
	f.Fuzz(func(t *testing.T, s string) {
		if start, size, ok := parseContentRange(s); ok && (start < 0 || start >= size) {
			t.Errorf("%q: %d, %d", s, start, size)
		}
	})
}

// A loopback registry with TLS is spoken to through TLS, with whatever
// certificate it has; one with a CA of its own in certs.d is verified.
func TestLoopbackAnswersTLSOrNot(t *testing.T) {
	var plain atomic.Int32
	h := server.New(ocimem.New(), server.Options{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.TLS == nil {
			plain.Add(1)
		}
		h.ServeHTTP(w, req)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	host := s.Listener.Addr().String()
	c, _ := testClient(t, Config{})
	r, err := c.Registry(host)
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, r)

	for name, ok := range map[string]bool{"right": true, "wrong": false} {
		dir := t.TempDir()
		certs := filepath.Join(dir, "certs.d", host)
		if err := os.MkdirAll(certs, 0o700); err != nil {
			t.Fatal(err)
		}
		cert := s.Certificate().Raw
		if name == "wrong" {
			cert = newWorld(t, nil).certificate().Certificate[0]
		}
		if err := os.WriteFile(filepath.Join(certs, "ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _ := testClient(t, Config{DockerConfigDir: dir})
		r, err := c.Registry(host)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.ResolveTag(t.Context(), "team/app", "v1")
		if (err == nil) != ok {
			t.Errorf("%s CA: %v", name, err)
		}
		if !ok && !strings.Contains(err.Error(), "verify certificate") {
			t.Errorf("%v", err)
		}
	}
	if plain.Load() > 0 {
		t.Errorf("%d requests in the clear", plain.Load())
	}
}

func TestClientCertificateIsShown(t *testing.T) {
	s := httptest.NewUnstartedServer(server.New(ocimem.New(), server.Options{}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	host := s.Listener.Addr().String()
	dir := t.TempDir()
	r := func() ociregistry.Interface {
		c, _ := testClient(t, Config{DockerConfigDir: dir})
		r, err := c.Registry(host)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := r().ResolveTag(t.Context(), "a", "v1"); errdefs.IsNotFound(err) {
		t.Error("served without a certificate")
	}
	writeKeyPair(t, filepath.Join(dir, "certs.d", host), newWorld(t, nil).certificate())
	if _, err := r().ResolveTag(t.Context(), "a", "v1"); !errdefs.IsNotFound(err) {
		t.Errorf("with a certificate: %v", err)
	}
}

func TestMirrorsAreReadFirstAndNeverWrittenTo(t *testing.T) {
	origin, mirror := ocimem.New(), ocimem.New()
	start := func(r ociregistry.Interface, writes *atomic.Int32) string {
		h := server.New(r, server.Options{})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method != "GET" && req.Method != "HEAD" {
				writes.Add(1)
			}
			h.ServeHTTP(w, req)
		}))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	var toOrigin, toMirror atomic.Int32
	host, near := start(origin, &toOrigin), start(mirror, &toMirror)
	c, _ := testClient(t, Config{Mirrors: map[string][]string{host: {"127.0.0.1:1", "http://" + near + "/cache"}}})
	r, err := c.Registry(host)
	if err != nil {
		t.Fatal(err)
	}
	layer, desc := randomBlob(5000)
	_, manifest := pushImage(t, r, "a", layer)
	if toMirror.Load() != 0 || toOrigin.Load() == 0 {
		t.Errorf("writes: %d to the mirror, %d to the registry", toMirror.Load(), toOrigin.Load())
	}
	b, err := r.GetTag(t.Context(), "a", "v1") // the mirror hasn't got it
	if got := readAll(t, b, err); string(got) != string(manifest) {
		t.Error("manifest differs")
	}
	other, _ := randomBlob(6000)
	mc, _ := testClient(t, Config{})
	direct, err := mc.Registry(near)
	if err != nil {
		t.Fatal(err)
	}
	_, near1 := pushImage(t, direct, "cache/a", other)
	b, err = r.GetTag(t.Context(), "a", "v1")
	if got := readAll(t, b, err); string(got) != string(near1) {
		t.Error("the mirror was not asked first")
	}
	b, err = r.GetBlob(t.Context(), "a", desc.Digest)
	if got := readAll(t, b, err); string(got) != string(layer) {
		t.Error("blob differs")
	}
	for _, bad := range []string{"http://mirror.example", "https://u:p@mirror.example", "://"} {
		c, _ := testClient(t, Config{Mirrors: map[string][]string{"docker.io": {bad}}})
		if _, err := c.Registry("docker.io"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("mirror %s: %v", bad, err)
		}
	}
}
