package limit

import (
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// scope has the lengths of the variables that are known at one place, in bytes.
type scope struct {
	parent      *scope // the stage that this one begins as
	depth       int    // how many parents there are
	lookups     *int64 // so far, of all scopes of a checker
	lengths     map[string]int64
	own         bool  // lengths is nobody else's
	environment int64 // all of them together
	triggers    []*parser.Node
}

func (s *scope) set(name string, length int64) error {
	if !s.own {
		s.lengths, s.own = maps.Clone(s.lengths), true
	}
	if s.lengths == nil {
		s.lengths = map[string]int64{}
	}
	old, _, err := s.find(name)
	s.environment += length - old
	s.lengths[name] = length
	return err
}

// find looks for a variable in s and in what it begins as.
func (s *scope) find(name string) (length int64, ok bool, err error) {
	if *s.lookups += int64(s.depth) + 1; *s.lookups > maxLookups {
		return 0, false, tooMuch("the variables up to here are looked for in more than %d stages", maxLookups)
	}
	for ; s != nil; s = s.parent {
		if n, ok := s.lengths[name]; ok {
			return n, true, nil
		}
	}
	return 0, false, nil
}

// platformLength is what the front end's own variables (TARGETPLATFORM and the
// like) are taken to have.
const platformLength = 64

func (s *scope) length(name string) (int64, error) {
	n, ok, err := s.find(name)
	if !ok {
		n = platformLength
	}
	return n, err
}

// growth is how many bytes the variables in text stand for at most. Where the
// front end looks at quotes and escapes differs from place to place, so it is
// computed in all ways.
func (s *scope) growth(text string, escape byte) (int64, error) {
	if !strings.Contains(text, "$") {
		return 0, nil
	}
	var most int64
	for _, w := range []word{
		{quotes: true, escape: escape}, {quotes: true}, {escape: escape}, {},
	} {
		w.scope, w.text = s, text
		if _, err := w.until(0, 0); err != nil {
			return 0, err
		}
		most = max(most, w.sum)
	}
	return most, nil
}

// word is a text that is being read as the front end does (package shell).
type word struct {
	scope  *scope
	text   string
	quotes bool // they mean something
	escape byte // 0 means that there is none
	at     int
	sum    int64
}

func (w *word) add(n int64) error {
	if w.sum += n; w.sum > maxGrowth {
		return tooLong()
	}
	return nil
}

// until reads up to and including stop, or to the end, and tells how many bytes
// that was and stands for. No text has a stop of 0.
func (w *word) until(stop byte, depth int) (int64, error) {
	from, before := w.at, w.sum
	for w.at < len(w.text) {
		c := w.text[w.at]
		w.at++
		switch {
		case c == stop && stop != 0:
			return int64(w.at-from) + w.sum - before, nil
		case c == '\'' && w.quotes && stop != '"':
			if end := strings.IndexByte(w.text[w.at:], '\''); end >= 0 {
				w.at += end + 1
			} else {
				w.at = len(w.text)
			}
		case c == '"' && w.quotes:
			if _, err := w.until('"', depth); err != nil {
				return 0, err
			}
		case c == w.escape && c != 0:
			w.at++
		case c == '$':
			if err := w.variable(depth); err != nil {
				return 0, err
			}
		}
	}
	w.at = len(w.text)
	return int64(w.at-from) + w.sum - before, nil
}

// variable reads what follows a $.
func (w *word) variable(depth int) error {
	if w.at < len(w.text) && w.text[w.at] == '{' {
		if depth == maxDepth {
			return tooMuch("${ is nested more than %d deep", maxDepth)
		}
		w.at++
		return w.braces(depth + 1)
	}
	if name := w.name(); name != "" {
		length, err := w.scope.length(name)
		if err != nil {
			return err
		}
		return w.add(length)
	}
	return nil
}

// braces reads what follows a ${.
func (w *word) braces(depth int) error {
	length, err := w.scope.length(w.name())
	if err == nil {
		err = w.add(length)
	}
	if err != nil {
		return err
	}
	if w.at == len(w.text) || w.text[w.at] != '/' {
		_, err := w.until('}', depth)
		return err
	}
	// ${name/p/r} or ${name//p/r}: there can be an r for each byte and at the
	// end. An r may quote what it replaces ("$0").
	if w.at++; w.at < len(w.text) && w.text[w.at] == '/' {
		w.at++
	}
	if _, err := w.until('/', depth); err != nil {
		return err
	}
	r, err := w.until('}', depth)
	if err != nil {
		return err
	}
	if r > maxGrowth {
		return tooLong()
	}
	return w.add(r * (min(length, maxGrowth) + 1))
}

// name reads the name of a variable.
func (w *word) name() string {
	rest := w.text[w.at:]
	first, size := utf8.DecodeRuneInString(rest)
	switch {
	case rest == "":
		return ""
	case strings.ContainsRune("@*#?-$!", first):
		w.at += size
		return rest[:size]
	case unicode.IsDigit(first):
		return w.while(unicode.IsDigit)
	}
	return w.while(func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) })
}

func (w *word) while(f func(rune) bool) string {
	rest := w.text[w.at:]
	if end := strings.IndexFunc(rest, func(r rune) bool { return !f(r) }); end >= 0 {
		rest = rest[:end]
	}
	w.at += len(rest)
	return rest
}
