package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

var update = flag.Bool("update", false, "write what shale makes into the cases of the corpus, to be reviewed")

// TestCorpus builds each Dockerfile of testdata/corpus and compares the files
// and the configuration of the image with what its case states, and with what
// buildah makes of the same Dockerfile. testdata/corpus/README.md describes
// the cases.
func TestCorpus(t *testing.T) {
	c := newCorpus(t)
	c.startBuildah(t)
	c.runAll(t)
}

// TestCorpusOfAnOrdinaryUser runs TestCorpus once more: as a user without
// rights to whom ids are lent, and as one to whom user namespaces are
// forbidden. All images come out the same; without a namespace there are
// those that no program runs for.
func TestCorpusOfAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 || sys.InUserNamespace() || *update {
		t.Skip("only root can become another user")
	}
	for name, how := range map[string]struct {
		lent string
		args []string
	}{
		"ids lent":          {lent, nil},
		"without namespace": {"", withoutNamespaces()},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, how.lent)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			u.copyFile(t, self, "corpus.test") // where the tests are, the user may have no way to
			if err := os.CopyFS(u.path("testdata"), os.DirFS("testdata")); err != nil {
				t.Fatal(err)
			}
			u.be(t, func() {
				args := append(how.args, u.path("corpus.test"), "-test.run=^TestCorpus$", "-test.v")
				cmd := u.command(args[0], args[1:]...)
				cmd.Env = append(cmd.Env, "TMPDIR="+u.home, binaryEnv+"="+binary)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if n := bytes.Count(out, []byte("--- PASS: TestCorpus/case/")); n < 100 {
					t.Errorf("only %d cases were built", n)
				}
			})
		})
	}
}

// canRun says whether RUN is possible: for root, and for users to whom ids are
// lent.
func canRun() bool {
	if os.Geteuid() == 0 {
		return true
	}
	me, err := osuser.Current()
	if err != nil {
		return false
	}
	ids, err := os.ReadFile("/etc/subuid")
	if _, lookup := exec.LookPath("newuidmap"); err != nil || lookup != nil {
		return false
	}
	for line := range strings.Lines(string(ids)) {
		if name, _, _ := strings.Cut(line, ":"); name == me.Username || name == me.Uid {
			return true
		}
	}
	return false
}

func (c *corpus) runAll(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("case", func(t *testing.T) {
		for _, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
				t.Parallel()
				c.slots <- struct{}{}
				defer func() { <-c.slots }()
				c.run(t, file)
			})
		}
	})
}

// TestParityListsWhatDiffers holds the list in docs/parity.md to the cases.
func TestParityListsWhatDiffers(t *testing.T) {
	const doc, begin, end = "../../docs/parity.md", "<!-- corpus -->\n", "<!-- /corpus -->\n"
	files, err := filepath.Glob("testdata/corpus/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string][]string{}
	for _, file := range files {
		k, err := readCase(file)
		if err != nil {
			t.Fatal(err)
		}
		if k.buildah != buildahSame {
			reasons[k.reason] = append(reasons[k.reason], "`"+k.name+"`")
		}
	}
	var list strings.Builder
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(&list, "- %s: %s\n", reason, strings.Join(reasons[reason], ", "))
	}
	data, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	have, after, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatalf("%s has no place for the list", doc)
	case have == list.String():
	case !*update:
		t.Errorf("%s does not list what differs: run the test with -update", doc)
	default:
		if err := os.WriteFile(doc, []byte(before+begin+list.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// corpus is what the cases share: a store, buildah's storage, the base image
// called busybox in both, and a web server.
type corpus struct {
	dir     string
	canRun  bool
	tar     string
	began   time.Time
	env     []string // of shale
	store   *store.Store
	buildah []string // the command; nil if it cannot be used
	without string   // why
	base    *flatImage
	server  *httptest.Server
	slots   chan struct{}
}

func newCorpus(t *testing.T) *corpus {
	t.Helper()
	c := &corpus{dir: t.TempDir(), canRun: canRun(), began: time.Now(), slots: make(chan struct{}, max(2, runtime.NumCPU()))}
	c.env = append(os.Environ(), "SHALE_ROOT="+filepath.Join(c.dir, "shale"), "HOME="+c.dir, "BUILDKIT_PROGRESS=plain")
	c.tar = filepath.Join(c.dir, "busybox.tar")
	if err := writeCorpusBase(c.tar); err != nil {
		t.Skip(err)
	}
	c.shale(t, "import", "-c", `CMD ["sh"]`, "-c", "ENV PATH=/bin", c.tar, "busybox")
	var err error
	if c.store, err = store.Open(filepath.Join(c.dir, "shale")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.store.Close()
		// What belongs to lent ids, only shale can remove.
		if _, err := c.try(nil, "system", "prune", "-af"); err != nil {
			t.Error(err)
		}
	})
	c.base = c.image(t, digest.Digest(c.shale(t, "inspect", "-f", "{{.Id}}", "busybox")))
	c.server = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.server.Close)
	return c
}

// startBuildah prepares storage of its own for buildah, with the base image.
func (c *corpus) startBuildah(t *testing.T) {
	if os.Geteuid() != 0 {
		c.without = "not root"
		return
	}
	program, err := exec.LookPath("buildah")
	if err != nil {
		c.without = "no buildah"
		return
	}
	root := filepath.Join(c.dir, "buildah")
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(root, "overlay"), unix.MNT_DETACH) })
	c.buildah = []string{program, "--root", root, "--runroot", filepath.Join(c.dir, "run"), "--storage-driver", "overlay"}
	dir := t.TempDir()
	text := "FROM scratch\nADD busybox.tar /\nENV PATH=/bin\nCMD [\"sh\"]\n"
	if err := errors.Join(os.Link(c.tar, filepath.Join(dir, "busybox.tar")), os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	if out, err := c.bud("-t", "docker.io/library/busybox:latest", dir); err != nil {
		c.buildah, c.without = nil, fmt.Sprintf("buildah does not work here: %v: %s", err, out)
	}
}

