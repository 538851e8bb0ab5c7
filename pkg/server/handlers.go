package server

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (s *Server) get(c *call) (result, error) {
	opts := &metav1.GetOptions{}
	if err := metav1.Convert_url_Values_To_v1_GetOptions(&c.query, opts, nil); err != nil {
		return result{}, apierrors.NewBadRequest(err.Error())
	}
	obj, err := c.resource.Get(c.ctx, c.namespace, c.name, opts)
	return result{http.StatusOK, obj}, err
}

func (s *Server) list(c *call) (result, error) {
	opts := &metav1.ListOptions{}
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&c.query, opts, nil); err != nil {
		return result{}, apierrors.NewBadRequest(err.Error())
	}
	list, err := c.resource.List(c.ctx, c.namespace, opts)
	return result{http.StatusOK, list}, err
}

func (s *Server) create(c *call) (result, error) {
	input, err := s.codecs.input(c.req)
	if err != nil {
		return result{}, err
	}
	body, err := readBody(c)
	if err != nil {
		return result{}, err
	}
	defer body.release()
	opts := &metav1.CreateOptions{}
	if err := metav1.Convert_url_Values_To_v1_CreateOptions(&c.query, opts, nil); err != nil {
		return result{}, apierrors.NewBadRequest(err.Error())
	}
	if err := invalidOptions("CreateOptions", validation.ValidateCreateOptions(opts)); err != nil {
		return result{}, err
	}
	c.rec.dryRun = len(opts.DryRun) > 0
	obj := c.resource.New()
	warnings, err := s.codecs.decode(body.bytes(), input, obj, opts.FieldValidation)
	c.warn(warnings...)
	if err != nil {
		return result{}, err
	}
	opts.FieldManager = fieldManager(opts.FieldManager, c.req)
	created, warnings, err := c.resource.Create(c.ctx, c.namespace, obj, opts)
	c.warn(warnings...)
	return result{http.StatusCreated, created}, err
}

func (s *Server) delete(c *call) (result, error) {
	opts, err := s.deleteOptions(c)
	if err != nil {
		return result{}, err
	}
	c.rec.dryRun = len(opts.DryRun) > 0
	obj, err := c.resource.Delete(c.ctx, c.namespace, c.name, opts)
	return result{http.StatusOK, obj}, err
}

// deleteOptions are the body's where there is one, else the query's.
func (s *Server) deleteOptions(c *call) (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	defer body.release()
	if len(body.bytes()) > 0 {
		input, err := s.codecs.input(c.req)
		if err != nil {
			return nil, err
		}
		if _, err := s.codecs.decode(body.bytes(), input, opts, metav1.FieldValidationIgnore); err != nil {
			return nil, err
		}
	} else if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&c.query, opts, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
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
