package build_test

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/rootfs"
)

// runs is a bench for tests that run something.
func runs(t *testing.T) *bench {
	needsRoot(t)
	b := newBench(t)
	b.busybox()
	return b
}

func TestRunChangesTheImage(t *testing.T) {
	b := runs(t)
	o := b.build(dockerfile(`FROM busybox
ENV NAME=value
WORKDIR /w
RUN echo $NAME > a && mkdir -p d/e && ln -s a link && rm /etc/group && id -u > uid && chmod 777 /tmp
USER user
RUN id > /tmp/id; pwd > /tmp/pwd
`))
	equal(t, "file", b.read(o.Image, "w/a"), "value\n")
	equal(t, "user", b.read(o.Image, "tmp/id"), "uid=1000(user) gid=1001 groups=1001\n")
	equal(t, "directory", b.read(o.Image, "tmp/pwd"), "/w\n")
	if _, err := b.tree(o.Image).Lstat("etc/group"); err == nil {
		t.Error("a removed file is there")
	}
	again := b.build(dockerfile("FROM busybox\nENV NAME=value\nWORKDIR /w\nRUN echo $NAME > a && mkdir -p d/e && ln -s a link && rm /etc/group && id -u > uid && chmod 777 /tmp\n"))
	equal(t, "ran", steps(again.ran), []string{})
}

// A RUN makes the same layer whichever way layers become a file system.
func TestEitherDriverMakesTheSameImage(t *testing.T) {
	var ids []string
	for _, name := range []string{"erofs", "overlay"} {
		b := runs(t)
		b.Rootfs = func() (rootfs.Driver, error) {
			d, _, err := rootfs.Choose(b.Store, name)
			return d, err
		}
		if _, err := b.Rootfs(); err != nil {
			t.Skipf("driver %s: %v", name, err)
		}
		req := dockerfile(`FROM busybox
RUN rm /etc/group && mkdir -p /var/x && mv /bin/busybox /bin/bb && ln /bin/bb /bin/busybox && rm -r /tmp && mkdir /tmp && echo 1 > /tmp/new
RUN --mount=type=bind,from=busybox,target=/m/n echo 2 >> /tmp/new && chmod 700 /var
`)
		req.Language.Args = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
		o := b.build(req)
		equal(t, "content", b.read(o.Image, "tmp/new"), "1\n2\n")
		ids = append(ids, o.ID().String())
	}
	equal(t, "images", ids[1], ids[0])
}

// The mount points of a RUN, and the files in /etc that it sees, are no part
// of its layer.
func TestMountsLeaveNoTrace(t *testing.T) {
	b := runs(t)
	req := dockerfile(`FROM busybox
RUN --mount=type=tmpfs,target=/new/deep/tmp --mount=type=cache,target=/etc/cache --mount=type=bind,from=busybox,target=/usr/other \
    --mount=type=secret,id=s,target=/run/secret/s test -e /etc/resolv.conf && test -e /etc/hosts && touch /etc/cache/x /new/deep/tmp/y && ls /usr/other/bin/busybox
RUN touch /etc/mine
`)
	req.Run.Secrets = map[string][]byte{"s": []byte("s")}
	o := b.build(req)
	l, err := b.Store.Layer(o.Image.DiffIDs[len(o.Image.DiffIDs)-2])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	entries, err := l.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Errorf("the layer holds %v", entries)
	}
	equal(t, "etc", below(b.names(o.Image), "etc/"), []string{"etc/group", "etc/mine", "etc/passwd"})
}

func below(names []string, prefix string) []string {
	out := []string{}
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			out = append(out, n)
		}
	}
	return out
}

