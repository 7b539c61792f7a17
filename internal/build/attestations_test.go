package build_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/image"
)

// statements returns what is said of an image, by predicate type.
func (b *bench) statements(img *image.Image) map[string]string {
	b.Helper()
	var index ocispec.Index
	b.document(img.Target.Digest, &index)
	if len(index.Manifests) != 2 || index.Manifests[0].Digest != img.Manifest.Digest {
		b.Fatalf("index is %+v", index)
	}
	var m ocispec.Manifest
	b.document(index.Manifests[1].Digest, &m)
	out := map[string]string{}
	for _, l := range m.Layers {
		data, err := b.Store.Read(l.Digest)
		if err != nil {
			b.Fatal(err)
		}
		out[l.Annotations["in-toto.io/predicate-type"]] = string(data)
	}
	return out
}

func (b *bench) document(d digest.Digest, v any) {
	b.Helper()
	data, err := b.Store.Read(d)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// slsa is what a reader of provenance looks at.
type slsa struct {
	Type    string `json:"_type"`
	Subject []struct {
		Name   string
		Digest map[string]string
	}
	Predicate struct {
		BuildDefinition struct {
			BuildType          string
			ExternalParameters struct {
				ConfigSource struct {
					URI, Path string
					Digest    map[string]string
				}
				Request struct {
					Frontend string
					Args     map[string]string
					Secrets  []struct{ ID string }
					Locals   []struct{ Name string }
				}
			}
			InternalParameters struct {
				BuildConfig *struct {
					LLBDefinition []struct {
						ID     string
						Inputs []string
					}
				}
				BuilderPlatform string
			}
			ResolvedDependencies []struct {
				URI    string
				Digest map[string]string
			}
		}
		RunDetails struct {
			Builder  struct{ ID string }
			Metadata struct {
				StartedOn, FinishedOn time.Time
				Completeness          struct{ Request, ResolvedDependencies bool } `json:"buildkit_completeness"`
				BuildKit              struct {
					Source *struct {
						Infos     []struct{ Filename, Data string }
						Locations map[string]any
					}
					Layers map[string][][]ocispec.Descriptor
				} `json:"buildkit_metadata"`
			}
		}
	}
}

const (
	slsaType = "https://slsa.dev/provenance/v1"
	spdxType = "https://spdx.dev/Document"
)

// confidential is a build that is given secrets in every way that there is.
func (b *bench) confidential() build.Request {
	b.Helper()
	b.busybox()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "canary-user" || password != "canary-password" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte("content"))
	}))
	b.Cleanup(server.Close)
	at := "http://canary-user:canary-password@" + strings.TrimPrefix(server.URL, "http://") + "/file?version=1&token=canary-token"
	text := "FROM busybox\nARG TOKEN\nARG http_proxy\nADD " + at + " /x/\nCOPY . /\n" +
		"COPY <<EOF /heredoc\ncanary-in-file https://canary-user:canary-password@git.test/\nEOF\n"
	if os.Geteuid() == 0 {
		text += "RUN --network=none --mount=type=secret,id=named-canary test -s /run/secrets/named-canary && echo ${TOKEN}\n"
	}
	req := dir(directory(b.T, map[string]string{
		"Dockerfile":                      text,
		"var/lib/dpkg/status":             "Package: bash\nStatus: install ok installed\nVersion: 5.2\nArchitecture: amd64\n",
		"etc/os-release":                  "ID=debian\nVERSION_ID=12\n",
		"app/node_modules/x/package.json": `{"name":"x","version":"1.0.0","_resolved":"https://canary-user:canary-password@npm.test/"}`,
	}), "app:v1")
	req.Language.Args = map[string]string{
		"TOKEN": "argument-value", "http_proxy": "canary-user:canary-password@proxy.test:3128", "SOURCE_DATE_EPOCH": "1700000000",
	}
	req.Language.Labels = map[string]string{"label-key": "label-value"}
	req.Run.Secrets = map[string][]byte{"named-canary": []byte("canary-in-file\n")}
	return req
}

