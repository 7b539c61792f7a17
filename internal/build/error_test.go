package build_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build"
)

// Each error is one line that says what is wrong, and where it has a place in
// the Dockerfile, that place is shown.
func TestAnErrorSaysWhatAndWhere(t *testing.T) {
	for _, test := range []struct {
		name, dockerfile string
		files            map[string]string
		want, excerpt    string
	}{
		{
			name:       "unknown instruction",
			dockerfile: "FROM scratch\n\nCOPPY a b\n",
			want:       "unknown instruction: COPPY", excerpt: "3 | >>> COPPY a b",
		},
		{
			name:       "missing source",
			dockerfile: "FROM scratch\nENV A=1\nCOPY nothere /x\n",
			want:       "/nothere", excerpt: "3 | >>> COPY nothere /x",
		},
		{
			name:       "ignored source",
			dockerfile: "FROM scratch\nCOPY secret.log /x\n",
			files:      map[string]string{"secret.log": "", ".dockerignore": "*.log\n"},
			want:       "/secret.log", excerpt: "2 | >>> COPY secret.log /x",
		},
		{
			name:       "unknown stage",
			dockerfile: "FROM scratch AS one\nFROM scratch\nCOPY --from=7 /a /b\n",
			want:       "invalid stage index 7",
		},
		{
			name:       "argument without default",
			dockerfile: "ARG BASE\nFROM $BASE\n",
			want:       "base name ($BASE) should not be blank", excerpt: "2 | >>> FROM $BASE",
		},
		{
			name:       "other front end",
			dockerfile: "# syntax=example.com/other/frontend\nFROM scratch\n",
			want:       "only docker/dockerfile is built in", excerpt: "1 | >>> # syntax=example.com/other/frontend",
		},
		{
			name:       "empty",
			dockerfile: "",
			want:       "the Dockerfile cannot be empty",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			files := map[string]string{"Dockerfile": test.dockerfile}
			for name, content := range test.files {
				files[name] = content
			}
			o := b.try(dir(directory(t, files)))
			if o.err == nil {
				t.Fatal("it was built")
			}
			if !strings.Contains(o.err.Error(), test.want) {
				t.Errorf("error is %q, want %q in it", o.err, test.want)
			}
			if strings.Contains(o.err.Error(), "\n") {
				t.Errorf("error has several lines: %q", o.err)
			}
			var excerpt bytes.Buffer
			if err := build.Excerpt(&excerpt, o.err); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(excerpt.String(), test.excerpt) {
				t.Errorf("excerpt is\n%s, want %q in it", excerpt.String(), test.excerpt)
			}
			t.Logf("%v", o.err)
		})
	}
}

func TestAMissingTargetIsAnError(t *testing.T) {
	b := newBench(t)
	req := dockerfile("FROM scratch AS one\n")
	req.Language.Target = "two"
	o := b.try(req)
	if o.err == nil || !strings.Contains(o.err.Error(), `target stage "two" could not be found`) {
		t.Errorf("error is %v", o.err)
	}
}

func TestABadNameIsFoundBeforeTheBuild(t *testing.T) {
	b := newBench(t)
	o := b.try(dockerfile("FROM scratch\n", "Not A Name"))
	if !errdefs.IsInvalidArgument(o.err) || len(o.ran) > 0 {
		t.Errorf("error is %v after steps %q", o.err, o.ran)
	}
}

func TestAMissingContextIsAnError(t *testing.T) {
	b := newBench(t)
	o := b.try(dir("/no/such/directory"))
	if o.err == nil || !strings.Contains(o.err.Error(), "open build context /no/such/directory: no such file or directory") {
		t.Errorf("error is %v", o.err)
	}
}
