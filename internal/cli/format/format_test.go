package format_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/cli/format"
)

type row struct{ ID, Repository string }

var (
	rows    = []row{{"4f1a", "busybox"}, {"9c22", "a-rather-long-name"}}
	headers = map[string]string{"ID": "IMAGE ID", "Repository": "REPOSITORY"}
)

func TestFormatsRenderAsDockersDo(t *testing.T) {
	for _, test := range []struct{ name, spec, want string }{
		{"default", "", "REPOSITORY           IMAGE ID\nbusybox              4f1a\na-rather-long-name   9c22\n"},
		{"the word table", "table", "REPOSITORY           IMAGE ID\nbusybox              4f1a\na-rather-long-name   9c22\n"},
		{"table with a template", `table {{.ID}}\t{{upper .Repository}}`, "IMAGE ID   REPOSITORY\n4f1a       BUSYBOX\n9c22       A-RATHER-LONG-NAME\n"},
		{"template", "{{.ID}}: {{.Repository}}", "4f1a: busybox\n9c22: a-rather-long-name\n"},
		{"json", "json", `{"ID":"4f1a","Repository":"busybox"}` + "\n" + `{"ID":"9c22","Repository":"a-rather-long-name"}` + "\n"},
		{"functions", `{{truncate .ID 2}} {{pad .ID 1 1}}|{{join (split .Repository "-") "+"}}`, "4f  4f1a |busybox\n9c  9c22 |a+rather+long+name\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := format.Parse(test.spec, "{{.Repository}}\t{{.ID}}", headers)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if err := format.Write(&out, f, rows); err != nil {
				t.Fatal(err)
			}
			if out.String() != test.want {
				t.Errorf("got:\n%swant:\n%s", out.String(), test.want)
			}
		})
	}
}

func TestWrongTemplateIsAnInvalidArgument(t *testing.T) {
	if _, err := format.Parse("{{.ID", "", nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("parse: %v", err)
	}
	f, err := format.Parse("{{.Nothing}}", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Write(&strings.Builder{}, f, rows); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("render: %v", err)
	}
}
