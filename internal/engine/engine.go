// Package engine opens the parts of shale from one [Config] and hands them
// to the faces.
//
// It is the only place where constructors meet. Parts are opened when they
// are first asked for, so that `shale version` touches no file and `shale
// images` no network. An Engine is safe for concurrent use once its Config is
// settled.
package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/platforms"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/registry/client"
	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/store"
)

// Engine is shale as a library: one store and what works on it.
type Engine struct {
	// Config may be changed until the first part is opened.
	Config Config

	mu      sync.Mutex
	store   *store.Store
	client  *client.Client
	images  *image.Images
	driver  rootfs.Driver
	why     string
	network *network.Networks

	containers *container.Containers
}

// New returns an engine that will work as c says. Nothing is opened yet; the
// caller closes it.
func New(c Config) *Engine {
	return &Engine{Config: c}
}

// Close gives up what was opened. Once a day a store that was worked on is
// tidied before.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.store == nil {
		return nil
	}
	if e.store.Worked() {
		// Nobody has asked for it: that it can't be done is no failure of
		// what was asked for.
		if _, err := e.store.Tidy(context.Background()); err != nil {
			slog.Debug("tidy store", "error", err)
		}
	}
	err := e.store.Close()
	e.store = nil
	return err
}

// Store returns the store at Config.Root, which is made if it is missing. It
// is closed with the engine.
func (e *Engine) Store() (*store.Store, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.openStore()
}

func (e *Engine) openStore() (*store.Store, error) {
	if e.store != nil {
		return e.store, nil
	}
	root, err := e.Config.root()
	if err != nil {
		return nil, err
	}
	s, err := store.Open(root)
	if err != nil {
		return nil, err
	}
	e.store = s
	return s, nil
}

// Registries returns the client through which registries are spoken to.
func (e *Engine) Registries() *client.Client {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client == nil {
		e.client = client.New(client.Config{
			DockerConfigDir: e.Config.DockerConfig,
			Insecure:        e.Config.Insecure,
			Proxy:           http.ProxyFromEnvironment,
			UserAgent:       "shale",
			Waiting:         e.Config.Waiting,
		})
	}
	return e.client
}

// Images returns the images of the store.
func (e *Engine) Images() (*image.Images, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.images != nil {
		return e.images, nil
	}
	s, err := e.openStore()
	if err != nil {
		return nil, err
	}
	platform := platforms.DefaultSpec()
	if p := e.Config.Platform; p != "" {
		if platform, err = image.ParsePlatform(p); err != nil {
			return nil, fmt.Errorf("DOCKER_DEFAULT_PLATFORM: %w", err)
		}
	}
	e.images = &image.Images{
		Store:      s,
		Registries: func(host string) (ociregistry.Interface, error) { return e.Registries().Registry(host) },
		Platform:   platform,
		Now:        time.Now,
		Users: func(ctx context.Context) ([]image.User, error) {
			containers, err := e.Containers()
			if err != nil {
				return nil, err
			}
			return containers.Users(ctx)
		},
	}
	return e.images, nil
}

// Rootfs returns the driver that makes layers a file system, and why it is
// that one. If none works, the error says what to do.
func (e *Engine) Rootfs() (rootfs.Driver, string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.driver != nil {
		return e.driver, e.why, nil
	}
	s, err := e.openStore()
	if err != nil {
		return nil, "", err
	}
	if e.Config.NoNamespace != nil {
		return nil, "", e.Config.NoNamespace
	}
	d, why, err := rootfs.Choose(s, e.Config.Driver)
	if err != nil {
		return nil, "", err
	}
	e.driver, e.why = d, why
	return d, why, nil
}

// Networks returns the networks of the machine.
func (e *Engine) Networks() *network.Networks {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.networks()
}

func (e *Engine) networks() *network.Networks {
	switch {
	case e.network != nil:
	case e.Config.Rootless:
		e.network = network.ForUser()
	default:
		e.network = network.Machine()
	}
	return e.network
}
