package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

// What docs/parity.md calls absent is absent, and every command of shale's
// stands somewhere on the page.
func TestParityPageIsTrue(t *testing.T) {
	data, err := os.ReadFile("../../docs/parity.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	root := rootCommand(engine.New(engine.Config{}), nil)

	for _, name := range absent(t, page, "absent commands") {
		if cmd := find(root, name); cmd != nil {
			t.Errorf("%s is called absent", cmd.CommandPath())
		}
	}
	for _, name := range []string{"run", "start", "rm"} {
		cmd := find(root, name)
		for _, flags := range absent(t, page, "absent flags of "+name) {
			for flag := range strings.FieldsSeq(flags) {
				if cmd.Flags().Lookup(strings.TrimPrefix(flag, "--")) != nil {
					t.Errorf("%s of %s is called absent", flag, name)
				}
			}
		}
	}
	for _, cmd := range root.Commands() {
		if cmd.Hidden || cmd.Name() == "completion" || cmd.Name() == "help" {
			continue
		}
		if !strings.Contains(page, cmd.Name()) {
			t.Errorf("shale %s does not stand on the page", cmd.Name())
		}
	}
}

var quoted = regexp.MustCompile("`([^`]+)`")

// absent returns what stands in backquotes between a marker and the next.
func absent(t *testing.T, page, marker string) []string {
	t.Helper()
	_, rest, found := strings.Cut(page, "<!-- "+marker+" -->")
	list, _, closed := strings.Cut(rest, "<!-- /absent -->")
	if !found || !closed {
		t.Fatalf("docs/parity.md has no list %q", marker)
	}
	var names []string
	for _, m := range quoted.FindAllStringSubmatch(list, -1) {
		names = append(names, m[1])
	}
	return names
}

// find returns the command at path, or nil.
func find(root *cobra.Command, path string) *cobra.Command {
	cmd := root
next:
	for word := range strings.FieldsSeq(path) {
		for _, sub := range cmd.Commands() {
			if sub.Name() == word {
				cmd = sub
				continue next
			}
		}
		return nil
	}
	return cmd
}
