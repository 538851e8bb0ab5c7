package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/auth/iam"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/pkg/files"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// inputs is what the server loads from the user's files.
type inputs struct {
	tokens    *auth.Tokens         // empty without --token-auth-file
	clientCAs *auth.Certificates   // empty without --client-ca-file
	iam       *iam.Service         // nil without --iam-config
	limiter   *ratelimit.Limiter   // has the default limits without --rate-limit-config
	certs     *certificates.Holder // empty without --tls-cert-file
	audit     *auditLog            // empty without --audit-log-path
	// watched is the files to reload when they change, by the flags that name them.
	watched []*files.Group
}

// loadInputs reads every file that c names. It writes nothing.
func loadInputs(c config, logger zerolog.Logger) (*inputs, error) {
	in := &inputs{tokens: auth.NewTokens(), clientCAs: auth.NewCertificates(), limiter: ratelimit.New(nil), certs: &certificates.Holder{}, audit: &auditLog{}}
	if c.IAMConfig != "" {
		in.iam = iam.New(logger)
	}
	certificateFiles := []string{c.TLSCertFile, c.TLSPrivateKeyFile}
	if c.TLSCAFile != "" {
		certificateFiles = append(certificateFiles, c.TLSCAFile)
	}
	for _, group := range []*files.Group{
		{
			Name: "token-auth-file", Paths: []string{c.TokenAuthFile},
			Load: func() error { return loadTokens(c.TokenAuthFile, in.tokens, logger) },
		},
		{
			Name: "client-ca-file", Paths: []string{c.ClientCAFile},
			Load: func() error { return loadClientCAs(c.ClientCAFile, in.clientCAs, logger) },
		},
		{
			Name: "iam-config", Paths: []string{c.IAMConfig},
			Load: func() error { return in.iam.Load(c.IAMConfig) },
		},
		{
			Name: "rate-limit-config", Paths: []string{c.RateLimitConfig},
			Load: func() error { return loadLimits(c.RateLimitConfig, in.limiter) },
		},
		{
			Name: "tls-cert-file", Paths: certificateFiles,
			Load: func() error { return loadCertificate(c, in.certs, logger) },
		},
		{
			Name: "audit-policy-file", Paths: []string{c.Audit.PolicyFile},
			Load: func() error { return in.audit.loadPolicy(c.Audit.PolicyFile) },
		},
	} {
		if group.Paths[0] == "" {
			continue
		}
		if _, err := group.LoadChanged(); err != nil {
			return nil, &cli.FlagError{Flag: group.Name, Err: err}
		}
		in.watched = append(in.watched, group)
	}
	return in, nil
}

// maxNamedLines is how many lines of tokens a warning names.
const maxNamedLines = 20

func loadTokens(path string, tokens *auth.Tokens, logger zerolog.Logger) error {
	if err := tokens.Load(path); err != nil {
		return err
	}
	remarks := tokens.Remarks()
	warn := func(lines []int, message string) {
		if len(lines) > 0 {
			logger.Warn().Str("path", path).Int("tokens", len(lines)).Ints("lines", lines[:min(len(lines), maxNamedLines)]).Msg(message)
		}
	}
	warn(remarks.Short, fmt.Sprintf("tokens that are shorter than %d characters are easy to guess", auth.MinTokenLength))
	warn(remarks.Expired, "tokens have expired, and are not accepted")
	warn(remarks.Spaced, "users or groups begin or end with a space, which is part of their names: bindings must have it, too")
	return nil
}

func loadClientCAs(path string, clientCAs *auth.Certificates, logger zerolog.Logger) error {
	if err := clientCAs.Load(path); err != nil {
		return err
	}
	if expired := clientCAs.ExpiredCAs(time.Now()); len(expired) > 0 {
		logger.Warn().Str("path", path).Strs("subjects", expired).Msg("CAs of client certificates have expired")
	}
	return nil
}

func loadLimits(path string, limiter *ratelimit.Limiter) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	limits, err := ratelimit.ParseConfig(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	limiter.SetConfig(limits)
	return nil
}

// adminToken returns the token for the kubeconfig: the first token of a token file, loaded
// into tokens, whose user is in system:masters, or else the first token. It returns "" if all
// tokens of the file are hashed or have expired.
//
// tokens keeps only hashes, so the file is read again. Since it may have changed in between,
// only a token that is currently valid counts.
func adminToken(path string, tokens *auth.Tokens) (string, error) {
	plain, err := auth.PlainTokens(path)
	if err != nil {
		return "", err
	}
	first := ""
	for _, token := range plain {
		identity, ok, _ := tokens.Authenticate(context.Background(), token)
		if ok && slices.Contains(identity.User.Groups, auth.SystemPrivilegedGroup) {
			return token, nil
		}
		if ok && first == "" {
			first = token
		}
	}
	if first == "" && len(plain) > 0 {
		return "", fmt.Errorf("%s changed while it was read", path)
	}
	return first, nil
}

// loadCertificate loads the certificate that the user provides.
func loadCertificate(c config, certs *certificates.Holder, logger zerolog.Logger) error {
	if err := certs.Load(c.TLSCertFile, c.TLSPrivateKeyFile, c.TLSCAFile); err != nil {
		return err
	}
	if certs.Get().Unknown {
		logger.Warn().Str("file", c.TLSCertFile).
			Msg("the CA of the certificate is neither in its file nor one of the system's, so the kubeconfig names none; name its file with --tls-ca-file")
	}
	return nil
}

// ensureCertificate makes the certificate of the data directory, or loads it, and has it
// renewed from then on.
func (i *instance) ensureCertificate() error {
	pki := i.config.DataDir.PKI()
	names, err := certificates.ServingNames(i.config.BindAddress, i.config.ExternalHostname)
	if err != nil {
		return err
	}
	renew := func(now time.Time) (*certificates.Serving, error) { return pki.Ensure(names, now) }
	cert, err := renew(time.Now())
	if err != nil {
		return err
	}
	i.certs.Set(cert)
	i.keeper.Renew, i.keeper.File = renew, pki.Cert()
	i.keeper.Remedy = fmt.Sprintf("the CA cannot sign a new one: restore %s, or, if the CA itself expires, remove %s and restart to have a new CA made, which clients must then trust", pki.CAKey(), pki)
	return nil
}

// ensureClientCA makes the data directory's CA of client certificates, or loads it, unless the
// user names others.
func (i *instance) ensureClientCA() error {
	pki := i.config.DataDir.PKI()
	if i.config.ClientCAFile == "" {
		return errors.Join(pki.EnsureClientCA(time.Now()), i.clientCAs.Load(pki.ClientCACert()))
	}
	if _, err := os.Stat(pki.ClientCAKey()); err == nil {
		i.logger.Warn().Str("file", pki.ClientCACert()).Msg("the CA of client certificates in the data directory is trusted only if it is in --client-ca-file, too")
	}
	return nil
}

// newKeeper returns the keeper of the certificate that the user provides.
func newKeeper(c config, certs *certificates.Holder, logger zerolog.Logger) *certificates.Keeper {
	return &certificates.Keeper{
		Holder: certs, File: c.TLSCertFile, Logger: logger,
		Remedy: "replace the files of --tls-cert-file and --tls-private-key-file, which are then loaded at once",
	}
}

func registerExpiry(metrics prometheus.Registerer, certs *certificates.Holder) {
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "berth_serving_certificate_expiration_timestamp_seconds",
		Help: "When the serving certificate expires, in seconds since 1970.",
	}, func() float64 { return float64(certs.Get().Pair.Leaf.NotAfter.Unix()) }))
}
