package ops

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/moby/buildkit/solver/pb"
)

// etcFiles plans /etc/hosts and /etc/resolv.conf. They are mounted, so that
// they leave no trace in the layer.
func (j *job) etcFiles() error {
	hosts := fmt.Sprintf("127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", j.hostname())
	for _, h := range j.op.Meta.ExtraHosts {
		hosts += h.IP + "\t" + h.Host + "\n"
	}
	conf, err := os.ReadFile(j.tools.Runner.ResolvConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if j.op.Network == pb.NetMode_UNSET {
		conf = reachable(conf, j.network.DNS)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"hosts", []byte(hosts)}, {"resolv.conf", conf}} {
		file := j.path(f.name)
		if err := os.WriteFile(file, f.data, 0o644); err != nil {
			return err
		}
		if err := os.Chmod(file, 0o644); err != nil { // whatever the umask
			return err
		}
		j.bindFile(file, "/etc/"+f.name, "ro", "nosuid", "nodev", "noexec")
	}
	return nil
}

// reachable leaves out of a resolv.conf the servers that listen on the
// host's loopback, which a container can't reach. If none is left, Google's
// are put in, as Docker does. The server instead, if any, stands for all.
func reachable(conf []byte, instead netip.Addr) []byte {
	var kept []string
	servers := 0
	for line := range strings.Lines(string(conf)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "nameserver" {
			addr, err := netip.ParseAddr(fields[1])
			if instead.IsValid() || err == nil && addr.IsLoopback() {
				continue
			}
			servers++
		}
		kept = append(kept, strings.TrimSuffix(line, "\n"))
	}
	switch {
	case instead.IsValid():
		kept = append(kept, "nameserver "+instead.String())
	case servers == 0:
		kept = append(kept, "nameserver 8.8.8.8", "nameserver 8.8.4.4")
	}
	return []byte(strings.Join(kept, "\n") + "\n")
}