// bud runs `buildah bud`.
func (c *corpus) bud(args ...string) (output []byte, err error) {
	args = slices.Concat(c.buildah[1:], []string{"bud", "--layers=false", "--isolation", "chroot", "--format", "docker",
		"--identity-label=false", "--pull-never", "--disable-compression"}, args)
	cmd := exec.Command(c.buildah[0], args...)
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "CORPUS=from the environment")
	return cmd.CombinedOutput()
}

func (c *corpus) shale(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (c *corpus) try(stdin []byte, args ...string) (string, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(slices.Clone(c.env), "CORPUS=from the environment")
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("shale %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.String(), nil
}

// image reads an image that shale made.
func (c *corpus) image(t *testing.T, id digest.Digest) *flatImage {
	t.Helper()
	data, err := c.store.Read(id)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	img, err := newFlatImage(data)
	for _, d := range config.RootFS.DiffIDs {
		if err != nil {
			break
		}
		var blob *store.Blob
		if blob, err = c.store.Blob(d); err == nil {
			err = errors.Join(img.apply(blob), blob.Close())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// serve serves the files of each case's directory "http" below its name.
// What is called "undated…" has no Last-Modified, and what lies in "private" is
// for those who have the token.
func (c *corpus) serve(w http.ResponseWriter, r *http.Request) {
	name, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	path := filepath.Join(c.dir, name, "http", filepath.FromSlash(file))
	if _, password, _ := r.BasicAuth(); strings.HasPrefix(file, "private/") && r.Header.Get("Authorization") != "Bearer t0ken" && password != "t0ken" {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	modified := corpusTime
	if strings.HasPrefix(file, "undated") {
		modified = time.Time{}
	}
	http.ServeContent(w, r, file, modified, bytes.NewReader(data))
}

// run builds one case.
func (c *corpus) run(t *testing.T, file string) {
	k, err := readCase(file)
	if err != nil {
		t.Fatal(err)
	}
	if k.needs["root"] && os.Geteuid() != 0 {
		t.Skip("its set-up needs root")
	}
	if k.needs["run"] && !c.canRun {
		t.Skip("RUN needs root, or ids in /etc/subuid and newuidmap")
	}
	for tool := range k.needs {
		if _, err := exec.LookPath(tool); err != nil && tool != "run" && tool != "root" {
			t.Skip(err)
		}
	}
	dir := filepath.Join(c.dir, k.name)
	vars := map[string]string{"WORK": dir, "URL": c.server.URL + "/" + k.name}
	if err := k.extract(dir, vars); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if k.base {
		c.shale(t, "build", "-q", "-t", "base-"+k.name, filepath.Join(dir, "base"))
	}
	id, err := c.buildShale(k, dir, vars)
	if k.fails != "" {
		switch {
		case err == nil:
			t.Errorf("shale builds it, want an error like %q", k.fails)
		case !regexp.MustCompile(k.fails).MatchString(err.Error()):
			t.Errorf("want an error like %q, have %v", k.fails, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	ours := c.image(t, id)
	have := ours.list(c.base, c.began)
	if *update {
		if err := k.update(have); err != nil {
			t.Fatal(err)
		}
	} else if diff := lineDiff(k.want, have); diff != "" {
		t.Errorf("shale makes (+) what the case does not want (-):\n%s", diff)
	}
	c.compare(t, k, dir, vars, ours)
}

func (c *corpus) buildShale(k *testCase, dir string, vars map[string]string) (digest.Digest, error) {
	var stdin []byte
	if k.stdin != "" {
		var err error
		if stdin, err = os.ReadFile(filepath.Join(dir, "ctx", k.stdin)); err != nil {
			return "", err
		}
	}
	out, err := c.try(stdin, slices.Concat([]string{"build", "-q"}, k.flags(vars), []string{k.context(dir)})...)
	return digest.Digest(strings.TrimSpace(out)), err
}

// compare builds the case with buildah, too, if it is one that buildah knows.
func (c *corpus) compare(t *testing.T, k *testCase, dir string, vars map[string]string, ours *flatImage) {
	if k.buildah == buildahLacks {
		return
	}
	if c.buildah == nil {
		t.Log("not compared with buildah: " + c.without)
		return
	}
	if k.base {
		if out, err := c.bud("-t", "docker.io/library/base-"+k.name+":latest", filepath.Join(dir, "base")); err != nil {
			t.Fatalf("buildah: base: %v\n%s", err, out)
		}
	}
	dest := filepath.Join(dir, "buildah")
	out, err := c.bud(slices.Concat(k.flags(vars), []string{"-t", "dir:" + dest, k.context(dir)})...)
	if err != nil {
		if k.buildah == buildahSame {
			t.Fatalf("buildah: %v\n%s", err, out)
		}
		return
	}
	theirs, err := readImageDir(dest)
	if err != nil {
		t.Fatal(err)
	}
	diff := lineDiff(theirs.comparable(c.began), ours.comparable(c.began))
	switch {
	case diff != "" && k.buildah == buildahSame:
		t.Errorf("shale (+) differs from buildah (-):\n%s", diff)
	case diff == "" && k.buildah == buildahDiffers:
		t.Errorf("shale no longer differs from buildah: %s", k.reason)
	case diff != "":
		t.Logf("shale (+) differs from buildah (-), because %s:\n%s", k.reason, diff)
	}
}
