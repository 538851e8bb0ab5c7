package server

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/berth-project/berth/pkg/object"
	"github.com/berth-project/berth/pkg/server/media"
)

func (s *Server) get(c *call) (result, error) {
	if err := refuseExport(c.query["export"]); err != nil {
		return result{}, err
	}
	opts, err := queryOptions(c.query, metav1.Convert_url_Values_To_v1_GetOptions)
	if err != nil {
		return result{}, err
	}
	if err := s.begin(c, 0); err != nil {
		return result{}, err
	}
	obj, err := c.resource.Get(c.ctx, c.namespace, c.name, opts)
	return result{code: http.StatusOK, object: obj}, err
}

// refuseExport refuses what kube-apiserver no longer does, lest a client takes the object
// for an exported one.
func refuseExport(values []string) error {
	var export bool
	if err := runtime.Convert_Slice_string_To_bool(&values, &export, nil); err != nil {
		return apierrors.NewBadRequest("the export parameter cannot be parsed: " + err.Error())
	}
	if export {
		return apierrors.NewBadRequest("the export parameter, deprecated since v1.14, is no longer supported")
	}
	return nil
}

func (s *Server) list(c *call) (result, error) {
	opts, err := listOptions(c)
	if err != nil {
		return result{}, err
	}
	if err := s.takeOld(c, opts); err != nil {
		return result{}, err
	}
	if err := s.begin(c, 0); err != nil {
		return result{}, err
	}
	list, err := s.listed(c, opts)
	return result{code: http.StatusOK, list: list}, err
}

// listed returns the list, and charges what it took to find it.
func (s *Server) listed(c *call, opts *metav1.ListOptions) (*object.List, error) {
	list, warnings, err := c.resource.List(c.ctx, c.namespace, opts)
	c.warn(warnings...)
	if list != nil {
		s.owe(c.rec, list.Comparisons/comparisons)
	}
	return list, err
}

func listOptions(c *call) (*metav1.ListOptions, error) {
	return queryOptions(c.query, metav1.Convert_url_Values_To_v1_ListOptions)
}

// queryOptions reads options from the query. Its error names the parameter at fault, which
// that of the conversion does not.
func queryOptions[T any](query url.Values, convert func(*url.Values, *T, conversion.Scope) error) (*T, error) {
	opts := new(T)
	err := convert(&query, opts, nil)
	if err == nil {
		return opts, nil
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		alone := url.Values{name: query[name]}
		if fault := convert(&alone, new(T), nil); fault != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid %s specified in the request URL - %s", name, fault))
		}
	}
	return nil, apierrors.NewBadRequest(err.Error())
}

func (s *Server) create(c *call) (result, error) {
	obj, opts, err := s.decodeCreate(c, c.resource.Type())
	if err != nil {
		return result{}, err
	}
	if err := s.weighEffects(c, obj); err != nil {
		return result{}, err
	}
	opts.FieldManager = fieldManager(opts.FieldManager, c.req)
	created, warnings, err := c.resource.Create(c.ctx, c.namespace, obj, opts)
	if created != nil {
		c.rec.created = created.Name
	}
	return c.written(created, true, warnings, err)
}

// decodeCreate returns what a client wants to create, an object of the type, and its options.
func (s *Server) decodeCreate(c *call, t *object.Type) (runtime.Object, *metav1.CreateOptions, error) {
	mediaType, err := s.codecs.Input(c.req)
	if err != nil {
		return nil, nil, err
	}
	body, err := s.readBody(c)
	if err != nil {
		return nil, nil, err
	}
	defer body.release()
	opts, err := queryOptions(c.query, metav1.Convert_url_Values_To_v1_CreateOptions)
	if err != nil {
		return nil, nil, err
	}
	if err := invalidOptions("CreateOptions", validation.ValidateCreateOptions(opts)); err != nil {
		return nil, nil, err
	}
	obj, err := s.decodeBody(c, body, mediaType, t, opts.FieldValidation)
	return obj, opts, err
}

