package tree

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/patternmatcher"
)

// patterns select files: those that match a pattern of include, or all if there
// is none, and match no pattern of exclude. They are for one goroutine, because
// a matcher compiles its patterns when it first needs them.
type patterns struct {
	include, exclude *patternmatcher.PatternMatcher

	// included and excepted are the paths at or below which alone something
	// can be included, or excepted from the exclusion.
	included, excepted prefixes
}

// matched is what patterns say of a file, and what they need to know to say it
// of the files in it.
type matched struct {
	include, exclude patternmatcher.MatchInfo
	in, out          bool // matches an include pattern; matches an exclude pattern
}

func (m matched) selected() bool { return m.in && !m.out }

func newPatterns(include, exclude []string) (patterns, error) {
	var p patterns
	var err error
	if p.include, err = newMatcher("include", include); err != nil {
		return p, err
	}
	p.exclude, err = newMatcher("exclude", exclude)
	p.included, p.excepted = plainPrefixes(p.include, false), plainPrefixes(p.exclude, true)
	return p, err
}

func newMatcher(what string, words []string) (*patternmatcher.PatternMatcher, error) {
	if len(words) == 0 {
		return nil, nil
	}
	m, err := patternmatcher.New(words)
	if err != nil {
		return nil, fmt.Errorf("read %s patterns %q: %w: %w", what, words, err, errdefs.ErrInvalidArgument)
	}
	return m, nil
}

// none reports whether everything is selected.
func (p *patterns) none() bool { return p.include == nil && p.exclude == nil }

// match says what the patterns mean for path in a directory that matched up.
func (p *patterns) match(path string, up matched) (matched, error) {
	m := matched{in: true}
	var err error
	if p.include != nil {
		if m.in, m.include, err = p.include.MatchesUsingParentResults(path, up.include); err != nil {
			return m, badPattern(err)
		}
	}
	if p.exclude != nil {
		if m.out, m.exclude, err = p.exclude.MatchesUsingParentResults(path, up.exclude); err != nil {
			return m, badPattern(err)
		}
	}
	return m, nil
}

func badPattern(err error) error {
	return fmt.Errorf("match pattern: %w: %w", err, errdefs.ErrInvalidArgument)
}

// below reports whether something in the directory dir, which matched m, may be
// selected.
func (p *patterns) below(dir string, m matched) bool {
	return (m.in || p.included.below(dir)) && (!m.out || p.exclude.Exclusions() && p.excepted.below(dir))
}

// prefixes are paths of patterns without wildcards. It is nil if there are
// others.
type prefixes []string

func plainPrefixes(m *patternmatcher.PatternMatcher, exclusions bool) prefixes {
	if m == nil {
		return nil
	}
	plain := prefixes{}
	for _, p := range m.Patterns() {
		if p.Exclusion() != exclusions {
			continue
		}
		path := strings.TrimSuffix(strings.TrimSuffix(p.String(), "/**"), "/*")
		if strings.ContainsAny(path, `*[]?^\`) {
			return nil
		}
		plain = append(plain, path)
	}
	return plain
}

// below reports whether one of the paths may lie below dir.
func (p prefixes) below(dir string) bool {
	return p == nil || slices.ContainsFunc(p, func(path string) bool {
		return strings.HasPrefix(path+"/", dir+"/")
	})
}
