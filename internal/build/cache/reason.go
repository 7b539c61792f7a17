package cache

import (
	"fmt"
	"strings"
)

// String says r in words.
func (r Reason) String() string {
	switch r.Kind {
	case KindInstruction:
		if r.Was == r.Is {
			return "what the instruction does changed, or an inline file of it"
		}
		return fmt.Sprintf("the instruction changed: it was %q", r.Was)
	case KindArg:
		return "build argument " + r.Name + r.verb()
	case KindEnv:
		return "environment variable " + r.Name + r.verb()
	case KindOption:
		return r.Name + r.verb()
	case KindBase:
		return fmt.Sprintf("the base image changed: it was %s, it is %s", r.Was, r.Is)
	case KindInput:
		return fmt.Sprintf("its input changed: %s", r.Name)
	case KindFile:
		if r.Name == "" {
			return "files that it reads changed (which ones is not known: too many)"
		}
		if dir, ok := strings.CutSuffix(r.Name, "/"); ok && r.Change == changed {
			return "files in " + dir + " changed"
		} else if ok {
			return "files in " + dir + " were " + r.Change
		}
		return "file " + r.Name + r.verb()
	case KindDropped:
		return "it was built before; its record, or a layer of it, was dropped (prune or gc)"
	case KindIgnored:
		return r.Name + " was given"
	}
	if r.Was != "" {
		return "nothing is known of an earlier build; the build cache was pruned at " + r.Was
	}
	return "nothing is known of an earlier build"
}

func (r Reason) verb() string {
	if r.Change == changed {
		return " changed"
	}
	return " was " + r.Change
}

// shownReasons is how many reasons a line of text has.
const shownReasons = 5

// String says v in one line.
func (v Verdict) String() string {
	if v.Hit {
		if v.From != "" {
			return v.Step + ": hit in " + v.From
		}
		return v.Step + ": hit"
	}
	var words []string
	for i, r := range v.Reasons {
		if i == shownReasons {
			words = append(words, fmt.Sprintf("%d more", len(v.Reasons)-i+v.More))
			break
		}
		words = append(words, r.String())
	}
	return v.Step + ": miss: " + strings.Join(words, "; ")
}