func TestARunThatFailsSaysHow(t *testing.T) {
	b := runs(t)
	for _, test := range []struct{ command, want string }{
		{"echo out; echo err >&2; exit 3", `process "/bin/sh -c echo out; echo err >&2; exit 3" did not complete successfully: exit code: 3`},
		{`["/nosuch"]`, `process "/nosuch" did not complete successfully: exit code: 127`},
		{"sh -c 'kill -9 $$'; exit $?", "exit code: 137"},
	} {
		o := b.try(dockerfile("FROM busybox\n\nRUN " + test.command + "\n"))
		if o.err == nil || !strings.Contains(o.err.Error(), test.want) {
			t.Errorf("%s: error is %v, want %q", test.command, o.err, test.want)
		}
		var excerpt bytes.Buffer
		if err := build.Excerpt(&excerpt, o.err); err != nil {
			t.Fatal(err)
		}
		if want := "Dockerfile:3\n--------------------\n"; !strings.HasPrefix(excerpt.String(), want) {
			t.Errorf("excerpt is\n%s", excerpt.String())
		}
		if strings.HasPrefix(test.command, "echo") && o.log != "out\nerr\n" && o.log != "err\nout\n" {
			t.Errorf("log is %q", o.log)
		}
	}
}

// What the caller's environment holds is not the step's to see.
func TestTheEnvironmentIsTheSteps(t *testing.T) {
	t.Setenv("CANARY", "canary")
	b := runs(t)
	o := b.build(dockerfile("FROM busybox\nARG A=1\nRUN env > /env; cat /proc/1/environ >> /env\n"))
	env := b.read(o.Image, "env")
	if strings.Contains(env, "CANARY") || !strings.Contains(env, "A=1") || !strings.Contains(env, "PATH=/bin") {
		t.Errorf("environment is\n%s", env)
	}
}

func TestASecretIsSeenByItsStepOnly(t *testing.T) {
	b := runs(t)
	const canary = "c4n4ry-v4lu3"
	req := dockerfile(`FROM busybox
RUN --mount=type=secret,id=one,mode=0440,uid=1000 stat -c '%a %u' /run/secrets/one > /stat; wc -c < /run/secrets/one > /size
RUN --mount=type=secret,id=two,env=TOKEN test "$TOKEN" = "$(echo c4n4ry)-v4lu3"
RUN test ! -e /run/secrets/one; test -z "$TOKEN"
`)
	req.Run.Secrets = map[string][]byte{"one": []byte(canary), "two": []byte(canary)}
	o := b.build(req)
	equal(t, "stat", b.read(o.Image, "stat"), "440 1000\n")
	equal(t, "size", b.read(o.Image, "size"), "12\n")
	nowhere(t, b.Store.Root(), canary)

	o = b.try(dockerfile("FROM busybox\nRUN --mount=type=secret,id=none,required true\n"))
	if o.err == nil || !strings.Contains(o.err.Error(), "secret none: not given") {
		t.Errorf("a missing secret: error is %v", o.err)
	}
	b.build(dockerfile("FROM busybox\nRUN --mount=type=secret,id=none true\n"))
}

// nowhere fails if a file below root holds what.
func nowhere(t *testing.T, root, what string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if err == nil && bytes.Contains(data, []byte(what)) {
			t.Errorf("%s holds it", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestACacheMountOutlivesTheBuild(t *testing.T) {
	b := runs(t)
	text := func(n string) string {
		return "FROM busybox\nARG N=" + n + "\nRUN --mount=type=cache,id=c,target=/c,sharing=locked echo $N >> /c/list; cp /c/list /list\n"
	}
	b.build(dockerfile(text("1")))
	o := b.build(dockerfile(text("2")))
	equal(t, "list", b.read(o.Image, "list"), "1\n2\n")
	equal(t, "tree", below(b.names(o.Image), "c"), []string{})
}

// The next build removes the control groups of one that was killed, and none
// of one that lives.
func TestControlGroupsOfDeadBuildsGo(t *testing.T) {
	b := runs(t)
	parent := "/sys/fs/cgroup"
	if _, err := os.Stat(parent + "/memory"); err == nil {
		parent += "/memory"
	}
	dead := filepath.Join(parent, "shale-build-4194304-1-dead") // over the greatest pid_max
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat))
	alive := filepath.Join(parent, "shale-build-"+fields[0]+"-"+fields[21]+"-alive")
	for _, group := range []string{dead, alive} {
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Skipf("make control group: %v", err)
		}
		defer os.Remove(group)
	}
	b.build(dockerfile("FROM busybox\nRUN true\n"))
	if _, err := os.Stat(dead); err == nil {
		t.Error("the group of a dead build is there")
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("the group of a living build: %v", err)
	}
}

