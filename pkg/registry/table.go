package registry

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
)

// NameColumn and AgeColumn are the first and the last column of kubectl's tables.
var (
	NameColumn = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
	AgeColumn  = metav1.TableColumnDefinition{Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]}
)

// Age is the cell of AgeColumn.
func Age(created metav1.Time) string {
	if created.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(created.Time))
}

// Columns are the columns of the resource's table.
func (s *Store) Columns() []metav1.TableColumnDefinition { return s.Resource.Columns }

// Cells are an object's cells in the resource's table. obj is of the type of New.
func (s *Store) Cells(obj runtime.Object) []any { return s.Resource.Cells(obj) }
