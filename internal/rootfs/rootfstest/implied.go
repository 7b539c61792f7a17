package rootfstest

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// testImplied: a tar of a stranger may hold tmp/x and no tmp/.
func testImplied(t *testing.T, b *bench) {
	base := b.layer(t, dir(".").mode(0o751), dir("tmp").mode(0o1777), dir("home").mode(0o711), file("home/old", "x"),
		dir("home/me").mode(0o2750).owner(1000, 50).xattr("user.note", "mine"), file("home/me/gone", "x"), dir("usr"))
	layers := map[string][]digest.Digest{
		"above":  {base, b.layer(t, file("tmp/x", "1"), file("home/me/x", "1"), whiteout("home/me/", "gone"), file("usr/bin/x", "1"))},
		"opaque": {base, b.layer(t, file("tmp/x", "1"), opaque("home/me"), file("home/me/x", "1"), file("usr/bin/x", "1"))},
		"below others": {base, b.layer(t, file("tmp/x", "1"), whiteout("home/me/", "gone")),
			b.layer(t, file("usr/bin/x", "1"), file("home/me/x", "1")), b.layer(t, dir("."), file("new", "1"))},
	}
	const names = "home home/me home/me/x=1 home/old=x tmp tmp/x=1 usr usr/bin usr/bin/x=1"
	for name, stack := range layers {
		t.Run(name, func(t *testing.T) {
			want := b.shown(t, base)
			for _, writable := range []bool{false, true} {
				p := b.place(t, writable)
				b.mounted(t, stack, p, func() {
					got := describe(t, p.path(""))
					if got := strings.TrimSuffix(strings.Replace(got.names(), " new=1", "", 1), " "); got != names {
						t.Errorf("\n got %s\nwant %s", got, names)
					}
					checked := []string{"tmp", "home", "home/me", "usr"}
					if name != "below others" {
						checked = append(checked, ".")
					}
					for _, dir := range checked {
						if got[dir] != want[dir] {
							t.Errorf("writable %t: %s is\n%s, in the layer below\n%s", writable, dir, got[dir], want[dir])
						}
					}
				})
			}
		})
	}
	t.Run("it is copied up as it is shown", func(t *testing.T) {
		p := b.place(t, true)
		b.mounted(t, layers["above"], p, func() {
			if err := os.WriteFile(p.path("home/me/new"), []byte("x"), 0o600); err != nil {
				t.Error(err)
			}
		})
		stack := append(layers["above"][:2:2], b.fromUpper(t, p, layers["above"]...))
		got, want := b.shown(t, stack...), b.shown(t, layers["above"]...)
		for _, dir := range []string{"home", "tmp"} {
			if got[dir] != want[dir] {
				t.Errorf("%s is\n%s, before\n%s", dir, got[dir], want[dir])
			}
		}
		if line := got["home/me"]; !strings.HasPrefix(line, strings.Fields(want["home/me"])[0]) || !strings.HasSuffix(line, ` user.note="mine"`) {
			t.Errorf("home/me is %s, before %s", line, want["home/me"])
		}
	})
	t.Run("what is forgotten is made again", func(t *testing.T) {
		want := b.shown(t, layers["above"]...)
		for _, l := range layers["above"] {
			if err := b.driver.Forget(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(b.store.TreeDir(l)); err == nil {
				t.Error("Forget left something")
			}
		}
		equal(t, b.shown(t, layers["above"]...), want)
	})
}
