package build_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// guarded is a server in front of another one that notes what authorization
// comes, and wants the one in want, if that is set.
func guarded(t *testing.T, behind, want string) (*httptest.Server, func() []string) {
	t.Helper()
	to, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	var mu sync.Mutex
	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		mu.Lock()
		seen = append(seen, auth)
		mu.Unlock()
		if want != "" && auth != want {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func basic(user string) string { return "basic " + base64.StdEncoding.EncodeToString([]byte(user)) }

// The more exactly a secret names its server, the sooner it is taken; a header
// comes before a token.
func TestGitSecretsAreNamedAfterServers(t *testing.T) {
	behind, _ := repository(t, map[string]string{"a": "a\n"})
	for name, test := range map[string]struct {
		secrets map[string]string // HOST is the server's
		want    string
	}{
		"a token":                        {map[string]string{"GIT_AUTH_TOKEN": "t"}, basic("x-access-token:t")},
		"a token for the server":         {map[string]string{"GIT_AUTH_TOKEN.HOST": "t", "GIT_AUTH_TOKEN": "other"}, basic("x-access-token:t")},
		"a header":                       {map[string]string{"GIT_AUTH_HEADER": "basic dTpw", "GIT_AUTH_TOKEN": "t"}, "basic dTpw"},
		"a header for the server":        {map[string]string{"GIT_AUTH_HEADER.HOST": "basic dTpw", "GIT_AUTH_TOKEN.HOST": "t"}, "basic dTpw"},
		"a token and a newline":          {map[string]string{"GIT_AUTH_TOKEN": "t\n"}, basic("x-access-token:t")},
		"a header and a newline":         {map[string]string{"GIT_AUTH_HEADER": "basic dTpw\r\n"}, "basic dTpw"},
		"a token nearer than the header": {map[string]string{"GIT_AUTH_HEADER": "basic dTpw", "GIT_AUTH_TOKEN.HOST": "t"}, basic("x-access-token:t")},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := guarded(t, behind, test.want)
			b := newBench(t)
			req := dockerfile("FROM scratch\nADD " + server.URL + "/repo.git /r\n")
			req.Run.Secrets = map[string][]byte{}
			for id, value := range test.secrets {
				req.Run.Secrets[strings.ReplaceAll(id, "HOST", strings.TrimPrefix(server.URL, "http://"))] = []byte(value)
			}
			equal(t, "tree", b.names(b.build(req).Image), []string{"r", "r/a"})
		})
	}
}

func TestB13AGitTokenStaysWithItsServer(t *testing.T) {
	behind, dir := repository(t, map[string]string{"a": "a\n"})
	other, seen := guarded(t, behind, "")
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path+"?"+r.URL.RawQuery, http.StatusFound)
	}))
	defer first.Close()
	commit := gitIn(t, dir, "rev-parse", "HEAD")
	secrets := map[string][]byte{
		"GIT_AUTH_TOKEN." + strings.TrimPrefix(first.URL, "http://"): []byte("c4n4ry"),
		"HTTP_AUTH_TOKEN_127.0.0.1":                                  []byte("c4n4ry"),
	}
	for name, add := range map[string]string{
		"a redirect":             first.URL + "/repo.git",
		"a redirect of a commit": first.URL + "/repo.git#" + commit,
		"a password in the URL":  strings.Replace(first.URL, "://", "://user:c4n4ry@", 1) + "/repo.git",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			req := dockerfile("FROM scratch\nADD " + add + " /r\n")
			req.Run.Secrets = secrets
			o := b.try(req)
			for _, auth := range seen() {
				if auth != "" {
					t.Errorf("the other server was sent %q", auth)
				}
			}
			if o.err != nil {
				t.Fatal(o.err)
			}
			equal(t, "tree", b.names(o.Image), []string{"r", "r/a"})
			if !strings.Contains(add, "c4n4ry") { // a Dockerfile is in the history as it is
				nowhere(t, b.Store.Root(), "c4n4ry")
			}
		})
	}
	// A submodule of another server.
	t.Run("a submodule", func(t *testing.T) {
		outer, outerDir := repository(t, map[string]string{".gitmodules": "[submodule \"x\"]\n\tpath = x\n\turl = " + other.URL + "/repo.git\n"})
		gitIn(t, outerDir, "update-index", "--add", "--cacheinfo", "160000,"+commit+",x")
		gitIn(t, outerDir, "commit", "-q", "-m", "submodule")
		b := newBench(t)
		req := dockerfile("FROM scratch\nADD " + outer + "/repo.git /r\n")
		req.Run.Secrets = map[string][]byte{"GIT_AUTH_TOKEN": []byte("c4n4ry")}
		equal(t, "tree", b.names(b.build(req).Image), []string{"r", "r/.gitmodules", "r/x", "r/x/a"})
		for _, auth := range seen() {
			if auth != "" {
				t.Errorf("the server of the submodule was sent %q", auth)
			}
		}
	})
}

// What has moved on its own server is found, with the credentials.
func TestARepositoryThatHasMovedIsFound(t *testing.T) {
	behind, _ := repository(t, map[string]string{"a": "a\n"})
	inner, _ := guarded(t, behind, basic("x-access-token:t0ken"))
	to, err := url.Parse(inner.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/old"); ok {
			http.Redirect(w, r, rest+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer server.Close()
	b := newBench(t)
	req := dockerfile("FROM scratch\nADD " + server.URL + "/old/repo.git /r\n")
	req.Run.Secrets = map[string][]byte{"GIT_AUTH_TOKEN": []byte("t0ken")}
	equal(t, "tree", b.names(b.build(req).Image), []string{"r", "r/a"})
}

// While git talks to a server, its token is in the arguments and the environment
// of no process.
func TestB13AGitTokenIsInNoProcessList(t *testing.T) {
	const token = "pr0c3ss-c4n4ry"
	behind, _ := repository(t, map[string]string{"a": "a\n"})
	to, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	header := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + token))
	looked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files, _ := filepath.Glob("/proc/[0-9]*/[ce][mn][dv]*") // cmdline and environ
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended, or is somebody else's
			}
			looked++
			if bytes.Contains(data, []byte(token)) || bytes.Contains(data, []byte(header)) {
				t.Errorf("%s holds it: %q", name, data)
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	defer server.Close()
	b := newBench(t)
	req := dockerfile("FROM scratch\nADD " + server.URL + "/repo.git /r\n")
	req.Run.Secrets = map[string][]byte{"GIT_AUTH_TOKEN": []byte(token)}
	b.build(req)
	if looked == 0 {
		t.Error("no process was looked at")
	}
}
