package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/volume"
)

// MonitorName is what shale calls itself (os.Args[0]) when it looks after a
// container in the background. Its arguments are those of [Engine.RunMonitor].
const MonitorName = "shale-monitor"

// Containers returns the containers of the store.
func (e *Engine) Containers() (*container.Containers, error) {
	images, err := e.Images()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.containers != nil {
		return e.containers, nil
	}
	e.containers = &container.Containers{
		Store:    e.store,
		Images:   images,
		Networks: e.networks(),
		Volumes:  volume.New(filepath.Join(e.store.Root(), "volumes")),
		Rootfs: func() (rootfs.Driver, error) {
			d, _, err := e.Rootfs()
			return d, err
		},
		Runtime: e.Config.Runtime,
		Monitor: e.monitor,
		Now:     time.Now,
	}
	return e.containers, nil
}

// monitor is the command line of a monitor.
func (e *Engine) monitor(id string) (*exec.Cmd, error) {
	root, err := e.Config.root()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", root, e.Config.Driver, e.Config.Runtime, id)
	cmd.Args[0] = MonitorName
	return cmd, nil
}

// RunMonitor looks after a container until it has ended. Args are what the
// process was given: root, driver, runtime, id. Descriptor 3 is the pipe to
// the process that wants the container started.
func RunMonitor(ctx context.Context, user User, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("run monitor: %d arguments instead of 4", len(args))
	}
	e := New(Config{Root: args[0], Driver: args[1], Runtime: args[2], Rootless: user.UID != 0 || user.Namespaced})
	defer e.Close()
	containers, err := e.Containers()
	if err != nil {
		return err
	}
	return containers.RunMonitor(ctx, args[3], os.NewFile(3, "status"))
}
