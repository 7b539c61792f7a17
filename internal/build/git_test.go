package build_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shaleproject/shale/internal/layer"
)

// repository makes a git repository of files, tagged v1, and returns the URL
// of a server that has it.
func repository(t *testing.T, files map[string]string) (url, dir string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	execPath, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	work := filepath.Join(root, "repo.git")
	if err := os.Rename(directory(t, files), work); err != nil {
		t.Fatal(err)
	}
	gitIn(t, work, "init", "-q", "-b", "main")
	gitIn(t, work, "add", "-A")
	gitIn(t, work, "commit", "-q", "-m", "one")
	gitIn(t, work, "tag", "v1")
	backend := &cgi.Handler{
		Stderr: io.Discard,
		Path:   filepath.Join(strings.TrimSpace(string(execPath)), "git-http-backend"),
		Env:    []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/private") {
			if user, password, ok := r.BasicAuth(); !ok || password != "t0ken" && user != "t0ken" {
				w.Header().Set("WWW-Authenticate", "Basic")
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			r.URL.Path = strings.TrimPrefix(r.URL.Path, "/private")
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, work
}

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1600000000 +0000", "GIT_COMMITTER_DATE=1600000000 +0000",
		"GIT_ALLOW_PROTOCOL=file",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestARepositoryIsAdded(t *testing.T) {
	url, dir := repository(t, map[string]string{"a": "one\n", "sub/b": "b\n", "sub/l": "-> b"})
	commit := gitIn(t, dir, "rev-parse", "HEAD")
	write(t, filepath.Join(dir, "a"), "two\n")
	gitIn(t, dir, "commit", "-q", "-am", "two")
	for _, test := range []struct {
		add  string
		want []string
		a    string
	}{
		{url + "/repo.git /r", []string{"r", "r/a", "r/sub", "r/sub/b", "r/sub/l"}, "two\n"},
		{url + "/repo.git#v1 /r", []string{"r", "r/a", "r/sub", "r/sub/b", "r/sub/l"}, "one\n"},
		{url + "/repo.git#" + commit + " /r", []string{"r", "r/a", "r/sub", "r/sub/b", "r/sub/l"}, "one\n"},
		{url + "/repo.git#main:sub /r", []string{"r", "r/b", "r/l"}, ""},
		{"--checksum=" + commit + " " + url + "/repo.git#v1 /r", []string{"r", "r/a", "r/sub", "r/sub/b", "r/sub/l"}, "one\n"},
	} {
		b := newBench(t)
		o := b.build(dockerfile("FROM scratch\nADD " + test.add + "\n"))
		equal(t, test.add, b.names(o.Image), test.want)
		if test.a != "" {
			equal(t, test.add, b.read(o.Image, "r/a"), test.a)
			info, err := b.tree(o.Image).Lstat("r/a")
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "time", info.ModTime().Unix(), int64(1600000000))
			equal(t, "owner", info.Sys().(*layer.Stat).UID, uint32(0))
		}
	}
	b := newBench(t)
	o := b.build(dockerfile("FROM scratch\nADD --keep-git-dir=true " + url + "/repo.git /r\n"))
	if !strings.Contains(strings.Join(b.names(o.Image), "\n"), "r/.git/HEAD") {
		t.Errorf("no .git in %q", b.names(o.Image))
	}
	for _, add := range []string{
		url + "/repo.git#none /r", url + "/none.git /r", url + "/repo.git#:none /r", url + "/repo.git#:.git /r",
		"--checksum=" + strings.Repeat("0", 40) + " " + url + "/repo.git#v1 /r",
	} {
		if o := b.try(dockerfile("FROM scratch\nADD " + add + "\n")); o.err == nil || strings.Contains(o.err.Error(), "\n") {
			t.Errorf("ADD %s: error is %v", add, o.err)
		} else {
			t.Log(o.err)
		}
	}
}

func TestARepositoryIsAContext(t *testing.T) {
	url, _ := repository(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a\n", "sub/Dockerfile": "FROM scratch\nCOPY b /\n", "sub/b": "b\n"})
	b := newBench(t)
	equal(t, "tree", b.names(b.build(dir(url+"/repo.git")).Image), []string{"a"})
	equal(t, "tree", b.names(b.build(dir(url+"/repo.git#main:sub")).Image), []string{"b"})
}

func TestB13GitCredentialsLandNowhere(t *testing.T) {
	url, _ := repository(t, map[string]string{"a": "a\n"})
	b := newBench(t)
	text := "FROM scratch\nADD " + url + "/private/repo.git /r\n"
	o := b.try(dockerfile(text))
	if o.err == nil {
		t.Error("it was fetched without a token")
	}
	req := dockerfile(text)
	req.Run.Secrets = map[string][]byte{"GIT_AUTH_TOKEN": []byte("t0ken")}
	equal(t, "tree", b.names(b.build(req).Image), []string{"r", "r/a"})
	nowhere(t, b.Store.Root(), "t0ken")
}

// The display of a build is in the log of a CI runner.
func TestB13AContextsPasswordIsNotShown(t *testing.T) {
	url, _ := repository(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a\n"})
	url = strings.Replace(url, "://", "://t0ken:t0ken@", 1)
	for _, context := range []string{url + "/private/repo.git", url + "/none.git", url + "/none.tar?sig=t0ken"} {
		r := dir(context)
		r.Reproducible = true
		o := newBench(t).try(r)
		shown := fmt.Sprint(o.ran, o.cached, o.failed, o.log, o.err)
		if (o.err == nil) != strings.Contains(context, "private") || strings.Contains(shown, "t0ken") || !strings.Contains(shown, "xxxxx") {
			t.Errorf("of %s is shown %s", context, shown)
		}
	}
}

// What a repository holds leads nowhere: links, hooks, submodules of this
// machine.
func TestB06ARepositoryDoesNotLeadOut(t *testing.T) {
	host, unharmed := canary(t)
	defer unharmed()
	url, dir := repository(t, map[string]string{
		"out": "-> " + host, "up": "-> ../../../../../../../.." + host, "a": "a\n",
		".gitmodules": "[submodule \"evil\"]\n\tpath = evil\n\turl = " + host + "\n[submodule \"ext\"]\n\tpath = ext\n\turl = ext::sh -c touch% " + host + "/pwned\n",
	})
	b := newBench(t)
	for _, sub := range []string{"out", "up", "../../..", "out/dir", "a"} {
		o := b.try(dockerfile("FROM scratch\nADD " + url + "/repo.git#:" + sub + " /r\n"))
		if o.err != nil {
			continue
		}
		for _, name := range b.names(o.Image) {
			if name == "r/file" || name == "r/dir" {
				t.Errorf("subdirectory %s: %s is there", sub, name)
			}
		}
	}
	// A submodule that is one, at an address that may not be asked.
	gitIn(t, dir, "update-index", "--add", "--cacheinfo", "160000,"+gitIn(t, dir, "rev-parse", "HEAD")+",ext")
	gitIn(t, dir, "update-index", "--add", "--cacheinfo", "160000,"+gitIn(t, dir, "rev-parse", "HEAD")+",evil")
	gitIn(t, dir, "commit", "-q", "-m", "submodules")
	o := b.try(dockerfile("FROM scratch\nADD " + url + "/repo.git /r\n"))
	if o.err == nil {
		t.Error("a submodule of this machine was fetched")
	} else {
		t.Log(o.err)
	}
}

// References are names, never options or commands.
func TestB08AReferenceIsNoOption(t *testing.T) {
	url, _ := repository(t, map[string]string{"a": "a\n"})
	host, unharmed := canary(t)
	defer unharmed()
	b := newBench(t)
	for _, ref := range []string{"--upload-pack=touch " + host + "/pwned", "-u", "a b", "main:../x", "+main", "main~1", "@{-1}"} {
		if o := b.try(dir(url + "/repo.git#" + ref)); o.err == nil {
			t.Errorf("reference %q was taken", ref)
		}
	}
}
