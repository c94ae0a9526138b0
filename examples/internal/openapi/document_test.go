package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const path = "../../../docs/openapi.yaml"

// node is an object of the document.
type node = map[string]any

// document is docs/openapi.yaml. It is safe for concurrent use.
type document struct {
	root node

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by JSON pointer
	seen     map[string]bool               // keys of responses and headers that a server gave
}

// location is where the schemas of the document are, for the validator.
const location = "https://auth.example/openapi.json"

func load(t testing.TB) *document {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var parsed any
	require.NoError(t, yaml.Unmarshal(text, &parsed))
	text, err = json.Marshal(parsed) // with the types that the validator expects
	require.NoError(t, err)
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	d := &document{root: root.(node), compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, seen: map[string]bool{}}
	d.compiler.AssertFormat()
	require.NoError(t, d.compiler.AddResource(location, root))
	return d
}

// at is a node of the document and its JSON pointer.
type at struct {
	node    node
	pointer string
}

// child returns a member of an object, after following a reference.
func (d *document) child(a at, name string) (at, bool) {
	value, ok := a.node[name].(node)
	if !ok {
		return at{}, false
	}
	return d.resolve(at{value, a.pointer + "/" + escape(name)}), true
}

func escape(name string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

func (d *document) resolve(a at) at {
	ref, ok := a.node["$ref"].(string)
	if !ok {
		return a
	}
	target := at{d.root, ""}
	for _, name := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		value, ok := target.node[name].(node)
		if !ok {
			panic("docs/openapi.yaml has no " + ref)
		}
		target = at{value, target.pointer + "/" + escape(name)}
	}
	return target
}

// validate validates a value against the schema of a node.
func (d *document) validate(a at, value any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	pointer := a.pointer + "/schema"
	schema := d.schemas[pointer]
	if schema == nil {
		var err error
		if schema, err = d.compiler.Compile(location + "#" + pointer); err != nil {
			return err
		}
		d.schemas[pointer] = schema
	}
	return schema.Validate(value)
}

// operation is an endpoint and a method. key is such as "POST /login".
type operation struct {
	at
	key string
}

// operations returns all operations by their keys.
func (d *document) operations() map[string]operation {
	list := map[string]operation{}
	paths := at{d.root["paths"].(node), "/paths"}
	for name := range paths.node {
		item, _ := d.child(paths, name)
		for _, method := range []string{"get", "post", "put", "delete", "patch", "head", "options"} {
			if op, ok := d.child(item, method); ok {
				key := strings.ToUpper(method) + " " + name
				list[key] = operation{op, key}
			}
		}
	}
	return list
}

// template returns the path of the document for that of a request, or "".
func (d *document) template(path string) string {
	for name := range d.root["paths"].(node) {
		want, got := strings.Split(name, "/"), strings.Split(path, "/")
		if len(want) == len(got) && !slices.ContainsFunc(want, func(segment string) bool {
			i := slices.Index(want, segment)
			isParameter := strings.HasPrefix(segment, "{") && got[i] != ""
			return segment != got[i] && !isParameter
		}) {
			return name
		}
	}
	return ""
}

// codes returns the errors of the examples of a response, as "error action".
func (d *document) codes(content at) (list []string) {
	examples, _ := d.child(content, "examples")
	for name := range examples.node {
		example, _ := d.child(examples, name)
		if value, ok := example.node["value"].(node); ok && value["error"] != nil {
			list = append(list, codeOf(value))
		}
	}
	return list
}

func codeOf(body node) string {
	code, _ := body["error"].(string)
	action, _ := body["action"].(string)
	return strings.TrimSpace(code + " " + action)
}

// expected returns the keys of all responses and headers that the document describes.
func (d *document) expected() map[string]bool {
	keys := map[string]bool{}
	add := func(key string, response at) {
		content, ok := d.child(response, "content")
		if !ok {
			keys[key] = true
		}
		for media := range content.node {
			c, _ := d.child(content, media)
			codes := d.codes(c)
			for _, code := range codes {
				keys[key+" "+code] = true
			}
			if len(codes) == 0 {
				keys[key] = true
			}
		}
		headers, _ := d.child(response, "headers")
		for name := range headers.node {
			keys[key+" with "+name] = true
		}
	}
	for key, op := range d.operations() {
		responses, _ := d.child(op.at, "responses")
		for status := range responses.node {
			response, _ := d.child(responses, status)
			add(key+" "+status, response)
		}
	}
	for status, name := range others {
		add("any "+status, d.component(name))
	}
	return keys
}

// others are the responses that belong to no operation.
var others = map[string]string{"404": "NoEndpoint", "405": "MethodNotAllowed"}

func (d *document) component(name string) at {
	return d.resolve(at{node: node{"$ref": "#/components/responses/" + name}})
}

// exchange is a request and its response. Its path is that below the prefix.
type exchange struct {
	method, path     string
	request, headers http.Header
	sent, received   []byte
	status           int
}

