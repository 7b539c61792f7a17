package build

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/attest"
	"github.com/shaleproject/shale/internal/build/sbom"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/tree"
)

// facts are what a build remembers for its provenance.
type facts struct {
	started time.Time
	options map[string]string // of the front end

	mu    sync.Mutex
	found map[string]string    // digests and commits of sources
	dates map[string]time.Time // of sources
}

func (f *facts) add(source, sum string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found == nil {
		f.found = map[string]string{}
	}
	f.found[source] = sum
}

func (f *facts) date(source string, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dates == nil {
		f.dates = map[string]time.Time{}
	}
	f.dates[source] = at
}

func (f *facts) dateOf(source string) (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.dates[source]
	return at, ok
}

// attest writes what the request wants to be said of the image b. The subjects
// are left out.
func (j *job) attest(ctx context.Context, b builtImage) ([]image.Attestation, error) {
	if !j.req.Attest.any() {
		return nil, nil
	}
	var config ocispec.Image
	if err := json.Unmarshal(b.config, &config); err != nil {
		return nil, fmt.Errorf("read config of the image: %w", err)
	}
	var list []image.Attestation
	if j.req.Attest.SBOM {
		data, err := j.sbom(ctx, config, b)
		if err != nil {
			return nil, err
		}
		list = append(list, image.Attestation{PredicateType: sbom.PredicateType, Predicate: data})
	}
	if j.req.Attest.Provenance != nil {
		data, err := j.provenance(config, b)
		if err != nil {
			return nil, err
		}
		list = append(list, image.Attestation{PredicateType: attest.ProvenanceType, Predicate: data})
	}
	return list, nil
}

// statementFiles are where statements about files lie, as in BuildKit.
var statementFiles = map[string]string{
	attest.ProvenanceType: "provenance.json",
	sbom.PredicateType:    "sbom.spdx.json",
}

// attestFiles adds to the files of b, which are in fsys, what the request wants
// to be said of them. suffix is what a statement's file has behind its name.
// The caller closes what comes back. A file that has the name of a statement
// is an [errdefs.ErrAlreadyExists].
func (j *job) attestFiles(ctx context.Context, b builtImage, fsys tree.FS, suffix string) (_ *tree.Changes, err error) {
	b.layers = nil // what is said is said of files
	list, err := j.attest(ctx, b)
	if err != nil {
		return nil, err
	}
	edit := tree.Edit(fsys)
	defer func() {
		if err != nil {
			edit.Close()
		}
	}()
	edit.Now = j.Now()
	for _, a := range list {
		if p := j.req.Attest.Provenance; p != nil && p.InlineOnly && a.PredicateType == attest.ProvenanceType {
			continue
		}
		name := strings.TrimSuffix(statementFiles[a.PredicateType], ".json") + suffix + ".json"
		if _, err := fsys.Lstat(name); err == nil {
			return nil, fmt.Errorf("write %s beside the files: %w", name, errdefs.ErrAlreadyExists)
		}
		data, err := attest.AboutFiles(fsys, a.PredicateType, a.Predicate)
		if err == nil {
			err = edit.Mkfile(name, data, tree.MakeOptions{Mode: 0o644})
		}
		if err != nil {
			return nil, err
		}
	}
	return edit, nil
}

// sbom lists the packages in r. It says nothing that isn't in the image: the
// same image has the same list.
func (j *job) sbom(ctx context.Context, config ocispec.Image, b builtImage) (_ []byte, err error) {
	step := j.status.Step("generating sbom")
	defer func() { step.Done(err) }()
	fsys, err := b.ref.FS()
	if err != nil {
		return nil, err
	}
	inventory, err := sbom.Read(ctx, fsys)
	if err != nil {
		return nil, err
	}
	step.Progress(fmt.Sprintf("%d packages", len(inventory.Packages)), 0, 0, true)
	subject := sbom.Subject{Name: "files", Created: j.Now()}
	if j.epoch != nil {
		subject.Created = *j.epoch
	}
	if b.layers != nil {
		subject.Name, subject.Version = "image", digest.FromBytes(b.config).String()
	}
	if config.Created != nil {
		subject.Created = *config.Created
	}
	return sbom.SPDX(inventory, subject)
}

func (j *job) provenance(config ocispec.Image, b builtImage) ([]byte, error) {
	want := j.req.Attest.Provenance
	p := attest.Build{
		BuilderID: want.BuilderID, Reproducible: want.Reproducible || j.req.Verify,
		Options: j.known.options, Definition: b.ref.Definition(),
		Builder: j.Platform, Target: config.Platform,
		Started: j.known.started, Ended: j.Now(),
	}
	if j.tools.Exact {
		p.Started, p.Ended = *j.epoch, *j.epoch
	}
	j.known.mu.Lock()
	p.Found = j.known.found
	j.known.mu.Unlock()
	for _, name := range sorted(j.req.Run.Secrets) {
		p.Secrets = append(p.Secrets, j.req.Run.Secrets[name])
	}
	if want.Max {
		p.Mode = attest.Max
		for _, d := range b.layers {
			size, err := j.Store.Stat(d)
			if err != nil {
				return nil, err
			}
			p.Layers = append(p.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size})
		}
	}
	return attest.Provenance(p)
}
