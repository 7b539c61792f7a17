package attest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

func TestPasswordsOfURLsAreTakenOut(t *testing.T) {
	s := newScrubber([][]byte{[]byte("s3cret\n"), []byte("s3cret-longer"), []byte("1")})
	for in, want := range map[string]string{
		"https://user:pass@host/x.git":                   "https://xxxxx:xxxxx@host/x.git",
		"https://token@host/x":                           "https://xxxxx:xxxxx@host/x",
		"git clone https://a:b@h/x && wget http://c:d@i": "git clone https://xxxxx:xxxxx@h/x && wget http://xxxxx:xxxxx@i",
		"https://user:p@ss@host/":                        "https://xxxxx:xxxxx@host/",
		"ssh://git@github.com/a/b":                       "ssh://git@github.com/a/b",
		"ssh://git:pw@github.com/a/b":                    "ssh://xxxxx:xxxxx@github.com/a/b",
		"https://host/@scope/name":                       "https://host/@scope/name",
		"git@github.com:a/b":                             "git@github.com:a/b",
		"https://h/f?a=1&X-Amz-Signature=00ff&b=2":       "https://h/f?a=1&X-Amz-Signature=xxxxx&b=2",
		"https://h/f?access_token=abc#frag":              "https://h/f?access_token=xxxxx#frag",
		"https://h/f?monkey=abc":                         "https://h/f?monkey=abc",
		"http_proxy=u:p@proxy:80 x=1":                    "http_proxy=xxxxx:xxxxx@proxy:80 x=1",
		"ENV HTTPS_PROXY \"u:p@q@proxy:80\"":             "ENV HTTPS_PROXY \"xxxxx:xxxxx@proxy:80\"",
		"http_proxy=proxy:80":                            "http_proxy=proxy:80",
		"echo s3cret":                                    "echo xxxxx",
		"echo s3cret-longer 1":                           "echo xxxxx 1",
	} {
		if got := s.text(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func TestSourcesArePinned(t *testing.T) {
	commit := strings.Repeat("ab", 20)
	def := graph(t,
		&pb.SourceOp{Identifier: "docker-image://docker.io/library/alpine:3@sha256:" + strings.Repeat("0", 64)},
		&pb.SourceOp{Identifier: "docker-image://reg.test/app@sha256:" + strings.Repeat("1", 64)},
		&pb.SourceOp{Identifier: "git://git.test/a.git#main:sub", Attrs: map[string]string{pb.AttrFullRemoteURL: "https://u:p@git.test/a.git"}},
		&pb.SourceOp{Identifier: "git://git.test/b.git#" + commit},
		&pb.SourceOp{Identifier: "https://web.test/f", Attrs: map[string]string{pb.AttrHTTPChecksum: "sha256:" + strings.Repeat("2", 64)}},
		&pb.SourceOp{Identifier: "https://web.test/f", Attrs: map[string]string{pb.AttrHTTPChecksum: "sha256:" + strings.Repeat("2", 64), "http.uid": "1"}},
		&pb.SourceOp{Identifier: "local://context"},
	)
	data, err := Provenance(Build{Definition: def, Found: map[string]string{"git://git.test/a.git#main:sub": commit}})
	if err != nil {
		t.Fatal(err)
	}
	var p predicate
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(p.Definition.Dependencies)
	want, _ := json.Marshal([]material{
		{"https://git.test/b.git#" + commit, map[string]string{"sha1": commit}},
		{"https://web.test/f", map[string]string{"sha256": strings.Repeat("2", 64)}},
		{"https://xxxxx:xxxxx@git.test/a.git#main", map[string]string{"sha1": commit}},
		{"pkg:docker/alpine@3", map[string]string{"sha256": strings.Repeat("0", 64)}},
		{"pkg:docker/reg.test/app?digest=sha256:" + strings.Repeat("1", 64), map[string]string{"sha256": strings.Repeat("1", 64)}},
	})
	if string(got) != string(want) {
		t.Errorf("materials are\n%s\nwant\n%s", got, want)
	}
	if l := p.Definition.External.Request.Locals; len(l) != 2 || l[0].Name != "context" {
		t.Errorf("locals are %v", l)
	}
}

// graph is one that merges sources.
func graph(t *testing.T, sources ...*pb.SourceOp) *pb.Definition {
	t.Helper()
	def := &pb.Definition{}
	add := func(op *pb.Op) *pb.Input {
		data, err := op.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		def.Def = append(def.Def, data)
		return &pb.Input{Digest: string(digest.FromBytes(data))}
	}
	merge := &pb.MergeOp{}
	var inputs []*pb.Input
	for n, s := range sources {
		inputs = append(inputs, add(&pb.Op{Op: &pb.Op_Source{Source: s}}))
		merge.Inputs = append(merge.Inputs, &pb.MergeInput{Input: int64(n)})
	}
	last := add(&pb.Op{Inputs: inputs, Op: &pb.Op_Merge{Merge: merge}})
	add(&pb.Op{Inputs: []*pb.Input{last}})
	return def
}

func FuzzScrub(f *testing.F) {
	f.Add("https://user:canary-secret@host/?token=canary-secret")
	f.Fuzz(func(t *testing.T, text string) {
		s := newScrubber([][]byte{[]byte("canary-secret")})
		if out := s.text(text); strings.Contains(out, "canary-secret") {
			t.Fatalf("%q became %q", text, out)
		}
	})
}
