package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/registry/client"
)

func loginCommand(e *engine.Engine) *cobra.Command {
	var cred client.Credentials
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Authenticate to a registry",
		Long:  "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
		Args:  between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host := serverName(args)
			if err := completeLogin(cmd, e, host, &cred, fromStdin); err != nil {
				return err
			}
			keep, err := e.Registries().Login(cmd.Context(), host, cred)
			if err != nil {
				return err
			}
			where, err := e.Registries().Store(cmd.Context(), host, keep)
			if err != nil {
				return err
			}
			if strings.HasSuffix(where, "config.json") {
				fmt.Fprintf(cmd.ErrOrStderr(), "\nWARNING! Your credentials are stored unencrypted in '%s'.\n"+
					"Configure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", where)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Login Succeeded")
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&cred.Username, "username", "u", "", "Username")
	flags.StringVarP(&cred.Password, "password", "p", "", "Password or Personal Access Token (PAT)")
	flags.BoolVar(&fromStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

// serverName returns the registry that a command's optional argument names:
// people paste addresses where a host is meant.
func serverName(args []string) string {
	if len(args) == 0 {
		return "docker.io"
	}
	host := strings.TrimPrefix(strings.TrimPrefix(args[0], "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return "docker.io"
	}
	return host
}

// completeLogin fills in what the flags left open: from standard input, from
// what is stored, or by asking.
func completeLogin(cmd *cobra.Command, e *engine.Engine, host string, cred *client.Credentials, fromStdin bool) error {
	if cmd.Flags().Changed("password") {
		if fromStdin {
			return errors.New("--password and --password-stdin are mutually exclusive")
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if fromStdin {
		if cred.Username == "" {
			return errors.New("the --password-stdin option requires --username to be set")
		}
		password, err := readPassword(cmd.InOrStdin())
		cred.Password = password
		return err
	}
	if cred.Username != "" && cred.Password != "" {
		return nil
	}
	if cred.Username == "" && cred.Password == "" {
		stored, err := e.Registries().Credentials(cmd.Context(), host)
		if err != nil {
			return err
		}
		if stored != (client.Credentials{}) {
			who := ""
			if stored.Username != "" {
				who = " [Username: " + stored.Username + "]"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Authenticating with existing credentials...%s\n", who)
			*cred = stored
			return nil
		}
	}
	return askLogin(cmd, cred)
}

// readPassword reads a password that is the whole input, but for the newline
// that echo adds.
func readPassword(r io.Reader) (string, error) {
	const longest = 1 << 20 // bytes
	data, err := io.ReadAll(io.LimitReader(r, longest))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if password == "" {
		return "", errors.New("password is empty")
	}
	return password, nil
}

// askLogin asks the person at the terminal for what cred lacks.
func askLogin(cmd *cobra.Command, cred *client.Credentials) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return errors.New("cannot perform an interactive login from a non TTY device")
	}
	out := cmd.ErrOrStderr()
	if cred.Username == "" {
		fmt.Fprint(out, "Username: ")
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			return fmt.Errorf("read username: %w", err)
		}
		if cred.Username = strings.TrimSpace(line); cred.Username == "" {
			return errors.New("non-null username required")
		}
	}
	if cred.Password == "" {
		fmt.Fprint(out, "Password: ")
		data, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(out)
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		if cred.Password = string(data); cred.Password == "" {
			return errors.New("password is required")
		}
	}
	return nil
}
