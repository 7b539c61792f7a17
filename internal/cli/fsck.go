package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

func fsckCommand(e *engine.Engine) *cobra.Command {
	var deep bool
	cmd := &cobra.Command{
		Use:   "fsck [OPTIONS]",
		Short: "Check the store for damage",
		Long: `Check the store for damage.

Every image, container and cache record must have what it needs, in the right
size. With --deep all content is read again and compared with its digest.
Nothing is changed. The exit code is 0 only if the store is whole.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := e.Store()
			if err != nil {
				return err
			}
			problems, err := s.Fsck(cmd.Context(), deep)
			if err != nil {
				return err
			}
			for _, p := range problems {
				fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace(p.String()))
			}
			switch len(problems) {
			case 0:
				fmt.Fprintf(cmd.OutOrStdout(), "%s is whole\n", s.Root())
				return nil
			case 1:
				return fmt.Errorf("%s has a problem", s.Root())
			}
			return fmt.Errorf("%s has %d problems", s.Root(), len(problems))
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "Read all content and compare it with its digest")
	return cmd
}
