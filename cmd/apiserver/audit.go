package main

import (
	"cmp"
	"context"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"github.com/berth-project/berth/cmd/apiserver/internal/cli"
	"github.com/berth-project/berth/pkg/audit"
	"github.com/berth-project/berth/pkg/files"
)

// auditGrace is how long the end of the process waits for the audit log's last lines.
const auditGrace = 5 * time.Second

// auditConfig is the values of the flags of the audit log.
type auditConfig struct {
	Path       string // empty means no audit log
	PolicyFile string // empty means Policy
	Policy     string // one of audit.Presets; empty means PolicyFile

	MaxSize   int // MiB; 0 means no limit
	MaxAge    int // days; 0 means no limit
	MaxBackup int // 0 means no limit
	Compress  bool

	Mode, Format  string
	BufferSize    int
	Truncate      bool
	MaxEventBytes int // with Truncate
}

func defaultAuditConfig() auditConfig {
	return auditConfig{
		MaxSize: 100, MaxAge: 366, MaxBackup: 100, Mode: "batch", Format: "json",
		BufferSize: audit.DefaultQueueLines, MaxEventBytes: 100 << 10,
	}
}

func (c *auditConfig) flags() *pflag.FlagSet {
	flags := cli.NewFlagSet()
	flags.StringVar(&c.Path, "audit-log-path", c.Path, "File of the audit log, created if it does not exist; - means standard output; if empty, there is none")
	flags.StringVar(&c.PolicyFile, "audit-policy-file", c.PolicyFile, "YAML or JSON file of the audit policy (audit.k8s.io/v1), reloaded when it changes")
	flags.StringVar(&c.Policy, "audit-policy", c.Policy, "Audit policy to use without a file: "+strings.Join(audit.Presets, ", "))
	flags.IntVar(&c.MaxSize, "audit-log-maxsize", c.MaxSize, "Maximum size of the audit log before it is rotated, in MiB; 0 disables rotation")
	flags.IntVar(&c.MaxAge, "audit-log-maxage", c.MaxAge, "Maximum age of rotated audit logs, in days; 0 means no limit")
	flags.IntVar(&c.MaxBackup, "audit-log-maxbackup", c.MaxBackup, "Maximum number of rotated audit logs; 0 means no limit")
	flags.BoolVar(&c.Compress, "audit-log-compress", c.Compress, "Compress rotated audit logs with gzip")
	flags.StringVar(&c.Mode, "audit-log-mode", c.Mode, "How lines are written to the audit log; only batch: requests do not wait for it")
	flags.StringVar(&c.Format, "audit-log-format", c.Format, "Format of the audit log; only json, one event a line")
	flags.IntVar(&c.BufferSize, "audit-log-batch-buffer-size", c.BufferSize, "Maximum number of lines that wait to be written to the audit log; more are dropped and counted")
	flags.BoolVar(&c.Truncate, "audit-log-truncate-enabled", c.Truncate, "Write events without their objects from --audit-log-truncate-max-event-size on, and not only from 8 MiB on")
	flags.IntVar(&c.MaxEventBytes, "audit-log-truncate-max-event-size", c.MaxEventBytes, "Maximum size of an event with --audit-log-truncate-enabled, in bytes")
	return flags
}

func (c *auditConfig) validate() error {
	hasPolicy := c.PolicyFile != "" || c.Policy != ""
	return cmp.Or(
		cli.Fault("audit-log-path", cli.Require(c.Path == "" || hasPolicy, "requires --audit-policy or --audit-policy-file")),
		cli.Fault("audit-policy-file", cli.Require(c.PolicyFile == "" || c.Policy == "", "cannot be used with --audit-policy")),
		cli.Fault("audit-policy-file", cli.Require(c.PolicyFile == "" || c.Path != "", "requires --audit-log-path")),
		cli.Fault("audit-policy", cli.Require(c.Policy == "" || slices.Contains(audit.Presets, c.Policy), "%q is not one of %s", c.Policy, strings.Join(audit.Presets, ", "))),
		cli.Fault("audit-policy", cli.Require(c.Policy == "" || c.Path != "", "requires --audit-log-path")),
		cli.Fault("audit-log-maxsize", cli.Require(c.MaxSize >= 0, "%v is negative", c.MaxSize)),
		cli.Fault("audit-log-maxage", cli.Require(c.MaxAge >= 0, "%v is negative", c.MaxAge)),
		cli.Fault("audit-log-maxbackup", cli.Require(c.MaxBackup >= 0, "%v is negative", c.MaxBackup)),
		cli.Fault("audit-log-mode", cli.Require(c.Mode == "batch", "%q is not batch: requests do not wait for the log", c.Mode)),
		cli.Fault("audit-log-format", cli.Require(c.Format == "json", "%q is not json", c.Format)),
		cli.Fault("audit-log-batch-buffer-size", cli.Require(c.BufferSize > 0, "%v is not positive", c.BufferSize)),
		cli.Fault("audit-log-truncate-max-event-size", cli.Require(c.MaxEventBytes > 0, "%v is not positive", c.MaxEventBytes)),
	)
}

// auditLog is the audit log and its policy. Its zero value has neither.
type auditLog struct {
	policy *audit.Policy
	log    *audit.Log
}

// loadPolicy reads the policy from a file, which an open log then follows.
func (a *auditLog) loadPolicy(path string) error {
	policy, err := audit.LoadPolicy(path)
	if err != nil {
		return err
	}
	a.policy = policy
	if a.log != nil {
		a.log.SetPolicy(policy)
	}
	return nil
}

// open starts the log, unless c names none, and returns what is loaded again when the user asks
// for it, which is the log's file.
func (a *auditLog) open(c *auditConfig, stdout io.Writer, logger zerolog.Logger, metrics prometheus.Registerer) (loaded []*files.Group, err error) {
	if c.Path == "" {
		return nil, nil
	}
	if c.Path == "-" {
		signal.Ignore(syscall.SIGPIPE) // whoever reads the log does not end the server by going away
	}
	if c.Policy != "" {
		if a.policy, err = audit.Preset(c.Policy); err != nil {
			return nil, cli.Fault("audit-policy", err)
		}
	}
	cfg := audit.Config{
		Policy: a.policy, Path: c.Path, Stdout: stdout, Logger: logger, Metrics: metrics, QueueLines: c.BufferSize,
		MaxSize: c.MaxSize, MaxAge: c.MaxAge, MaxBackups: c.MaxBackup, Compress: c.Compress,
	}
	if c.Truncate {
		cfg.MaxEventBytes = c.MaxEventBytes
	}
	if a.log, err = audit.Open(cfg); err != nil {
		return nil, cli.Fault("audit-log-path", err)
	}
	group := &files.Group{Name: "audit-log-path", Load: func() error {
		a.log.Reopen()
		return nil
	}}
	_, err = group.LoadChanged() // or else the first change of any file would
	return []*files.Group{group}, err
}

// close writes what waits to be written.
func (a *auditLog) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), auditGrace)
	defer cancel()
	return a.log.Close(ctx)
}
