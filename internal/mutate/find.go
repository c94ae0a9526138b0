package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutant is one change of one line.
type mutant struct {
	id             int
	file           string // relative to the working directory
	line, lastLine int
	function       string
	change         string // the expression, an arrow, and what replaces it
	equivalent     bool
	edits          []edit
}

// name identifies the mutant as long as the function and the expression stay.
func (m *mutant) name() string { return m.file + ": " + m.function + ": " + m.change }

func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", m.file, m.line, m.function, m.change)
}

// edit replaces the source between two offsets. What closes a wrapped expression
// comes before what opens one at the same offset.
type edit struct {
	from, to int
	text     string
	closes   bool
}

// pkg is a package with its mutants.
type pkg struct {
	dir       string // relative to the working directory, with slashes
	name      string
	files     []string // relative to the working directory
	testFiles []string
	tests     string // the directory whose tests run
	mutants   []*mutant
}

// find type-checks the package in a directory and returns its mutants.
func find(ctx context.Context, dir string) (*pkg, error) {
	dir = filepath.Clean(dir)
	list, err := output(ctx, "go", "list", "-C", dir, "-export", "-deps", "-json=Dir,ImportPath,Export,Name,GoFiles,TestGoFiles,XTestGoFiles", ".")
	if err != nil {
		return nil, err
	}
	type listed struct {
		Dir, ImportPath, Export, Name      string
		GoFiles, TestGoFiles, XTestGoFiles []string
	}
	exports := map[string]string{}
	var target listed // the last one: dependencies come first
	for d := json.NewDecoder(strings.NewReader(list)); ; {
		var l listed
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		exports[l.ImportPath], target = l.Export, l
	}
	p := &pkg{name: target.Name, testFiles: append(target.TestGoFiles, target.XTestGoFiles...)}
	if p.dir, err = relative(target.Dir); err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range target.GoFiles {
		file := filepath.Join(p.dir, name)
		f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.files, files = append(p.files, filepath.ToSlash(file)), append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
	if _, err := config.Check(target.ImportPath, fset, files, info); err != nil {
		return nil, err
	}
	for i, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil && !formats(fn.Name.Name) {
				s := &scan{p: p, fset: fset, info: info, file: p.files[i], function: functionName(fn), seen: map[string]int{}, assigned: map[*ast.IfStmt]string{}}
				s.body(fn.Body, info.Defs[fn.Name].Type().(*types.Signature))
			}
		}
	}
	return p, nil
}

func formats(function string) bool {
	return slices.Contains([]string{"String", "GoString", "Format", "LogValue"}, function)
}

func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	recv := types.ExprString(fn.Recv.List[0].Type)
	if strings.HasPrefix(recv, "*") {
		recv = "(" + recv + ")"
	}
	return recv + "." + fn.Name.Name
}

// scan collects the mutants of one function.
type scan struct {
	p        *pkg
	fset     *token.FileSet
	info     *types.Info
	file     string
	function string
	seen     map[string]int // how often a change of this text was added
	until    token.Pos      // the end of the lines that the mutants concern
	assigned map[*ast.IfStmt]string
	of       string // what the condition's err or ok comes from
}

// body examines the body of a function or of a function literal.
func (s *scan) body(body *ast.BlockStmt, sig *types.Signature) {
	decides := false // the function returns an error or a bool, or handles a request
	last := lastResult(sig)
	if last != nil {
		decides = isError(last) || isBool(last)
	} else {
		decides = writesResponse(sig)
	}
	governed := map[ast.Stmt]bool{} // the end of a refusal whose condition is changed
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			s.body(n.Body, s.info.TypeOf(n).(*types.Signature))
			return false
		case *ast.BlockStmt:
			s.sources(n.List)
		case *ast.CaseClause:
			s.sources(n.Body)
		case *ast.CommClause:
			s.sources(n.Body)
		case *ast.IfStmt:
			if n.Init != nil {
				s.assigned[n] = assignedFrom(n.Init)
			}
			s.of = s.assigned[n]
			s.condition([]ast.Expr{n.Cond}, n.Body.List, sig, decides, governed)
			s.of = ""
		case *ast.SwitchStmt:
			if n.Tag != nil {
				return true
			}
			for _, c := range n.Body.List {
				if c := c.(*ast.CaseClause); c.List != nil {
					s.condition(c.List, c.Body, sig, decides, governed)
				}
			}
		case *ast.ReturnStmt:
			if last == nil || len(n.Results) != sig.Results().Len() || governed[n] {
				return true
			}
			result := n.Results[len(n.Results)-1]
			s.until = result.End()
			switch {
			case isBool(last):
				s.result(result)
			case types.Identical(s.info.TypeOf(result), last) && isError(last) && !isNil(result):
				s.wrap(result, "mutateErr", "nil")
			}
		}
		return true
	})
}

