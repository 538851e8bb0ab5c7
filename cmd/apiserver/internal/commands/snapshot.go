package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/berth-project/berth/cmd/apiserver/internal/backend"
	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/storage/embedded"
	"github.com/berth-project/berth/pkg/storage/snapshot"
)

// NewSnapshot returns the command that saves, restores and checks backups.
func NewSnapshot(stdout io.Writer) *cobra.Command {
	return cli.NewGroup("snapshot", "Save, restore and check backups of the database",
		"Saves the database in a file, restores it from one, and checks such files, which are etcd's.",
		newSaveCommand(stdout), newRestoreCommand(stdout), newStatusCommand(stdout))
}

// oneFile wants the one argument FILE.
func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments, want one, the FILE; see %s --help", len(args), cmd.CommandPath())
	}
	return nil
}

func newSaveCommand(stdout io.Writer) *cobra.Command {
	c := backend.Config{DataDir: datadir.Default}
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the database in a new file",
		Long: `Saves the database of a server in a new file, with a checksum, and checks it. The server may be
running: every write that it acknowledged before is in the file. Tokens and certificates are not.`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return cli.WithEnvironment(cmd.Flags(), func() error { return saveSnapshot(cmd.Context(), c, args[0], stdout) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar((*string)(&c.DataDir), "data-dir", string(c.DataDir), "Data directory of the server, if its etcd is the embedded one")
	c.AddEtcdFlags(flags)
	return cmd
}

func newRestoreCommand(stdout io.Writer) *cobra.Command {
	dir := datadir.Default
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Restore the database from a file into a data directory without one",
		Long: `Makes the database of the embedded etcd from a file that was saved of an embedded or an external
etcd. Whatever else is in the data directory stays. Clients that watch from an older version get
410 Gone and list again.`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return cli.WithEnvironment(cmd.Flags(), func() error { return restoreSnapshot(dir, args[0], stdout) })
		},
	}
	cmd.Flags().StringVar((*string)(&dir), "data-dir", string(dir), "Data directory to restore into: a new one, or one whose etcd directory was moved away")
	return cmd
}

func newStatusCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "status FILE",
		Short: "Check a file and print what is in it",
		Long:  "Checks a file and its checksum, and prints what is in it.",
		Args:  oneFile,
		RunE: func(_ *cobra.Command, args []string) error {
			st, err := snapshot.Read(args[0])
			if err == nil {
				fmt.Fprintf(stdout, "%s: %s\n", args[0], describe(st))
			}
			return err
		},
	}
}

func describe(st snapshot.Status) string {
	etcd := ""
	if st.Version != "" {
		etcd = ", etcd " + st.Version
	}
	return fmt.Sprintf("revision %d, %d keys, %d bytes%s; its checksum is right", st.Revision, st.Keys, st.Bytes, etcd)
}

// saveSnapshot saves the database of a server: of --etcd-servers, of the embedded etcd in a
// running server, or of one in a data directory that no server uses.
func saveSnapshot(ctx context.Context, c backend.Config, file string, stdout io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	source, err := openSource(ctx, c)
	if err != nil {
		return err
	}
	st, err := snapshot.Save(ctx, source.Client, file)
	if err := errors.Join(err, source.Close()); err != nil {
		return fmt.Errorf("nothing was saved: %s", backend.Failure(source.Client.Endpoints(), err))
	}
	fmt.Fprintf(stdout, "saved %s: %s\n", file, describe(st))
	return nil
}

// openSource returns a connection to the etcd to save. close must be called.
func openSource(ctx context.Context, c backend.Config) (*backend.Backend, error) {
	if len(c.EtcdServers) > 0 {
		return openMember(ctx, c)
	}
	socket := c.DataDir.EtcdSocket()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err == nil {
		conn.Close()
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix:" + socket}, Logger: zap.NewNop()})
		if err != nil {
			return nil, err
		}
		return &backend.Backend{Client: client, Close: client.Close}, nil
	}
	return openStopped(ctx, c, err)
}

// openMember connects to the first of --etcd-servers that answers. A follower may be behind,
// but not after it has answered a linearizable read.
func openMember(ctx context.Context, c backend.Config) (*backend.Backend, error) {
	var failures []error
	for _, server := range c.EtcdServers {
		one := c
		one.EtcdServers = []string{server}
		b, err := backend.Connect(one)
		if err != nil {
			return nil, err
		}
		if err = backend.Await(ctx, b.Client); err == nil {
			return b, nil
		}
		failures = append(failures, err, b.Close())
	}
	return nil, &cli.FlagError{Flag: "etcd-servers", Err: errors.Join(failures...)}
}

// openStopped starts the embedded etcd of a data directory that no server uses; noAnswer is
// why it seems that none does. It creates no data directory.
func openStopped(ctx context.Context, c backend.Config, noAnswer error) (*backend.Backend, error) {
	db, err := os.Stat(c.DataDir.Database())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no database in %s; --data-dir must be that of the server", c.DataDir.Etcd())
	}
	if err != nil {
		return nil, err
	}
	// The quota of the server may be larger than the default, and near a quota etcd compacts.
	c.QuotaBackendBytes = max(2*db.Size(), embedded.DefaultQuotaBytes)
	lock, err := c.DataDir.Lock()
	if err != nil {
		return nil, fmt.Errorf("%w; the server there cannot be asked for a snapshot: %w", err, noAnswer)
	}
	b, err := backend.OpenEmbedded(ctx, c, zerolog.Nop())
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	stop := b.Close
	b.Close = func() error { return errors.Join(stop(), lock.Close()) }
	return b, nil
}

// restoreSnapshot makes the database of a data directory from a file.
func restoreSnapshot(dir datadir.Dir, file string, stdout io.Writer) error {
	if _, err := snapshot.Read(file); err != nil { // before a data directory is made
		return err
	}
	lock, err := dir.Lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	st, revision, err := embedded.Restore(file, dir.Etcd(), time.Now())
	if err != nil {
		return fmt.Errorf("nothing was restored: %w", err)
	}
	fmt.Fprintf(stdout, "restored %s into %s: %s\n", file, dir.Etcd(), describe(st))
	fmt.Fprintf(stdout, "The revision is now %d: clients that watch from an older one get 410 Gone and list again.\n", revision)
	if _, err := os.Stat(dir.Token()); err == nil {
		fmt.Fprintf(stdout, "Tokens and certificates are not in a snapshot. Those in %s stay.\n", dir)
	} else {
		fmt.Fprintf(stdout, "Tokens and certificates are not in a snapshot. Copy token and pki/ of the old data directory to %s,\nor the start makes new ones, which clients must then get.\n", dir)
	}
	fmt.Fprintf(stdout, "Now start the server: apiserver --data-dir=%s\n", cli.ShellQuote(string(dir)))
	return nil
}
