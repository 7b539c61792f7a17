package tree

import (
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	moby "github.com/moby/sys/user"
)

func accounts(t testing.TB, passwd, group string) FS {
	c := Edit(nil)
	must(t, c.Mkdir("/etc", MakeOptions{Mode: 0o755}))
	must(t, c.Mkfile("/etc/passwd", []byte(passwd), MakeOptions{Mode: 0o644}))
	must(t, c.Mkfile("/etc/group", []byte(group), MakeOptions{Mode: 0o644}))
	return c.FS()
}

func TestLookupUserTakesNamesAndNumbers(t *testing.T) {
	fsys := accounts(t, "root:x:0:0::/:/bin/sh\n\napp:x:1000:1001::/:\n#no:x:1\nbig:x:99999999999:1::/:\n", "wheel:x:10:\napp:x:1002:\n")
	for spec, want := range map[string]Owner{
		"app": {1000, 1001}, "55": {55, 55}, "55:66": {55, 66}, "app:wheel": {1000, 10}, "app:7": {1000, 7},
		"7:app": {7, 1002}, "app:": {1000, 1001}, "root": {0, 0}, "4294967295": {1<<32 - 1, 1<<32 - 1},
	} {
		if got, err := LookupUser(fsys, spec); got != want || err != nil {
			t.Errorf("%s: %v, %v", spec, got, err)
		}
	}
	for spec, want := range map[string]Owner{"nosuch": {}, "app:nosuch": {1000, 1001}, "nosuch:wheel": {0, 10}, "": {}, ":wheel": {0, 10}} {
		if got, err := LookupUser(fsys, spec); got != want || !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v, %v", spec, got, err)
		}
	}
	if _, err := LookupUser(fsys, "big"); err == nil {
		t.Error("a number over 32 bits is taken")
	}
}

func TestLookupUserReadsRegularFilesInsideTheTreeOnly(t *testing.T) {
	for name, fsys := range map[string]FS{
		"none":      Empty(),
		"link out":  build(t, "etc/passwd -> ../../../../etc/passwd"),
		"loop":      build(t, "etc/passwd -> passwd"),
		"directory": build(t, "etc/passwd/"),
		"file":      build(t, "etc"),
		"huge":      accounts(t, strings.Repeat("x", maxUserFile+1), ""),
	} {
		if owner, err := LookupUser(fsys, "root"); err == nil || owner != (Owner{}) {
			t.Errorf("%s: %v, %v", name, owner, err)
		}
	}
	linked := build(t, "etc/passwd -> /usr/passwd")
	c := Edit(linked)
	must(t, c.Mkdir("usr", MakeOptions{Mode: 0o755}))
	must(t, c.Mkfile("/usr/passwd", []byte("app:x:5:6::/:\n"), MakeOptions{}))
	if owner, err := LookupUser(c.FS(), "app"); err != nil || owner != (Owner{5, 6}) {
		t.Errorf("link inside: %v, %v", owner, err)
	}
}

func FuzzLookupUserNeverFailsOnAStrangersAccounts(f *testing.F) {
	f.Add("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:\n", "app")
	f.Add(":::::\n\x00\n:-1:-1:", "")
	f.Fuzz(func(t *testing.T, passwd, name string) {
		owner, err := LookupUser(accounts(t, passwd, passwd), name)
		if _, notNumber := strconv.Atoi(name); strings.ContainsAny(name, ":") || notNumber == nil || err != nil {
			return
		}
		users, err := moby.ParsePasswdFilter(io.LimitReader(strings.NewReader(passwd), maxUserFile), func(u moby.User) bool { return u.Name == name })
		if err == nil && len(users) > 0 && (int(owner.UID) != users[0].Uid || int(owner.GID) != users[0].Gid) {
			t.Errorf("%v, not %v", owner, users[0])
		}
	})
}
