package build_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module writes a .gitmodules and an entry of the index that it is about.
func module(name, path, url string) func(t *testing.T, repo, host string) {
	return func(t *testing.T, repo, host string) {
		t.Helper()
		url := strings.ReplaceAll(url, "HOST", host)
		write(t, filepath.Join(repo, ".gitmodules"), fmt.Sprintf("[submodule %q]\n\tpath = %s\n\turl = %s\n", name, path, url))
		gitIn(t, repo, "add", "-f", ".gitmodules")
		if !strings.Contains(path, "..") && !strings.HasPrefix(path, ".git") {
			gitIn(t, repo, "update-index", "--add", "--cacheinfo", "160000,"+gitIn(t, repo, "rev-parse", "HEAD")+","+path)
		}
	}
}

// entry puts a file of any name and mode into the index, as no work tree could.
func entry(mode, name, content string) func(t *testing.T, repo, host string) {
	return func(t *testing.T, repo, host string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "blob")
		write(t, file, strings.ReplaceAll(content, "HOST", host))
		blob := gitIn(t, repo, "hash-object", "-w", file)
		gitIn(t, repo, "-c", "core.protectHFS=false", "-c", "core.protectNTFS=false", "update-index", "--add", "--cacheinfo", mode+","+blob+","+name)
	}
}

func files(list ...string) func(t *testing.T, repo, host string) {
	return func(t *testing.T, repo, host string) {
		t.Helper()
		for i := 0; i < len(list); i += 2 {
			path := filepath.Join(repo, list[i])
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, path, strings.ReplaceAll(list[i+1], "HOST", host))
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
			gitIn(t, repo, "add", "-f", list[i])
		}
	}
}

// What is in a repository is data: nothing in it runs, and nothing in it reads or
// writes this machine's files.
func TestAHostileRepositoryReachesNothingOfTheHost(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *testing.T, repo, host string)
		sub     string // the part that is asked for
		without []string
	}{
		"a link to the host as the part": {entry("120000", "l", "HOST"), "l", []string{"r/file"}},
		"a link up as the part":          {entry("120000", "l", "../../../../../../../..HOST"), "l/dir", []string{"r/file"}},
		"links to the host":              {entry("120000", "l", "HOST/file"), "", nil},
		"a part that leads up":           {files("a", "a\n"), "../../../../../../../..HOST", []string{"r/file"}},
		"the part that is .git":          {files("a", "a\n"), ".git", []string{"r/HEAD"}},
		"the part that is .git, spelled": {files("a", "a\n"), "./.git/../.git", []string{"r/HEAD"}},
		"a filter":                       {files(".gitattributes", "* filter=evil\n", "a", "a\n", ".git-config", "[filter \"evil\"]\n\tsmudge = touch HOST/new\n"), "", nil},
		"a configuration of its own":     {entry("100644", ".gitconfig", "[core]\n\tfsmonitor = touch HOST/new\n\tpager = touch HOST/new\n"), "", nil},
		"hooks of its own":               {files("hooks/post-checkout", "#!/bin/sh\ntouch HOST/new\n", ".githooks/post-checkout", "#!/bin/sh\ntouch HOST/new\n"), "", nil},
		"hooks that are on the server":   {files(".git/hooks/post-checkout", "#!/bin/sh\ntouch HOST/new\n"), "", nil},
		"a difference driver":            {files(".gitattributes", "* diff=evil merge=evil\n", "a", "a\n"), "", nil},
		"objects that are elsewhere": {func(t *testing.T, repo, host string) {
			write(t, filepath.Join(repo, ".git/objects/info/alternates"), host+"\n")
		}, "", nil},
		"a submodule of this machine":          {module("x", "x", "HOST"), "", nil},
		"a submodule by a URL of a file":       {module("x", "x", "file://HOST"), "", nil},
		"a submodule by a command":             {module("x", "x", "ext::sh -c touch% HOST/new"), "", nil},
		"a submodule that is an option":        {module("x", "x", "--upload-pack=touch HOST/new"), "", nil},
		"a submodule that is relative":         {module("x", "x", "../../../../../../../..HOST"), "", nil},
		"a submodule by an option of ssh":      {module("x", "x", "ssh://-oProxyCommand=touch HOST/new/x"), "", nil},
		"a submodule whose name leads up":      {module("../../../../../../..HOST/new", "x", "http://127.0.0.1:1/x"), "", nil},
		"a submodule whose path leads up":      {module("x", "../../../../../..HOST/new", "http://127.0.0.1:1/x"), "", nil},
		"a submodule whose path is .git":       {module("x", ".git/hooks", "http://127.0.0.1:1/x"), "", nil},
		"a submodule with a command to update": {files(".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = http://127.0.0.1:1/x\n\tupdate = !touch HOST/new\n"), "", nil},
		"attributes that are a link":           {entry("120000", ".gitattributes", "HOST/file"), "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, unharmed := canary(t)
			defer unharmed()
			url, repo := repository(t, map[string]string{"first": "first\n"})
			test.prepare(t, repo, host)
			gitIn(t, repo, "commit", "-q", "--allow-empty", "-m", "two")
			b := newBench(t)
			req := dockerfile("FROM scratch\nADD " + url + "/repo.git#main:" + test.sub + " /r\n")
			if test.sub == "" {
				req = dockerfile("FROM scratch\nADD --keep-git-dir " + url + "/repo.git /r\n")
			}
			o := b.try(req)
			t.Logf("error is %v", o.err)
			nowhere(t, b.Store.Root(), "canary\n")
			if o.err != nil {
				return
			}
			for _, name := range test.without {
				if names := b.names(o.Image); slices.Contains(names, name) {
					t.Errorf("there are %q", names)
				}
			}
		})
	}
}

