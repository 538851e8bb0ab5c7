// Package ownership keeps metadata.managedFields, by which a server-side apply knows whose
// every field is. The library of Kubernetes does it, and is shown as little as it needs:
// where the length of a list does not matter to it, it gets a stand-in.
package ownership

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// Config is what a Manager is made of. Fields are required unless their comments say
// otherwise.
type Config struct {
	Kind schema.GroupVersionKind
	// Scheme knows the kind's Go type, and Converter its schema, which is first used when the
	// first object is written; see Check.
	Scheme    *runtime.Scheme
	Converter managedfields.TypeConverter
	// Subresource is the part of the object that is written; "" is the object itself.
	Subresource string
	// Reset are top-level fields of which nobody becomes the owner; nil: there are none.
	Reset []string
	// SetDefault fills in what a client may leave out; nil: nothing.
	SetDefault func(obj runtime.Object)
}

// Manager keeps the managedFields of objects of one kind. It may be used by several
// goroutines at once.
type Manager struct {
	kind       schema.GroupVersionKind
	fields     *managedfields.FieldManager
	newObject  func() (runtime.Object, error)
	setDefault func(obj runtime.Object)
	lists      func() ([]list, error)
}

// New returns a Manager.
func New(cfg Config) (*Manager, error) {
	reset := map[fieldpath.APIVersion]fieldpath.Filter{}
	if len(cfg.Reset) > 0 {
		set := fieldpath.NewSet()
		for _, name := range cfg.Reset {
			set.Insert(fieldpath.MakePathOrDie(name))
		}
		reset[fieldpath.APIVersion(cfg.Kind.GroupVersion().String())] = fieldpath.NewExcludeSetFilter(set)
	}
	converter := &trustingConverter{TypeConverter: cfg.Converter, kind: cfg.Kind}
	fields, err := managedfields.NewDefaultFieldManager(converter, cfg.Scheme, cfg.Scheme, cfg.Scheme, cfg.Kind, cfg.Kind.GroupVersion(), cfg.Subresource, reset)
	if err != nil {
		return nil, fmt.Errorf("field ownership of %s: %w", cfg.Kind, err)
	}
	if cfg.SetDefault == nil {
		cfg.SetDefault = func(runtime.Object) {}
	}
	m := &Manager{kind: cfg.Kind, fields: fields, setDefault: cfg.SetDefault}
	m.newObject = func() (runtime.Object, error) {
		obj, err := cfg.Scheme.New(cfg.Kind)
		if err == nil {
			obj.GetObjectKind().SetGroupVersionKind(cfg.Kind)
		}
		return obj, err
	}
	converter.find = sync.OnceValues(func() (*typed.TypedValue, error) {
		obj, err := m.newObject()
		if err != nil {
			return nil, err
		}
		return cfg.Converter.ObjectToTyped(obj)
	})
	m.lists = sync.OnceValues(func() ([]list, error) {
		known, err := converter.find()
		if err != nil {
			return nil, fmt.Errorf("field ownership: %w", err)
		}
		return atomicLists(cfg.Kind, cfg.Scheme.AllKnownTypes()[cfg.Kind], known)
	})
	return m, nil
}

// Check returns an error if the kind lacks its schema. Then no object of it is tracked, and
// every apply fails.
func (m *Manager) Check() error {
	_, err := m.lists()
	return err
}

// Update gives the fields that differ between live and next to the manager, by setting the
// managedFields of next, which has its defaults. Where nothing else changes, they do not
// either. live, which stays as it is, is an empty object where next is new. The error is
// Invalid: next has more than MaxFields, MaxElements or MaxItems, and more than live. Where live
// has more, nobody becomes an owner, and managedFields that next has are taken as they are.
func (m *Manager) Update(live, next runtime.Object, manager string) error {
	if err := m.checkSize(live, next, m.sizeOf(next)); err != nil {
		return err
	}
	if m.isTooLarge(live) {
		if accessor, err := meta.Accessor(next); err == nil && len(accessor.GetManagedFields()) == 0 {
			setManagedFields(next, live)
		}
		return nil
	}
	shownLive, shownNext := ShallowCopy(live), ShallowCopy(next)
	lists, _ := m.lists() // without a schema the library fails as well
	for _, l := range lists {
		l.replace(shownLive, shownNext)
	}
	shownNext = m.fields.UpdateNoErrors(shownLive, shownNext, manager)
	keepTimes(shownLive, shownNext) // the stand-ins are as equal as the lists
	setManagedFields(next, shownNext)
	return nil
}

