package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/layer"
)

// cachePlaces reads --cache-from and --cache-to: the name of an image, or
// type=… with what the type wants.
func cachePlaces(flag string, values []string) ([]build.CachePlace, error) {
	var places []build.CachePlace
	for _, value := range values {
		if value == "" {
			continue // CI scripts expand variables that are empty
		}
		if !strings.Contains(value, "=") {
			places = append(places, build.CachePlace{Kind: build.CacheRegistry, Ref: value})
			continue
		}
		p, err := cachePlace(flag, value)
		if err != nil {
			return nil, err
		}
		places = append(places, p)
	}
	return places, nil
}

func cachePlace(flag, value string) (build.CachePlace, error) {
	fields, err := commaPairs(flag, value)
	if err != nil {
		return build.CachePlace{}, err
	}
	p := build.CachePlace{Kind: fields["type"]}
	need, dir := "", "src"
	if flag == "cache-to" {
		dir = "dest"
	}
	switch p.Kind {
	case build.CacheLocal:
		need = dir
	case build.CacheRegistry:
		need = "ref"
	case build.CacheInline:
		if flag == "cache-from" {
			return p, badValue(flag, value, "to read a cache from an image, use type=registry,ref=IMAGE")
		}
	case "":
		return p, badValue(flag, value, "type is required")
	case build.CacheS3:
		if err := s3Place(&p, fields, os.LookupEnv); err != nil {
			return p, badValue(flag, value, err.Error())
		}
	case "gha", "azblob":
		return p, fmt.Errorf("build: --%s type=%s: %w", flag, p.Kind, errdefs.ErrNotImplemented)
	default:
		return p, badValue(flag, value, "type is local, registry, s3 or inline")
	}
	if need != "" && fields[need] == "" {
		return p, badValue(flag, value, need+" is required for "+p.Kind)
	}
	for key, v := range fields {
		if err := setCachePlace(&p, flag, key, v, dir); err != nil {
			return p, badValue(flag, value, err.Error())
		}
	}
	return p, nil
}

// setCachePlace sets one field of p. dir is what the directory is called.
func setCachePlace(p *build.CachePlace, flag, key, v, dir string) (err error) {
	to := flag == "cache-to"
	switch {
	case key == "type", to && (key == "oci-mediatypes" || key == "image-manifest"): // it always is
	case key == "ref" && p.Kind == build.CacheRegistry:
		p.Ref = v
	case key == dir && p.Kind == build.CacheLocal:
		p.Dir = v
	case key == "tag" && p.Kind == build.CacheLocal, key == "digest" && p.Kind == build.CacheLocal && !to:
		p.Tag = v
	case to && key == "mode":
		if v != "min" && v != "max" {
			return fmt.Errorf("mode is min or max")
		}
		p.Max = v == "max"
	case to && key == "ignore-error":
		p.IgnoreError, err = strconv.ParseBool(v)
	case to && key == "compression":
		switch v {
		case "gzip":
			p.Compression = layer.Gzip
		case "zstd":
			p.Compression = layer.Zstd
		default:
			return fmt.Errorf("compression is gzip or zstd")
		}
	case to && key == "compression-level":
		p.Level, err = strconv.Atoi(v)
	case to && key == "force-compression":
	default:
		return fmt.Errorf("unknown option %q", key)
	}
	return err
}
