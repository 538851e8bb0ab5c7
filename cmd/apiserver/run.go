package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/berth-project/berth/cmd/apiserver/internal/backend"
	"github.com/berth-project/berth/cmd/apiserver/internal/datadir"
	"github.com/berth-project/berth/pkg/apiserver"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/pkg/files"
	"github.com/berth-project/berth/pkg/serving"
)

const (
	// shutdownGrace is how long requests in progress may take after a stop was requested.
	shutdownGrace = 30 * time.Second
	// failedGrace is the same after the embedded etcd has failed: only answers that need no
	// etcd can be finished.
	failedGrace = time.Second
	// closingTime is more than what comes after that takes.
	closingTime = 20 * time.Second
	// adminUser is the user of the token in the data directory.
	adminUser = "admin"
)

// run serves until ctx ends and then returns nil, even if it is not ready by then. It prints
// to stdout once it is ready, and logs to stderr. Any other end is an error, a *cli.FlagError if
// a flag is to blame. Each signal in hangups has it load the user's files again; those that
// come before it is ready count as one.
//
// The steps that can fail without side effects come first: the flags, the user's files, the
// lock of the data directory and the ports. Only then is anything written.
func run(ctx context.Context, c config, hangups <-chan os.Signal, stdout, stderr io.Writer) error {
	if err := c.validate(); err != nil {
		return err
	}
	logger, flushLog, err := newLogger(stderr, c.LogLevel, c.LogFormat)
	if err != nil {
		return err
	}
	defer flushLog()
	for _, name := range c.UnknownVariables {
		logger.Warn().Str("variable", name).Msg("an environment variable belongs to no flag, and is ignored; see apiserver --help")
	}
	in, err := loadInputs(c, logger)
	if err != nil {
		return err
	}
	claimed, err := claim(ctx, c)
	defer claimed.close()
	if err != nil {
		return err
	}

	i := &instance{config: c, inputs: in, claims: claimed, hangups: hangups, logger: logger, metrics: prometheus.NewRegistry()}
	i.proxies, _ = parseProxies(c.TrustedProxies) // they are valid
	announcements := stdout
	if c.Audit.Path == "-" {
		announcements = stderr // standard output has events alone
	}
	if err = i.start(ctx, stdout); err == nil {
		err = i.serve(ctx, announcements)
	} else if ctx.Err() != nil {
		err = nil // it was stopped before it was ready
	}
	return errors.Join(err, i.close())
}

// instance is one running server.
type instance struct {
	*inputs
	*claims
	config  config
	hangups <-chan os.Signal
	proxies []netip.Prefix
	logger  zerolog.Logger
	metrics *prometheus.Registry

	keeper  *certificates.Keeper
	backend *backend.Backend
	core    *apiserver.Instance
	// hasToken is whether the kubeconfig had a token at the start.
	hasToken bool
	// abandoned is set if the embedded etcd has failed: calls of it may never return.
	abandoned bool
}

// start creates what the data directory lacks and starts everything behind the ports. close
// must be called, also after an error.
func (i *instance) start(ctx context.Context, stdout io.Writer) (err error) {
	// First: what is wrong with the CA or the token is told at once, however long etcd takes.
	if err = i.prepare(); err != nil {
		return err
	}
	reopened, err := i.audit.open(&i.config.Audit, stdout, i.logger, i.metrics)
	if err != nil {
		return err
	}
	i.watched = append(i.watched, reopened...)
	if err = i.startCore(ctx); err != nil {
		return err
	}
	if dir := files.Replaceable(string(i.config.DataDir)); dir != "" {
		i.logger.Warn().Str("directory", dir).Msg("every user can replace the data directory, since a directory above it is writable for all; run chmod o-w or chmod +t on it")
	}
	i.warnOfExposed()
	i.hasToken, err = i.writeKubeconfig()
	return err
}

// warnOfExposed logs which files with secrets are open to users who need not read them.
func (i *instance) warnOfExposed() {
	for _, path := range i.config.secretFiles() {
		if mode, exposed := files.Exposed(path); exposed {
			i.logger.Warn().Str("file", path).Str("mode", fmt.Sprintf("%04o", mode)).Msg("a file with a secret is open to other users; run chmod go-rwx on it")
		}
	}
}

