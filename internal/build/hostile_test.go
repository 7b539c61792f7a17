package build_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shaleproject/shale/internal/build"
)

// canary is a directory of the host that no build may see or change.
func canary(t *testing.T) (dir string, unharmed func()) {
	t.Helper()
	dir = directory(t, map[string]string{"file": "canary\n", "dir/file": "canary\n", "link": "-> file"})
	before := describe(t, dir)
	return dir, func() {
		t.Helper()
		equal(t, "canary", describe(t, dir), before)
	}
}

// A step that swaps the selected part of a cache mount for a link, while
// another one mounts it, shows nobody the host (CVE-2024-23651).
func TestB01ASwappedCacheDirectoryDoesNotLeadOut(t *testing.T) {
	b := runs(t)
	host, unharmed := canary(t)
	defer unharmed()
	b.build(dockerfile("FROM busybox\nRUN --mount=type=cache,id=c,target=/c mkdir -p /c/sub && ln -s " + host + " /c/out\n"))
	const swap = "i=0; while test $i -lt 300; do mv /c/sub /c/own; mv /c/out /c/sub; mv /c/sub /c/out; mv /c/own /c/sub; i=$((i+1)); done; touch /1"
	text := "FROM busybox AS one\nRUN --mount=type=cache,id=c,target=/c " + swap + "\nFROM busybox AS two\n"
	for range 5 {
		text += "RUN --mount=type=cache,id=c,target=/m,source=sub test ! -e /m/file; touch /2\n"
	}
	text += "FROM scratch\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n"
	for range 10 {
		req := dockerfile(text)
		req.Cache.Ignore = true
		// At the moment of a mount the directory may be missing, or a link to
		// what the cache does not have.
		if o := b.try(req); o.err != nil && !strings.Contains(o.err.Error(), "open sub in") && !strings.Contains(o.err.Error(), "open /sub in") {
			t.Errorf("error is %v", o.err)
		}
	}
}

// A step that replaces the parent of a mount point by a link has nothing
// removed behind the link (CVE-2024-23652).
func TestB02AMountPointThatBecomesALinkRemovesNothing(t *testing.T) {
	b := runs(t)
	host, unharmed := canary(t)
	defer unharmed()
	o := b.build(dockerfile("FROM busybox\nRUN --mount=type=tmpfs,target=/d/dir mv /d /e 2>/dev/null; umount /d/dir 2>/dev/null; rm -rf /d 2>/dev/null; " +
		"ln -s " + host + " /d 2>/dev/null; ln -sf " + host + "/file /etc/hosts2; true\n"))
	b.names(o.Image)
}

// Privileges are the user's to give, not the Dockerfile's or another front
// end's (CVE-2024-23653).
func TestB03AStepHasNoMorePrivilegesThanAllowed(t *testing.T) {
	b := runs(t)
	o := b.build(dockerfile("FROM busybox\nRUN grep -E '^(CapEff|CapInh|CapAmb|Seccomp):' /proc/self/status > /caps\n"))
	equal(t, "capabilities", strings.Fields(b.read(o.Image, "caps")), strings.Fields("CapInh: 0000000000000000 CapEff: 00000000a80425fb CapAmb: 0000000000000000 Seccomp: 2"))
}

// Names are names, never paths.
func TestB05NamesDoNotLeadOutOfTheStore(t *testing.T) {
	b := runs(t)
	host, unharmed := canary(t)
	defer unharmed()
	before := outside(t, b)
	o := b.build(dockerfile("FROM busybox\nRUN --mount=type=cache,id=../../../../../../.." + host + ",target=/c ls -A /c > /seen; touch /c/x\n"))
	equal(t, "cache", b.read(o.Image, "seen"), "")
	for _, id := range []string{"/etc", "..", ".", "a/b/../../../c"} {
		b.build(dockerfile("FROM busybox\nRUN --mount=type=cache,id=" + id + ",target=/c touch /c/x\n"))
	}
	for _, name := range []string{"..", "../x", "/etc", "a b", ""} {
		req := dockerfile("FROM scratch\n")
		req.Files.Named = map[string]string{name: host}
		if o := b.try(req); o.err == nil {
			t.Errorf("a context called %q is taken", name)
		}
	}
	equal(t, "beside the store", outside(t, b), before)
}

