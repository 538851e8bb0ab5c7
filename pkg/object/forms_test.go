package object_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-project/berth/pkg/object"
)

func TestBodies(t *testing.T) {
	typ, e := endpointsType(nil), endpoints("a", 2)
	o := mustRead(t, typ, "a", 42, mustEncode(t, typ, e))
	e.ResourceVersion = "42"
	message, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	partial, err := (&metav1.PartialObjectMetadata{ObjectMeta: e.ObjectMeta}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	whole := withVersion(t, e, "42")
	metadata := `"metadata":{"name":"a","namespace":"default","uid":"8de0af5a-aabf-4706-87ec-b6fe7e1307d6","resourceVersion":"42","labels":{"app":"a","tier":"x"}}`
	for form, want := range map[object.Form]string{
		object.JSON:     strings.TrimPrefix(whole, `{"kind":"Endpoints","apiVersion":"v1",`),
		object.Metadata: metadata, object.Protobuf: string(message), object.MetadataProtobuf: string(partial),
	} {
		body, err := o.Body(form)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(body)); diff != "" {
			t.Errorf("form %d (-want +got)\n%s", form, diff)
		}
		again, err := o.Body(form)
		if err != nil || &again[0] != &body[0] {
			t.Errorf("form %d is made twice (%v)", form, err)
		}
	}
	if got, err := o.Body(object.JSON); err != nil || string(o.Head())+string(got) != whole {
		t.Errorf("head and body are %s%s (%v), want %s", o.Head(), got, err, whole)
	}
}

// framings are two of JSON, which differ by their heads alone, and one whose head tells the
// size.
var framings = map[string]*object.Framing{
	"json":          {Form: object.JSON, Separator: ",", AppendHead: func(dst []byte, _ int) []byte { return append(dst, '{') }},
	"metadata":      {Form: object.Metadata, Tail: "}", Separator: ",", AppendHead: func(dst []byte, _ int) []byte { return append(dst, `{"v":1,`...) }},
	"metadata, too": {Form: object.Metadata, Tail: "}", Separator: ",", AppendHead: func(dst []byte, _ int) []byte { return append(dst, `{"v":2,`...) }},
	"protobuf":      {Form: object.Protobuf, AppendHead: func(dst []byte, size int) []byte { return binary.AppendUvarint(dst, uint64(size)) }},
}

// gunzip puts a stream together of what a list's runs hold and reads it.
func gunzip(t *testing.T, l *object.List, framing *object.Framing) string {
	t.Helper()
	stream := bytes.NewBuffer([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	crc, size := uint32(0), uint32(0)
	raw := func(p []byte) {
		stream.Write([]byte{0, byte(len(p)), byte(len(p) >> 8), ^byte(len(p)), ^byte(len(p) >> 8)})
		stream.Write(p)
		crc, size = crc32.Update(crc, crc32.IEEETable, p), size+uint32(len(p))
	}
	first := true
	for run, err := range l.Runs(framing) {
		if err != nil {
			t.Fatal(err)
		}
		if !first {
			raw([]byte(framing.Separator))
		}
		first = false
		raw(framing.AppendHead(nil, run.First))
		stream.Write(run.Block.Data)
		crc, size = run.Block.Extend(crc), size+run.Block.Size
		raw([]byte(framing.Tail))
	}
	stream.WriteByte(3)
	stream.WriteByte(0)
	trailer := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, crc), size)
	stream.Write(trailer)
	reader, err := gzip.NewReader(stream)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func plainItems(t *testing.T, l *object.List, framing *object.Framing) string {
	t.Helper()
	var items []byte
	for i, o := range l.Objects {
		body, err := o.Body(framing.Form)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			items = append(items, framing.Separator...)
		}
		items = append(append(framing.AppendHead(items, len(body)), body...), framing.Tail...)
	}
	return string(items)
}

func objects(t testing.TB, typ *object.Type, n, addresses int) []*object.Object {
	t.Helper()
	all := make([]*object.Object, n)
	for i := range all {
		name := fmt.Sprintf("e-%05d", i)
		all[i] = mustRead(t, typ, name, int64(100+i), mustEncode(t, typ, endpoints(name, addresses)))
	}
	return all
}

func TestRuns(t *testing.T) {
	typ := endpointsType(object.NewBudget(8 << 20))
	all := objects(t, typ, 700, 3)
	for framed, framing := range framings {
		for name, l := range map[string]*object.List{
			"all":       {Type: typ, Objects: all, Adjacent: true, FromStart: true},
			"selected":  {Type: typ, Objects: all[:50]},
			"continued": {Type: typ, Objects: all[333:], Adjacent: true},
			"empty":     {Type: typ, Adjacent: true, FromStart: true},
		} {
			if got, want := gunzip(t, l, framing), plainItems(t, l, framing); got != want {
				t.Errorf("%s, %s: %d bytes differ from the plain list's %d", framed, name, len(got), len(want))
			}
		}
	}
	changed := append([]*object.Object{}, all...)
	changed[400] = changed[400].At(9999)
	blocks := func(objects []*object.Object) map[*byte]bool {
		found := map[*byte]bool{}
		for run, err := range (&object.List{Type: typ, Objects: objects, Adjacent: true, FromStart: true}).Runs(framings["json"]) {
			if err != nil {
				t.Fatal(err)
			}
			found[&run.Block.Data[0]] = true
		}
		return found
	}
	before, after, fresh := blocks(all), blocks(changed), 0
	for block := range after {
		if !before[block] {
			fresh++
		}
	}
	if len(before) > 60 || fresh > 2 {
		t.Errorf("%d runs; %d are made anew for one change", len(before), fresh)
	}
}

func TestBudget(t *testing.T) {
	const limit = 256 << 10
	budget := object.NewBudget(limit)
	typ := endpointsType(budget)
	all := objects(t, typ, 2000, 5)
	var waiting sync.WaitGroup
	for range 4 {
		waiting.Go(func() {
			for _, o := range all {
				if _, err := o.Block(object.Protobuf); err != nil {
					t.Error(err)
				}
				if used := budget.Bytes(); used > limit {
					t.Errorf("%d bytes are kept, more than %d", used, limit)
					return
				}
			}
		})
	}
	waiting.Wait()
	if budget.Bytes() < limit/2 {
		t.Errorf("only %d bytes of %d are used", budget.Bytes(), limit)
	}
	body, err := all[len(all)-1].Body(object.Protobuf)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := all[len(all)-1].Body(object.Protobuf); &again[0] != &body[0] {
		t.Error("the newest form is not kept")
	}
	runtime.KeepAlive(all)
}
