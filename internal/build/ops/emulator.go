package ops

import (
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/sys"
)

// binfmtDir is where the kernel lists who runs programs that it can't run
// itself (Documentation/admin-guide/binfmt-misc.rst).
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// handler is one entry of that list.
type handler struct {
	name        string
	interpreter string
	fixed       bool // flag F: the interpreter was opened when it was registered
	offset      int
	magic, mask []byte
}

// NoEmulatorError says that this machine can't run programs for a platform.
type NoEmulatorError struct {
	Platform, Machine ocispec.Platform

	// Handler and Interpreter are those of an emulator that is registered,
	// but can't be found by who runs in another root directory.
	Handler, Interpreter string
}

func (e *NoEmulatorError) Error() string {
	why := "no emulator is registered"
	if e.Handler != "" {
		why = fmt.Sprintf("the emulator %s is registered without flag F, and the image has no %s", e.Handler, e.Interpreter)
	}
	return fmt.Sprintf("run a program for %s on %s: %s", platforms.Format(e.Platform), platforms.Format(e.Machine), why)
}

// Hint is the command that helps.
func (e *NoEmulatorError) Hint() string {
	return "to register an emulator: apt-get install qemu-user-static (Debian, Ubuntu), or else: " +
		"docker run --privileged --rm tonistiigi/binfmt --install " + e.Platform.Architecture
}

// Unwrap is the class of the error.
func (e *NoEmulatorError) Unwrap() error { return errdefs.ErrNotImplemented }

// emulated returns a [NoEmulatorError] if nobody runs programs for target. has
// tells whether the root directory that they are to run in has a file; nil
// means that it may. Where the kernel's list can't be seen, the kernel will
// tell.
func emulated(target, machine ocispec.Platform, has func(path string) bool) error {
	if platforms.Only(machine).Match(target) {
		return nil
	}
	head := program(target.Architecture)
	handlers, err := binfmt()
	if err != nil || head == nil {
		return nil
	}
	missing := &NoEmulatorError{Platform: target, Machine: machine}
	for _, h := range handlers {
		if !h.takes(head) {
			continue
		}
		if h.fixed || has == nil || has(h.interpreter) {
			return nil
		}
		missing.Handler, missing.Interpreter = h.name, h.interpreter
	}
	return missing
}

// unlisted returns a [NoEmulatorError] if the kernel's list can't be seen, so
// that a program for target was only tried, and did not begin.
func unlisted(target, machine ocispec.Platform) error {
	if platforms.Only(machine).Match(target) {
		return nil
	}
	if _, err := binfmt(); err == nil {
		return nil
	}
	return &NoEmulatorError{Platform: target, Machine: machine}
}

// binfmt reads the kernel's list. Where nobody has mounted it, root mounts it
// for as long as it takes to read it, unseen by others. In a user namespace
// that would be another list, an empty one.
func binfmt() ([]handler, error) {
	if _, err := os.Stat(filepath.Join(binfmtDir, "status")); err == nil || sys.InUserNamespace() {
		return readBinfmt(binfmtDir)
	}
	var handlers []handler
	err := sys.PrivateMounts(func() error {
		err := sys.MountAll([]sys.Mount{{Type: "binfmt_misc", Source: "binfmt_misc", Target: binfmtDir, Flags: sys.ReadOnly}})
		if err == nil {
			handlers, err = readBinfmt(binfmtDir)
		}
		return err
	})
	return handlers, err
}

// readBinfmt reads the entries in dir that are enabled.
func readBinfmt(dir string) ([]handler, error) {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(string(status)) != "enabled" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var handlers []handler
	for _, e := range entries {
		if e.Name() == "register" || e.Name() == "status" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it has gone
		}
		if h, ok := parseHandler(string(data)); ok {
			h.name = e.Name()
			handlers = append(handlers, h)
		}
	}
	return handlers, nil
}

// parseHandler reads an entry as the kernel shows it. It is false for one that
// is disabled, or goes by the name of a file.
func parseHandler(text string) (handler, bool) {
	var h handler
	enabled := false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch key {
		case "enabled":
			enabled = true
		case "interpreter":
			h.interpreter = value
		case "flags:":
			h.fixed = strings.Contains(value, "F")
		case "offset":
			h.offset, err = strconv.Atoi(value)
		case "magic":
			h.magic, err = hex.DecodeString(value)
		case "mask":
			h.mask, err = hex.DecodeString(value)
		}
		if err != nil {
			return h, false
		}
	}
	return h, enabled && len(h.magic) > 0 && (h.mask == nil || len(h.mask) == len(h.magic))
}

// takes tells whether h runs a program that begins with head.
func (h handler) takes(head []byte) bool {
	if h.offset < 0 || h.offset+len(h.magic) > len(head) {
		return false
	}
	for i, want := range h.magic {
		mask := byte(0xff)
		if h.mask != nil {
			mask = h.mask[i]
		}
		if (head[h.offset+i]^want)&mask != 0 {
			return false
		}
	}
	return true
}

// program is how an ELF executable for arch, a GOARCH, begins; nil for one that
// we don't know.
func program(arch string) []byte {
	little, big := binary.ByteOrder(binary.LittleEndian), binary.ByteOrder(binary.BigEndian)
	known, ok := map[string]struct {
		machine elf.Machine
		class   elf.Class
		order   binary.ByteOrder
	}{
		"386":      {elf.EM_386, elf.ELFCLASS32, little},
		"amd64":    {elf.EM_X86_64, elf.ELFCLASS64, little},
		"arm":      {elf.EM_ARM, elf.ELFCLASS32, little},
		"arm64":    {elf.EM_AARCH64, elf.ELFCLASS64, little},
		"loong64":  {elf.EM_LOONGARCH, elf.ELFCLASS64, little},
		"mips":     {elf.EM_MIPS, elf.ELFCLASS32, big},
		"mipsle":   {elf.EM_MIPS, elf.ELFCLASS32, little},
		"mips64":   {elf.EM_MIPS, elf.ELFCLASS64, big},
		"mips64le": {elf.EM_MIPS, elf.ELFCLASS64, little},
		"ppc64":    {elf.EM_PPC64, elf.ELFCLASS64, big},
		"ppc64le":  {elf.EM_PPC64, elf.ELFCLASS64, little},
		"riscv64":  {elf.EM_RISCV, elf.ELFCLASS64, little},
		"s390x":    {elf.EM_S390, elf.ELFCLASS64, big},
	}[arch]
	if !ok {
		return nil
	}
	head := make([]byte, 128) // what the kernel looks at is not more (BINPRM_BUF_SIZE is 256)
	copy(head, elf.ELFMAG)
	head[elf.EI_CLASS], head[elf.EI_VERSION] = byte(known.class), byte(elf.EV_CURRENT)
	head[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	if known.order == big {
		head[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	known.order.PutUint16(head[16:], uint16(elf.ET_EXEC))
	known.order.PutUint16(head[18:], uint16(known.machine))
	known.order.PutUint32(head[20:], uint32(elf.EV_CURRENT))
	return head
}
