package ratelimit

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const header = "apiVersion: berth/v1alpha1\nkind: RateLimitConfiguration\n"

func TestParseConfig(t *testing.T) {
	data, err := os.ReadFile("testdata/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	full := &Config{
		Kind: Kind, APIVersion: APIVersion,
		Defaults:  Defaults{Read: &Limit{100, 200}, Write: &Limit{10, 50}, Per: PerUser},
		Anonymous: &Limit{0.5, 5},
		Overrides: []Override{
			{Users: []string{"importer"}, Write: &Limit{500, 1000}, Per: PerToken},
			{Users: []string{"prometheus"}, Groups: []string{"monitoring"}, Exempt: true},
			{Groups: []string{"ci"}, Read: &Limit{5, 10}},
		},
	}
	for _, tt := range []struct {
		name, file string
		want       *Config
	}{
		{"every key", string(data), full},
		{"nothing but the type", header, &Config{Kind: Kind, APIVersion: APIVersion}},
		{"JSON", `{"apiVersion":"berth/v1alpha1","kind":"RateLimitConfiguration","anonymous":{"qps":1,"burst":2}}`,
			&Config{Kind: Kind, APIVersion: APIVersion, Anonymous: &Limit{1, 2}}},
		{"document markers", "# c\n---\n" + header + "---\n", nil},
		{"a leading marker", "# c\n--- \n" + header, &Config{Kind: Kind, APIVersion: APIVersion}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseConfig([]byte(tt.file))
			if (err == nil) != (tt.want != nil) {
				t.Fatalf("error = %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseConfigRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       []string // parts of the error
	}{
		{"empty file", "", []string{`apiVersion: Unsupported value: ""`, `kind: Unsupported value: ""`}},
		{"other kind", "apiVersion: v1\nkind: Config\n", []string{`supported values: "berth/v1alpha1"`, `supported values: "RateLimitConfiguration"`}},
		{"not YAML", header + "defaults: {", []string{"yaml"}},
		{"unknown key", header + "default: {}\n", []string{`unknown field "default"`}},
		{"unknown nested key", header + "overrides: [{user: [bob]}]\n", []string{`unknown field "overrides[0].user"`}},
		{"a key in another case", header + "anonymous: {qps: 1, QPS: 5, burst: 2}\n", []string{`unknown field "anonymous.QPS"`}},
		{"not a list", header + "overrides: [{users: bob}]\n", []string{"users"}},
		{"repeated key", header + "anonymous: {qps: 1, qps: 2, burst: 1}\n", []string{`"qps" already set`}},
		{"two documents", header + "---\n" + header, []string{"more than one YAML document"}},
		{"a document after the end", header + "...\n" + header, []string{"more than one YAML document"}},
		{"zero qps", header + "defaults: {write: {qps: 0, burst: 1}}\n", []string{"defaults.write.qps: Invalid value: 0: must be at least 0.00001"}},
		{"negative qps", header + "anonymous: {qps: -1, burst: 1}\n", []string{"anonymous.qps: Invalid value: -1"}},
		{"endless qps", header + "anonymous: {qps: .inf, burst: 1}\n", []string{"+Inf"}},
		{"no burst", header + "defaults: {read: {qps: 1}}\n", []string{"defaults.read.burst: Invalid value: 0: must be at least 1"}},
		{"half a burst", header + "defaults: {read: {qps: 1, burst: 1.5}}\n", []string{"burst"}},
		{"unknown per", header + "defaults: {per: address}\n", []string{`defaults.per: Unsupported value: "address": supported values: "token", "user"`}},
		{"override of nobody", header + "overrides: [{users: [], exempt: true}]\n", []string{"overrides[0]: Required value: users or groups must name somebody"}},
		{"empty name", header + "overrides: [{users: [a, ''], groups: ['']}]\n", []string{"overrides[0].users[1]: Required value", "overrides[0].groups[0]: Required value"}},
		{"exempt and limited", header + "overrides: [{users: [a]}, {users: [b], exempt: true, per: user}]\n", []string{"overrides[1].exempt: Forbidden"}},
		{"limits of an override", header + "overrides: [{users: [a], read: {qps: 2e9, burst: 1}, write: {qps: 1, burst: 2000000000}, per: x}]\n",
			[]string{"overrides[0].read.qps: Invalid", "overrides[0].write.burst: Invalid", "overrides[0].per: Unsupported"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseConfig([]byte(tt.file))
			if err == nil || c != nil {
				t.Fatalf("got (%+v, %v), want an error alone", c, err)
			}
			for _, part := range append(tt.want, "rate limit configuration: ") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not contain %q", err, part)
				}
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []*Config{{}, DefaultConfig()} {
		if err := c.validate().ToAggregate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, qps := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.SmallestNonzeroFloat64} {
		if len((&Config{Anonymous: &Limit{qps, 1}}).validate()) == 0 {
			t.Errorf("a qps of %v was accepted", qps)
		}
	}
}

// A Config that New does not refuse must come out of ParseConfig as it went in.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(header))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			if c != nil {
				t.Fatalf("a config with the error %v", err)
			}
			return
		}
		l := New(c)
		for _, r := range l.policy.rules {
			for _, limit := range append(r.limits[:], l.policy.anonymous) {
				if !(limit.QPS > 0) || math.IsInf(limit.QPS, 0) || limit.Burst < 1 {
					t.Fatalf("accepted the limit %+v", limit)
				}
			}
		}
		text, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(text)
		if err != nil {
			t.Fatalf("what it accepted, it refuses as\n%s\n%v", text, err)
		}
		if diff := cmp.Diff(newPolicy(c), newPolicy(again), cmp.AllowUnexported(policy{}, rule{})); diff != "" {
			t.Fatalf("policy (-first +second):\n%s", diff)
		}
	})
}
