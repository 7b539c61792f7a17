package cli

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/layer"
)

// buildOutput is an output as the flags say it, before its file is open.
type buildOutput struct {
	build.Output
	typ, dest string // dest of "-" is standard output
	tar       bool
}

// imageKeys are attributes of all outputs that are images.
var imageKeys = []string{
	"annotation.KEY", "annotation-TYPE[PLATFORM].KEY", "buildinfo", "compression", "compression-level",
	"force-compression", "name", "oci-mediatypes", "rewrite-timestamp",
}

// outputKeys are the attributes of a type of output; nil if there is no such
// type.
func outputKeys(typ string) []string {
	switch typ {
	case "image", "registry":
		return append(slices.Clone(imageKeys), "name-canonical", "push", "push-by-digest", "store", "unpack")
	case "oci":
		return append(slices.Clone(imageKeys), "dest", "tar")
	case "docker":
		return append(slices.Clone(imageKeys), "dest", "push", "tar")
	case "local", "tar":
		return []string{"dest", "platform-split"}
	}
	return nil
}

// parseOutputs reads -o, --push and --load, in the way of docker buildx: a
// push is one of the image outputs, or one more.
func (f *buildFlags) parseOutputs() ([]buildOutput, error) {
	var list []buildOutput
	for _, value := range f.outputs {
		o, err := parseOutput(value)
		if err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	isImage := func(o buildOutput) bool {
		return o.Kind == build.OutputImage || o.Kind == build.OutputDocker && o.dest == ""
	}
	if len(list) == 0 || (f.push || f.load) && !slices.ContainsFunc(list, isImage) {
		list = append(list, buildOutput{typ: "image", Output: build.Output{Kind: build.OutputImage}})
	}
	annotations, err := annotationFlags(f.annotations)
	if err != nil {
		return nil, err
	}
	dests := map[string]bool{}
	for n := range list {
		o := &list[n]
		o.Push = o.Push || f.push && isImage(*o)
		if o.Kind != build.OutputLocal && o.Kind != build.OutputTar {
			o.Annotations = append(slices.Clone(annotations), o.Annotations...)
			if len(f.tags) > 0 {
				o.Names = f.tags
			}
		}
		for _, name := range o.Names {
			if named, err := reference.ParseNormalizedNamed(name); o.ByDigest && err == nil && !reference.IsNameOnly(named) {
				return nil, &usageError{fmt.Sprintf("build: can't push tagged ref %s by digest", name)}
			}
		}
		if o.Push && len(o.Names) == 0 {
			return nil, &usageError{"build: tag is needed when pushing to registry"}
		}
		if dests[o.dest] {
			return nil, &usageError{fmt.Sprintf("build: two outputs go to %s", o.dest)}
		}
		dests[o.dest] = o.dest != ""
	}
	return list, nil
}

// parseOutput reads one -o: a directory, "-", or type=… with attributes.
func parseOutput(value string) (buildOutput, error) {
	o := buildOutput{tar: true}
	if !strings.Contains(value, "=") {
		o.typ, o.dest = "local", value
		if value == "-" {
			o.typ = "tar"
		}
		return o, o.settle(value)
	}
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return o, badValue("output", value, err.Error())
	}
	attrs := make([][2]string, 0, len(fields))
	for _, field := range fields {
		key, v, found := strings.Cut(field, "=")
		if key = strings.TrimSpace(key); !strings.HasPrefix(key, "annotation") {
			key = strings.ToLower(key)
		}
		switch {
		case !found:
			return o, badValue("output", value, fmt.Sprintf("%q: want KEY=VALUE", field))
		case key == "type":
			o.typ = v
		default:
			attrs = append(attrs, [2]string{key, v})
		}
	}
	known := outputKeys(o.typ)
	if o.typ == "" {
		return o, badValue("output", value, "type is required")
	}
	if known == nil {
		return o, badValue("output", value, "type is image, registry, oci, docker, local or tar")
	}
	for _, a := range attrs {
		key, v := a[0], a[1]
		if !slices.Contains(known, key) && !(strings.HasPrefix(key, "annotation") && slices.Contains(known, imageKeys[0])) {
			return o, badValue("output", value, fmt.Sprintf("type=%s has no attribute %q; it has %s", o.typ, key, strings.Join(known, ", ")))
		}
		if err := o.set(key, v); err != nil {
			if errdefs.IsNotImplemented(err) {
				return o, err
			}
			return o, badValue("output", value, err.Error())
		}
	}
	return o, o.settle(value)
}

