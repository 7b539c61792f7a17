//go:build linux

package sys

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os/exec"
	"strconv"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// idRange maps count ids of a user namespace, from inside on, to ids of the
// caller's, from outside on.
type idRange struct {
	inside, outside, count int64
}

// idMap is the map of a user or group id, and the program that may write it.
type idMap struct {
	ranges   []idRange
	helper   string // "" for a map of one id, which needs none
	unhelped string // why ids are lent in vain
}

// args are the arguments of newuidmap(1) and newgidmap(1).
func (m idMap) args(pid int) []string {
	args := []string{strconv.Itoa(pid)}
	for _, r := range m.ranges {
		for _, n := range []int64{r.inside, r.outside, r.count} {
			args = append(args, strconv.FormatInt(n, 10))
		}
	}
	return args
}

// planIDMap maps id to root. The ids from 1 on are those that file
// (/etc/subuid, /etc/subgid) lends to the user, if any.
func planIDMap(file, helper, name string, uid, id int) (idMap, error) {
	m := idMap{ranges: []idRange{{inside: 0, outside: int64(id), count: 1}}}
	lent, err := user.ParseSubIDFileFilter(file, func(s user.SubID) bool {
		// subuid(5): the owner is a name or a number.
		return s.Count > 0 && (s.Name == name && name != "" || s.Name == strconv.Itoa(uid))
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("read %s: %w", file, err)
	}
	if len(lent) == 0 {
		return m, nil
	}
	// Nobody but the helper may write such a map; without it one id has to do.
	if on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && on == 1 {
		m.unhelped = helper + " can't help a process that may gain no privileges (no_new_privs)"
		return m, nil
	}
	path, err := exec.LookPath(helper)
	if errors.Is(err, exec.ErrNotFound) {
		m.unhelped = helper + " is missing (Debian: apt-get install uidmap)"
		return m, nil
	}
	if err != nil {
		return m, err
	}
	m.helper = path
	inside := int64(1)
	for _, s := range lent {
		m.ranges = append(m.ranges, idRange{inside: inside, outside: s.SubID, count: s.Count})
		inside += s.Count
	}
	return m, nil
}

// LentIDs returns how many ids beside their own the calling user has in a user
// namespace, and if there are none, why: images whose files have several
// owners need them.
func LentIDs() (count int64, why string, err error) {
	uids, gids, err := planIDMaps()
	if err != nil {
		return 0, "", fmt.Errorf("count subordinate ids: %w", err)
	}
	if uids.helper == "" || gids.helper == "" {
		why = "/etc/subuid or /etc/subgid lend none (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER)"
		if uids.unhelped != "" || gids.unhelped != "" {
			why = cmp.Or(uids.unhelped, gids.unhelped)
		}
		return 0, why, nil
	}
	for _, r := range uids.ranges[1:] {
		count += r.count
	}
	return count, "", nil
}

// MappedIDs returns how many user ids the user namespace of the process has.
func MappedIDs() int64 {
	maps, err := user.CurrentProcessUIDMap()
	if err != nil {
		return math.MaxUint32
	}
	var n int64
	for _, m := range maps {
		n += m.Count
	}
	return n
}

// OneID tells whether the user namespace of the process has a single user id.
// Then every file seems to belong to root, nothing can be given to somebody
// else, and no process can be somebody else's.
func OneID() bool { return MappedIDs() <= 1 }