// update replaces an object. kube-apiserver looks at the media type of a PUT only after
// its options.
func (s *Server) update(c *call) (result, error) {
	body, err := s.readBody(c)
	if err != nil {
		return result{}, err
	}
	defer body.release()
	opts, err := queryOptions(c.query, metav1.Convert_url_Values_To_v1_UpdateOptions)
	if err != nil {
		return result{}, err
	}
	if err := invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(opts)); err != nil {
		return result{}, err
	}
	mediaType, err := s.codecs.Input(c.req)
	if err != nil {
		return result{}, err
	}
	obj, err := s.decodeBody(c, body, mediaType, c.resource.Type(), opts.FieldValidation)
	if err != nil {
		return result{}, err
	}
	if err := s.weighEffects(c, obj); err != nil {
		return result{}, err
	}
	opts.FieldManager = fieldManager(opts.FieldManager, c.req)
	return c.written(c.resource.Update(c.ctx, c.namespace, c.name, c.subresource, obj, opts))
}

// decodeBody decodes the body into a new object of the type, once there is memory for it.
func (s *Server) decodeBody(c *call, body *body, mediaType string, t *object.Type, fieldValidation string) (runtime.Object, error) {
	if err := s.weighBody(c, body, mediaType, t); err != nil {
		return nil, err
	}
	obj, warnings, err := s.codecs.Decode(body.bytes(), mediaType, t, fieldValidation)
	c.warn(warnings...)
	if err != nil {
		return nil, err
	}
	if c.rec.audit.WantsRequest() && t != deleteOptionsType {
		c.resource.Default(obj)
	}
	c.rec.audit.Sent(obj, t.Kind)
	return obj, c.timedOut("while its body was being decoded")
}

// patchTypes are the media types of patches.
var patchTypes = []string{string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType)}

// patchType returns the type of the patch that a Content-Type names. kube-apiserver has two
// answers: the router's where it names none, and its own where it names others, too.
func patchType(req *http.Request) (types.PatchType, error) {
	contentType := req.Header.Get("Content-Type")
	bare := func(value string) string {
		value, _, _ = strings.Cut(value, ";")
		return strings.TrimSpace(value)
	}
	if only := bare(contentType); slices.Contains(patchTypes, only) {
		return types.PatchType(only), nil
	}
	for one := range strings.SplitSeq(contentType, ",") {
		if slices.Contains(patchTypes, bare(one)) {
			return "", media.Unsupported(patchTypes, "")
		}
	}
	message := "415: Unsupported Media Type"
	if hint := media.FormHint(req); hint != "" {
		message += ": a patch is one of " + strings.Join(patchTypes, ", ") + hint
	}
	return "", &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: message, Details: &metav1.StatusDetails{},
	}}
}

func (s *Server) patch(c *call) (result, error) {
	patchType, err := patchType(c.req)
	if err != nil {
		c.rec.Header().Set("Accept-Patch", strings.Join(patchTypes, ", "))
		return result{}, err
	}
	c.rec.apply = patchType == types.ApplyYAMLPatchType
	body, err := s.readBody(c)
	if err != nil {
		return result{}, err
	}
	defer body.release()
	opts, err := queryOptions(c.query, metav1.Convert_url_Values_To_v1_PatchOptions)
	if err != nil {
		return result{}, err
	}
	if err := invalidOptions("PatchOptions", validation.ValidatePatchOptions(opts, patchType)); err != nil {
		return result{}, err
	}
	if err := s.weighBody(c, body, string(patchType), c.resource.Type()); err != nil {
		return result{}, err
	}
	if !c.rec.apply {
		opts.FieldManager = fieldManager(opts.FieldManager, c.req)
	}
	c.rec.audit.SentPatch(body.bytes(), c.rec.apply)
	apply, weight, err := c.resource.Patch(c.namespace, c.name, c.subresource, patchType, body.bytes(), opts)
	if err == nil {
		err = s.chargeWeight(c, weight/writeBytes, "what its patch moves, copies or merges")
	}
	if err != nil {
		return result{}, explainEmpty(body, err)
	}
	patched, created, warnings, err := apply(c.ctx)
	return c.written(patched, created, warnings, explainEmpty(body, err))
}

