package cli

import "github.com/spf13/pflag"

// list is a flag that may be given several times; "list" is what Docker's
// help calls it. The values stay as they were typed.
//
// pflag's own type writes its default as CSV for each flag of each command,
// which for ours took a tenth of the start of every command.
type list struct{ values *[]string }

func (l list) String() string { return "" }
func (l list) Type() string   { return "list" }

func (l list) Set(v string) error {
	*l.values = append(*l.values, v)
	return nil
}

// listVar and listVarP define such a flag.
func listVar(flags *pflag.FlagSet, to *[]string, name, usage string) {
	flags.Var(list{to}, name, usage)
}

func listVarP(flags *pflag.FlagSet, to *[]string, name, short, usage string) {
	flags.VarP(list{to}, name, short, usage)
}