// Apply returns the object that a server-side apply of the configuration makes of live, with
// its defaults and managedFields. live is nil where there is no object yet; the Manager
// leaves it and the configuration alone, and the outcome may share with live what setDefault
// leaves alone.
//
// Errors: Conflict where the configuration changes fields of other managers and force is not
// set, BadRequest for one that the schema does not allow, and Invalid where it, live or the
// outcome has more than MaxFields or MaxElements, or the outcome more than MaxItems.
func (m *Manager) Apply(live runtime.Object, config *unstructured.Unstructured, manager string, force bool) (runtime.Object, error) {
	if live == nil {
		var err error
		if live, err = m.newObject(); err != nil {
			return nil, err
		}
	}
	if err := m.checkSize(live, live, m.sizeOfConfig(config.Object)); err != nil {
		return nil, err
	}
	if m.isTooLarge(live) {
		return nil, m.errTooLarge(live)
	}
	s := m.show(live, config, manager)
	next, err := m.fields.Apply(s.live, s.config, manager, force)
	if err != nil {
		var known apierrors.APIStatus
		if errors.As(err, &known) {
			return nil, err
		}
		// What is left is a configuration that does not fit the schema, with an unknown field
		// for example.
		return nil, apierrors.NewBadRequest(shorten(err.Error()))
	}
	s.restore(next, live)
	if err := m.checkSize(live, next, m.sizeOf(next)); err != nil {
		return nil, err
	}
	m.setDefault(next)
	keepTimes(live, next)
	return next, nil
}

// shorten keeps an error from telling of every field of a large configuration.
func shorten(text string) string {
	const most = 8 << 10
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " ..."
}

// kubectlManager is the manager under which kubectl applies. For it the library compares and
// updates the whole configuration in the annotation of client-side apply.
const kubectlManager = "kubectl"

// shown is what the library is shown of an apply.
type shown struct {
	live   runtime.Object
	config *unstructured.Unstructured
	lists  []list
	given  []reflect.Value // what the configuration has for each of lists; invalid: nothing of any length
}

// show returns stand-ins for live and the configuration. Where the configuration has a list
// that does not fit, it is the library that says so: it gets everything as it is.
func (m *Manager) show(live runtime.Object, config *unstructured.Unstructured, manager string) shown {
	whole := shown{live: live, config: config}
	lists, _ := m.lists() // without a schema the library fails as well
	if len(lists) == 0 || manager == kubectlManager && (hasLastApplied(live) || hasLastApplied(config)) {
		return whole
	}
	s := shown{live: ShallowCopy(live), lists: lists}
	fields := maps.Clone(config.Object)
	for _, l := range lists {
		given, err := l.replaceApplied(s.live, fields)
		if err != nil {
			return whole
		}
		s.given = append(s.given, given)
	}
	s.config = &unstructured.Unstructured{Object: fields}
	return s
}

// restore puts into the outcome what stood behind the stand-ins.
func (s *shown) restore(next, live runtime.Object) {
	for i, l := range s.lists {
		field := l.in(next)
		switch {
		case field.Len() == 0: // it is not there, or empty
		case s.given[i].IsValid():
			field.Set(s.given[i])
		default:
			field.Set(l.in(live))
		}
	}
}

func hasLastApplied(obj runtime.Object) bool {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return false
	}
	_, ok := accessor.GetAnnotations()[corev1.LastAppliedConfigAnnotation]
	return ok
}

// ShallowCopy returns a copy of a pointer to a struct, the fields of which can be replaced.
func ShallowCopy[T runtime.Object](obj T) T {
	original := reflect.ValueOf(obj).Elem()
	copied := reflect.New(original.Type())
	copied.Elem().Set(original)
	return copied.Interface().(T)
}
