package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/rs/zerolog"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/certificates"
	"github.com/berth-project/berth/pkg/files"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// inputs is what the server loads from the user's files.
type inputs struct {
	tokens  *auth.Tokens         // empty without --token-auth-file
	limiter *ratelimit.Limiter   // has the default limits without --rate-limit-config
	certs   *certificates.Holder // empty without --tls-cert-file
	// watched is the files to reload when they change, by the flags that name them.
	watched []*files.Group
}

// loadInputs reads every file that c names. It writes nothing.
func loadInputs(c config, logger zerolog.Logger) (*inputs, error) {
	in := &inputs{tokens: auth.NewTokens(), limiter: ratelimit.New(nil), certs: &certificates.Holder{}}
	for _, group := range []*files.Group{
		{
			Name: "token-auth-file", Paths: []string{c.TokenAuthFile},
			Load: func() error { return loadTokens(c.TokenAuthFile, in.tokens, logger) },
		},
		{
			Name: "rate-limit-config", Paths: []string{c.RateLimitConfig},
			Load: func() error { return loadLimits(c.RateLimitConfig, in.limiter) },
		},
		{
			Name: "tls-cert-file", Paths: []string{c.TLSCertFile, c.TLSPrivateKeyFile},
			Load: func() error { return in.certs.Load(c.TLSCertFile, c.TLSPrivateKeyFile) },
		},
	} {
		if group.Paths[0] == "" {
			continue
		}
		if _, err := group.LoadChanged(); err != nil {
			return nil, &flagError{flag: group.Name, err: err}
		}
		in.watched = append(in.watched, group)
	}
	return in, nil
}

// maxNamedLines is how many lines of short tokens a warning names.
const maxNamedLines = 20

func loadTokens(path string, tokens *auth.Tokens, logger zerolog.Logger) error {
	if err := tokens.Load(path); err != nil {
		return err
	}
	if short := tokens.ShortTokens(); len(short) > 0 {
		logger.Warn().Str("path", path).Int("tokens", len(short)).Ints("lines", short[:min(len(short), maxNamedLines)]).
			Int("characters", auth.MinTokenLength).Msg("tokens that are shorter than this many characters are easy to guess")
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
// into tokens, whose user is in system:masters, or else the first token.
//
// tokens keeps only hashes, so the file is read again. Since it may have changed in between,
// only a token that is currently valid counts.
func adminToken(path string, tokens *auth.Tokens) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	records, err := auth.NewFileReader(f).ReadAll()
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	first := ""
	for _, record := range records {
		token := record[0]
		identity, ok := tokens.Authenticate(token)
		if ok && slices.Contains(identity.User.Groups, auth.SystemPrivilegedGroup) {
			return token, nil
		}
		if ok && first == "" {
			first = token
		}
	}
	if first == "" {
		return "", fmt.Errorf("%s changed while it was read", path)
	}
	return first, nil
}