// startCore opens the etcd and starts the server on it.
func (i *instance) startCore(ctx context.Context) (err error) {
	if i.backend, err = backend.Open(ctx, i.config.Config, i.logger); err != nil {
		return err
	}
	i.core, err = apiserver.Start(ctx, apiserver.Config{
		Client:                      i.backend.Client,
		MaxValueBytes:               i.backend.MaxValueBytes,
		CompactionInterval:          i.config.EtcdCompactionInterval,
		WatchVersions:               len(i.config.EtcdServers) > 0,
		MaxObjectBytes:              i.config.MaxObjectBytes,
		MaxStoredBytes:              i.config.MaxStoredBytes,
		EventTTL:                    i.config.EventTTL,
		Mirroring:                   i.config.mirroring(),
		Authenticator:               i.tokens,
		Certificates:                i.clientCAs,
		AuthorizationMode:           i.config.AuthorizationMode,
		IAM:                         i.iam,
		Limiter:                     i.limiter,
		ClusterLimits:               i.config.RateLimitScope == scopeCluster,
		Audit:                       i.audit.log,
		TrustedProxies:              i.proxies,
		MaxRequestsInFlight:         i.config.MaxRequestsInFlight,
		MaxMutatingRequestsInFlight: i.config.MaxMutatingRequestsInFlight,
		MaxWatches:                  i.config.MaxWatches,
		MaxWatchesPerUser:           i.config.MaxWatchesPerUser,
		RequestTimeout:              i.config.RequestTimeout,
		StrictTransportSecurity:     strings.Join(i.config.HSTSDirectives, "; "),
		GoawayChance:                i.config.GoawayChance,
		Logger:                      i.logger,
		Metrics:                     i.metrics,
		Version:                     servedVersion(),
	})
	return err
}

// close stops whatever start has started. Requests must have ended.
func (i *instance) close() error {
	return errors.Join(i.closeCore(), i.audit.close())
}

// closeCore stops whatever startCore has started. With an etcd that has failed it does nothing,
// since the process ends and there is nothing left to save.
func (i *instance) closeCore() error {
	if i.abandoned {
		return nil
	}
	if i.core != nil {
		i.core.Close()
	}
	if i.backend != nil {
		return i.backend.Close()
	}
	return nil
}

// prepare creates the certificates and the token, unless the user provides them.
func (i *instance) prepare() error {
	i.keeper = newKeeper(i.config, i.certs, i.logger)
	if i.config.TLSCertFile == "" {
		if err := i.ensureCertificate(); err != nil {
			return err
		}
	}
	registerExpiry(i.metrics, i.certs)
	if err := i.ensureClientCA(); err != nil {
		return err
	}
	if i.config.TokenAuthFile != "" {
		if _, err := os.Stat(i.config.DataDir.Token()); err == nil {
			i.logger.Warn().Str("file", i.config.DataDir.Token()).Msg("the token in the data directory is not accepted while --token-auth-file is set")
		}
		return nil
	}
	token, err := i.config.DataDir.EnsureToken()
	if err != nil {
		return err
	}
	return i.tokens.Set(token, auth.User{Name: adminUser, Groups: []string{auth.SystemPrivilegedGroup}})
}

// access returns how clients currently reach the server, without a token.
func (i *instance) access() datadir.Access {
	host, cert := clientHost(i.config), i.certs.Get()
	return datadir.Access{
		Server:     secureURL(host, i.secure.Addr().(*net.TCPAddr).Port),
		ServerName: cert.ServerName(host),
		CAPEM:      cert.CAPEM,
		User:       adminUser,
	}
}

// dataDirToken returns the data directory's token, if it is still the one that is accepted.
func (i *instance) dataDirToken() (string, error) {
	token, err := i.config.DataDir.EnsureToken()
	if err != nil {
		return "", err
	}
	if _, ok, _ := i.tokens.Authenticate(context.Background(), token); !ok {
		return "", fmt.Errorf("%s has changed since the start; the server accepts the new token after a restart", i.config.DataDir.Token())
	}
	return token, nil
}

// writeKubeconfig writes the administrator's kubeconfig, and reports whether it has a token: it
// cannot have one if the token file has only hashes.
func (i *instance) writeKubeconfig() (hasToken bool, err error) {
	a := i.access()
	if i.config.TokenAuthFile != "" {
		a.Token, err = adminToken(i.config.TokenAuthFile, i.tokens)
	} else {
		a.Token, err = i.dataDirToken()
	}
	if err != nil {
		return false, err
	}
	if a.Token == "" {
		i.logger.Warn().Str("kubeconfig", i.config.DataDir.Kubeconfig()).
			Msg("the kubeconfig has no token, since those in --token-auth-file are hashed or have expired; give one with kubectl --token")
	}
	return a.Token != "", datadir.WriteKubeconfig(i.config.DataDir.Kubeconfig(), a)
}