// sources notes, for each if of a list of statements, what the statement before it
// assigns from.
func (s *scan) sources(list []ast.Stmt) {
	for i, stmt := range list {
		if n, ok := stmt.(*ast.IfStmt); ok && i > 0 {
			s.assigned[n] = assignedFrom(list[i-1])
		}
	}
}

func assignedFrom(stmt ast.Stmt) string {
	assign, ok := stmt.(*ast.AssignStmt)
	if !ok || len(assign.Rhs) != 1 {
		return ""
	}
	if call, ok := assign.Rhs[0].(*ast.CallExpr); ok {
		return types.ExprString(call.Fun)
	}
	return types.ExprString(assign.Rhs[0])
}

// condition examines the conditions of an if or of one case.
func (s *scan) condition(list []ast.Expr, body []ast.Stmt, sig *types.Signature, decides bool, governed map[ast.Stmt]bool) {
	refuses := s.refuses(body, sig)
	for _, cond := range list {
		s.until = cond.End()
		if refuses {
			s.until = body[len(body)-1].End() // a change of what is refused concerns the condition
			if top, ok := ast.Unparen(cond).(*ast.BinaryExpr); !ok || top.Op != token.LOR {
				s.wrap(cond, "mutateNo", "false")
			}
			s.operands(cond)
			governed[body[len(body)-1]] = true
		}
		if refuses || decides {
			s.bounds(cond)
		}
	}
}

// refuses reports whether a body ends by refusing.
func (s *scan) refuses(body []ast.Stmt, sig *types.Signature) bool {
	if len(body) == 0 {
		return false
	}
	last := lastResult(sig)
	switch end := body[len(body)-1].(type) {
	case *ast.ExprStmt:
		call, ok := end.X.(*ast.CallExpr)
		if !ok {
			return false
		}
		ident, ok := call.Fun.(*ast.Ident)
		return ok && ident.Name == "panic"
	case *ast.ReturnStmt:
		if last == nil {
			return writesResponse(sig)
		}
		if len(end.Results) == 0 {
			return isError(last) // a named result
		}
		result := end.Results[len(end.Results)-1]
		if isBool(last) {
			return types.ExprString(result) == "false"
		}
		return isError(last) && !isNil(result)
	}
	return false
}

// result examines a result that is a bool.
func (s *scan) result(e ast.Expr) {
	if s.info.Types[e].Value != nil {
		return
	}
	if top, ok := ast.Unparen(e).(*ast.BinaryExpr); !ok || top.Op != token.LOR && top.Op != token.LAND {
		s.wrap(e, "mutateNo", "false")
		s.wrap(e, "mutateYes", "true")
	}
	s.operands(e)
	s.bounds(e)
}

// operands examines the operands of && and ||.
func (s *scan) operands(e ast.Expr) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		s.operands(e.X)
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			s.operands(e.X)
		}
	case *ast.BinaryExpr:
		if e.Op != token.LAND && e.Op != token.LOR {
			return
		}
		for _, operand := range []ast.Expr{e.X, e.Y} {
			if inner, ok := ast.Unparen(operand).(*ast.BinaryExpr); !ok || inner.Op != e.Op {
				if e.Op == token.LOR {
					s.wrap(operand, "mutateNo", "false")
				} else {
					s.wrap(operand, "mutateYes", "true")
				}
			}
			s.operands(operand)
		}
	}
}

