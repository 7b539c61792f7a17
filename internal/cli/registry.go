package cli

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/registry/server"
)

// servedPrefix is the namespace of the store that `registry serve` shows. It is
// hidden from `images`.
const servedPrefix = "_served"

func registryCommand(e *engine.Engine) *cobra.Command {
	return group("registry COMMAND", "Serve a registry", registryServeCommand(e))
}

func registryServeCommand(e *engine.Engine) *cobra.Command {
	var addr, cert, key, users string
	cmd := &cobra.Command{
		Use:   "serve [OPTIONS]",
		Short: "Serve a registry from the store until interrupted",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, h, err := openServer(cmd, e, addr, cert, key, users)
			if err != nil {
				return err
			}
			scheme := "http"
			if cert != "" {
				scheme = "https"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Serving a registry at %s://%s\n", scheme, l.Addr())
			return server.Serve(cmd.Context(), l, h)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&addr, "addr", "127.0.0.1:5000", "Address to listen on")
	flags.StringVar(&e.Config.Root, "root", e.Config.Root, "Directory of the store")
	flags.StringVar(&cert, "tls-cert", "", "Certificate file (PEM); serves https")
	flags.StringVar(&key, "tls-key", "", "Key file of the certificate (PEM)")
	flags.StringVar(&users, "htpasswd", "", "File of users and bcrypt hashes (htpasswd -B); serves nobody else")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return cmd
}

// openServer opens all that a server needs before it can say that it serves.
func openServer(cmd *cobra.Command, e *engine.Engine, addr, cert, key, users string) (net.Listener, http.Handler, error) {
	var o server.Options
	if e.Config.Debug {
		o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	}
	var err error
	if users != "" {
		if o.Users, err = server.ReadUsers(users); err != nil {
			return nil, nil, err
		}
	}
	var certificates []tls.Certificate
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, nil, fmt.Errorf("load certificate %s: %w", cert, err)
		}
		certificates = append(certificates, pair)
	}
	s, err := e.Store()
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, nil, fmt.Errorf("serve a registry: %w", err)
	}
	if certificates != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS12})
	}
	return l, server.New(s.Registry(servedPrefix), o), nil
}