// A server that speaks no git, or not to the end, is an error.
func TestAHostileGitServerIsAnError(t *testing.T) {
	const advertisement = "application/x-git-upload-pack-advertisement"
	host, unharmed := canary(t)
	defer unharmed()
	for name, h := range map[string]http.HandlerFunc{
		"a page":                func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>log in</html>") },
		"nothing":               func(http.ResponseWriter, *http.Request) {},
		"a broken connection":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"redirects in a circle": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) },
		"a redirect to a file": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file://"+host+"/info/refs", http.StatusFound)
		},
		"lengths that are wrong": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertisement)
			fmt.Fprint(w, "ffffgarbage")
		},
		"references without end": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertisement)
			fmt.Fprint(w, "001e# service=git-upload-pack\n0000")
			for i := range 100_000 {
				line := fmt.Sprintf("%040x refs/heads/%d\n", i, i)
				fmt.Fprintf(w, "%04x%s", len(line)+4, line)
			}
		},
		"a commit that is not there": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", advertisement)
			fmt.Fprint(w, "001e# service=git-upload-pack\n0000")
			line := strings.Repeat("1", 40) + " HEAD\x00shallow agent=x\n"
			fmt.Fprintf(w, "%04x%s0000", len(line)+4, line)
		},
		"objects that are elsewhere": func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/info/refs"):
				fmt.Fprint(w, strings.Repeat("1", 40)+"\trefs/heads/main\n")
			case strings.HasSuffix(r.URL.Path, "/HEAD"):
				fmt.Fprint(w, "ref: refs/heads/main\n")
			case strings.HasSuffix(r.URL.Path, "alternates"):
				fmt.Fprintf(w, "file://%s\n%s\n", host, host)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			for _, secrets := range []map[string][]byte{nil, {"GIT_AUTH_TOKEN": []byte("c4n4ry")}} {
				b := newBench(t)
				req := dockerfile("FROM scratch\nADD " + server.URL + "/repo.git /r\n")
				req.Run.Secrets = secrets
				o := b.try(req)
				if o.err == nil || strings.Contains(o.err.Error(), "c4n4ry") || strings.Contains(o.err.Error(), "\n") {
					t.Errorf("error is %v", o.err)
				}
				nowhere(t, b.Store.Root(), "c4n4ry")
				nowhere(t, b.Store.Root(), "canary\n")
			}
		})
	}
}
