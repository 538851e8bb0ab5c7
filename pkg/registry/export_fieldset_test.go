package registry

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FieldSet is fieldSet.
type FieldSet = fieldSet

// ParseFieldSet is parseFieldSet.
var ParseFieldSet = parseFieldSet

// FieldsV1 is fieldsV1, With is with, Without is without, Meets is meets.
func (s fieldSet) FieldsV1() *metav1.FieldsV1      { return s.fieldsV1() }
func (s fieldSet) With(other FieldSet) FieldSet    { return s.with(other) }
func (s fieldSet) Without(other FieldSet) FieldSet { return s.without(other) }
func (s fieldSet) Meets(other FieldSet) bool       { return s.meets(other) }
