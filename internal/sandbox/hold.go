package sandbox

import "github.com/shaleproject/shale/internal/sys"

// hold is an OS thread that has made mounts of its own and started a process.
//
// It stays for as long as the process lives, for two reasons: the kernel sends
// the parent death signal when the *thread* that forked ends (prctl(2),
// PR_SET_PDEATHSIG), and the mounts must outlive a start that waits for its
// network.
type hold struct {
	end chan struct{}
}

// onHold runs start on such a thread. With an error the thread is let go.
func onHold(mounts []sys.Mount, start func() error) (*hold, error) {
	h := &hold{end: make(chan struct{})}
	started := make(chan error, 1)
	body := func() error {
		if len(mounts) > 0 {
			if err := sys.MountAll(mounts); err != nil {
				started <- err
				return err
			}
		}
		err := start()
		started <- err
		if err == nil {
			<-h.end
		}
		return err
	}
	on := sys.OwnThread
	if len(mounts) > 0 {
		on = sys.PrivateMounts
	}
	go func() {
		if err := on(body); err != nil {
			// Either body's own, which started already has, or the
			// namespace could not be made, and nobody sent anything.
			select {
			case started <- err:
			default:
			}
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return h, nil
}

func (h *hold) release() { close(h.end) }
