package object

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
)

// As returns the object as another type shows it, of which convert makes a typed object out of a
// typed copy. It is made once, and kept like a form: all who ask for it have to ask for the same
// type.
func (o *Object) As(t *Type, convert func(runtime.Object) (runtime.Object, error)) (*Object, error) {
	fs := o.formSet()
	shown, made, err := fs.shown(func() (*Object, error) { return o.convert(t, convert) })
	if made {
		o.Type.Forms.add(fs, asSlot, shown.Size())
	}
	return shown, err
}

// shown returns the object of another type, which is made if it is not kept.
func (fs *forms) shown(produce func() (*Object, error)) (shown *Object, made bool, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.as != nil {
		return fs.as, false, nil
	}
	shown, err = produce()
	fs.as = shown
	return shown, err == nil, err
}

func (o *Object) convert(t *Type, convert func(runtime.Object) (runtime.Object, error)) (*Object, error) {
	obj, err := o.Decode()
	if err != nil {
		return nil, err
	}
	if obj, err = convert(obj); err != nil {
		return nil, err
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	accessor.SetResourceVersion("")
	obj.GetObjectKind().SetGroupVersionKind(t.Kind)
	value, err := t.Encode(obj)
	if err != nil {
		return nil, err
	}
	return Written(t, o.Identity, value)
}
