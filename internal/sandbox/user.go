package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shaleproject/shale/internal/sys"
)

// maxAccounts is the largest /etc/passwd or /etc/group that is read, in
// bytes. The files are an image's, and an image can be hostile.
const maxAccounts = 10 << 20

// setUser looks up the process's user in the files below root, if it has a
// Username, and clears that.
func setUser(spec *specs.Spec, groups []string, root string) error {
	p := spec.Process
	if p.User.Username == "" {
		return nil
	}
	account, err := lookupUser(root, p.User.Username, groups)
	if err != nil {
		return err
	}
	p.User.UID, p.User.GID = account.uid, account.gid
	p.User.AdditionalGids = append(account.groups, p.User.AdditionalGids...)
	p.User.Username = ""
	if !slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") && e != "HOME=" }) {
		// Always set: libcontainer would read /etc/passwd itself, whatever it is.
		p.Env = append(slices.Clone(p.Env), "HOME="+account.home)
	}
	return nil
}

// account is what the files say about a user.
type account struct {
	uid, gid uint32
	// groups has the primary one too: a file may deny a group what it allows
	// others, and a process that isn't in its own group would be an other
	// (CVE-2022-36109).
	groups []uint32
	home   string
}

// lookupUser resolves "user[:group]" as Docker does, except that a number is
// always a number and never a name: an image whose /etc/passwd calls uid 0
// "1000" gains nothing (CVE-2016-3697).
func lookupUser(root, spec string, extra []string) (account, error) {
	name, groupName, _ := strings.Cut(spec, ":")
	if name == "" {
		name = "0" // ":group" is root in another group
	}
	a := account{home: "/"}
	uid, numeric, err := parseID(name)
	if err != nil {
		return a, fmt.Errorf("look up user %q: %w", spec, err)
	}
	a.uid = uid
	found := false
	err = eachAccount(root, "/etc/passwd", 6, func(f []string) bool {
		id, ok, err := parseID(f[2])
		if err != nil || !ok || numeric && id != uid || !numeric && f[0] != name {
			return true
		}
		if gid, ok, err := parseID(f[3]); err == nil && ok {
			a.gid = gid
		}
		a.uid, name, found = id, f[0], true
		if f[5] != "" {
			a.home = f[5]
		}
		return false
	})
	if err != nil {
		return a, fmt.Errorf("look up user %q: %w", spec, err)
	}
	if !found && !numeric {
		return a, because(errdefs.ErrInvalidArgument, "look up user %q: no matching entries in passwd file", name)
	}
	if groupName != "" {
		// A group that is named replaces all of the user's.
		ids, err := lookupGroups(root, []string{groupName}, "")
		if err != nil {
			return a, err
		}
		a.gid = ids[0]
		name = ""
	}
	groups, err := lookupGroups(root, extra, name)
	if err != nil {
		return a, err
	}
	a.groups = []uint32{a.gid}
	for _, g := range groups {
		if !slices.Contains(a.groups, g) {
			a.groups = append(a.groups, g)
		}
	}
	return a, nil
}

// lookupGroups returns the numbers of wanted, in their order, and then those
// of every group that has member in its list.
func lookupGroups(root string, wanted []string, member string) ([]uint32, error) {
	ids := make([]uint32, len(wanted))
	missing := map[string][]int{}
	for i, w := range wanted {
		id, numeric, err := parseID(w)
		if err != nil {
			return nil, fmt.Errorf("look up group %q: %w", w, err)
		}
		ids[i] = id
		if !numeric {
			missing[w] = append(missing[w], i)
		}
	}
	if member == "" && len(missing) == 0 {
		return ids, nil
	}
	err := eachAccount(root, "/etc/group", 3, func(f []string) bool {
		id, ok, err := parseID(f[2])
		if err != nil || !ok {
			return true
		}
		for _, i := range missing[f[0]] {
			ids[i] = id
		}
		delete(missing, f[0])
		if member != "" && len(f) > 3 && hasMember(f[3], member) {
			ids = append(ids, id)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("look up groups: %w", err)
	}
	for name := range missing {
		return nil, because(errdefs.ErrInvalidArgument, "look up group %q: no matching entries in group file", name)
	}
	return ids, nil
}

func hasMember(list, member string) bool {
	for m := range strings.SplitSeq(list, ",") {
		if m == member {
			return true
		}
	}
	return false
}

// parseID tells whether s is a number, and which. A number that is no id
// (negative, or above what the kernel's signed interfaces take) is an error;
// cut down to 32 bits it could be root's (CVE-2024-40635).
func parseID(s string) (id uint32, numeric bool, err error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, true, because(errdefs.ErrInvalidArgument, "id out of range 0 to %d", math.MaxInt32)
	}
	if err != nil {
		if s == "" {
			return 0, false, because(errdefs.ErrInvalidArgument, "empty name")
		}
		return 0, false, nil
	}
	if n < 0 || n > math.MaxInt32 {
		return 0, true, because(errdefs.ErrInvalidArgument, "id out of range 0 to %d", math.MaxInt32)
	}
	return uint32(n), true, nil
}

// eachAccount calls f with the fields of each line that has at least n, until
// f returns false. A file that isn't there has no lines.
func eachAccount(root, path string, n int, f func(fields []string) bool) error {
	// O_NONBLOCK: opening a FIFO must not wait for a writer.
	file, err := sys.OpenInRoot(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return because(errdefs.ErrInvalidArgument, "read %s: not a regular file", path)
	}
	if info.Size() > maxAccounts {
		return because(errdefs.ErrInvalidArgument, "read %s: larger than %d bytes", path, maxAccounts)
	}
	lines := bufio.NewScanner(io.LimitReader(file, maxAccounts))
	lines.Buffer(nil, maxAccounts)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, ":")
		if len(fields) >= n && !f(fields) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
