package tree

import (
	"io/fs"
	"testing"

	bsd "github.com/tonistiigi/dchapes-mode"
)

var modeWords = []string{
	"0755", "4755", "7777", "0", "u+x", "a+r", "+x", "-w", "=", "u=rwX,go=rX", "go-w", "+X", "-X", "a=rx", "u=g", "g=u",
	"u=go", "u=gx", "o=u-w", "u+s", "g+s", "+s", "o+s", "+t", "a+t", "o+t", "+rt", "u+rt", "=rw,+X", "u+r-w", "ug=rw,o=",
	"a-x+X", "u=", "u=,g=u", "a+tu", "gou=x", "u+rwxXst", "go=u-w", "+", "u+", "=X", "u=X", "g=xu", "a=ug", "o=ut",
}

// wrongModes BuildKit refuses, too.
var wrongModes = []string{"", "u", "8", "10000", "u+q", ",", "u+x,", "ug", "rwx", "u+x,,g+x", " u+x", "u +x", "0x7", "-1", "u!x", "\x00"}

func TestModeWordsMeanWhatBuildKitTakesThemFor(t *testing.T) {
	for _, word := range modeWords {
		compareMode(t, word)
	}
	for _, word := range wrongModes {
		if _, err := parseMode(word); err == nil {
			t.Errorf("%q is taken", word)
		}
		compareMode(t, word)
	}
}

func FuzzModeWordsMeanWhatBuildKitTakesThemFor(f *testing.F) {
	for _, word := range append(modeWords, wrongModes...) {
		f.Add(word)
	}
	f.Fuzz(compareMode)
}

func compareMode(t *testing.T, word string) {
	if len(word) > 200 {
		return
	}
	ours, err := parseMode(word)
	theirs, theirErr := bsd.ParseWithUmask(word, 0)
	if (err == nil) != (theirErr == nil) {
		t.Fatalf("%q: %v, BuildKit: %v", word, err, theirErr)
	}
	if err != nil {
		return
	}
	for bits := range uint16(0o10000) {
		for _, kind := range []fs.FileMode{0, fs.ModeDir} {
			mode := withUnixMode(kind, bits)
			if got, want := ours.apply(mode), theirs.Apply(mode); got != want {
				t.Fatalf("%q on %v: %v, BuildKit: %v", word, mode, got, want)
			}
		}
	}
}
