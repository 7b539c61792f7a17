package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shaleproject/shale/internal/build"
)

func TestADockerfileComesThroughAPipe(t *testing.T) {
	b := newBench(t)
	o := b.build(dockerfile("FROM scratch\nCOPY <<EOF /hello\nhello\nEOF\n"))
	equal(t, "content", b.read(o.Image, "hello"), "hello\n")
}

func TestATarComesThroughAPipe(t *testing.T) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for name, content := range map[string]string{"sub/Dockerfile": "FROM scratch\nCOPY a /\n", "a": "content\n"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"plain": plain.Bytes(), "gzip": zipped.Bytes()} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			o := b.build(build.Request{Files: build.Files{Context: "-", Dockerfile: "sub/Dockerfile", Stdin: bytes.NewReader(data)}})
			equal(t, "content", b.read(o.Image, "a"), "content\n")
		})
	}
}

func TestTheDockerfileMayLieOutsideTheContext(t *testing.T) {
	b := newBench(t)
	ctx := directory(t, map[string]string{"a": "a\n", "b": "b\n", ".dockerignore": "a\n"})
	outside := directory(t, map[string]string{"My.Dockerfile": "FROM scratch\nCOPY . /\n", "My.Dockerfile.dockerignore": "b\n"})
	req := dir(ctx)
	req.Files.Dockerfile = filepath.Join(outside, "My.Dockerfile")
	equal(t, "tree", b.names(b.build(req).Image), []string{".dockerignore", "a"})
	req.Files.Dockerfile = "-"
	req.Files.Stdin = strings.NewReader("FROM scratch\nCOPY . /\n")
	equal(t, "tree", b.names(b.build(req).Image), []string{".dockerignore", "b"})
}

func TestANamedContextIsADirectory(t *testing.T) {
	b := newBench(t)
	ctx := directory(t, map[string]string{"Dockerfile": "FROM named\nCOPY --from=named /x /y\nCOPY --from=alpine:3 /z /\n"})
	req := dir(ctx)
	req.Files.Named = map[string]string{
		"named":    directory(t, map[string]string{"x": "x\n"}),
		"alpine:3": directory(t, map[string]string{"z": "z\n"}),
	}
	o := b.build(req)
	equal(t, "tree", b.names(o.Image), []string{"x", "y", "z"})
}

func TestAContextIsUnchangedByItsBuild(t *testing.T) {
	b := newBench(t)
	ctx := application(t)
	before := describe(t, ctx)
	b.build(dir(ctx))
	equal(t, "context", describe(t, ctx), before)
}

// describe lists a directory: names, modes, sizes and times.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := p + " " + info.Mode().String() + " " + info.ModTime().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(data)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestALinkDoesNotLeadOutOfTheContext(t *testing.T) {
	b := newBench(t)
	outside := directory(t, map[string]string{"canary": "canary\n"})
	ctx := directory(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY link/canary /stolen\n",
		"link":       "-> " + outside,
	})
	o := b.try(dir(ctx))
	if o.err == nil {
		t.Errorf("it was built: %q", b.names(o.Image))
	}
}

func TestAFileIsAddedFromAServer(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.Header.Get("Authorization") != "Bearer token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		io.WriteString(w, "content\n")
	}))
	defer server.Close()
	b := newBench(t)
	// printf 'content\n' | sha256sum
	const sum = "sha256:434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53"
	ask := func(flags string, secrets map[string][]byte) outcome {
		req := dockerfile("FROM scratch\nADD " + flags + " " + server.URL + "/dir/file.txt /x/\n")
		req.Run.Secrets = secrets
		return b.try(req)
	}
	token := map[string][]byte{"HTTP_AUTH_TOKEN_127.0.0.1": []byte("token")}
	if o := ask("", nil); o.err == nil || !strings.Contains(o.err.Error(), "401") {
		t.Errorf("without a token: error is %v", o.err)
	}
	o := ask("", token)
	if o.err != nil {
		t.Fatal(o.err)
	}
	equal(t, "content", b.read(o.Image, "x/file.txt"), "content\n")
	info, err := b.tree(o.Image).Lstat("x/file.txt")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "mode", info.Mode(), fs.FileMode(0o600))
	equal(t, "time", info.ModTime().Unix(), int64(1136214245))
	if o := ask("--checksum="+strings.Replace(sum, "4", "5", 1), token); o.err == nil {
		t.Error("a wrong checksum is taken")
	}
	if o := ask("--checksum="+sum, token); o.err != nil {
		t.Fatal(o.err)
	}
	before := asked
	if o := ask("--checksum="+sum, token); o.err != nil || asked != before {
		t.Errorf("a known file is asked for again: %d times, error %v", asked-before, o.err)
	}
}
