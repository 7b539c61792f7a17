package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
)

// world is an internet of its own: every name leads to one server that knows
// whom it plays by the Host header, and records what it is sent. Port 80 is
// plain, every other TLS.
type world struct {
	t     *testing.T
	hosts map[string]http.HandlerFunc // by host, with the port if it isn't 443 or 80
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)
	roots *x509.CertPool

	mu   sync.Mutex
	seen []sight
}

// sight is one request as it arrived.
type sight struct {
	host  string
	plain bool
	text  string // the request line, all headers and the body
}

func newWorld(t *testing.T, hosts map[string]http.HandlerFunc) *world {
	t.Helper()
	w := &world{t: t, hosts: hosts, roots: x509.NewCertPool()}
	serve := func(plain bool) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) { w.answer(rw, req, plain) }))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		return s
	}
	secure, plain := serve(false), serve(true)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{w.certificate()}}
	secure.StartTLS()
	plain.Start()
	t.Cleanup(secure.Close)
	t.Cleanup(plain.Close)
	w.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := secure.Listener.Addr().String()
		if strings.HasSuffix(addr, ":80") {
			to = plain.Listener.Addr().String()
		}
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}
	return w
}

// certificate makes one that is good for every host of the world.
func (w *world) certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(169, 254, 169, 254)},
	}
	for host := range w.hosts {
		template.DNSNames = append(template.DNSNames, hostname(host))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	w.roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (w *world) answer(rw http.ResponseWriter, req *http.Request, plain bool) {
	body, _ := io.ReadAll(req.Body)
	req.Body = io.NopCloser(bytes.NewReader(body))
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s\n", req.Method, req.RequestURI)
	_ = req.Header.Write(&text)
	text.Write(body)
	w.mu.Lock()
	w.seen = append(w.seen, sight{req.Host, plain, text.String()})
	w.mu.Unlock()
	h := w.hosts[req.Host]
	if h == nil {
		http.NotFound(rw, req)
		return
	}
	h(rw, req)
}

// client returns a client of this world that has alice's credentials for home.
func (w *world) client(home string, cred string, config Config) *Client {
	config.DockerConfigDir = w.t.TempDir()
	key := keyOf(home)
	if err := os.WriteFile(filepath.Join(config.DockerConfigDir, "config.json"), []byte(fmt.Sprintf(`{"auths":{%q:%s}}`, key, cred)), 0o600); err != nil {
		w.t.Fatal(err)
	}
	config.Transport = &http.Transport{DialContext: w.dial, TLSClientConfig: &tls.Config{RootCAs: w.roots}}
	return newClient(config, newFakeClock().clock(), testLimits)
}

// secrets are what must not be seen anywhere but at the hosts they are for.
var secrets = []string{"s3cret", base64.StdEncoding.EncodeToString([]byte("alice:s3cret")), "refresh-me", "bearer-token", "Authorization", "the blob itself"}

// leaks returns what was seen of secrets outside allowed hosts, and all that was
// sent in the clear.
func (w *world) leaks(allowed ...string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []string
	for _, s := range w.seen {
		if s.plain {
			found = append(found, "in the clear to "+s.host+": "+s.text)
		}
		for _, secret := range secrets {
			if strings.Contains(s.text, secret) && !slices.Contains(allowed, s.host) {
				found = append(found, secret+" to "+s.host+": "+s.text)
			}
		}
	}
	return found
}

func (w *world) visits(host string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.seen {
		if s.host == host {
			n++
		}
	}
	return n
}

const (
	reg      = "registry.example.com"
	password = `{"auth":"YWxpY2U6czNjcmV0"}`    // alice:s3cret
	idToken  = `{"identitytoken":"refresh-me"}` // as a credential helper would give it
	blobText = "the blob itself, which is no secret but nobody else's business"
)

// needs answers 401 with challenge unless the request has auth, then next.
func needs(auth, challenge string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != auth {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(401)
			return
		}
		next(w, req)
	}
}

func basicAuth(next http.HandlerFunc) http.HandlerFunc {
	return needs("Basic YWxpY2U6czNjcmV0", `Basic realm="x"`, next)
}

func bearerAuth(realm string, next http.HandlerFunc) http.HandlerFunc {
	return needs("Bearer bearer-token", fmt.Sprintf(`Bearer realm=%q,service="svc",scope="repository:a:pull"`, realm), next)
}

func redirect(to string, status int) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(status)
	}
}

func sendBlob(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, blobText) }

