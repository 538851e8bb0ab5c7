package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/serving"
)

const (
	// shutdownGrace is how long requests that are under way may take after a stop was asked
	// for.
	shutdownGrace = 30 * time.Second
	// adminUser is whom the token in the data directory belongs to.
	adminUser = "admin"
)

// run serves until ctx ends and returns nil then, also when that is before it is ready.
// It prints to stdout once it is ready, and logs to stderr. Any other end is an error: a
// *flagError where a flag is to blame.
//
// What can fail without a trace comes first: the flags, the user's files, the ports and
// the lock of the data directory. Only then is anything written.
func run(ctx context.Context, c config, stdout, stderr io.Writer) error {
	if err := c.validate(); err != nil {
		return err
	}
	logger, flushLog, err := newLogger(stderr, c.LogLevel, c.LogFormat)
	if err != nil {
		return err
	}
	defer flushLog()
	in, err := loadInputs(c)
	if err != nil {
		return err
	}
	ports, err := listen(ctx, c)
	if err != nil {
		return err
	}
	defer ports.close()
	unlock, err := lockDataDir(c.files())
	if err != nil {
		return err
	}
	defer unlock()

	i := &instance{config: c, inputs: in, files: c.files(), ports: ports, logger: logger}
	if err := i.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return errors.Join(i.serve(ctx, stdout), i.core.close())
}

// instance is one running server.
type instance struct {
	*inputs
	config config
	files  dataFiles
	ports  *listeners
	logger zerolog.Logger
	core   *core
}

// start makes what the data directory lacks and everything behind the ports. What is slow
// is done side by side. After an error nothing is left running.
func (i *instance) start(ctx context.Context) error {
	var prepareErr, coreErr error
	var starting sync.WaitGroup
	starting.Go(func() { prepareErr = i.prepare() })
	starting.Go(func() { i.core, coreErr = startCore(ctx, i.config, i.inputs, i.logger) })
	starting.Wait()
	err := errors.Join(coreErr, prepareErr)
	if err == nil {
		err = i.writeKubeconfig()
	}
	if err != nil && i.core != nil {
		err = errors.Join(err, i.core.close())
	}
	return err
}

// prepare sees to the certificates and the token where the user has not given his own.
func (i *instance) prepare() error {
	if i.config.TLSCertFile == "" {
		names, err := servingNames(i.config)
		if err != nil {
			return err
		}
		pair, caPEM, err := ensurePKI(i.files, names, time.Now())
		if err != nil {
			return err
		}
		i.certs.current.Store(&servingCert{pair: pair, caPEM: caPEM, caFile: i.files.caCert()})
	}
	if i.config.TokenAuthFile != "" {
		return nil
	}
	token, err := ensureToken(i.files.token())
	if err != nil {
		return err
	}
	return i.tokens.Set(token, auth.User{Name: adminUser, Groups: []string{auth.SystemPrivilegedGroup}})
}

// access is how clients reach the server now.
func (i *instance) access() (access, error) {
	host, cert := clientHost(i.config), i.certs.current.Load()
	a := access{
		server:     secureURL(host, i.ports.securePort()),
		serverName: serverName(cert.pair.Leaf, host),
		caPEM:      cert.caPEM,
	}
	var err error
	if i.config.TokenAuthFile != "" {
		a.token, err = adminToken(i.config.TokenAuthFile, i.tokens)
	} else {
		a.token, err = ensureToken(i.files.token())
	}
	return a, err
}

func (i *instance) writeKubeconfig() error {
	a, err := i.access()
	if err != nil {
		return err
	}
	return writeKubeconfig(i.files.kubeconfig(), a)
}

// serve answers requests until ctx ends or something fails that the server cannot do
// without, and then stops everything but the core.
func (i *instance) serve(ctx context.Context, stdout io.Writer) error {
	background := newTasks()
	defer background.stop()
	if len(i.watched) > 0 {
		background.run(i.reloader().run)
	}
	front, err := serving.New(serving.Config{Handler: i.core.handler, Logger: i.logger, Metrics: i.core.metrics})
	if err != nil {
		return err
	}
	front.ServeTLS(i.ports.secure, i.certs.getCertificate)
	if i.ports.insecure != nil {
		front.Serve(i.ports.insecure)
	}
	if err := i.announce(stdout); err != nil {
		i.logger.Warn().Err(err).Msg("cannot print that the server is ready")
	}

	var failure error
	select {
	case <-ctx.Done():
		i.logger.Info().Stringer("grace", shutdownGrace).Msg("stopping")
	case failure = <-front.Failed():
	case failure = <-i.core.failed:
	}

	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := front.Stop(grace, i.core.handler.EndStreams); err != nil {
		i.logger.Warn().Err(err).Msg("requests under way were cut off")
	}
	return failure
}

func (i *instance) reloader() *reloader {
	return &reloader{
		files: i.watched, changed: i.writeKubeconfig, logger: i.logger, delay: reloadDelay, poll: reloadPoll,
	}
}

// announce tells the user that the server is ready, and how to use it.
func (i *instance) announce(stdout io.Writer) error {
	a, err := i.access()
	if err != nil {
		return err
	}
	b := banner{access: a, caFile: i.certs.current.Load().caFile, kubeconfig: i.files.kubeconfig()}
	if i.config.TokenAuthFile == "" {
		b.tokenFile = i.files.token()
	}
	if i.ports.insecure != nil {
		b.insecure = fmt.Sprintf("http://%s", net.JoinHostPort(loopback, strconv.Itoa(i.config.HTTPPort)))
	}
	return b.print(stdout)
}