// followChange does what depends on the user's files after they were loaded again.
func (i *instance) followChange() error {
	i.warnOfExposed()
	i.keeper.Warn(time.Now())
	_, err := i.writeKubeconfig()
	return err
}

// newFront returns the server of the ports.
func (i *instance) newFront() (*serving.Server, error) {
	version, versionErr := serving.TLSVersion(i.config.TLSMinVersion)
	suites, weak, suitesErr := serving.CipherSuites(i.config.TLSCipherSuites)
	if err := errors.Join(versionErr, suitesErr); err != nil {
		return nil, err // validated
	}
	if len(weak) > 0 {
		i.logger.Warn().Strs("suites", weak).Msg("--tls-cipher-suites has weak cipher suites")
	}
	return serving.New(serving.Config{
		Handler: i.core.Handler, WriteTimeout: i.core.Handler.WriteTimeout(), Logger: i.logger, Metrics: i.metrics,
		TLSMinVersion: version, TLSCipherSuites: suites, ClientCAs: i.clientCAs.ClientCAs,
		TrustedProxies: i.proxies, ProxyProtocol: i.config.ProxyProtocol,
	})
}

// serve answers requests until ctx ends or the server fails, and then closes the ports.
func (i *instance) serve(ctx context.Context, stdout io.Writer) error {
	front, err := i.newFront()
	if err != nil {
		return err
	}
	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	var followers sync.WaitGroup
	defer followers.Wait()
	defer stopFollowing()
	reloader := &files.Reloader{Groups: i.watched, Changed: i.followChange, Asked: i.hangups, Logger: i.logger}
	followers.Go(func() { reloader.Run(following) })
	followers.Go(func() { i.keeper.Run(following) })
	front.ServeTLS(i.secure, i.certs.GetCertificate)
	if i.insecure != nil {
		front.Serve(i.insecure)
	}
	if err := i.announce(stdout); err != nil {
		i.logger.Warn().Err(err).Msg("cannot print that the server is ready")
	}
	i.notify(daemon.SdNotifyReady)

	failure := i.await(ctx, front)
	if failure == nil {
		failure = i.takeLeave(context.WithoutCancel(ctx), front)
	}
	if failure != nil {
		i.notify(daemon.SdNotifyStopping)
	}
	allowed := shutdownGrace
	if i.abandoned {
		allowed = failedGrace
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), allowed)
	defer cancel()
	if failure == nil {
		i.core.Handler.Refuse(grace)
	}
	if err := front.Stop(grace, i.core.Handler.EndStreams); err != nil {
		i.logger.Warn().Err(err).Msg("requests in progress were cut off")
	}
	return failure
}

// await waits until ctx ends or the server fails, and returns why it has failed.
func (i *instance) await(ctx context.Context, front *serving.Server) (failure error) {
	select {
	case <-ctx.Done():
	case failure = <-front.Failed():
	case failure = <-i.backend.Failed:
		i.abandoned = true
	}
	return failure
}

// takeLeave has the clients go elsewhere, as long as the server does not fail.
func (i *instance) takeLeave(ctx context.Context, front *serving.Server) (failure error) {
	delay, watches := i.config.ShutdownDelayDuration, i.config.ShutdownWatchGracePeriod
	i.logger.Info().Stringer("delay", delay).Stringer("watches", watches).Stringer("grace", shutdownGrace).Msg("stopping")
	i.notify(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, (delay + watches + shutdownGrace + closingTime).Microseconds()))
	leaving, left := context.WithCancel(ctx)
	var ending sync.WaitGroup
	defer ending.Wait()
	defer left()
	ending.Go(func() {
		defer left()
		i.core.Handler.TakeLeave(leaving, delay, watches)
	})
	return i.await(leaving, front)
}

// announce tells the user that the server is ready, and how to use it.
func (i *instance) announce(stdout io.Writer) error {
	kubeconfig, err := filepath.Abs(i.config.DataDir.Kubeconfig())
	if err != nil {
		return err
	}
	b := banner{access: i.access(), caFile: i.certs.Get().CAFile, kubeconfig: kubeconfig, noToken: !i.hasToken}
	if i.config.TokenAuthFile == "" {
		b.tokenFile = i.config.DataDir.Token()
	}
	if i.insecure != nil {
		b.insecure = "http://" + i.insecure.Addr().String()
	}
	return b.print(stdout)
}

// notify tells systemd the state of the service, by the protocol of sd_notify(3). It does
// nothing if systemd has not asked for it, which a unit does with Type=notify.
func (i *instance) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		i.logger.Warn().Err(err).Str("state", state).Msg("cannot notify systemd")
	}
}
