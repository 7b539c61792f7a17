package tree

import (
	"io/fs"
	"strconv"

	"github.com/containerd/errdefs"
)

// The bits of chmod(1), which are not those of [fs.FileMode] above 0777.
const (
	setUID, setGID, sticky = 0o4000, 0o2000, 0o1000

	userBits  = setUID | 0o700
	groupBits = setGID | 0o070
	otherBits = 0o007
	classBits = userBits | groupBits | otherBits // "a": all but the sticky bit
)

// modeChange is what a mode word of chmod(1) does, step by step.
type modeChange []modeStep

// modeStep sets ('+'), clears ('-') or conditionally sets ('X') bits; or, with
// from, adds, removes or assigns the permissions of one class to others.
type modeStep struct {
	op   byte
	bits uint16
	from byte // 'u', 'g', 'o', or 0
}

// parseMode reads an octal mode up to 7777 or a symbolic one ("u=rwX,go-w").
// The umask is 0. The grammar is that of BSD's setmode(3), as BuildKit takes
// it: where GNU chmod differs ("+rt" without a class sets only the sticky bit),
// this does what BuildKit does.
func parseMode(word string) (modeChange, error) {
	if word != "" && word[0] >= '0' && word[0] <= '9' {
		bits, err := strconv.ParseUint(word, 8, 16)
		if err != nil || bits > 0o7777 {
			return nil, badMode(word)
		}
		return modeChange{{op: '-', bits: 0o7777}, {op: '+', bits: uint16(bits)}}, nil
	}
	p := modeParser{rest: word}
	for {
		who := p.who()
		for {
			if !p.operation(who) {
				return nil, badMode(word)
			}
			if p.rest == "" {
				return p.steps, nil
			}
			if p.rest[0] == ',' {
				break
			}
		}
		p.rest = p.rest[1:]
	}
}

func badMode(word string) error {
	return errdefs.ErrInvalidArgument.WithMessage("invalid mode " + strconv.Quote(word))
}

type modeParser struct {
	rest  string
	steps modeChange
}

func (p *modeParser) add(op byte, bits uint16, from byte) {
	p.steps = append(p.steps, modeStep{op, bits, from})
}

// who reads the classes in front of an operator; 0 is none.
func (p *modeParser) who() uint16 {
	var who uint16
	for ; p.rest != ""; p.rest = p.rest[1:] {
		switch p.rest[0] {
		case 'u':
			who |= userBits
		case 'g':
			who |= groupBits
		case 'o':
			who |= otherBits
		case 'a':
			who |= classBits
		default:
			return who
		}
	}
	return who
}

// operation reads an operator and the permissions after it.
func (p *modeParser) operation(who uint16) bool {
	if p.rest == "" {
		return false
	}
	op := p.rest[0]
	if op != '+' && op != '-' && op != '=' {
		return false
	}
	var perm, permX uint16
	assigned := false
	for p.rest = p.rest[1:]; p.rest != ""; p.rest = p.rest[1:] {
		letter := p.rest[0]
		switch letter {
		case 'r':
			perm |= 0o444
		case 'w':
			perm |= 0o222
		case 'x':
			perm |= 0o111
		case 'X':
			if op == '-' {
				perm |= 0o111
			} else {
				permX = 0o111
			}
		case 's':
			if who == 0 || who&^otherBits != 0 {
				perm |= setUID | setGID
			}
		case 't':
			if who == 0 || who&^otherBits != 0 {
				who |= sticky
				perm |= sticky
			}
		case 'u', 'g', 'o':
			p.flush(op, who, perm, permX, true)
			perm, permX, assigned = 0, 0, true
			p.add(op, classes(who), letter)
		default:
			p.flush(op, who, perm, permX, assigned)
			return true
		}
	}
	p.flush(op, who, perm, permX, assigned)
	return true
}

// flush turns the permission letters read so far into steps. An assignment of
// nothing clears, unless a class was assigned before it.
func (p *modeParser) flush(op byte, who, perm, permX uint16, assigned bool) {
	limit := who
	if who == 0 {
		limit = 0o7777
	}
	switch {
	case op != '=' && perm != 0:
		p.add(op, perm&limit, 0)
	case op == '=' && (perm != 0 || !assigned):
		clear := who
		if who == 0 {
			clear = classBits
		}
		p.add('-', clear, 0)
		p.add('+', perm&limit, 0)
	}
	if permX != 0 {
		p.add('X', permX&limit, 0)
	}
}

// classes are the read, write and execute bits of the classes in who.
func classes(who uint16) uint16 {
	if who == 0 {
		return 0o777
	}
	return who & 0o777
}

// apply returns mode with the change made. X looks at the mode before it.
func (m modeChange) apply(mode fs.FileMode) fs.FileMode {
	before := unixMode(mode)
	now := before
	for _, s := range m {
		bits := s.bits
		if s.from != 0 {
			bits &= spread(now, s.from)
		}
		switch s.op {
		case '+':
			now |= bits
		case '-':
			now &^= bits
		case '=':
			now = now&^s.bits | bits
		case 'X':
			if before&0o111 != 0 || mode.IsDir() {
				now |= bits
			}
		}
	}
	return withUnixMode(mode, now)
}

// spread copies the three bits of a class to all classes.
func spread(bits uint16, class byte) uint16 {
	switch class {
	case 'u':
		bits >>= 6
	case 'g':
		bits >>= 3
	}
	return bits & 7 * 0o111
}

func unixMode(mode fs.FileMode) uint16 {
	bits := uint16(mode.Perm())
	if mode&fs.ModeSetuid != 0 {
		bits |= setUID
	}
	if mode&fs.ModeSetgid != 0 {
		bits |= setGID
	}
	if mode&fs.ModeSticky != 0 {
		bits |= sticky
	}
	return bits
}

func withUnixMode(mode fs.FileMode, bits uint16) fs.FileMode {
	mode &^= fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	mode |= fs.FileMode(bits & 0o777)
	if bits&setUID != 0 {
		mode |= fs.ModeSetuid
	}
	if bits&setGID != 0 {
		mode |= fs.ModeSetgid
	}
	if bits&sticky != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