// moved has the operators that move a bound by one.
var moved = map[token.Token]struct {
	function string
	op       token.Token
}{
	token.LSS: {"mutateLess", token.LEQ},
	token.LEQ: {"mutateLessEqual", token.LSS},
	token.GTR: {"mutateGreater", token.GEQ},
	token.GEQ: {"mutateGreaterEqual", token.GTR},
}

// bounds examines the comparisons in an expression.
func (s *scan) bounds(e ast.Expr) {
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.BinaryExpr:
			by, ok := moved[n.Op]
			if !ok || s.info.Types[n].Value != nil || !isBool(s.info.TypeOf(n)) {
				return true
			}
			m := s.add(n, types.ExprString(n)+" -> "+by.op.String())
			op := s.offset(n.OpPos)
			m.edits = append(m.edits, edit{from: op, to: op + len(n.Op.String()), text: ","})
			s.surround(m, n, by.function)
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || len(n.Args) != 1 || sel.Sel.Name != "Before" && sel.Sel.Name != "After" || s.info.TypeOf(sel.X).String() != "time.Time" {
				return true
			}
			m := s.add(n, types.ExprString(n)+" -> or equal")
			m.edits = append(m.edits, edit{from: s.offset(sel.X.End()), to: s.offset(n.Args[0].Pos()), text: ", "})
			m.edits = append(m.edits, opening(s.offset(n.Pos()), "mutate"+sel.Sel.Name, m.id))
		}
		return true
	})
}

// wrap adds a mutant that replaces the value of an expression.
func (s *scan) wrap(e ast.Expr, function, by string) {
	if t := s.info.TypeOf(e); !isBool(t) && !isError(t) || s.info.Types[e].Value != nil {
		return
	}
	s.surround(s.add(e, types.ExprString(e)+" -> "+by), e, function)
}

// surround passes an expression to a function of the package's overlay.
func (s *scan) surround(m *mutant, e ast.Expr, function string) {
	end := s.offset(e.End())
	m.edits = append(m.edits, opening(s.offset(e.Pos()), function, m.id), edit{from: end, to: end, text: ")", closes: true})
}

func opening(at int, function string, id int) edit {
	return edit{from: at, to: at, text: fmt.Sprintf("%s(%d, ", function, id)}
}

// usual matches the conditions that a function can have often. Their names also
// contain what the value comes from.
var usual = regexp.MustCompile(`^(!?ok|err [!=]= nil) -> `)

func (s *scan) add(e ast.Expr, change string) *mutant {
	if s.of != "" && usual.MatchString(change) {
		change = strings.Replace(change, " -> ", " ("+s.of+") -> ", 1)
	}
	if s.seen[change]++; s.seen[change] > 1 {
		change += fmt.Sprintf(" (%d)", s.seen[change])
	}
	m := &mutant{
		id: len(s.p.mutants) + 1, file: s.file, function: s.function, change: change,
		line: s.fset.Position(e.Pos()).Line, lastLine: s.fset.Position(s.until).Line,
	}
	s.p.mutants = append(s.p.mutants, m)
	return m
}

func (s *scan) offset(p token.Pos) int { return s.fset.Position(p).Offset }

func lastResult(sig *types.Signature) types.Type {
	if n := sig.Results().Len(); n > 0 {
		return sig.Results().At(n - 1).Type()
	}
	return nil
}

// writesResponse reports whether a function without results handles a request.
func writesResponse(sig *types.Signature) bool {
	if sig.Results().Len() > 0 {
		return false
	}
	for i := range sig.Params().Len() {
		if sig.Params().At(i).Type().String() == "net/http.ResponseWriter" {
			return true
		}
	}
	return false
}

func isError(t types.Type) bool { return types.Identical(t, types.Universe.Lookup("error").Type()) }

// isBool reports whether a type is bool, and not another type of that kind.
func isBool(t types.Type) bool {
	b, ok := types.Unalias(t).(*types.Basic)
	return ok && b.Info()&types.IsBoolean != 0
}

func isNil(e ast.Expr) bool { return types.ExprString(e) == "nil" }
