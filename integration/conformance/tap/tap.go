// Package tap writes the Test Anything Protocol, version 13, to standard output.
//
// runtime-tools imports a package of this name that Debian lacks. This one has only the functions that runtime-tools calls. It
// cannot read TAP.
package tap

import (
	"encoding/json"
	"fmt"
	"strings"
)

// T counts the tests of one program.
type T struct {
	count *int
	// The directive of TAP, which stands before the description.
	directive string
}

// New returns a counter for a program that has run no test yet.
func New() *T {
	return &T{count: new(int), directive: "-"}
}

// Header opens the stream. With a plan of 0, AutoPlan prints the plan at the end.
func (t *T) Header(planned int) {
	fmt.Println("TAP version 13")
	if planned > 0 {
		fmt.Printf("1..%d\n", planned)
	}
}

// AutoPlan prints how many tests there were.
func (t *T) AutoPlan() {
	fmt.Printf("1..%d\n", *t.count)
}

// Ok prints one test and its result.
func (t *T) Ok(passed bool, description string) {
	*t.count++
	not := ""
	if !passed {
		not = "not "
	}
	fmt.Printf("%sok %d %s %s\n", not, *t.count, t.directive, description)
}

// Pass prints a test that passed.
func (t *T) Pass(description string) {
	t.Ok(true, description)
}

// Fail prints a test that failed.
func (t *T) Fail(description string) {
	t.Ok(false, description)
}

// Skip prints this many tests that did not run, and why.
func (t *T) Skip(count int, description string) {
	for ; count > 0; count-- {
		*t.count++
		fmt.Printf("ok %d # SKIP %s\n", *t.count, description)
	}
}

// Todo returns a counter of the same program for tests that need not pass yet.
func (t *T) Todo() *T {
	return &T{count: t.count, directive: "# TODO"}
}

// Diagnostic prints a remark of one or more lines.
func (t *T) Diagnostic(remark string) {
	for _, line := range strings.Split(strings.TrimSuffix(remark, "\n"), "\n") {
		fmt.Printf("# %s\n", line)
	}
}

// Diagnosticf is Diagnostic with a format.
func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML prints more about the test before. JSON is YAML, too.
func (t *T) YAML(more interface{}) error {
	block, err := json.MarshalIndent(more, "  ", "  ")
	if err != nil {
		return err
	}
	fmt.Printf("  ---\n  %s\n  ...\n", block)
	return nil
}
