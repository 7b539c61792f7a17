package engine

import (
	"net/http"
	"time"

	"github.com/containerd/platforms"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/rootfs"
)

// Builder returns what builds images into the store.
func (e *Engine) Builder() (*build.Builder, error) {
	s, err := e.Store()
	if err != nil {
		return nil, err
	}
	images, err := e.Images()
	if err != nil {
		return nil, err
	}
	return &build.Builder{
		Store: s, Images: images,
		Rootfs: func() (rootfs.Driver, error) {
			d, _, err := e.Rootfs()
			return d, err
		},
		Runtime:   e.Config.Runtime,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true},
		Networks:  e.Networks(),
		Platform:  platforms.Normalize(platforms.DefaultSpec()),
		Now:       time.Now,
	}, nil
}