// canaries are what must be nowhere in a statement, encoded or not.
var (
	canaries = regexp.MustCompile(`canary-(user|password|token|in-file)`)
	base64s  = regexp.MustCompile(`[A-Za-z0-9+/]{16,}={0,2}`)
)

func searchCanary(t *testing.T, statement string) {
	t.Helper()
	if found := canaries.FindString(statement); found != "" {
		t.Errorf("%s in %s", found, statement)
	}
	for _, coded := range base64s.FindAllString(statement, -1) {
		if plain, err := base64.StdEncoding.DecodeString(coded); err == nil && canaries.Match(plain) {
			t.Errorf("%s, encoded, in %s", canaries.Find(plain), plain)
		}
	}
}

func (b *bench) provenance(img *image.Image) (slsa, string) {
	b.Helper()
	text := b.statements(img)[slsaType]
	searchCanary(b.T, text)
	var p slsa
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		b.Fatal(err)
	}
	return p, text
}

func TestProvenanceTellsWhatWentIn(t *testing.T) {
	b := newBench(t)
	req := b.confidential()
	req.Attest.Provenance = &build.Provenance{}
	img := b.build(req).Image
	p, text := b.provenance(img)
	equal(t, "subject", p.Subject[0].Digest["sha256"], img.Manifest.Digest.Encoded())
	if want := "pkg:docker/app@v1?platform="; !strings.HasPrefix(p.Subject[0].Name, want) {
		t.Errorf("subject is %s, want %s…", p.Subject[0].Name, want)
	}
	base, err := b.Images.Get(t.Context(), "busybox", nil)
	if err != nil {
		t.Fatal(err)
	}
	var uris []string
	for _, m := range p.Predicate.BuildDefinition.ResolvedDependencies {
		uris = append(uris, m.URI)
		switch {
		case strings.HasPrefix(m.URI, "pkg:docker/busybox@latest?platform="):
			equal(t, "digest of the base", m.Digest["sha256"], base.Target.Digest.Encoded())
		case strings.HasPrefix(m.URI, "http://xxxxx:xxxxx@"):
			equal(t, "digest of the download", m.Digest["sha256"], digest.FromString("content").Encoded())
		default:
			t.Errorf("material %s", m.URI)
		}
	}
	if len(uris) != 2 {
		t.Errorf("materials are %q", uris)
	}
	external := p.Predicate.BuildDefinition.ExternalParameters
	equal(t, "Dockerfile", external.ConfigSource.Path, "Dockerfile")
	equal(t, "front end", external.Request.Frontend, "dockerfile.v0")
	equal(t, "arguments", len(external.Request.Args), 0)
	equal(t, "started", p.Predicate.RunDetails.Metadata.StartedOn, start)
	equal(t, "completeness", p.Predicate.RunDetails.Metadata.Completeness, struct{ Request, ResolvedDependencies bool }{})
	for _, private := range []string{"argument-value", "label-value", "TOKEN", "named-canary", "llbDefinition", req.Files.Context} {
		if strings.Contains(text, private) {
			t.Errorf("min tells of %s:\n%s", private, text)
		}
	}
}

func TestMaximalProvenanceShowsTheSteps(t *testing.T) {
	b := newBench(t)
	req := b.confidential()
	req.Attest.Provenance = &build.Provenance{Max: true, BuilderID: "https://ci.test/1"}
	img := b.build(req).Image
	p, text := b.provenance(img)
	equal(t, "builder", p.Predicate.RunDetails.Builder.ID, "https://ci.test/1")
	args := p.Predicate.BuildDefinition.ExternalParameters.Request.Args
	equal(t, "argument", args["build-arg:TOKEN"], "argument-value")
	equal(t, "label", args["label:label-key"], "label-value")
	equal(t, "proxy", args["build-arg:http_proxy"], "xxxxx:xxxxx@proxy.test:3128")
	if os.Geteuid() == 0 {
		equal(t, "secrets", p.Predicate.BuildDefinition.ExternalParameters.Request.Secrets, []struct{ ID string }{{"named-canary"}})
	}
	known := map[string]bool{}
	for _, s := range p.Predicate.BuildDefinition.InternalParameters.BuildConfig.LLBDefinition {
		for _, in := range s.Inputs {
			if id, _, _ := strings.Cut(in, ":"); !known[id] {
				t.Errorf("%s comes before its input %s", s.ID, in)
			}
		}
		known[s.ID] = true
	}
	source := p.Predicate.RunDetails.Metadata.BuildKit.Source
	file, err := base64.StdEncoding.DecodeString(source.Infos[0].Data)
	if err != nil || !strings.HasPrefix(string(file), "FROM busybox\nARG TOKEN\n") {
		t.Errorf("Dockerfile is %q, error %v", file, err)
	}
	if len(source.Locations) == 0 || len(p.Predicate.RunDetails.Metadata.BuildKit.Layers) != 1 {
		t.Errorf("source is %+v", source)
	}
	if strings.Contains(text, req.Files.Context) {
		t.Errorf("a directory of the host is in %s", text)
	}
}

