package ratelimit

import "testing"

func TestPolicyMatch(t *testing.T) {
	limited := &Config{
		Defaults: Defaults{Read: &Limit{7, 70}, Per: PerUser},
		Overrides: []Override{
			{Users: []string{"alice"}, Groups: []string{"ops"}, Write: &Limit{1, 10}, Per: PerToken},
			{Users: []string{"bob"}, Exempt: true},
			{Users: []string{"alice", "carol"}, Groups: []string{"dev"}, Read: &Limit{2, 20}},
		},
	}
	read, write := Limit{7, 70}, Limit{20, 100}
	for _, tt := range []struct {
		name   string
		config *Config
		user   string
		groups []string
		want   rule
	}{
		{"built-in defaults", nil, "dan", []string{"dev"}, rule{limits: [2]Limit{{200, 400}, {20, 100}}}},
		{"built-in exemption", nil, "root", []string{"x", "system:masters"}, rule{limits: [2]Limit{{200, 400}, {20, 100}}, exempt: true}},
		{"the zero Config", &Config{}, "dan", nil, rule{limits: [2]Limit{{200, 400}, {20, 100}}}},
		{"defaults of the file", limited, "dan", []string{"x"}, rule{limits: [2]Limit{read, write}, perUser: true}},
		{"a user", limited, "carol", nil, rule{limits: [2]Limit{{2, 20}, write}, perUser: true}},
		{"the first override of two for a user", limited, "alice", nil, rule{limits: [2]Limit{read, {1, 10}}}},
		{"a group before a user", limited, "bob", []string{"dev", "ops"}, rule{limits: [2]Limit{read, {1, 10}}}},
		{"a user before a group", limited, "bob", []string{"dev"}, rule{limits: [2]Limit{read, write}, perUser: true, exempt: true}},
		{"a user's name is no group", limited, "ops", []string{"carol"}, rule{limits: [2]Limit{read, write}, perUser: true}},
		{"the built-in exemption stays under a file", limited, "root", []string{"system:masters"}, rule{limits: [2]Limit{read, write}, perUser: true, exempt: true}},
		{"but comes last", limited, "root", []string{"system:masters", "dev"}, rule{limits: [2]Limit{{2, 20}, write}, perUser: true}},
		{
			"and gives way to an override that names the group",
			&Config{Overrides: []Override{{Groups: []string{"system:masters"}}}}, "root", []string{"system:masters"},
			rule{limits: [2]Limit{{200, 400}, {20, 100}}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPolicy(tt.config)
			if got := p.rules[p.match(tt.user, tt.groups)]; got != tt.want {
				t.Errorf("rule = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestNewPanicsOnAnInvalidConfig(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(&Config{Anonymous: &Limit{}})
}