// check compares an exchange with the document, and counts its response as seen.
func (d *document) check(x exchange) error {
	method := x.method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	key := method + " " + d.template(x.path)
	status := fmt.Sprint(x.status)
	op, ok := d.operations()[key]
	var response at
	if ok {
		responses, _ := d.child(op.at, "responses")
		response, ok = d.child(responses, status)
		if !ok {
			return fmt.Errorf("%s does not have the status %s: %s", key, status, x.received)
		}
	} else {
		if others[status] == "" || status == "404" && d.template(x.path) != "" {
			return fmt.Errorf("there is no %s %s, and the status is %s", method, x.path, status)
		}
		key, response = "any", d.component(others[status])
	}
	key += " " + status
	if err := d.checkHeaders(key, response, x.headers); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if err := d.checkBody(key, response, x); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if ok && x.status < 300 {
		if err := d.checkRequest(op, x); err != nil {
			return fmt.Errorf("%s: the request: %w", key, err)
		}
	}
	return nil
}

func (d *document) see(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[key] = true
}

// transport are headers of the connection, which the document need not have.
var transport = []string{"Date", "Content-Length", "Content-Type", "Connection"}

func (d *document) checkHeaders(key string, response at, got http.Header) error {
	headers, _ := d.child(response, "headers")
	for name := range headers.node {
		header, _ := d.child(headers, name)
		values := got.Values(name)
		if required, _ := header.node["required"].(bool); required && len(values) == 0 {
			return fmt.Errorf("there is no header %s", name)
		}
		for _, value := range values {
			if err := d.validate(header, value); err != nil {
				return fmt.Errorf("the header %s: %w", name, err)
			}
			d.see(key + " with " + name)
		}
	}
	for name := range got {
		known := slices.ContainsFunc(slices.Collect(maps.Keys(headers.node)), func(n string) bool { return http.CanonicalHeaderKey(n) == name })
		if !known && !slices.Contains(transport, name) {
			return fmt.Errorf("the document does not have the header %s: %s", name, got.Values(name))
		}
	}
	return nil
}

func (d *document) checkBody(key string, response at, x exchange) error {
	content, ok := d.child(response, "content")
	if !ok {
		d.see(key)
		if len(x.received) > 0 && x.status != http.StatusSeeOther { // net/http adds a body for a redirect
			return fmt.Errorf("there is a body: %s", x.received)
		}
		return nil
	}
	kind, params, err := mime.ParseMediaType(x.headers.Get("Content-Type"))
	if charset, ok := params["charset"]; err != nil || ok && charset != "utf-8" {
		return fmt.Errorf("the content type is %q", x.headers.Get("Content-Type"))
	}
	c, ok := d.child(content, kind)
	if !ok {
		return fmt.Errorf("the document does not have the content type %s", kind)
	}
	if kind != "application/json" || x.method == http.MethodHead {
		d.see(key)
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(x.received))
	if err != nil {
		return err
	}
	if err := d.validate(c, value); err != nil {
		return fmt.Errorf("%w\n%s", err, x.received)
	}
	body, _ := value.(node)
	if body["error"] == nil {
		d.see(key)
		return nil
	}
	if code := codeOf(body); !slices.Contains(d.codes(c), code) {
		return fmt.Errorf("no example has the error and the action %q: %s", code, x.received)
	}
	d.see(key + " " + codeOf(body))
	return nil
}

// checkRequest compares a request that has succeeded with the document.
func (d *document) checkRequest(op operation, x exchange) error {
	body, ok := d.child(op.at, "requestBody")
	if !ok || len(x.sent) == 0 {
		if required, _ := body.node["required"].(bool); required {
			return fmt.Errorf("there is no body")
		}
		return nil
	}
	content, _ := d.child(body, "content")
	kind, _, err := mime.ParseMediaType(x.request.Get("Content-Type"))
	if err != nil {
		return err
	}
	c, ok := d.child(content, kind)
	if !ok {
		return fmt.Errorf("the document does not have the content type %s", kind)
	}
	var value any
	if kind == "application/json" {
		if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(x.sent)); err != nil {
			return err
		}
	} else {
		form, err := url.ParseQuery(string(x.sent))
		if err != nil {
			return err
		}
		fields := node{}
		for name, values := range form {
			fields[name] = values[0]
		}
		value = fields
	}
	return d.validate(c, value)
}

// checkExamples validates every example in the document against its schema. It returns
// how many there are.
func (d *document) checkExamples(a at) (count int, err error) {
	examples, hasExamples := d.child(a, "examples")
	if _, hasSchema := a.node["schema"]; hasExamples && hasSchema {
		for name := range examples.node {
			example, _ := d.child(examples, name)
			if err := d.validate(a, example.node["value"]); err != nil {
				return count, fmt.Errorf("%s: the example %s: %w", a.pointer, name, err)
			}
			count++
		}
	}
	for name, value := range a.node {
		if _, ok := value.(node); !ok || name == "examples" {
			continue
		}
		if value.(node)["$ref"] != nil { // it is validated where it is defined
			continue
		}
		inner, _ := d.child(a, name)
		n, err := d.checkExamples(inner)
		if count += n; err != nil {
			return count, err
		}
	}
	return count, nil
}
