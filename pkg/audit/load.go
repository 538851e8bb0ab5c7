package audit

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/yamljson"
)

//go:embed presets/*.yaml
var presets embed.FS

// Presets are the names of the policies that need no file.
var Presets = []string{"metadata", "minimal", "full"}

// Preset returns the policy of one of the names in Presets.
func Preset(name string) (*Policy, error) {
	data, err := presets.ReadFile("presets/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("%q is not one of %s", name, strings.Join(Presets, ", "))
	}
	return ParsePolicy(data)
}

// LoadPolicy reads the policy in a file. The error names the file and all faults, each with
// its line and field.
func LoadPolicy(path string) (*Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("loading the audit policy: %w", err) // err names the path
	}
	policy, err := ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("loading the audit policy: file %s: %w", path, err)
	}
	return policy, nil
}

// ParsePolicy reads a Policy of audit.k8s.io/v1 in YAML or JSON. Unknown and repeated fields,
// of which kube-apiserver only warns, are refused: a misspelt condition makes a rule that fits
// everything.
func ParsePolicy(data []byte) (*Policy, error) {
	asJSON, duplicates, err := yamljson.Convert(data) // bounds what aliases expand to
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, err
	}
	if len(document.Content) == 0 {
		return nil, errors.New("it is empty; a policy has apiVersion, kind and rules")
	}
	root := document.Content[0]
	f := faults{}
	f.check("", root, reflect.TypeFor[auditv1.Policy]())
	if f.list != nil {
		return nil, f.err()
	}
	if duplicates != nil { // in metadata, which is not looked at
		return nil, errors.New(strings.Join(yamljson.Faults(duplicates), "; "))
	}
	var p auditv1.Policy
	strict, err := json.UnmarshalStrict(asJSON, &p)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	if f.validate(root, &p); f.list != nil {
		return nil, f.err()
	}
	return newPolicy(&p), nil
}

// faults are what is wrong with a policy.
type faults struct{ list []string }

// add notes a fault of a node, nil where there is none.
func (f *faults) add(node *yaml.Node, text string) {
	if node != nil {
		text = fmt.Sprintf("line %d: %s", node.Line, text)
	}
	f.list = append(f.list, text)
}

func (f *faults) err() error { return errors.New(strings.Join(f.list, "; ")) }

// check notes what cannot be decoded into the type, and what would be dropped. path is the
// field's.
func (f *faults) check(path string, node *yaml.Node, t reflect.Type) {
	node = resolved(node)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case node.ShortTag() == "!!null":
	case t.Kind() == reflect.Struct:
		f.checkFields(path, node, t)
	case t.Kind() == reflect.Slice && node.Kind != yaml.SequenceNode:
		f.add(node, path+": it must be a list")
	case t.Kind() == reflect.Slice:
		for i, item := range node.Content {
			f.check(fmt.Sprintf("%s[%d]", path, i), item, t.Elem())
		}
	case t.Kind() == reflect.Bool && node.ShortTag() != "!!bool":
		f.add(node, path+": it must be true or false")
	case t.Kind() == reflect.String && node.ShortTag() != "!!str":
		f.add(node, path+": it must be text; put numbers and the like in quotes")
	}
}

func (f *faults) checkFields(path string, node *yaml.Node, t reflect.Type) {
	if node.Kind != yaml.MappingNode {
		f.add(node, strings.TrimPrefix(path+": it must be an object with fields", ": "))
		return
	}
	if path != "" {
		path += "."
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		known, isKnown := fieldNamed(t, key.Value)
		switch {
		case seen[key.Value] > 0:
			f.add(key, fmt.Sprintf("%s%s: it is given twice, first in line %d", path, key.Value, seen[key.Value]))
		case !isKnown:
			f.add(key, fmt.Sprintf("%s%s: there is no such field; there are %s", path, key.Value, strings.Join(fieldNames(t), ", ")))
		case known.Name != "ObjectMeta": // which is the user's own affair
			f.check(path+key.Value, value, known.Type)
		}
		seen[key.Value] = key.Line
	}
}

// fieldNames are the names that the fields of a struct have in JSON.
func fieldNames(t reflect.Type) (names []string) {
	for _, one := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(one.Tag.Get("json"), ",")
		if name != "" && len(one.Index) == 1 || len(one.Index) == 2 && t.Field(one.Index[0]).Name == "TypeMeta" {
			names = append(names, name)
		}
	}
	return names
}

