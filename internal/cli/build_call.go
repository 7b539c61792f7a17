package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/subrequests/lint"

	"github.com/shaleproject/shale/internal/build"
)

// buildCall is what --call asks of the front end.
type buildCall struct {
	request      string // empty to build
	json         bool
	ignoreStatus bool // findings are no failure
}

// calls are the words of --call.
var calls = map[string]string{
	"build": "", "check": build.CallLint, "lint": build.CallLint, "outline": build.CallOutline,
	"targets": build.CallTargets, "subrequests.describe": build.CallDescribe,
}

// parseCall reads --call, "lint,format=json" say, and --check.
func (f *buildFlags) parseCall() (buildCall, error) {
	var c buildCall
	if f.check {
		if f.call != "" && f.call != "build" && f.call != "check" && f.call != "lint" {
			return c, badValue("call", f.call, "--check is a call, too")
		}
		if f.call == "" || f.call == "build" {
			f.call = "check"
		}
	}
	switch f.listContext {
	case "":
	case "plain", "json":
		if f.call != "" && f.call != "build" {
			return c, badValue("call", f.call, "--list-context is a call, too")
		}
		c.request = build.CallListContext
		return c, nil
	default:
		return c, badValue("list-context", f.listContext, "want plain or json")
	}
	if f.call == "" {
		return c, nil
	}
	fields, err := csv.NewReader(strings.NewReader(f.call)).Read()
	if err != nil {
		return c, badValue("call", f.call, err.Error())
	}
	name := ""
	for _, field := range fields {
		switch key, value, option := strings.Cut(field, "="); {
		case !option && name == "":
			name = field
		case key == "format" && (value == "json" || value == "text" || value == ""):
			c.json = value == "json"
		case key == "ignorestatus":
			if c.ignoreStatus, err = strconv.ParseBool(value); err != nil {
				return c, badValue("call", f.call, "ignorestatus is true or false")
			}
		default:
			return c, badValue("call", f.call, fmt.Sprintf("unknown option %q", field))
		}
	}
	request, known := calls[name]
	if !known {
		return c, badValue("call", f.call, "want build, check, lint, outline, targets or subrequests.describe")
	}
	c.request = request
	return c, nil
}

// print prints what the front end has answered, as buildx does. Findings
// of a lint are a failure.
func (c buildCall) print(out io.Writer, a *build.Answer) error {
	var err error
	switch {
	case c.request == build.CallLint:
		err = c.printLint(out, a)
	case c.json:
		_, err = fmt.Fprintf(out, "%s\n", a.JSON)
	default:
		_, err = out.Write(a.Text)
	}
	if err != nil {
		return err
	}
	if a.Failed && !c.ignoreStatus {
		return &ExitError{Code: exitFailure}
	}
	return nil
}

func (c buildCall) printLint(out io.Writer, a *build.Answer) error {
	var found lint.LintResults
	if err := json.Unmarshal(a.JSON, &found); err != nil {
		return fmt.Errorf("read result of the check: %w", err)
	}
	var text bytes.Buffer
	n := len(found.Warnings)
	switch {
	case c.json:
		fmt.Fprintf(&text, "%s\n", a.JSON)
	case n == 0 && found.Error == nil:
		fmt.Fprintln(&text, "Check complete, no warnings found.")
	case n == 1:
		fmt.Fprintln(&text, "Check complete, 1 warning has been found!")
	case n > 1:
		fmt.Fprintf(&text, "Check complete, %d warnings have been found!\n", n)
	}
	if !c.json {
		text.Write(a.Text)
		if found.Error != nil && n > 0 {
			fmt.Fprintln(&text)
		}
	}
	if _, err := out.Write(text.Bytes()); err != nil || found.Error == nil {
		return err
	}
	text.Reset()
	found.PrintErrorTo(&text, nil)
	return errors.New(strings.TrimRight(text.String(), "\n"))
}
