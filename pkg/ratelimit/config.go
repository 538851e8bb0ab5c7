package ratelimit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"go.yaml.in/yaml/v3"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// Kind and APIVersion of a configuration file.
const (
	Kind       = "RateLimitConfiguration"
	APIVersion = "berth/v1alpha1"
)

// Bounds of a Limit. A wait of 1/minQPS seconds, a little over a day, and a time of
// maxBurst/minQPS seconds do not overflow where they are computed; above maxQPS, a
// nanosecond, the resolution of a wait, would be worth more than one request.
const (
	minQPS   = 0.00001
	maxQPS   = 1e9
	maxBurst = 1_000_000_000
)

// Limit is the size and refill rate of a bucket.
type Limit struct {
	QPS   float64 `json:"qps"`   // requests gained per second, 0.00001 to 1e9
	Burst int     `json:"burst"` // requests in a full bucket, 1 to 1e9
}

// Scope is what each bucket belongs to.
type Scope string

// The scopes. The empty Scope means that of the defaults, and PerToken there.
const (
	PerToken Scope = "token" // each token has its own buckets
	PerUser  Scope = "user"  // all tokens of a user share theirs
)

// Config is a rate limit configuration. A nil or empty field means the built-in default,
// so the zero Config equals DefaultConfig.
type Config struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`

	// Defaults apply to every user that no override matches.
	Defaults Defaults `json:"defaults,omitempty"`
	// Anonymous limits the requests without a valid token from one client address.
	Anonymous *Limit `json:"anonymous,omitempty"`
	// Overrides are tried in order, and the first one that matches a user applies.
	// They are followed by a built-in one that exempts the group system:masters, so a
	// file that does not mention the group does not limit the administrator. An
	// override that names the group, exempt or not, replaces it.
	Overrides []Override `json:"overrides,omitempty"`
}

// Defaults are the limits of users without an override, and of overrides without their own.
type Defaults struct {
	Read  *Limit `json:"read,omitempty"`
	Write *Limit `json:"write,omitempty"`
	Per   Scope  `json:"per,omitempty"`
}

// Override applies to the users named in Users and the members of Groups; at least one
// of the two must not be empty. Omitted limits are those of Defaults.
type Override struct {
	Users  []string `json:"users,omitempty"`
	Groups []string `json:"groups,omitempty"`

	Read  *Limit `json:"read,omitempty"`
	Write *Limit `json:"write,omitempty"`
	Per   Scope  `json:"per,omitempty"`
	// Exempt means no limit at all. It cannot be combined with Read, Write or Per.
	Exempt bool `json:"exempt,omitempty"`
}

// DefaultConfig returns the configuration used without a file: for each token 200 reads
// per second with a burst of 400 and 20 writes per second with a burst of 100, and for
// each address 2 requests per second without a valid token with a burst of 20. Members
// of system:masters are exempt.
func DefaultConfig() *Config {
	return &Config{
		Defaults: Defaults{
			Read:  &Limit{QPS: 200, Burst: 400},
			Write: &Limit{QPS: 20, Burst: 100},
		},
		Anonymous: &Limit{QPS: 2, Burst: 20},
	}
}

// ParseConfig reads a configuration file: one YAML or JSON document of Kind and
// APIVersion. Unknown and repeated keys are rejected, and keys are case-sensitive. The
// error names the invalid fields and the reasons.
func ParseConfig(data []byte) (*Config, error) {
	if hasSecondDocument(data) {
		return nil, errors.New("rate limit configuration: more than one YAML document")
	}
	asJSON, err := sigsyaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("rate limit configuration: %w", err)
	}
	var c Config
	// sigsyaml.UnmarshalStrict would take QPS after qps for the same key.
	strictErrs, err := json.UnmarshalStrict(asJSON, &c)
	if err := utilerrors.NewAggregate(append(strictErrs, err)); err != nil {
		return nil, fmt.Errorf("rate limit configuration: %w", err)
	}
	var errs field.ErrorList
	if c.APIVersion != APIVersion {
		errs = append(errs, field.NotSupported(field.NewPath("apiVersion"), c.APIVersion, []string{APIVersion}))
	}
	if c.Kind != Kind {
		errs = append(errs, field.NotSupported(field.NewPath("kind"), c.Kind, []string{Kind}))
	}
	errs = append(errs, c.validate()...)
	if len(errs) > 0 {
		return nil, fmt.Errorf("rate limit configuration: %w", errs.ToAggregate())
	}
	return &c, nil
}

// hasSecondDocument reports whether another document follows the first one, which the
// conversion to JSON would silently ignore.
func hasSecondDocument(data []byte) bool {
	documents := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	return documents.Decode(&document) == nil && !errors.Is(documents.Decode(&document), io.EOF)
}

// validate returns what is invalid in c. Kind and APIVersion are not checked: they only
// identify files.
func (c *Config) validate() field.ErrorList {
	errs := c.Defaults.validate(field.NewPath("defaults"))
	errs = append(errs, validateLimit(c.Anonymous, field.NewPath("anonymous"))...)
	for i := range c.Overrides {
		errs = append(errs, c.Overrides[i].validate(field.NewPath("overrides").Index(i))...)
	}
	return errs
}

func (d *Defaults) validate(path *field.Path) field.ErrorList {
	errs := validateLimit(d.Read, path.Child("read"))
	errs = append(errs, validateLimit(d.Write, path.Child("write"))...)
	if d.Per != "" && d.Per != PerToken && d.Per != PerUser {
		errs = append(errs, field.NotSupported(path.Child("per"), d.Per, []Scope{PerToken, PerUser}))
	}
	return errs
}

func (o *Override) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(o.Users)+len(o.Groups) == 0 {
		errs = append(errs, field.Required(path, "users or groups must name somebody"))
	}
	errs = append(errs, validateNames(o.Users, path.Child("users"))...)
	errs = append(errs, validateNames(o.Groups, path.Child("groups"))...)
	limits := Defaults{Read: o.Read, Write: o.Write, Per: o.Per}
	errs = append(errs, limits.validate(path)...)
	if o.Exempt && limits != (Defaults{}) {
		errs = append(errs, field.Forbidden(path.Child("exempt"), "may not be combined with read, write or per"))
	}
	return errs
}

func validateNames(names []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		if name == "" {
			errs = append(errs, field.Required(path.Index(i), "a name may not be empty"))
		}
	}
	return errs
}

func validateLimit(l *Limit, path *field.Path) field.ErrorList {
	if l == nil {
		return nil
	}
	var errs field.ErrorList
	if math.IsNaN(l.QPS) || l.QPS < minQPS || l.QPS > maxQPS {
		errs = append(errs, field.Invalid(path.Child("qps"), l.QPS, "must be at least 0.00001 and at most 1e9"))
	}
	if l.Burst < 1 || l.Burst > maxBurst {
		errs = append(errs, field.Invalid(path.Child("burst"), l.Burst, "must be at least 1 and at most 1e9"))
	}
	return errs
}
