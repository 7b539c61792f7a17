package limit

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// checker goes through a Dockerfile once.
type checker struct {
	base   base
	stages map[string]*scope // by name and by number
	global scope
	stage  *scope // nil before the first FROM
	escape byte
	total  int64 // growth so far
	seen   int   // instructions so far
}

// check returns the instruction that goes too far.
func (c *checker) check(dockerfile []byte) (*parser.Node, error) {
	tree, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, nil
	}
	c.escape = byte(tree.EscapeToken)
	triggers := c.triggers()
	c.global.lengths = c.base.lengths
	number := 0
	for _, node := range tree.AST.Children {
		if strings.EqualFold(node.Value, command.From) {
			err = c.from(node, number, triggers)
			number++
		} else {
			err = c.instruction(node)
		}
		if err != nil {
			return node, err
		}
	}
	return nil, nil
}

// triggers are the instructions that base images leave to whoever builds upon
// them.
func (c *checker) triggers() []*parser.Node {
	if len(c.base.triggers) == 0 {
		return nil
	}
	tree, err := parser.Parse(strings.NewReader(strings.Join(c.base.triggers, "\n")))
	if err != nil {
		return nil
	}
	return tree.AST.Children
}

// count adds the growth of an instruction.
func (c *checker) count(n int64) error {
	if n > maxGrowth {
		return tooLong()
	}
	if c.total += n; c.total > maxTotal {
		return tooMuch("the variables up to here stand for more than %d bytes", maxTotal)
	}
	return nil
}

func (c *checker) next() error {
	if c.seen++; c.seen > maxInstructions {
		return tooMuch("these are more than %d instructions", maxInstructions)
	}
	return nil
}

// grow adds the growth of texts in s.
func (c *checker) grow(s *scope, texts ...string) error {
	var sum int64
	for _, text := range texts {
		n, err := s.growth(text, c.escape)
		if err != nil {
			return err
		}
		if sum += n; sum > maxGrowth {
			return tooLong()
		}
	}
	return c.count(sum)
}

// from begins a stage, with what it inherits and the triggers of what it begins
// as: another stage, or an image.
func (c *checker) from(node *parser.Node, number int, triggers []*parser.Node) error {
	if err := c.next(); err != nil || node.Next == nil {
		return err
	}
	if err := c.grow(&c.global, append(node.Flags, node.Next.Value)...); err != nil {
		return err
	}
	parent := c.stages[strings.ToLower(node.Next.Value)]
	c.stage = &scope{parent: parent, lookups: c.global.lookups}
	if parent != nil {
		c.stage.environment, c.stage.depth, triggers = parent.environment, parent.depth+1, parent.triggers
	} else {
		c.stage.parent, c.stage.depth = &scope{lengths: c.base.lengths}, 1
		for _, length := range c.base.lengths {
			c.stage.environment += length
		}
	}
	// FROM image AS name
	if as := node.Next.Next; as != nil && as.Next != nil {
		c.stages[strings.ToLower(as.Next.Value)] = c.stage
	}
	c.stages[fmt.Sprint(number)] = c.stage
	for _, trigger := range triggers {
		if err := c.instruction(trigger); err != nil {
			return fmt.Errorf("ONBUILD %s: %w", strings.ToUpper(trigger.Value), err)
		}
	}
	return nil
}

func (c *checker) instruction(node *parser.Node) error {
	if err := c.next(); err != nil {
		return err
	}
	s := c.stage
	if s == nil {
		s = &c.global
	}
	if err := c.grow(s, node.Flags...); err != nil {
		return err
	}
	switch strings.ToLower(node.Value) {
	case command.Onbuild:
		if node.Next != nil && len(node.Next.Children) > 0 {
			s.triggers = append(s.triggers, node.Next.Children[0])
		}
		return nil
	case command.Run:
		c.total += s.environment
		return c.count(0)
	case command.Cmd, command.Entrypoint, command.Shell, command.Healthcheck, command.Maintainer:
		return nil // taken as they are
	case command.Env:
		return c.env(node, s)
	case command.Arg:
		return c.arg(node, s)
	}
	return c.grow(s, texts(node)...)
}

// texts are the words of an instruction and its here-documents.
func texts(node *parser.Node) []string {
	var list []string
	for word := node.Next; word != nil; word = word.Next {
		list = append(list, word.Value)
	}
	for _, doc := range node.Heredocs {
		if doc.Expand {
			list = append(list, doc.Content)
		}
	}
	return list
}

// env sets variables. All of them see what was before.
func (c *checker) env(node *parser.Node, s *scope) error {
	words := texts(node) // name, value, separator; and so on
	if err := c.grow(s, words...); err != nil {
		return err
	}
	set := map[string]int64{}
	for i := 0; i+1 < len(words); i += 3 {
		n, err := s.growth(words[i+1], c.escape)
		if err != nil {
			return err
		}
		set[words[i]] = int64(len(words[i+1])) + n
	}
	for name, length := range set {
		if err := s.set(name, length); err != nil {
			return err
		}
	}
	return nil
}

// arg declares arguments. One without a value has that of the argument of the
// same name before the first FROM, or what the base has for it.
func (c *checker) arg(node *parser.Node, s *scope) error {
	words := texts(node)
	if err := c.grow(s, words...); err != nil {
		return err
	}
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		length := c.base.lengths[name]
		outer, known, err := c.global.find(name)
		if known && !ok {
			length = max(length, outer)
		}
		n := int64(0)
		if err == nil {
			n, err = s.growth(value, c.escape)
		}
		if err == nil {
			err = s.set(name, max(length, int64(len(value))+n))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
