package ops

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/shaleproject/shale/internal/sys"
)

// moreIDs says how an ordinary user comes to more than one id.
const moreIDs = "install uidmap (Debian: apt-get install uidmap) and have ids lent to you " +
	"(usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER)"

// unlent adds to err, why a program could not be started as user, what may be
// behind it.
func unlent(err error, user string) error {
	if user == "" || !sys.OneID() {
		return err
	}
	return fmt.Errorf("%w: there is one user id only; %s", err, moreIDs)
}

// refusals is a log that is looked through for what the kernel answers whoever
// wants another id.
type refusals struct {
	io.Writer
	seen atomic.Bool
}

func (r *refusals) Write(p []byte) (int, error) {
	for _, answer := range []string{"nvalid argument", "peration not permitted"} {
		if bytes.Contains(p, []byte(answer)) {
			r.seen.Store(true)
		}
	}
	return r.Writer.Write(p)
}

// explain adds to the log of a program that failed what may be behind it.
func (r *refusals) explain() {
	if r.seen.Load() && sys.OneID() {
		fmt.Fprintf(r.Writer, "shale: there is one user id only, so that no file can be given to another user; %s\n", moreIDs)
	}
}
