package ops

import (
	"bytes"
	"fmt"
	"testing"
)

func TestWhatAServerSaysIsNotKeptForGood(t *testing.T) {
	var said ending
	for n := range 10_000 {
		fmt.Fprintf(&said, "remote: line %d\n", n)
	}
	said.Write(bytes.Repeat([]byte("x"), 1<<20))
	fmt.Fprint(&said, "\nremote: shallow\nfatal: no\n")
	if len(said) > 4*maxEnding || cap(said) > 16*maxEnding {
		t.Errorf("%d bytes are kept in %d", len(said), cap(said))
	}
	if got := lastLine(string(said)); got != "no" || !bytes.Contains(said, []byte("x\nremote: shallow")) {
		t.Errorf("the end is %q", said[max(0, len(said)-100):])
	}
}
