package main

import (
	"fmt"
	"os"

	"github.com/berth-project/berth/pkg/auth"
	"github.com/berth-project/berth/pkg/ratelimit"
)

// inputs is what the server takes from files that the user keeps.
type inputs struct {
	tokens  *auth.Tokens       // empty without --token-auth-file
	limiter *ratelimit.Limiter // the default limits without --rate-limit-config
	certs   *certHolder        // empty without --tls-cert-file
	// watched is the files to load again when they change.
	watched []*watchedFiles
}

// loadInputs reads every file that c names, and writes none.
func loadInputs(c config) (*inputs, error) {
	in := &inputs{tokens: auth.NewTokens(), limiter: ratelimit.New(nil), certs: &certHolder{}}
	for _, file := range []struct {
		flag string
		watchedFiles
	}{
		{"token-auth-file", watchedFiles{
			what: "tokens", paths: []string{c.TokenAuthFile},
			load: func() error { return in.tokens.Load(c.TokenAuthFile) },
		}},
		{"rate-limit-config", watchedFiles{
			what: "rate limits", paths: []string{c.RateLimitConfig},
			load: func() error { return loadLimits(c.RateLimitConfig, in.limiter) },
		}},
		{"tls-cert-file", watchedFiles{
			what: "serving certificate", paths: []string{c.TLSCertFile, c.TLSPrivateKeyFile},
			load: func() error { return in.certs.load(c.TLSCertFile, c.TLSPrivateKeyFile) },
		}},
	} {
		if file.paths[0] == "" {
			continue
		}
		if _, err := file.loadChanged(); err != nil {
			return nil, &flagError{flag: file.flag, err: err}
		}
		in.watched = append(in.watched, &file.watchedFiles)
	}
	return in, nil
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