// tokens is a token server that gives alice what she needs and others nothing.
func tokens(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	if req.Header.Get("Authorization") == "Basic YWxpY2U6czNjcmV0" || strings.Contains(string(body), "refresh_token=refresh-me") {
		fmt.Fprint(w, `{"token":"bearer-token","expires_in":300}`)
		return
	}
	fmt.Fprint(w, `{"access_token":"for-anybody"}`)
}

var blobDigest = ociregistry.Digest("sha256:" + sha256Hex(blobText))

// getBlob reads the blob of repository a.
func getBlob(ctx context.Context, r ociregistry.Interface) error {
	b, err := r.GetBlob(ctx, "a", blobDigest)
	if err != nil {
		return err
	}
	defer b.Close()
	data, err := io.ReadAll(b)
	if err == nil && string(data) != blobText {
		err = fmt.Errorf("wrong content %q", data)
	}
	return err
}

// C01, C03, C04 of the threat list: reads.
func TestCredentialsStayWithTheirOriginWhenReading(t *testing.T) {
	trap := func(w http.ResponseWriter, req *http.Request) { // asks for a login, then for another
		w.Header().Add("WWW-Authenticate", `Basic realm="give"`)
		w.Header().Add("WWW-Authenticate", `Bearer realm="https://evil.test/token"`)
		w.WriteHeader(401)
	}
	for _, test := range []struct {
		name    string
		home    string
		cred    string
		hosts   map[string]http.HandlerFunc
		config  Config
		ok      bool
		allowed []string // besides the registry
		visit   string   // a host that has to have been reached
	}{
		{name: "basic", hosts: map[string]http.HandlerFunc{reg: basicAuth(sendBlob)}, ok: true},
		{name: "basic, redirect to a CDN", hosts: map[string]http.HandlerFunc{
			reg: basicAuth(redirect("https://cdn.test/x?sig=1", 307)), "cdn.test": sendBlob}, ok: true, visit: "cdn.test"},
		{name: "bearer, redirect to a CDN", hosts: map[string]http.HandlerFunc{
			reg: bearerAuth("https://auth.example.com/token", redirect("https://cdn.test/x", 302)), "auth.example.com": tokens, "cdn.test": sendBlob},
			ok: true, allowed: []string{"auth.example.com"}, visit: "cdn.test"},
		{name: "redirect to another port", hosts: map[string]http.HandlerFunc{
			reg: basicAuth(redirect("https://"+reg+":8443/x", 307)), reg + ":8443": sendBlob}, ok: true, visit: reg + ":8443"},
		{name: "redirect to a sister", hosts: map[string]http.HandlerFunc{
			reg: basicAuth(redirect("https://cdn.example.com/x", 308)), "cdn.example.com": sendBlob}, ok: true, visit: "cdn.example.com"},
		{name: "CDN asks for a login", hosts: map[string]http.HandlerFunc{reg: basicAuth(redirect("https://evil.test/x", 307)), "evil.test": trap}, visit: "evil.test"},
		{name: "redirect through another and back", hosts: map[string]http.HandlerFunc{
			reg: basicAuth(func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/back" {
					sendBlob(w, req)
					return
				}
				redirect("https://cdn.test/x", 307)(w, req)
			}), "cdn.test": redirect("https://"+reg+"/back", 307)}, ok: true, visit: "cdn.test"},
		{name: "redirect to plain http", hosts: map[string]http.HandlerFunc{reg: basicAuth(redirect("http://cdn.test/x", 301)), "cdn.test": sendBlob}},
		{name: "redirect to plain http at the registry", hosts: map[string]http.HandlerFunc{reg: basicAuth(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/x" {
				sendBlob(w, req)
				return
			}
			redirect("http://"+reg+"/x", 301)(w, req)
		})}, ok: true},
		{name: "redirect with a password", hosts: map[string]http.HandlerFunc{reg: basicAuth(redirect("https://u:p@cdn.test/x", 307)), "cdn.test": sendBlob}},
		{name: "redirect to this machine", hosts: map[string]http.HandlerFunc{reg: redirect("https://127.0.0.1/x", 307), "127.0.0.1": sendBlob}},
		{name: "redirect to plain http on this machine", hosts: map[string]http.HandlerFunc{reg: redirect("http://localhost/x", 307), "localhost": sendBlob}},
		{name: "redirect to a metadata service", hosts: map[string]http.HandlerFunc{reg: redirect("https://169.254.169.254/x", 307), "169.254.169.254": sendBlob}},
		{name: "realm elsewhere", hosts: map[string]http.HandlerFunc{reg: bearerAuth("https://evil.test/token", sendBlob), "evil.test": tokens}, visit: "evil.test"},
		{name: "realm elsewhere, identity token", cred: idToken, hosts: map[string]http.HandlerFunc{reg: bearerAuth("https://evil.test/token", sendBlob), "evil.test": tokens}, visit: "evil.test"},
		{name: "realm elsewhere, allowed", config: Config{Realms: map[string][]string{reg: {"sso.test"}}},
			hosts: map[string]http.HandlerFunc{reg: bearerAuth("https://sso.test/token", sendBlob), "sso.test": tokens}, ok: true, allowed: []string{"sso.test"}},
		{name: "realm in plain http", hosts: map[string]http.HandlerFunc{reg: bearerAuth("http://"+reg+"/token", sendBlob)}},
		{name: "realm in plain http elsewhere", hosts: map[string]http.HandlerFunc{reg: bearerAuth("http://auth.example.com/token", sendBlob), "auth.example.com": tokens}},
		{name: "realm on this machine", hosts: map[string]http.HandlerFunc{reg: bearerAuth("https://127.0.0.1/token", sendBlob), "127.0.0.1": tokens}},
		{name: "realm with a password", hosts: map[string]http.HandlerFunc{reg: bearerAuth("https://x:y@auth.example.com/token", sendBlob), "auth.example.com": tokens}},
		{name: "realm of the same public suffix", home: "reg.github.io", hosts: map[string]http.HandlerFunc{
			"reg.github.io": bearerAuth("https://evil.github.io/token", sendBlob), "evil.github.io": tokens}, visit: "evil.github.io"},
		{name: "realm on another port", hosts: map[string]http.HandlerFunc{reg: bearerAuth("https://"+reg+":8443/token", sendBlob), reg + ":8443": tokens}, visit: reg + ":8443"},
		{name: "token server redirects", hosts: map[string]http.HandlerFunc{
			reg: bearerAuth("https://auth.example.com/token", sendBlob), "auth.example.com": redirect("https://evil.test/token", 307), "evil.test": tokens},
			allowed: []string{"auth.example.com"}},
		{name: "token server redirects a POST", cred: idToken, hosts: map[string]http.HandlerFunc{
			reg: bearerAuth("https://auth.example.com/token", sendBlob), "auth.example.com": redirect("https://evil.test/token", 308), "evil.test": tokens},
			allowed: []string{"auth.example.com"}},
		{name: "identity token", cred: idToken, hosts: map[string]http.HandlerFunc{reg: bearerAuth("https://auth.example.com/token", sendBlob), "auth.example.com": tokens},
			ok: true, allowed: []string{"auth.example.com"}},
		{name: "token at the registry itself", hosts: map[string]http.HandlerFunc{reg: func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/token" {
				tokens(w, req)
				return
			}
			bearerAuth("https://"+reg+"/token", sendBlob)(w, req)
		}}, ok: true},
		{name: "docker.io", home: "docker.io", hosts: map[string]http.HandlerFunc{
			"registry-1.docker.io": bearerAuth("https://auth.docker.io/token", redirect("https://production.cloudflare.docker.com/x", 307)),
			"auth.docker.io":       tokens, "production.cloudflare.docker.com": sendBlob},
			ok: true, allowed: []string{"auth.docker.io"}, visit: "production.cloudflare.docker.com"},
		{name: "gitlab", home: "registry.gitlab.com", hosts: map[string]http.HandlerFunc{
			"registry.gitlab.com": bearerAuth("https://gitlab.com/jwt/auth", sendBlob), "gitlab.com": tokens}, ok: true, allowed: []string{"gitlab.com"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.home == "" {
				test.home = reg
			}
			if test.cred == "" {
				test.cred = password
			}
			w := newWorld(t, test.hosts)
			r, err := w.client(test.home, test.cred, test.config).Registry(test.home)
			if err != nil {
				t.Fatal(err)
			}
			err = getBlob(t.Context(), r)
			if (err == nil) != test.ok {
				t.Errorf("error %v, want ok %v", err, test.ok)
			}
			home, _ := canonicalHost(test.home)
			for _, leak := range w.leaks(append(test.allowed, home)...) {
				t.Error(leak)
			}
			if test.visit != "" && w.visits(test.visit) == 0 {
				t.Errorf("%s was not reached", test.visit)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %v", err)
			}
		})
	}
}