func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	if !slices.Contains(fieldNames(t), name) {
		return reflect.StructField{}, false
	}
	for _, one := range reflect.VisibleFields(t) {
		if tag, _, _ := strings.Cut(one.Tag.Get("json"), ","); tag == name && (!one.Anonymous || name == "metadata") {
			return one, true
		}
	}
	return reflect.StructField{}, false
}

func resolved(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// at returns the node that the steps, names and indexes, lead to, or the last one before it
// that there is.
func at(node *yaml.Node, steps ...any) *yaml.Node {
	node = resolved(node)
	for _, step := range steps {
		next := -1
		switch step := step.(type) {
		case int:
			next = step
		case string:
			for i := 0; i < len(node.Content); i += 2 {
				if node.Content[i].Value == step {
					next = i + 1
				}
			}
		}
		if next < 0 || next >= len(node.Content) {
			return node
		}
		node = resolved(node.Content[next])
	}
	return node
}

// validate notes faults in kube-apiserver's words.
func (f *faults) validate(root *yaml.Node, p *auditv1.Policy) {
	if got, want := p.GroupVersionKind(), auditv1.SchemeGroupVersion.WithKind("Policy"); got != want {
		f.add(at(root, "apiVersion"), fmt.Sprintf("apiVersion, kind: it is a %s of %q, and must be a %s of %q", got.Kind, p.APIVersion, want.Kind, want.GroupVersion()))
		return
	}
	f.validateStages(root, p.OmitStages, nil)
	if len(p.Rules) == 0 {
		f.add(at(root, "rules"), "rules: the policy has 0 rules, with which nothing would be recorded")
	}
	for i := range p.Rules {
		f.validateRule(root, &p.Rules[i], i)
	}
}

func (f *faults) validateStages(node *yaml.Node, stages []auditv1.Stage, path *field.Path) {
	for i, stage := range stages {
		if !slices.Contains(stageNames, stage) {
			f.add(at(node, "omitStages", i), field.Invalid(path.Child("omitStages").Index(i), stage, fmt.Sprintf("allowed stages are %v", stageNames)).Error())
		}
	}
}

func (f *faults) validateRule(root *yaml.Node, r *auditv1.PolicyRule, i int) {
	node, path := at(root, "rules", i), field.NewPath("rules").Index(i)
	switch {
	case r.Level == "":
		f.add(node, field.Required(path.Child("level"), "").Error())
	case !slices.Contains(levelNames, r.Level):
		f.add(at(node, "level"), field.NotSupported(path.Child("level"), r.Level, levelNames).Error())
	}
	if len(r.NonResourceURLs) > 0 && (len(r.Resources) > 0 || len(r.Namespaces) > 0) {
		f.add(at(node, "nonResourceURLs"), field.Invalid(path.Child("nonResourceURLs"), r.NonResourceURLs, "a rule is about URLs or about resources and namespaces, not about both").Error())
	}
	for n, url := range r.NonResourceURLs {
		invalid := func(detail string) {
			f.add(at(node, "nonResourceURLs", n), field.Invalid(path.Child("nonResourceURLs").Index(n), url, detail).Error())
		}
		if url != "*" && !strings.HasPrefix(url, "/") {
			invalid("it must begin with a '/', or be '*'")
		}
		if strings.Contains(strings.TrimSuffix(url, "*"), "*") {
			invalid("a '*' must be the last character")
		}
	}
	for n, g := range r.Resources { // in whose fields kube-apiserver's words have no index
		if g.Group != "" && g.Group != "*" {
			if problems := validation.IsDNS1123Subdomain(g.Group); len(problems) > 0 {
				f.add(at(node, "resources", n, "group"), field.Invalid(path.Child("resources", "group"), g.Group, "it must be a group without a version: "+strings.Join(problems, ", ")).Error())
			}
		}
		if len(g.ResourceNames) > 0 && len(g.Resources) == 0 {
			f.add(at(node, "resources", n, "resourceNames"), field.Invalid(path.Child("resources", "resourceNames"), g.ResourceNames, "it requires at least one resource").Error())
		}
	}
	f.validateStages(node, r.OmitStages, path)
}