// set takes in one attribute.
func (o *buildOutput) set(key, v string) error {
	if strings.HasPrefix(key, "annotation") {
		a, err := annotationKey(key)
		a.Value = v
		o.Annotations = append(o.Annotations, a)
		return err
	}
	switch key {
	case "dest":
		o.dest = v
	case "name":
		o.Names = strings.Split(v, ",")
	case "compression":
		return o.setCompression(v)
	case "compression-level":
		level, err := strconv.Atoi(v)
		if err != nil || level < 0 {
			return fmt.Errorf("compression-level is a number")
		}
		o.Form.Level = level
	default:
		return o.setSwitch(key, v)
	}
	return nil
}

// setSwitch takes in an attribute that is true or false.
func (o *buildOutput) setSwitch(key, v string) error {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return fmt.Errorf("%s is true or false", key)
	}
	switch key {
	case "tar":
		o.tar = on
	case "push":
		o.Push = on
	case "push-by-digest":
		o.ByDigest = on
	case "force-compression":
		o.Force = on
	case "oci-mediatypes":
		o.Form.Docker = !on
	case "platform-split":
		o.Split = &on
	case "store":
		if !on {
			return fmt.Errorf("build: output with store=false: %w", errdefs.ErrNotImplemented)
		}
	case "name-canonical": // a push always leaves NAME@DIGEST
	case "buildinfo": // BuildKit has dropped it, too
	case "unpack": // nothing is ever unpacked
	case "rewrite-timestamp": // with SOURCE_DATE_EPOCH layers have no later time
	}
	return nil
}

func (o *buildOutput) setCompression(v string) error {
	o.Plain = v == "uncompressed"
	switch v {
	case "uncompressed":
	case "gzip":
		o.Form.Compression = layer.Gzip
	case "zstd":
		o.Form.Compression = layer.Zstd
	case "estargz":
		return fmt.Errorf("build: output with compression=estargz: use gzip or zstd: %w", errdefs.ErrNotImplemented)
	default:
		return fmt.Errorf("compression is uncompressed, gzip or zstd")
	}
	return nil
}

// settle decides what the attributes together mean.
func (o *buildOutput) settle(value string) error {
	bad := func(why string) error { return badValue("output", value, why) }
	o.Kind = build.OutputKind(o.typ)
	switch {
	case o.typ == "registry":
		o.Kind, o.Push = build.OutputImage, true
	case o.typ == "docker" && !o.tar:
		return bad("tar=false is for type=oci")
	case o.typ == "local" && o.dest == "":
		return bad("dest is required for local")
	case !o.tar && (o.dest == "" || o.dest == "-"):
		return bad("dest, a directory, is required for tar=false")
	case o.dest == "" && (o.typ == "tar" || o.typ == "oci"):
		o.dest = "-"
	}
	if o.Form.Level > 0 && o.Form.Compression == layer.None && !o.Plain {
		o.Form.Compression = layer.Gzip
	}
	if most := map[layer.Compression]int{layer.Gzip: 9, layer.Zstd: 22}[o.Form.Compression]; o.Form.Level > most {
		return bad(fmt.Sprintf("compression-level is at most %d for %s", most, o.Form.Compression))
	}
	if o.Form.Docker && o.Form.Compression == layer.Zstd {
		return bad(`exporter option "compression=zstd" conflicts with "oci-mediatypes=false"`)
	}
	return nil
}