func TestPruneTakesTheBuildCache(t *testing.T) {
	b := runs(t)
	text := "FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/list; cp /c/list /list\n"
	first := b.build(dockerfile(text, "app"))
	pruned, err := b.Prune(t.Context(), build.PruneOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	if pruned.Mounts != 1 || pruned.Records == 0 || pruned.Reclaimed == 0 {
		t.Errorf("pruned %+v", pruned)
	}
	equal(t, "image", b.read(first.Image, "list"), "x\n")
	second := b.build(dockerfile(text, "app"))
	equal(t, "cached", steps(second.cached), []string{})
	equal(t, "list", b.read(second.Image, "list"), "x\n")
}

func TestACacheMountBeginsAsItsSource(t *testing.T) {
	b := runs(t)
	o := b.build(dockerfile(`FROM scratch AS seed
COPY <<END /dir/file
seed
END
FROM busybox
RUN --mount=type=cache,target=/c,from=seed,source=/dir cp /c/file /file
RUN --mount=type=cache,target=/d,uid=1000,mode=0700 stat -c '%a %u' /d > /stat
`))
	equal(t, "file", b.read(o.Image, "file"), "seed\n")
	equal(t, "stat", b.read(o.Image, "stat"), "700 1000\n")
}

func TestABindMountIsThrownAway(t *testing.T) {
	b := runs(t)
	ctx := directory(t, map[string]string{
		"Dockerfile": `FROM busybox AS stage
RUN mkdir /data && echo stage > /data/file
FROM busybox
RUN --mount=type=bind,target=/ctx,rw echo changed > /ctx/file && rm /ctx/Dockerfile && cat /ctx/file > /seen
RUN --mount=type=bind,from=stage,source=/data,target=/data cp /data/file /copied; ! touch /data/x
RUN --mount=type=bind,source=file,target=/one cat /one >> /copied
`,
		"file": "context\n",
	})
	before := describe(t, ctx)
	o := b.build(dir(ctx))
	equal(t, "context", describe(t, ctx), before)
	equal(t, "seen", b.read(o.Image, "seen"), "changed\n")
	equal(t, "copied", b.read(o.Image, "copied"), "stage\ncontext\n")
	equal(t, "tree", below(b.names(o.Image), "ctx"), []string{})
}

// A link in what is mounted means what it means there, not on the host.
func TestABindSourceDoesNotLeadOut(t *testing.T) {
	b := runs(t)
	host := filepath.Join(t.TempDir(), "canary")
	if err := os.MkdirAll(host, 0o755); err != nil {
		t.Fatal(err)
	}
	o := b.try(dockerfile(`FROM busybox AS evil
RUN ln -s / /root-link && ln -s ` + host + ` /host-link
FROM busybox
RUN --mount=type=bind,from=evil,source=/root-link,target=/m test -e /m/bin/busybox && test ! -e /m` + host + `
RUN --mount=type=bind,from=evil,source=/host-link,target=/m true
`))
	if o.err == nil || !strings.Contains(o.err.Error(), "not found") {
		t.Errorf("error is %v", o.err)
	}
	equal(t, "failed", o.failed, []string{"[stage-1 3/3] RUN --mount=type=bind,from=evil,source=/host-link,target=/m true"})
}

func TestTheNetworkIsAsAsked(t *testing.T) {
	b := runs(t)
	text := "FROM busybox\nRUN ls /sys/class/net > /net; cat /etc/hosts > /hosts.seen\n"
	req := dockerfile(text)
	req.Run.Network = "none"
	req.Run.Hosts = []string{"example:10.1.2.3"}
	o := b.build(req)
	equal(t, "none", b.read(o.Image, "net"), "lo\n")
	if hosts := b.read(o.Image, "hosts.seen"); !strings.Contains(hosts, "10.1.2.3\texample\n") {
		t.Errorf("hosts are\n%s", hosts)
	}
	o = b.build(dockerfile(text))
	equal(t, "default", b.read(o.Image, "net"), "eth0\nlo\n")

	o = b.try(dockerfile("FROM busybox\nRUN --network=host true\n"))
	if o.err == nil || !strings.Contains(o.err.Error(), "network.host is not allowed") {
		t.Errorf("host without being allowed: error is %v", o.err)
	}
	// The namespace is compared and not its links: other programs add and remove those at any time.
	req = dockerfile("FROM busybox\nRUN readlink /proc/self/ns/net > /net\n")
	req.Run.Network = "host"
	o = b.build(req)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "host", b.read(o.Image, "net"), own+"\n")
}