// C04: uploads. What is pushed is not a credential, and still no business of a
// host that isn't known to belong to the registry.
func TestCredentialsStayWithTheirOriginWhenWriting(t *testing.T) {
	push := func(ctx context.Context, r ociregistry.Interface) error {
		_, err := r.PushBlob(ctx, "a", ociregistry.Descriptor{Digest: blobDigest, Size: int64(len(blobText))}, strings.NewReader(blobText))
		return err
	}
	stream := func(chunk int) func(ctx context.Context, r ociregistry.Interface) error {
		return func(ctx context.Context, r ociregistry.Interface) error {
			w, err := r.PushBlobChunked(ctx, "a", chunk)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, blobText); err != nil {
				return err
			}
			_, err = w.Commit(blobDigest)
			return err
		}
	}
	manifest := func(ctx context.Context, r ociregistry.Interface) error {
		_, err := r.PushManifest(ctx, "a", "v1", []byte(`{"x":"`+blobText+`"}`), "application/vnd.oci.image.manifest.v1+json")
		return err
	}
	mount := func(ctx context.Context, r ociregistry.Interface) error {
		if _, err := r.MountBlob(ctx, "b", "a", blobDigest); err == nil {
			return nil
		}
		return push(ctx, r)
	}
	remove := func(ctx context.Context, r ociregistry.Interface) error {
		return r.DeleteManifest(ctx, "a", blobDigest)
	}
	tags := func(ctx context.Context, r ociregistry.Interface) error {
		for _, err := range r.Tags(ctx, "a", "") {
			if err != nil {
				return err
			}
		}
		return nil
	}
	// A registry whose uploads go on at another address.
	uploadsAt := func(location string) http.HandlerFunc {
		return basicAuth(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Location", location)
			switch req.Method {
			case "POST", "PATCH":
				w.WriteHeader(202)
			default:
				w.WriteHeader(201)
			}
		})
	}
	take := func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Location", "/next")
		if req.Method == "PATCH" {
			w.WriteHeader(202)
			return
		}
		w.WriteHeader(201)
	}
	type does = func(context.Context, ociregistry.Interface) error
	for _, test := range []struct {
		name    string
		do      []does
		hosts   map[string]http.HandlerFunc
		config  Config
		ok      bool
		allowed []string // to see the content; never a credential
	}{
		{"location elsewhere", []does{push, stream(0), stream(10), mount}, map[string]http.HandlerFunc{reg: uploadsAt("https://evil.test/up"), "evil.test": take}, Config{}, false, nil},
		{"location on another port", []does{push, stream(0), stream(10), mount}, map[string]http.HandlerFunc{reg: uploadsAt("https://" + reg + ":8443/up"), reg + ":8443": take}, Config{}, false, nil},
		{"location in plain http elsewhere", []does{push, stream(0)}, map[string]http.HandlerFunc{reg: uploadsAt("http://evil.test/up"), "evil.test": take}, Config{}, false, nil},
		{"location on this machine", []does{push, stream(0)}, map[string]http.HandlerFunc{reg: uploadsAt("https://127.0.0.1/up"), "127.0.0.1": take}, Config{}, false, nil},
		{"location in plain http at the registry", []does{push, stream(0), stream(10), mount}, map[string]http.HandlerFunc{reg: uploadsAt("http://" + reg + "/up")}, Config{}, true, nil},
		{"location at a sister", []does{push, stream(0), stream(10), mount}, map[string]http.HandlerFunc{reg: uploadsAt("https://up.example.com/x"), "up.example.com": take}, Config{}, true, []string{"up.example.com"}},
		{"location elsewhere, allowed", []does{push}, map[string]http.HandlerFunc{reg: uploadsAt("https://up.test/x"), "up.test": take}, Config{Realms: map[string][]string{reg: {"up.test"}}}, true, []string{"up.test"}},
		{"307", []does{push, stream(0), stream(10), manifest, remove, mount}, map[string]http.HandlerFunc{reg: basicAuth(redirect("https://evil.test/x", 307)), "evil.test": take}, Config{}, false, nil},
		{"308", []does{push, stream(0), stream(10), manifest, remove, mount}, map[string]http.HandlerFunc{reg: basicAuth(redirect("https://evil.test/x", 308)), "evil.test": take}, Config{}, false, nil},
		{"301 to plain http", []does{push, manifest, remove}, map[string]http.HandlerFunc{reg: basicAuth(redirect("http://evil.test/x", 301)), "evil.test": take}, Config{}, false, nil},
		{"next page elsewhere", []does{tags}, map[string]http.HandlerFunc{reg: basicAuth(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Link", `<https://evil.test/v2/a/tags/list?last=x>; rel="next"`)
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"name":"a","tags":[%s"z"]}`, strings.Repeat(`"t",`, 999))
		}), "evil.test": take}, Config{}, false, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for i, do := range test.do {
				w := newWorld(t, test.hosts)
				r, err := w.client(reg, password, test.config).Registry(reg)
				if err != nil {
					t.Fatal(err)
				}
				if err := do(t.Context(), r); (err == nil) != test.ok {
					t.Errorf("operation %d: error %v, want ok %v", i, err, test.ok)
				}
				for _, leak := range w.leaks(append(test.allowed, reg)...) {
					t.Errorf("operation %d: %s", i, leak)
				}
				for _, s := range w.seen {
					if s.host != reg && strings.Contains(s.text, "Authorization") {
						t.Errorf("operation %d: authorization to %s", i, s.host)
					}
				}
			}
		})
	}
}

func TestLoginIsNotTakenToPlainHTTP(t *testing.T) {
	for _, hosts := range []map[string]http.HandlerFunc{
		{reg: redirect("http://"+reg+"/v2/", 301)},
		{reg: redirect("http://evil.test/v2/", 301), "evil.test": basicAuth(sendBlob)},
		{reg: bearerAuth("http://auth.example.com/token", sendBlob), "auth.example.com": tokens},
	} {
		w := newWorld(t, hosts)
		c := w.client(reg, "{}", Config{})
		if _, err := c.Login(t.Context(), reg, Credentials{Username: "alice", Password: "s3cret"}); err == nil {
			t.Error("logged in")
		}
		for _, leak := range w.leaks(reg) {
			t.Error(leak)
		}
	}
}

// A registry that serves plain http only is refused unless it may.
func TestPlainHTTPIsForLoopbackAndInsecureHosts(t *testing.T) {
	w := newWorld(t, map[string]http.HandlerFunc{"lan.test": sendBlob})
	w.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) { w.answer(rw, req, false) }))
		t.Cleanup(s.Close)
		return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
	}
	for insecure, ok := range map[string]bool{"": false, "lan.test": true, "lan.test:443": false, "other.test": false, "10.0.0.0/8": false, "http://lan.test/": true} {
		config := Config{}
		if insecure != "" {
			config.Insecure = []string{insecure}
		}
		r, err := w.client("lan.test", "{}", config).Registry("lan.test")
		if err != nil {
			t.Fatal(err)
		}
		err = getBlob(t.Context(), r)
		if (err == nil) != ok {
			t.Errorf("insecure %q: %v", insecure, err)
		}
		if err != nil && !errdefs.IsUnavailable(err) {
			t.Errorf("class of %v", err)
		}
	}
	for host, ok := range map[string]bool{"10.1.2.3:5000": true, "11.1.2.3": false, "[::ffff:10.1.2.3]:80": true, "127.0.0.2:1": true, "localhost:5000": true, "[::1]": true, "a.localhost": true, "localhost.evil.test": false, "127.0.0.1.evil.test": false, "10.evil.test": false} {
		if got := parseInsecure([]string{"10.0.0.0/8"}).allows(host); got != ok {
			t.Errorf("%s: %v", host, got)
		}
	}
}

func TestOriginsThatBelongTogether(t *testing.T) {
	c := New(Config{Realms: map[string][]string{"a.test": {"sso.test"}, "docker.io": {"login.test"}}})
	for _, test := range []struct {
		registry, target string
		want             bool
	}{
		{"https://a.test", "https://a.test:443", true},
		{"https://a.test", "https://sso.test", true},
		{"https://a.test", "http://sso.test", false},
		{"https://b.test", "https://sso.test", false},
		{"https://registry-1.docker.io", "https://auth.docker.io", true},
		{"https://registry-1.docker.io", "https://login.test", true},
		{"https://registry-1.docker.io", "https://docker.io.evil.test", false},
		{"https://x.azurecr.io", "https://x.azurecr.io", true},
		{"https://rg.fr-par.scw.cloud", "https://api.scaleway.com", true},
		{"https://reg.co.uk", "https://auth.co.uk", false},
		{"https://10.0.0.1", "https://10.0.0.2", false},
		{"http://localhost:5000", "http://localhost:5001", false},
		{"http://localhost:5000", "http://localhost:5000", true},
		{"https://reg.corp.example:5000", "https://auth.corp.example", true},
		{"https://reg.corp.example:5000", "https://auth.corp.example:5000", true},
		{"https://reg.corp.example:5000", "https://auth.corp.example:5001", false},
	} {
		a, _ := url.Parse(test.registry)
		b, _ := url.Parse(test.target)
		if got := c.paired(originOf(a), originOf(b)); got != test.want {
			t.Errorf("%s and %s: %v", test.registry, test.target, got)
		}
	}
}

// writeKeyPair puts a client certificate into a directory of certs.d.
func writeKeyPair(t *testing.T, dir string, cert tls.Certificate) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"client.cert": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		"client.key":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
