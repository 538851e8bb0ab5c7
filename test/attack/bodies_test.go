package attack

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// bodySize is a little less than the largest body that is read, in bytes.
const bodySize = 3<<20 - 4<<10

// bodies are expensive to decode, or to refuse.
var bodies = []attack{
	{name: "protobuf with 1.5 million empty addresses", run: bodiesOf(emptyAddresses(), asProtobuf)},
	{name: "JSON with a million empty addresses", run: bodiesOf(filled(`{"metadata":{"name":"a"},"subsets":[{"addresses":[{}`, `,{}`, `]}]}`), "application/json")},
	{name: "JSON with a million empty subsets", run: bodiesOf(filled(`{"metadata":{"name":"a"},"subsets":[{}`, `,{}`, `]}`), "application/json")},
	{name: "JSON nested a million deep", run: bodiesOf(filled(`{"metadata":{"name":"a"},"x":`, `[`, ``), "application/json")},
	{name: "JSON with 300,000 unknown fields", run: bodiesOf(numbered(`{"metadata":{"name":"a"}`, `,"f%06d":0`, `}`), "application/json")},
	{name: "JSON with one field 300,000 times", run: bodiesOf(filled(`{"metadata":{"name":"a"}`, `,"kind":"e"`, `}`), "application/json")},
	{name: "JSON with 200,000 labels", run: bodiesOf(numbered(`{"metadata":{"name":"a","labels":{"a":"b"`, `,"l%06d":""`, `}}}`), "application/json")},
	{name: "JSON with 100,000 owners", run: bodiesOf(filled(`{"metadata":{"name":"a","ownerReferences":[{}`, `,{"uid":"x"}`, `]}}`), "application/json")},
	{name: "JSON with 50,000 managers", run: bodiesOf(numbered(`{"metadata":{"name":"a","managedFields":[{}`, `,{"manager":"m%06d","fieldsV1":{"f:x":{}}}`, `]}}`), "application/json")},
	{name: "YAML with a million empty addresses", run: bodiesOf(filled("metadata: {name: a}\nsubsets: [{addresses: [{}", `,{}`, `]}]`), asYAML)},
	{name: "YAML nested a million deep", run: bodiesOf(filled("metadata: {name: a}\nx: ", `[`, ``), asYAML)},
	{name: "YAML with indented lists", run: bodiesOf(filled("metadata: {name: a}\nx:\n  ", `- `, `a`), asYAML)},
	{name: "YAML with aliases of aliases", run: bodiesOf(aliases(), asYAML)},
	{name: "invalid addresses by the hundred thousand", run: bodiesOf(filled(`{"metadata":{"name":"a"},"subsets":[{"addresses":[{"ip":"x"}`, `,{"ip":"x"}`, `]}]}`), "application/json")},
	{name: "gzip bodies", run: func(a *attacker) {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = io.CopyN(w, zeros{}, 100<<20) // a Buffer takes everything
		_ = w.Close()
		a.paced(8, 50, func(int, int) { a.create(packed.String(), "Content-Encoding", "gzip") })
	}},
	{name: "dry runs of large objects", run: func(a *attacker) {
		body := objectOf("dry", 26_000)
		a.parallel(8, func(int, int) { a.do(http.MethodPost, endpointsIn(a.namespace)+"?dryRun=All", body) })
	}},
	{name: "bodies that are cut off", run: func(a *attacker) {
		body := objectOf("cut", 13_000)
		a.paced(32, 100, func(int, int) { a.cutOff(body) })
	}},
	{name: "bodies in chunks of one byte", run: func(a *attacker) {
		a.paced(16, 50, func(int, int) {
			if conn := a.dialTLS("http/1.1"); conn != nil {
				defer conn.Close()
				head := a.head(http.MethodPost, endpointsIn(a.namespace), "Content-Type: application/json", "Transfer-Encoding: chunked")
				_, _ = io.WriteString(conn, head+"\r\n"+strings.Repeat("1\r\n \r\n", 100_000)) // it may be refused half-way
			}
		})
	}},
}

func bodiesOf(body, contentType string) func(*attacker) {
	return func(a *attacker) {
		a.parallel(8, func(_, n int) {
			validation := []string{"Ignore", "Warn", "Strict"}[n%3]
			a.do(http.MethodPost, endpointsIn(a.namespace)+"?fieldValidation="+validation, body, "Content-Type", contentType)
		})
	}
}

// filled repeats the middle until the body is as large as it may be.
func filled(begin, middle, end string) string {
	return begin + strings.Repeat(middle, (bodySize-len(begin)-len(end))/len(middle)) + end
}

// numbered is filled with a middle that contains a number.
func numbered(begin, middle, end string) string {
	var b strings.Builder
	b.WriteString(begin)
	for i := 0; b.Len() < bodySize-len(middle)-len(end)-8; i++ {
		fmt.Fprintf(&b, middle, i)
	}
	return b.String() + end
}

// emptyAddresses is an Endpoints object in protobuf, of two bytes an address.
func emptyAddresses() string {
	subset := field(1, strings.Repeat(field(1, ""), 1_500_000))
	object := field(1, field(1, "a")) + field(2, subset[len(subset)-3_000_000:])
	return "k8s\x00" + field(1, field(1, "v1")+field(2, "Endpoints")) + field(2, object)
}

// field is a protobuf field of bytes.
func field(number int, value string) string {
	head := binary.AppendUvarint(nil, uint64(number<<3|2))
	return string(binary.AppendUvarint(head, uint64(len(value)))) + value
}

// aliases is YAML in which every line is nine times the one before.
func aliases() string {
	var b strings.Builder
	b.WriteString("metadata: {name: a}\nx0: &x0 [1,2,3,4,5,6,7,8,9]\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i-1), 9), ","))
	}
	return b.String()
}

// cutOff announces a body, sends half of it and closes the connection.
func (a *attacker) cutOff(body string) {
	conn := a.dialTLS("http/1.1")
	if conn == nil {
		return
	}
	defer conn.Close()
	head := a.head(http.MethodPost, endpointsIn(a.namespace), "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))
	_, _ = io.WriteString(conn, head+"\r\n"+body[:len(body)/2]) // it may be refused half-way
}

// zeros reads as zeros without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
