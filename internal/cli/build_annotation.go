package cli

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/image"
)

// annotationFlags reads --annotation: [TYPE[PLATFORM],…:]KEY=VALUE.
func annotationFlags(values []string) ([]build.Annotation, error) {
	var list []build.Annotation
	for _, value := range values {
		if value == "" {
			continue // CI scripts expand variables that are empty
		}
		key, v, found := strings.Cut(value, "=")
		if !found {
			return nil, badValue("annotation", value, "expected key=value")
		}
		types, name, found := strings.Cut(key, ":")
		if !found {
			types, name = "", key
		}
		if name == "" {
			return nil, badValue("annotation", value, "expected key=value")
		}
		for _, t := range strings.Split(types, ",") {
			a, err := annotation(strings.TrimSpace(t))
			if err != nil {
				return nil, badValue("annotation", value, err.Error())
			}
			a.Key, a.Value = name, v
			list = append(list, a)
		}
	}
	return list, nil
}

// annotationKey reads the key of an attribute of an output:
// "annotation-manifest[linux/amd64].org.opencontainers.image.title".
func annotationKey(key string) (build.Annotation, error) {
	prefix, name, _ := strings.Cut(key, ".")
	t := strings.TrimPrefix(prefix, "annotation")
	if t != "" && t[0] != '-' && t[0] != '[' || name == "" {
		return build.Annotation{}, fmt.Errorf("%q: want annotation-TYPE[PLATFORM].KEY", key)
	}
	a, err := annotation(strings.TrimPrefix(t, "-"))
	a.Key = name
	return a, err
}

// annotation reads the place of one: TYPE[PLATFORM].
func annotation(s string) (build.Annotation, error) {
	groups := regexp.MustCompile(`^([a-z-]*)(?:\[([A-Za-z0-9_/-]+)\])?$`).FindStringSubmatch(s)
	if groups == nil {
		return build.Annotation{}, fmt.Errorf("invalid annotation type %q", s)
	}
	a := build.Annotation{Where: groups[1]}
	switch a.Where {
	case "":
		a.Where = exptypes.AnnotationManifest
	case exptypes.AnnotationManifest, exptypes.AnnotationManifestDescriptor:
	case exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor:
		if groups[2] != "" {
			return a, fmt.Errorf("annotation type %s has no platform", a.Where)
		}
	default:
		return a, fmt.Errorf("unknown annotation type %q: want manifest, index, manifest-descriptor or index-descriptor", a.Where)
	}
	if groups[2] == "" {
		return a, nil
	}
	p, err := image.ParsePlatform(groups[2])
	a.Platform = &p
	return a, err
}
