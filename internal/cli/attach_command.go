package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func attachCommand(e *engine.Engine) *cobra.Command {
	var noStdin, sigProxy bool
	var detachKeys string
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] CONTAINER",
		Short: "Attach local standard input, output, and error streams to a running container",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			keys, err := parseKeys(detachKeys)
			if err != nil {
				return err
			}
			info, err := containers.Inspect(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			stdin := !noStdin && info.Config.OpenStdin
			streams := consoleOf(cmd, []string{"stdin", "stdout", "stderr"})
			con, err := attachConsole(streams.in, streams.out, streams.err, stdin, info.Config.Tty, sigProxy)
			if err != nil {
				return err
			}
			if con.io.In != nil && info.Config.Tty {
				con.io.In = &detachable{in: con.io.In, keys: keys}
			}
			code, err := containers.Attach(cmd.Context(), args[0], con.io, con.signals)
			if cerr := con.Close(); err == nil {
				err = cerr
			}
			if errors.Is(err, container.ErrDetached) {
				fmt.Fprintln(cmd.ErrOrStderr(), "read escape sequence")
				return nil
			}
			if err != nil {
				return err
			}
			return exitCode(code)
		},
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "ctrl-p,ctrl-q", "Override the key sequence for detaching a container")
	return needsNamespace(cmd)
}

// parseKeys reads Docker's form of a key sequence: characters and ctrl-X,
// separated by commas.
func parseKeys(s string) ([]byte, error) {
	var keys []byte
	for _, k := range splitList([]string{s}) {
		switch {
		case len(k) == 1:
			keys = append(keys, k[0])
		case len(k) == 6 && k[:5] == "ctrl-" && (k[5] >= 'a' && k[5] <= 'z' || k[5] >= '@' && k[5] <= '_'):
			keys = append(keys, k[5]&0x1f)
		default:
			return nil, invalid("unknown character: '%s' in the key sequence", k)
		}
	}
	return keys, nil
}

// detachable ends with [container.ErrDetached] when the keys are typed one
// after the other. Until the sequence is complete, they are held back.
type detachable struct {
	in   io.Reader
	keys []byte
	held int
}

func (d *detachable) Read(p []byte) (int, error) {
	buffer := make([]byte, max(1, len(p)-len(d.keys)))
	n, err := d.in.Read(buffer)
	out := p[:0]
	for _, b := range buffer[:n] {
		if b == d.keys[d.held] {
			if d.held++; d.held == len(d.keys) {
				return len(out), container.ErrDetached
			}
			continue
		}
		out = append(out, d.keys[:d.held]...)
		d.held = 0
		if b == d.keys[0] {
			d.held = 1
			continue
		}
		out = append(out, b)
	}
	return len(out), err
}