func TestAnImageIsTheSameWhateverIsSaidOfIt(t *testing.T) {
	b := newBench(t)
	req := b.confidential()
	plain := b.build(req).Image
	req.Attest = build.Attest{Provenance: &build.Provenance{Max: true}, SBOM: true}
	first := b.build(req).Image
	b.later()
	req.Cache.Ignore = true
	second := b.build(req).Image
	for _, img := range []*image.Image{first, second} {
		equal(t, "manifest", img.Manifest.Digest, plain.Manifest.Digest)
	}
	one, two := b.statements(first), b.statements(second)
	equal(t, "SBOM", one[spdxType], two[spdxType])
	if one[slsaType] == two[slsaType] {
		t.Error("two builds began at the same time")
	}
	searchCanary(t, one[spdxType])
}

func TestTheSBOMListsThePackagesOfTheImage(t *testing.T) {
	b := newBench(t)
	req := b.confidential()
	req.Attest.SBOM = true
	img := b.build(req).Image
	var doc struct {
		Predicate struct {
			Packages []struct {
				Name, VersionInfo string
				ExternalRefs      []struct{ ReferenceLocator string }
			}
		}
	}
	if err := json.Unmarshal([]byte(b.statements(img)[spdxType]), &doc); err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, p := range doc.Predicate.Packages {
		for _, r := range p.ExternalRefs {
			urls = append(urls, r.ReferenceLocator)
		}
	}
	equal(t, "packages", urls, []string{"pkg:deb/debian/bash@5.2?arch=amd64&distro=debian-12", "pkg:npm/x@1.0.0"})
	equal(t, "image", doc.Predicate.Packages[0].VersionInfo, img.ConfigDigest.String())
	if !slices.ContainsFunc(doc.Predicate.Packages, func(p struct {
		Name, VersionInfo string
		ExternalRefs      []struct{ ReferenceLocator string }
	}) bool {
		return p.Name == "debian" && p.VersionInfo == "12"
	}) {
		t.Errorf("packages are %+v", doc.Predicate.Packages)
	}
}

func TestProvenanceNamesTheCommitOfARepository(t *testing.T) {
	url, repo := repository(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a\n"})
	commit := map[string]string{"sha1": gitIn(t, repo, "rev-parse", "HEAD")}
	b := newBench(t)
	for _, again := range []bool{false, true} {
		req := dir(url + "/repo.git#main")
		req.Attest.Provenance = &build.Provenance{}
		p, _ := b.provenance(b.build(req).Image)
		equal(t, "digest of the configuration", p.Predicate.BuildDefinition.ExternalParameters.ConfigSource.Digest, commit)
		materials := p.Predicate.BuildDefinition.ResolvedDependencies
		if len(materials) != 1 || materials[0].URI != url+"/repo.git#main" {
			t.Fatalf("again %t: materials are %+v", again, materials)
		}
		equal(t, "digest of the repository", materials[0].Digest, commit)
		equal(t, "locals", len(p.Predicate.BuildDefinition.ExternalParameters.Request.Locals), 0)
		equal(t, "completeness", p.Predicate.RunDetails.Metadata.Completeness, struct{ Request, ResolvedDependencies bool }{true, true})
	}
}
