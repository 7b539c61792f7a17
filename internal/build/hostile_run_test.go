package build_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shaleproject/shale/internal/build"
)

// evil is a base whose links lead to the host: /host to HOST, /root-link to /,
// /up to HOST by many "..".
const evil = "FROM busybox AS evil\nRUN ln -s HOST /host && ln -s / /root-link && ln -s ../../../../../../../../..HOST /up && mkdir -p /d && ln -s HOST /d/host\n"

// seen tries to read and to change what a mount at /m shows.
const seen = " cat /m/file /m/dir/file /mHOST/file > /seen 2>/dev/null; echo changed > /m/file 2>/dev/null; rm -rf /m/dir 2>/dev/null; true\n"

func TestAHostileStepReachesNothingOfTheHost(t *testing.T) {
	for name, a := range map[string]attempt{
		"a bind of the root by a link":           {dockerfile: evil + "FROM busybox\nRUN --mount=from=evil,source=/root-link,target=/m,rw" + seen},
		"a bind of a directory of the host":      {dockerfile: evil + "FROM busybox\nRUN --mount=from=evil,source=/host,target=/m,rw" + seen},
		"a bind by a link that leads up":         {dockerfile: evil + "FROM busybox\nRUN --mount=from=evil,source=/up,target=/m,rw" + seen},
		"a bind by a link below a directory":     {dockerfile: evil + "FROM busybox\nRUN --mount=from=evil,source=/d/host/dir,target=/m,rw" + seen},
		"a bind of a path that leads up":         {dockerfile: evil + "FROM busybox\nRUN --mount=from=evil,source=../../../../../../..HOST,target=/m,rw" + seen},
		"a bind of a link of the context":        {dockerfile: "FROM busybox\nRUN --mount=source=l,target=/m,rw" + seen, files: map[string]string{"l": "-> HOST"}},
		"a bind of the context, up":              {dockerfile: "FROM busybox\nRUN --mount=source=../../../../../../..HOST,target=/m,rw" + seen},
		"links in a bind of the context":         {dockerfile: "FROM busybox\nRUN --mount=target=/c,rw cat /c/l/file > /seen; echo x > /c/l/file; echo x > /c/f; rm /c/Dockerfile; true\n", files: map[string]string{"l": "-> HOST", "f": "own\n"}},
		"writes to a bind of the context":        {dockerfile: "FROM busybox\nRUN --mount=target=/c,rw echo changed > /c/f && rm -r /c/d && mkdir /c/new && chmod 777 /c && ln -s x /c/l\n", files: map[string]string{"f": "own\n", "d/g": "own\n"}},
		"writes to a part of the context":        {dockerfile: "FROM busybox\nRUN --mount=source=d,target=/c,rw echo changed > /c/g; chmod 0 /c/g; touch -t 200001010000 /c; true\n", files: map[string]string{"d/g": "own\n"}},
		"writes to a named context":              {dockerfile: "FROM busybox\nRUN --mount=from=n,target=/c,rw rm -rf /c/*; touch /c/new\n", files: map[string]string{"n/f": "own\n"}, request: func(r *build.Request, dir, _ string) { r.Files.Named = map[string]string{"n": filepath.Join(dir, "n")} }},
		"a bind onto a link":                     {dockerfile: evil + "FROM evil\nRUN --mount=target=/host,rw touch /host/new; rm -f /host/file\n"},
		"a bind onto a path that leads up":       {dockerfile: "FROM busybox\nRUN --mount=target=../../../../../../..HOST,rw rm -f HOST/file; touch HOST/new; true\n"},
		"a cache onto a link":                    {dockerfile: evil + "FROM evil\nRUN --mount=type=cache,target=/host touch /host/new; rm -rf /host/dir; true\n"},
		"a cache below a link":                   {dockerfile: evil + "FROM evil\nRUN --mount=type=cache,target=/d/host/dir rm -rf /d/host/dir/*; touch /d/host/dir/new; true\n"},
		"a cache of a link":                      {dockerfile: evil + "FROM busybox\nRUN --mount=type=cache,from=evil,source=/host,target=/m" + seen},
		"a cache by a link that a step left":     {dockerfile: "FROM busybox\nRUN --mount=type=cache,id=x,target=/c ln -s HOST /c/sub\nRUN --mount=type=cache,id=x,source=sub,target=/m" + seen},
		"a tmpfs onto a link":                    {dockerfile: evil + "FROM evil\nRUN --mount=type=tmpfs,target=/host touch /host/new; true\n"},
		"a tmpfs below a link":                   {dockerfile: evil + "FROM evil\nRUN --mount=type=tmpfs,target=/up/dir touch /up/dir/new; true\n"},
		"a secret onto a link":                   {dockerfile: evil + "FROM evil\nRUN --mount=type=secret,id=s,target=/host/file echo x > /host/file; true\n", request: giveSecret},
		"a secret below a link that leads up":    {dockerfile: evil + "FROM evil\nRUN --mount=type=secret,id=s,target=/up/new true\n", request: giveSecret},
		"a secret whose id is a path":            {dockerfile: "FROM busybox\nRUN --mount=type=secret,id=../../../../../..HOST/file,target=/m,required cat /m > /seen\n", request: giveSecret, fails: true},
		"a working directory behind a link":      {dockerfile: evil + "FROM evil\nWORKDIR /host/dir\nRUN touch new; rm -f file; cat HOST/file > /seen; true\n"},
		"a copy behind a link of the image":      {dockerfile: evil + "FROM evil\nCOPY f /host/file\nCOPY f /up/dir/\nADD f /d/host/new\n", files: map[string]string{"f": "harmless\n"}},
		"a copy from behind a link":              {dockerfile: evil + "FROM busybox\nCOPY --from=evil /host/file /seen\n", fails: true},
		"a user behind a link":                   {dockerfile: evil + "FROM evil\nRUN ln -sf HOST/file /etc/passwd; ln -sf HOST/file /etc/group\nUSER nobody\nRUN cat /etc/passwd > /tmp/seen\n"},
		"a shell behind a link":                  {dockerfile: evil + "FROM evil\nSHELL [\"/host/file\"]\nRUN x\n", fails: true},
		"an executable of the host":              {dockerfile: "FROM scratch\nRUN [\"/proc/self/exe\", \"version\"]\n", fails: true},
		"a program that is a link to the caller": {dockerfile: "FROM busybox\nRUN ln -s /proc/self/exe /x\nRUN [\"/x\"]\n", fails: true},
		"a path to the host through proc":        {dockerfile: "FROM busybox\nRUN for p in /proc/1/root /proc/self/root /proc/1/cwd /proc/self/fd/* /proc/1/fd/*; do cat ${p}HOST/file ${p}/../../../../../../..HOST/file; done > /seen 2>/dev/null; true\n"},
		"a descriptor of the builder":            {dockerfile: "FROM busybox\nRUN for f in /proc/self/fd/*; do case $f in */0|*/1|*/2) ;; *) readlink $f;; esac; done | grep -v '^/proc/' | grep . && exit 1; true\n"},
		"a device of the host":                   {dockerfile: "FROM busybox\nRUN mknod /b b 254 0 && cat /b > /seen; mknod /m c 1 1 && cat /m > /seen; ls /dev/sda /dev/vda /dev/mem 2>/dev/null | grep . && exit 1; true\n"},
		"a mount of one's own":                   {dockerfile: "FROM busybox\nRUN mount -t tmpfs none /tmp && exit 1; mount --bind / /tmp && exit 1; umount /proc && exit 1; true\n"},
		"a module":                               {dockerfile: "FROM busybox\nRUN insmod /bin/busybox && exit 1; true\n"},
		"a kernel setting":                       {dockerfile: "FROM busybox\nRUN echo x > /proc/sys/kernel/hostname && exit 1; echo x > /proc/sysrq-trigger && exit 1; echo /x > /proc/sys/kernel/core_pattern && exit 1; true\n"},
		"a setting of bind propagation":          {dockerfile: "FROM busybox\nRUN --mount=target=/m,bind-propagation=rshared,rw true\n", fails: true},
		"options in a mount":                     {dockerfile: "FROM busybox\nRUN --mount=type=bind,target=/m,suid,dev true\n", fails: true},
		"a mount of a type of its own":           {dockerfile: "FROM busybox\nRUN --mount=type=proc,target=/m true\n", fails: true},
		"the network of the host":                {dockerfile: "FROM busybox\nRUN --network=host true\n", fails: true},
		"privileges":                             {dockerfile: "# syntax=docker/dockerfile:labs\nFROM busybox\nRUN --security=insecure true\n", fails: true},
		"a device that was not given":            {dockerfile: "# syntax=docker/dockerfile:labs\nFROM busybox\nRUN --device=vendor.com/class=x,required true\n", fails: true},
		"another front end":                      {dockerfile: "# syntax=example.com/evil/frontend:latest\nFROM busybox\nRUN true\n", fails: true},
		"a front end that is named alike":        {dockerfile: "# syntax=docker.io.example.com/docker/dockerfile:1\nFROM busybox\n", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a.run = strings.Contains(a.dockerfile, "RUN")
			a.hold(t)
		})
	}
}

