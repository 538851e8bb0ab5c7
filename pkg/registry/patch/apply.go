package patch

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"

	"github.com/berth-project/berth/pkg/yamljson"
)

// DecodeApply decodes the configuration of a server-side apply, in JSON or YAML. fault tells
// of fields that it has twice, nil if there are none; whether that matters is up to the
// caller.
//
// Errors: BadRequest for what is not an object, or nested more than MaxNesting deep, and
// RequestEntityTooLarge for YAML that stands for far more than it says.
func DecodeApply(data []byte) (config *unstructured.Unstructured, fault, err error) {
	config = &unstructured.Unstructured{}
	// JSON, which most programs send, costs many times more as YAML, which finds the words
	// for what is wrong with it.
	duplicates, err := kjson.UnmarshalStrict(data, &config.Object)
	if err != nil || len(duplicates) > 0 {
		data, fault, err = yamljson.Convert(data)
		switch {
		case errors.Is(err, yamljson.ErrTooLarge):
			return nil, nil, apierrors.NewRequestEntityTooLargeError(err.Error())
		case err != nil:
			return nil, nil, malformedYAML("error converting YAML to JSON", err)
		case fault != nil:
			fault = fmt.Errorf("error converting YAML to JSON: %w", fault)
		}
		config.Object = nil
		if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &config.Object); err != nil {
			return nil, nil, malformedYAML("error unmarshaling JSON: while decoding JSON", err)
		}
	}
	if err := checkNesting(data); err != nil {
		return nil, nil, err
	}
	return config, fault, nil
}

// malformedYAML uses kube-apiserver's words, which are YAML's for JSON, too.
func malformedYAML(when string, cause error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %s: %v", when, cause))
}