func TestInsecureNeedsPermission(t *testing.T) {
	b := runs(t)
	text := "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status > /caps\n"
	o := b.try(dockerfile(text))
	if o.err == nil || !strings.Contains(o.err.Error(), "security.insecure is not allowed") {
		t.Errorf("error is %v", o.err)
	}
	req := dockerfile(text)
	req.Run.Insecure = true
	b.build(req)
}

// With SOURCE_DATE_EPOCH a RUN makes the same layer everywhere.
func TestARunIsTheSameInTwoStores(t *testing.T) {
	one, two := runs(t), runs(t)
	two.later()
	made := func(b *bench) outcome {
		req := dockerfile("FROM busybox\nWORKDIR /w\nRUN mkdir d && echo x > d/f && ln -s f d/l && touch /etc/passwd && rm /etc/group\n", "app")
		req.Language.Args = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
		return b.build(req)
	}
	equal(t, "manifest", made(two).Image.Manifest.Digest, made(one).Image.Manifest.Digest)
}

// Two stages that do not need each other run at the same time: each waits
// for the other.
func TestIndependentStagesRunAtTheSameTime(t *testing.T) {
	b := runs(t)
	meet := func(own, other string) string {
		return "RUN --mount=type=cache,id=meet,target=/m touch /m/" + own + "; i=0; while ! test -e /m/" + other +
			"; do i=$((i+1)); test $i -lt 1000 || exit 1; usleep 10000; done; touch /" + own + "\n"
	}
	o := b.build(dockerfile("FROM busybox AS one\n" + meet("one", "two") + "FROM busybox AS two\n" + meet("two", "one") +
		"FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n"))
	equal(t, "tree", b.names(o.Image), []string{"one", "two"})
}

func TestAFailureEndsTheOtherStages(t *testing.T) {
	b := runs(t)
	began := time.Now()
	o := b.try(dockerfile(`FROM busybox AS one
RUN sleep 600
FROM busybox AS two
RUN exit 7
FROM scratch
COPY --from=one /etc/passwd /
COPY --from=two /etc/group /
`))
	if o.err == nil || !strings.Contains(o.err.Error(), "exit code: 7") {
		t.Errorf("error is %v", o.err)
	}
	equal(t, "failed", o.failed, []string{"[two 2/2] RUN exit 7"})
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestRunKnowsHeredocsUlimitsAndShm(t *testing.T) {
	b := runs(t)
	req := dockerfile(`FROM busybox
RUN <<END
ulimit -n > /nofile
df -k /dev/shm | tail -1 | awk '{print $2}' > /shm
END
RUN <<END
#!/bin/sh
echo script > /script
END
`)
	req.Run.Ulimits = []string{"nofile=123:456"}
	req.Run.ShmSize = 1 << 20
	o := b.build(req)
	equal(t, "nofile", b.read(o.Image, "nofile"), "123\n")
	equal(t, "shm", b.read(o.Image, "shm"), "1024\n")
	equal(t, "script", b.read(o.Image, "script"), "script\n")
}

func TestAnAgentIsReached(t *testing.T) {
	b := runs(t)
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("agent\n"))
			c.Close()
		}
	}()
	req := dockerfile("FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && stat -c %a $SSH_AUTH_SOCK > /mode; nc local:$SSH_AUTH_SOCK > /answer || true\n")
	req.Run.Agents = map[string]string{"default": socket}
	o := b.build(req)
	equal(t, "mode", b.read(o.Image, "mode"), "600\n")
	if answer := b.read(o.Image, "answer"); answer != "agent\n" {
		t.Logf("this busybox has no client for unix sockets: %q %s", answer, o.log)
	}
}
