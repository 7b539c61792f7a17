package ops

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// entries are as the kernel shows those that QEMU's packages register.
var entries = map[string]string{
	"arm64":    "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n",
	"arm":      "enabled\ninterpreter /usr/bin/qemu-arm-static\nflags: F\noffset 0\nmagic 7f454c4601010100000000000000000002002800\nmask ffffffffffffff00fffffffffffffffffeffffff\n",
	"s390x":    "enabled\ninterpreter /usr/bin/qemu-s390x-static\nflags: F\noffset 0\nmagic 7f454c4602020100000000000000000000020016\nmask fffffffffffffffcfffffffffffffffffffeffff\n",
	"ppc64le":  "enabled\ninterpreter /usr/bin/qemu-ppc64le-static\nflags: F\noffset 0\nmagic 7f454c4602010100000000000000000002001500\nmask fffffffffffffffcfffffffffffffffffeffff00\n",
	"riscv64":  "enabled\ninterpreter /usr/bin/qemu-riscv64-static\nflags: F\noffset 0\nmagic 7f454c460201010000000000000000000200f300\nmask ffffffffffffff00fffffffffffffffffeffffff\n",
	"mips64le": "enabled\ninterpreter /usr/bin/qemu-mips64el-static\nflags: F\noffset 0\nmagic 7f454c4602010100000000000000000002000800\nmask ffffffffffffff00fefffffffffffffffeffffff\n",
	"mips64":   "enabled\ninterpreter /usr/bin/qemu-mips64-static\nflags: F\noffset 0\nmagic 7f454c4602020100000000000000000000020008\nmask ffffffffffffff00fefffffffffffffffffeffff\n",
	"loong64":  "enabled\ninterpreter /usr/bin/qemu-loongarch64-static\nflags: F\noffset 0\nmagic 7f454c4602010100000000000000000002000201\nmask fffffffffffffffc00fffffffffffffffeffffff\n",
}

func TestAnEmulatorIsKnownByTheProgramsThatItTakes(t *testing.T) {
	for arch, text := range entries {
		h, ok := parseHandler(text)
		if !ok || !h.fixed || h.interpreter == "" {
			t.Errorf("%s: read as %+v, %t", arch, h, ok)
		}
		for other := range entries {
			if got := h.takes(program(other)); got != (arch == other) {
				t.Errorf("the emulator for %s takes programs for %s: %t", arch, other, got)
			}
		}
	}
}

func TestHandlersOfOtherThingsAreNoEmulators(t *testing.T) {
	for what, text := range map[string]string{
		"disabled":  strings.Replace(entries["arm64"], "enabled", "disabled", 1),
		"extension": "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n",
		"magic":     "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7g\n",
		"mask":      "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f45\nmask ff\n",
		"offset":    "enabled\ninterpreter /x\nflags: F\noffset many\nmagic 7f45\n",
		"nothing":   "",
	} {
		if h, ok := parseHandler(text); ok {
			t.Errorf("%s: read as %+v", what, h)
		}
	}
	for _, text := range []string{
		"enabled\ninterpreter /usr/bin/python3\nflags: \noffset 0\nmagic 550d0d0a\n",
		"enabled\ninterpreter /x\nflags: F\noffset 200\nmagic 7f45\n",
		"enabled\ninterpreter /x\nflags: F\noffset -1\nmagic 7f45\n",
	} {
		if h, ok := parseHandler(text); ok && h.takes(program("arm64")) {
			t.Errorf("%q takes programs for arm64", text)
		}
	}
}

func TestAListThatIsSwitchedOffHasNoEmulators(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("status", "enabled\n")
	write("register", "")
	write("qemu-aarch64", entries["arm64"])
	if list, err := readBinfmt(dir); err != nil || len(list) != 1 || list[0].name != "qemu-aarch64" {
		t.Errorf("the list is %+v, error %v", list, err)
	}
	write("status", "disabled\n")
	if list, err := readBinfmt(dir); err != nil || len(list) != 0 {
		t.Errorf("switched off, the list is %+v, error %v", list, err)
	}
}

func TestWithoutAnEmulatorTheCommandThatHelpsIsNamed(t *testing.T) {
	err := error(&NoEmulatorError{
		Platform: ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, Machine: ocispec.Platform{OS: "linux", Architecture: "amd64"},
	})
	if err.Error() != "run a program for linux/arm/v7 on linux/amd64: no emulator is registered" {
		t.Errorf("error is %q", err)
	}
	var missing *NoEmulatorError
	if !errors.As(err, &missing) || !strings.Contains(missing.Hint(), "apt-get install qemu-user-static") ||
		!strings.HasSuffix(missing.Hint(), "docker run --privileged --rm tonistiigi/binfmt --install arm") {
		t.Errorf("hint is %q", missing.Hint())
	}
}
