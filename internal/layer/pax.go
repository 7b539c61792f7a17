package layer

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// paxXattr begins the name of a record that holds an extended attribute.
const paxXattr = "SCHILY.xattr."

// pax is what an extended header says (POSIX pax, "Extended Header").
type pax struct {
	records map[string]string
	xattrs  map[string]string
	sparse  []segment // GNU.sparse.offset and numbytes, which repeat
}

// parsePax reads records of the form "LENGTH KEY=VALUE\n".
func parsePax(b []byte) (*pax, error) {
	p := &pax{records: map[string]string{}}
	half := false // an offset waits for its numbytes
	for len(b) > 0 {
		key, value, rest, err := paxRecord(b)
		if err != nil {
			return nil, err
		}
		b = rest
		switch {
		case strings.HasPrefix(key, paxXattr):
			if p.xattrs == nil {
				p.xattrs = map[string]string{}
			}
			p.xattrs[key[len(paxXattr):]] = value
		case key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || half != (key == "GNU.sparse.numbytes") {
				return nil, fmt.Errorf("bad record %s", key)
			}
			if half {
				p.sparse[len(p.sparse)-1].size = n
			} else {
				p.sparse = append(p.sparse, segment{off: n})
			}
			half = !half
		default:
			p.records[key] = value
		}
	}
	if half {
		return nil, fmt.Errorf("bad record GNU.sparse.offset")
	}
	return p, nil
}

func paxRecord(b []byte) (key, value string, rest []byte, err error) {
	bad := fmt.Errorf("bad extended header")
	length, _, ok := bytes.Cut(b, []byte(" "))
	if !ok || len(length) > 9 {
		return "", "", nil, bad
	}
	n, err := strconv.Atoi(string(length))
	if err != nil || n <= len(length)+1 || n > len(b) || b[n-1] != '\n' {
		return "", "", nil, bad
	}
	k, v, ok := bytes.Cut(b[len(length)+1:n-1], []byte("="))
	if !ok || len(k) == 0 || bytes.IndexByte(k, 0) >= 0 {
		return "", "", nil, bad
	}
	switch string(k) {
	case "path", "linkpath", "uname", "gname":
		if bytes.IndexByte(v, 0) >= 0 {
			return "", "", nil, fmt.Errorf("record %s holds a NUL byte", k)
		}
	}
	return string(k), string(v), b[n:], nil
}

// apply overrides the fields of m. An empty value leaves what the header has.
func (p *pax) apply(m *member) error {
	for key, value := range p.records {
		if value == "" {
			continue
		}
		var err error
		switch key {
		case "path":
			m.name = value
		case "linkpath":
			m.link = value
		case "uid":
			m.uid, err = strconv.ParseInt(value, 10, 64)
		case "gid":
			m.gid, err = strconv.ParseInt(value, 10, 64)
		case "size":
			m.stored, err = strconv.ParseInt(value, 10, 64)
			if m.stored < 0 {
				err = strconv.ErrRange
			}
		case "mtime":
			m.mtime, m.nsec, err = paxTime(value)
		}
		if err != nil {
			return fmt.Errorf("bad record %s=%q", key, value)
		}
	}
	m.xattrs = p.xattrs
	return nil
}

// paxTime reads seconds with a decimal fraction, which may be negative. What
// is finer than a nanosecond is cut off.
func paxTime(s string) (sec int64, nsec uint32, err error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err = strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0, 0, err
	}
	for _, c := range fraction {
		if c < '0' || c > '9' {
			return 0, 0, strconv.ErrSyntax
		}
	}
	if fraction == "" {
		return sec, 0, nil
	}
	fraction = (fraction + "000000000")[:9]
	n, err := strconv.ParseUint(fraction, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	if n > 0 && strings.HasPrefix(whole, "-") {
		return sec - 1, uint32(1e9 - n), nil
	}
	return sec, uint32(n), nil
}