// explainEmpty adds to the error of a patch that there was none.
func explainEmpty(body *body, err error) error {
	if apierrors.IsBadRequest(err) && len(body.bytes()) == 0 {
		return apierrors.NewBadRequest(err.Error() + ": the body is empty")
	}
	return err
}

// written makes an answer of what a write returned.
func (c *call) written(obj *object.Object, created bool, warnings []string, err error) (result, error) {
	c.warn(warnings...)
	if created {
		return result{code: http.StatusCreated, object: obj}, err
	}
	return result{code: http.StatusOK, object: obj}, err
}

func (s *Server) delete(c *call) (result, error) {
	opts, err := s.deleteOptions(c)
	if err != nil {
		return result{}, err
	}
	if ptr.Deref(opts.IgnoreStoreReadErrorWithClusterBreakingPotential, false) {
		attrs := c.rec.attrs
		attrs.Verb = unsafeDeleteVerb
		if err := s.authorise(c.rec, attrs); err != nil {
			return result{}, err
		}
	}
	obj, status, err := c.resource.Delete(c.ctx, c.namespace, c.name, opts)
	if obj != nil {
		return result{code: http.StatusOK, object: obj}, err
	}
	return result{code: http.StatusOK, other: status}, err
}

func (s *Server) deleteCollection(c *call) (result, error) {
	list, err := listOptions(c)
	if err != nil {
		return result{}, err
	}
	if err := s.takeOld(c, list); err != nil {
		return result{}, err
	}
	opts, err := s.deleteOptions(c)
	if err != nil {
		return result{}, err
	}
	selected, err := s.listed(c, list)
	if err != nil {
		return result{}, err
	}
	if err = s.beginObjects(c, selected.Objects); err == nil {
		err = c.resource.DeleteCollection(c.ctx, opts, selected)
	}
	return result{code: http.StatusOK, list: selected}, err
}

var deleteOptionsType = &object.Type{
	Kind: schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"},
	New:  func() runtime.Object { return &metav1.DeleteOptions{} },
}

// unsafeDeleteVerb is what a user must be allowed, beside delete, to delete what cannot be
// read. It is kube-apiserver's.
const unsafeDeleteVerb = "unsafe-delete-ignore-read-errors"

// deleteOptions are the body's where there is one, else the query's.
func (s *Server) deleteOptions(c *call) (*metav1.DeleteOptions, error) {
	body, err := s.readBody(c)
	if err != nil {
		return nil, err
	}
	defer body.release()
	var opts *metav1.DeleteOptions
	if len(body.bytes()) == 0 {
		if opts, err = queryOptions(c.query, metav1.Convert_url_Values_To_v1_DeleteOptions); err != nil {
			return nil, err
		}
		if err := s.takeMemory(c, 0); err != nil {
			return nil, err
		}
	} else {
		mediaType, err := s.codecs.Input(c.req)
		if err != nil {
			return nil, err
		}
		decoded, err := s.decodeBody(c, body, mediaType, deleteOptionsType, metav1.FieldValidationIgnore)
		if err != nil {
			return nil, err
		}
		opts = decoded.(*metav1.DeleteOptions)
	}
	c.rec.noteDryRun(opts.DryRun)
	return opts, invalidOptions("DeleteOptions", validation.ValidateDeleteOptions(opts))
}

// invalidOptions is the 422 for faults in the options of a request, nil without faults.
func invalidOptions(kind string, faults field.ErrorList) error {
	if len(faults) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", faults)
}

// fieldManager is who owns the fields that a request sets: the manager that it names, or
// its User-Agent up to the first slash, cut to what a manager may be.
func fieldManager(named string, req *http.Request) string {
	if named != "" {
		return named
	}
	agent, _, _ := strings.Cut(req.UserAgent(), "/")
	var b strings.Builder
	for _, r := range agent {
		if !unicode.IsPrint(r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > validation.FieldManagerMaxLength {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
