package build_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// web answers for all hosts, in plain text and encrypted. What begins with
// "/to/" leads elsewhere.
type web struct {
	plain, encrypted *httptest.Server

	mu   sync.Mutex
	seen map[string]string // the authorization that came to "scheme://host/path"
}

func newWeb(t *testing.T, b *bench) *web {
	w := &web{seen: map[string]string{}}
	w.plain, w.encrypted = httptest.NewServer(w), httptest.NewTLSServer(w)
	t.Cleanup(w.plain.Close)
	t.Cleanup(w.encrypted.Close)
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		server := w.plain
		if strings.HasSuffix(addr, ":443") {
			server = w.encrypted
		}
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	transport := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	b.Transport = transport
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	w.mu.Lock()
	w.seen[scheme+r.Host+r.URL.Path] = r.Header.Get("Authorization")
	w.mu.Unlock()
	if to, ok := strings.CutPrefix(r.URL.Path, "/to/"); ok {
		http.Redirect(rw, r, strings.Replace(to, "/", "://", 1), http.StatusFound)
		return
	}
	_, _ = io.WriteString(rw, "content\n")
}

// What is given for one server is for its scheme, its name and its port.
func TestB13ATokenStaysWithItsServer(t *testing.T) {
	for name, test := range map[string]struct {
		from, to string
		kept     bool
	}{
		"another path":             {"https://files.test", "https/files.test/x", true},
		"the same port, spelled":   {"https://files.test", "https/files.test:443/x", true},
		"another host":             {"https://files.test", "https/evil.test/x", false},
		"a subdomain":              {"https://files.test", "https/evil.files.test/x", false},
		"another port":             {"http://files.test", "http/files.test:8080/x", false},
		"no encryption any more":   {"https://files.test", "http/files.test/x", false},
		"a name that begins alike": {"https://files.test", "https/files.test.evil/x", false},
		"back by way of another":   {"https://files.test", "https/evil.test/to/https/files.test/x", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			w := newWeb(t, b)
			req := dockerfile("FROM scratch\nADD " + test.from + "/to/" + test.to + " /f\n")
			req.Run.Secrets = map[string][]byte{"HTTP_AUTH_TOKEN_files.test": []byte("c4n4ry")}
			o := b.build(req)
			equal(t, "content", b.read(o.Image, "f"), "content\n")
			first := test.from + "/to/" + test.to
			for url, auth := range w.seen {
				if want := url == first || test.kept; (auth == "Bearer c4n4ry") != want {
					t.Errorf("%s was sent %q", url, auth)
				}
			}
			if len(w.seen) < 2 {
				t.Errorf("asked %q alone", w.seen)
			}
			nowhere(t, b.Store.Root(), "c4n4ry")
		})
	}
}

// A redirect leads to web servers only, and not in circles.
func TestB07ARedirectDoesNotLeadToFiles(t *testing.T) {
	host, unharmed := canary(t)
	defer unharmed()
	for _, to := range []string{"file/" + host + "/file", "ftp/files.test/x", "http/files.test/to/http/files.test/" + strings.Repeat("to/http/files.test/", 20) + "x"} {
		b := newBench(t)
		newWeb(t, b)
		if o := b.try(dockerfile("FROM scratch\nADD http://files.test/to/" + to + " /f\n")); o.err == nil || strings.Contains(o.err.Error(), "canary") {
			t.Errorf("%s: error is %v", to, o.err)
		}
	}
}

func TestSecretsAreNamedAfterServers(t *testing.T) {
	for name, test := range map[string]struct {
		secrets map[string]string
		want    string
	}{
		"a token":            {map[string]string{"HTTP_AUTH_TOKEN_files.test": "t"}, "Bearer t"},
		"a header":           {map[string]string{"HTTP_AUTH_HEADER_files.test": "Basic dTpw"}, "Basic dTpw"},
		"of another server":  {map[string]string{"HTTP_AUTH_TOKEN_other.test": "t", "HTTP_AUTH_TOKEN": "t"}, ""},
		"a port is no part":  {map[string]string{"HTTP_AUTH_TOKEN_files.test:80": "t"}, ""},
		"the end of a line":  {map[string]string{"HTTP_AUTH_TOKEN_files.test": "t\n"}, "Bearer t"},
		"a line break in it": {map[string]string{"HTTP_AUTH_HEADER_files.test": "x\r\nEvil: y"}, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			w := newWeb(t, b)
			req := dockerfile("FROM scratch\nADD http://files.test/x /f\n")
			req.Run.Secrets = map[string][]byte{}
			for id, value := range test.secrets {
				req.Run.Secrets[id] = []byte(value)
			}
			o := b.try(req)
			if test.want == "none" {
				if o.err == nil || len(w.seen) > 0 {
					t.Errorf("error is %v, asked %q", o.err, w.seen)
				}
				return
			}
			equal(t, "authorization", w.seen["http://files.test/x"], test.want)
		})
	}
}
