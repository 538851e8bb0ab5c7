package load

import (
	"strings"
	"testing"
)

func TestMixSet(t *testing.T) {
	for text, want := range map[string]string{
		"get=1":                       "get=1",
		"create=10,get=60,update=20":  "create=10,get=60,update=20",
		" delete=2 , create=3":        "create=3,delete=2",
		"get=1,list=0":                "get=1",
		"patch=5,apply=2,list=000001": "patch=5,apply=2,list=1",
	} {
		var m Mix
		if err := m.Set(text); err != nil || m.String() != want {
			t.Errorf("Set(%q): %v, %v, want %s", text, &m, err, want)
		}
	}
	for text, want := range map[string]string{
		"":              "not of the form",
		"get":           "not of the form",
		"get=1,":        "not of the form",
		"fetch=1":       "not one of the verbs create, get",
		"get=-1":        "not a whole number",
		"get=1.5":       "not a whole number",
		"get=9999999":   "not a whole number",
		"get=1,get=2":   "named twice",
		"get=0,list=0":  "no verb has a weight",
		"get=1,watch=1": `"watch" is not one of`,
	} {
		m := Mix{verbList: 7}
		if err := m.Set(text); err == nil || !strings.Contains(err.Error(), want) || m.String() != "list=7" {
			t.Errorf("Set(%q): %v, %v, want the error %q and no change", text, &m, err, want)
		}
	}
}

func TestMixPick(t *testing.T) {
	m := Mix{verbCreate: 3, verbUpdate: 1, verbDelete: 2}
	var got Mix
	for n := range m.total() {
		got[m.pick(n)]++
	}
	if got != m {
		t.Errorf("all numbers once pick %v, want %v", &got, &m)
	}
}

func FuzzMixSet(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		var m, again Mix
		if m.Set(text) != nil {
			return
		}
		if err := again.Set(m.String()); err != nil || again != m {
			t.Errorf("%q is %v, which is read as %v (%v)", text, &m, &again, err)
		}
		if total := m.total(); total <= 0 || m[m.pick(0)] == 0 || m[m.pick(total-1)] == 0 {
			t.Errorf("%q picks a verb without weight", text)
		}
	})
}