// outside lists what lies beside the store.
func outside(t *testing.T, b *bench) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(b.Store.Root()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Files of an output stay in its directory, whatever links it and the result
// hold.
func TestB05AnOutputStaysInItsDirectory(t *testing.T) {
	b := newBench(t)
	host, unharmed := canary(t)
	defer unharmed()
	out := directory(t, map[string]string{"a": "-> " + host, "kept": "kept\n"})
	ctx := directory(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY . /\n",
		"a/file":     "own\n", "b": "-> " + host, "c/d": "-> ../../../../../../../../etc",
	})
	req := dir(ctx)
	req.Outputs = []build.Output{{Kind: build.OutputLocal, Dir: out}}
	b.build(req)
	data, err := os.ReadFile(filepath.Join(out, "a", "file"))
	if err != nil || string(data) != "own\n" {
		t.Errorf("a/file is %q, %v", data, err)
	}
	if info, err := os.Lstat(filepath.Join(out, "a")); err != nil || !info.IsDir() {
		t.Errorf("the link of the directory is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(out, "kept")); err != nil {
		t.Error("what was there before is gone")
	}
}

// Links of a context lead within it: of what is copied, of the Dockerfile, of
// the ignore file.
func TestB09LinksOfTheContextDoNotLeadOut(t *testing.T) {
	b := newBench(t)
	host, unharmed := canary(t)
	defer unharmed()
	if o := b.try(dir(directory(t, map[string]string{"Dockerfile": "-> " + host + "/file"}))); o.err == nil || strings.Contains(o.err.Error(), "canary") {
		t.Errorf("a Dockerfile outside: error is %v", o.err)
	}
	o := b.build(dir(directory(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY . /\n", ".dockerignore": "-> " + host + "/file", "canary": "mine\n",
	})))
	equal(t, "content", b.read(o.Image, "canary"), "mine\n")
	for _, copied := range []string{"up/file", "out/file", "out", "."} {
		o := b.try(dir(directory(t, map[string]string{
			"Dockerfile": "FROM scratch\nCOPY " + copied + " /x/\n",
			"up":         "-> ../../../../../../../../.." + host, "out": "-> " + host,
		})))
		if o.err != nil {
			continue
		}
		for _, name := range b.names(o.Image) {
			if strings.HasSuffix(name, "/file") {
				t.Errorf("COPY %s: %s is there", copied, name)
			}
		}
	}
}

// What a step sees of the caller's environment and secrets lands nowhere.
func TestB13SecretsLandNowhere(t *testing.T) {
	b := runs(t)
	const value = "c4n4ry-s3cr3t-v4lu3"
	req := dockerfile(`FROM busybox
RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S test -n "$S" && cat /run/secrets/s > /dev/null
RUN --mount=type=secret,id=s false
`)
	req.Run.Secrets = map[string][]byte{"s": []byte(value)}
	o := b.try(req)
	if o.err == nil || strings.Contains(o.err.Error(), value) || strings.Contains(o.log, value) {
		t.Errorf("error is %v, log %q", o.err, o.log)
	}
	nowhere(t, b.Store.Root(), value)
	nowhere(t, b.Store.Root(), base64.StdEncoding.EncodeToString([]byte(value)))
}

// Whatever a Dockerfile says, the answer comes soon and without a panic, and
// the context stays as it is.
func FuzzDockerfile(f *testing.F) {
	for _, text := range []string{
		"FROM scratch\nCOPY a /b\n", "FROM scratch AS x\nFROM x\nADD --chown=1:2 a* /b/\nWORKDIR ../..\n",
		"ARG A=${B:-c}\nFROM scratch\nCOPY <<E /x\nE\nRUN --mount=type=cache,target=/x true\n",
		"# syntax=docker/dockerfile:1\n# escape=`\nFROM scratch\nONBUILD COPY --from=0 / /\nLABEL a=\"b c\" d\n",
		"FROM scratch\nCOPY --parents --exclude=*b --link ./**/a /\nENV PATH=$PATH:x\nEXPOSE 80-90/udp\nVOLUME [\"/v\"]\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "://") || strings.Contains(text, "git@") {
			t.Skip("it may ask the network")
		}
		b := newBench(t)
		b.Rootfs, b.Networks = nil, nil
		ctx := directory(t, map[string]string{"a": "a\n", "d/a": "b\n", "l": "-> d"})
		before := describe(t, ctx)
		b.try(build.Request{Files: build.Files{Context: ctx, Dockerfile: "-", Stdin: strings.NewReader(text)}})
		equal(t, "context", describe(t, ctx), before)
	})
}
