// Package tap writes the Test Anything Protocol, version 13, to standard output.
//
// runtime-tools is written against a package of this name that Debian has not: what it calls of it, and no more. Not
// for: reading.
package tap

import (
	"encoding/json"
	"fmt"
	"strings"
)

// T counts the tests of one program.
type T struct {
	count *int
	// What stands before the description: what TAP calls a directive.
	directive string
}

// New is a program that has run no test.
func New() *T {
	return &T{count: new(int), directive: "-"}
}

// Header opens the stream; a plan of 0 is said at the end, by AutoPlan.
func (t *T) Header(planned int) {
	fmt.Println("TAP version 13")
	if planned > 0 {
		fmt.Printf("1..%d\n", planned)
	}
}

// AutoPlan says how many tests there were.
func (t *T) AutoPlan() {
	fmt.Printf("1..%d\n", *t.count)
}

// Ok is one test and how it ended.
func (t *T) Ok(passed bool, description string) {
	*t.count++
	not := ""
	if !passed {
		not = "not "
	}
	fmt.Printf("%sok %d %s %s\n", not, *t.count, t.directive, description)
}

// Pass is a test that passed.
func (t *T) Pass(description string) {
	t.Ok(true, description)
}

// Fail is a test that failed.
func (t *T) Fail(description string) {
	t.Ok(false, description)
}

// Skip is as many tests that were not made, and why.
func (t *T) Skip(count int, description string) {
	for ; count > 0; count-- {
		*t.count++
		fmt.Printf("ok %d # SKIP %s\n", *t.count, description)
	}
}

// Todo is the same program for tests that are not expected to pass yet.
func (t *T) Todo() *T {
	return &T{count: t.count, directive: "# TODO"}
}

// Diagnostic is a remark, of a line or several.
func (t *T) Diagnostic(remark string) {
	for _, line := range strings.Split(strings.TrimSuffix(remark, "\n"), "\n") {
		fmt.Printf("# %s\n", line)
	}
}

// Diagnosticf is Diagnostic with a format.
func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML is more about the test before. JSON is YAML too.
func (t *T) YAML(more interface{}) error {
	block, err := json.MarshalIndent(more, "  ", "  ")
	if err != nil {
		return err
	}
	fmt.Printf("  ---\n  %s\n  ...\n", block)
	return nil
}
