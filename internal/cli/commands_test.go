package cli

import (
	"testing"

	"github.com/shaleproject/shale/internal/engine"
)

func TestACommandAnswersToTheNameInTheTable(t *testing.T) {
	e := engine.New(engine.Config{})
	for _, entry := range entries {
		if name := entry.make(e).Name(); name != entry.name {
			t.Errorf("the entry %s makes the command %s", entry.name, name)
		}
	}
}

func TestOnlyTheNamedCommandIsMade(t *testing.T) {
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"run", "busybox"}, 1},
		{[]string{"--root", "run", "images"}, 1},
		{[]string{"--root=/x", "-D", "images", "run"}, 1},
		{[]string{"--root", "images"}, len(entries)},
		{[]string{"help", "run"}, len(entries)},
		{[]string{"rnu"}, len(entries)},
		{nil, len(entries)},
	} {
		root := rootCommand(engine.New(engine.Config{}), test.args)
		if got := len(root.Commands()); got != test.want {
			t.Errorf("%q makes %d commands, want %d", test.args, got, test.want)
		}
	}
	named := rootCommand(engine.New(engine.Config{}), []string{"--root", "run", "images"}).Commands()[0].Name()
	if named != "images" {
		t.Errorf("the value of a flag was taken for the command: %s", named)
	}
}
