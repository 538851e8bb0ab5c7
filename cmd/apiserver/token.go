package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/berth-project/berth/pkg/auth"
)

// ensureToken returns the token of the data directory and makes it where there is none.
func ensureToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		token := auth.GenerateToken()
		return token, writeFile(path, []byte(token+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	// $(cat token) in a header must be this token.
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s holds no token; remove it to have a new one made", path)
	}
	return token, nil
}

// adminToken returns the token that the kubeconfig carries: of a token file that tokens
// has loaded, the first one of the group system:masters, else the first.
//
// tokens keeps hashes alone, so the file is read once more. Only a token that is valid
// now is taken: the file may have changed in between.
func adminToken(path string, tokens *auth.Tokens) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	reader := csv.NewReader(f)
	reader.FieldsPerRecord = -1
	first := ""
	for {
		record, err := reader.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		identity, ok := tokens.Authenticate(record[0])
		if !ok {
			continue
		}
		if slices.Contains(identity.User.Groups, auth.SystemPrivilegedGroup) {
			return record[0], nil
		}
		if first == "" {
			first = record[0]
		}
	}
	if first == "" {
		return "", fmt.Errorf("%s changed while it was read", path)
	}
	return first, nil
}