func giveSecret(r *build.Request, _, _ string) {
	r.Run.Secrets = map[string][]byte{"s": []byte("s3cr3t")}
}

// Of fifty variables of the caller a step sees none, nor does a program see them
// that looks for them in its parents.
func TestB11TheCallersEnvironmentStaysWithTheCaller(t *testing.T) {
	b := runs(t)
	for i := range 50 {
		t.Setenv(fmt.Sprintf("CANARY_%d", i), fmt.Sprintf("env-c4n4ry-%d", i))
	}
	o := b.build(dockerfile("FROM busybox\nRUN (env; cat /proc/*/environ /proc/1/cmdline; set) > /seen 2>/dev/null; true\n"))
	if got := b.read(o.Image, "seen"); strings.Contains(got, "c4n4ry") || !strings.Contains(got, "PATH=") {
		t.Errorf("it sees %q", got)
	}
	nowhere(t, b.Store.Root(), "env-c4n4ry")
}

// Whatever a Dockerfile says, the answer is an error, and comes soon.
func TestAHostileDockerfileIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"stages in a circle":                   "FROM b AS a\nCOPY --from=b / /\nFROM a AS b\nCOPY --from=a / /\n",
		"a stage that copies from a later one": "FROM scratch AS one\nCOPY --from=later / /\nFROM scratch AS later\nFROM one\n",
		"a stage of a negative number":         "FROM scratch\nCOPY --from=-1 / /\n",
		"a stage of a huge number":             "FROM scratch\nCOPY --from=99999999999999999999 / /\n",
		"a trigger of a trigger":               "FROM scratch\nONBUILD ONBUILD COPY a /\n",
		"a trigger that begins a stage":        "FROM scratch\nONBUILD FROM scratch\n",
		"a here-document without an end":       "FROM scratch\nCOPY <<E /x\n" + strings.Repeat("x\n", 10_000),
		"ten thousand here-documents":          "FROM scratch\nCOPY " + strings.Repeat("<<E ", 10_000) + "/x/\n",
		"a line of a million bytes":            "FROM scratch\nENV A=" + strings.Repeat("a", 1_000_000) + "\n",
		"a zero byte in a name":                "FROM scratch\nCOPY <<E /x\x00y\nE\n",
		"a zero byte in an instruction":        "FROM scratch\nCO\x00PY a /\n",
		"bytes that are no text":               "FROM scratch\n\xff\xfe\xfd\n",
		"a mode that is none":                  "FROM scratch\nCOPY --chmod=99999 <<E /x\nE\n",
		"an owner that is too large":           "FROM scratch\nCOPY --chown=99999999999:1 <<E /x\nE\n",
		"a port that is none":                  "FROM scratch\nEXPOSE 0-4294967295\n",
		"a signal that is none":                "FROM scratch\nSTOPSIGNAL SIGEVIL\n",
		"a check that takes for ever":          "FROM scratch\nHEALTHCHECK --interval=99999999999h CMD x\n",
		"a checksum of another kind":           "FROM scratch\nADD --checksum=md5:d41d8cd98f00b204e9800998ecf8427e http://127.0.0.1:1/x /\n",
		"a file name that leads up":            "FROM scratch\nADD http://127.0.0.1:1/..%2f..%2fetc%2fpasswd /\n",
		"a platform that is none":              "FROM --platform=../../x scratch\nCOPY <<E /x\nE\n",
		"an empty name of a stage":             "FROM scratch AS ../x\n",
		"a variable that has to be set":        "FROM scratch\nENV A=${B:?gone}\n",
		"a variable without an end":            "FROM scratch\nENV A=${B\n",
		"a variable that doubles itself":       "FROM scratch\nENV A=aaaaaaaa\n" + strings.Repeat("ENV A=$A$A\n", 60),
		"a hundred thousand stages":            strings.Repeat("FROM scratch\n", 100_000),
		"a quarter of a million instructions":  "FROM scratch\n" + strings.Repeat("LABEL a=b\n", 250_000),
		"nothing but comments":                 strings.Repeat("# x\n", 100_000),
		"nothing":                              "",
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); attempt{dockerfile: text, fails: true}.hold(t) })
	}
}
