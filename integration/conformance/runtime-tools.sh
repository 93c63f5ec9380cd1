#!/bin/bash
# Runs the validation programs of opencontainers/runtime-tools with orlop.
#
#   runtime-tools.sh SUITE [PROGRAM...]     SUITE: its source tree, in which runtimetest and validation/*/*.t were
#                           built; "" for the one that suite.sh fetches and builds
#   VIEWS="hybrid v1 v2"    the host's cgroup tree as it is; without its version 2 part; nothing but a version 2 tree
#   RUNTIME=/usr/sbin/runc  another runtime, for comparison
#   SUITE_COMMIT=0105384    the suite's commit for the table, if SUITE is not a working tree of git and has no file COMMIT
#
# It needs root. Each program runs in mount, pid and ipc namespaces of its own, with a fresh /run. The programs make the cgroups
# /cgrouptest and /testdir.
# A test of a program is a line of TAP. Some programs have no tests: they print nothing if all is well, or print an error in YAML
# and still end with 0. These programs are counted apart, and such an error is a failure.
# It fails if something fails that runtime-tools-expected-failures does not name. With RECORD=1, and if all programs run, it writes
# the result to integration/README.md.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$(dirname "$here")")
"$top/tools/as-root" conformance
"$top/tools/need" unshare:util-linux gawk:gawk
suite=${1:-}
[ -n "$suite" ] || suite=$("$here/suite.sh")
suite=$(readlink -f "$suite")
[ $# -eq 0 ] || shift
[ -x "$suite/runtimetest" ] || { echo "$suite: runtimetest was not built in there" >&2; exit 2; }
runtime=$(realpath "$(command -v "${RUNTIME:-${ORLOP:-$top/target/orlop}}")")
name=$(basename "$runtime")
expected=$here/runtime-tools-expected-failures
programs=("$@")
[ $# -gt 0 ] || mapfile -t programs < <(cd "$suite/validation" && find . -name '*.t' -printf '%f\n' | sed 's/\.t$//' | sort)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/orlop-runtime-tools.XXXXXX")
trap 'rm -rf --one-file-system "$scratch"' EXIT
# The root of a user namespace must be able to reach its bundle.
chmod 755 "$scratch"

# inside VIEW COMMAND...
inside() {
    local view=$1
    shift
    unshare -m -p -i -f --mount-proc --kill-child --propagation private sh -euc "
        mount -t tmpfs -o mode=755 tmpfs /run
        mount --bind '$scratch' '$scratch'
        exec '$here/../cgroup-view' $view \"\$@\"" _ "$@"
}

# Runs one program, and prints lines "KIND<tab>VIEW<tab>PROGRAM<tab>TEST". KIND is ok, failed, skipped or silent.
program() { # VIEW PROGRAM
    local status=0
    mkdir "$scratch/bundles"
    (cd "$suite" && TMPDIR=$scratch/bundles RUNTIME=$runtime inside "$1" timeout -k 5 120 "validation/$2/$2.t") \
        >"$scratch/tap" 2>"$scratch/errors" </dev/null || status=$?
    if [ -n "${KEEP:-}" ]; then
        mkdir -p "$KEEP"
        cp "$scratch/tap" "$KEEP/$1-$2.tap"
        cp "$scratch/errors" "$KEEP/$1-$2.errors"
    fi
    rm -rf --one-file-system "$scratch/bundles"
    # At the top of each hierarchy, and below this script's own cgroup.
    { echo /; cut -d : -f 3- /proc/self/cgroup; } | sort -u | while read -r own; do
        find /sys/fs/cgroup{,/*}"${own%/}"/{testdir,cgrouptest} -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    gawk -v OFS='\t' -v view="$1" -v program="$2" -v status="$status" '
        function say(kind, text) { print kind, view, program, text }
        match($0, /^(not )?ok [0-9]+( - | )?/) {
            text = substr($0, RLENGTH + 1)
            tests++
            # In TAP a test marked as todo is no failure.
            if (tolower(text) ~ (/^ok/ ? "# *skip" : "# *todo")) say("skipped", text)
            else say(/^ok/ ? "ok" : "failed", text)
        }
        match($0, /^ *"error": "(.*)"/, quoted) { error = quoted[1] }
        END {
            if (status == 124 || status == 137) say("failed", "(did not end)")
            else if (status) say("failed", "(ended with " status ")")
            else if (!tests && error) { gsub(/\\n.*/, "", error); say("failed", "(in YAML) " error) }
            else if (!tests) say("silent", "")
        }' "$scratch/tap"
}

# Prints the reason why a failure is expected, if it is. The view * means each view, the test * each test.
reason() { # VIEW PROGRAM TEST
    gawk -F '\t' -v view="$1" -v program="$2" -v test="$3" '
        !/^#/ && ($1 == view || $1 == "*") && $2 == program && ($3 == test || $3 == "*") { print $4; exit }' "$expected"
}

# record VIEW
record() {
    local counts version said
    counts=$(gawk -F '\t' -v view="$1" '
        $2 == view { n[$1]++; if ($1 == "failed" && $4 ~ /^\(in YAML\)/) yaml++ }
        END { printf "%d | %d | %d | %d | %d", n["ok"], n["failed"] - yaml, n["skipped"], n["silent"], yaml }' "$scratch/results")
    echo "$name, $1: passed, failed, skipped, programs that say nothing, and errors in YAML alone: $counts"
    [ -n "${RECORD:-}" ] && [ -n "$whole" ] || return 0
    said=$("$runtime" --version)
    version=$(awk 'NR == 1 { v = $3 } $1 == "commit:" { v = v " (" $2 ")" } END { print v }' <<<"$said")
    "$top/integration/engines/table" "$top/integration/README.md" runtime-tools \
        "| $name, $1 | $(cat "$suite/VERSION")${commit:+ ($commit)} | $name $version | ${#programs[@]} | $counts | $(uname -r | cut -d. -f1,2) | $(date -u +%F) |"
}

commit=${SUITE_COMMIT:-$(cat "$suite/COMMIT" 2>/dev/null || git -C "$suite" rev-parse --short HEAD 2>/dev/null || true)}
whole=
[ $# -gt 0 ] || whole=yes
views=${VIEWS:-hybrid v1 v2}
if [ ! -e /sys/fs/cgroup/unified/cgroup.procs ]; then
    echo "this host has no hybrid cgroup tree: only the view that it has"
    views=$([ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] && echo v2-host || echo v1-host)
fi
: >"$scratch/results"
status=0
for view in $views; do
    for program in "${programs[@]}"; do
        program "$view" "$program" >"$scratch/lines"
        cat "$scratch/lines" >>"$scratch/results"
        while IFS=$'\t' read -r _ _ _ test; do
            why=$(reason "$view" "$program" "$test")
            if [ -n "$why" ]; then
                echo "failed as expected: $view $program: $test [$why]"
            else
                status=1
                echo "FAILED: $view $program: $test"
                head -c 2000 "$scratch/errors" | head -n 5 | sed 's/^/     | /'
            fi
        done < <(grep '^failed' "$scratch/lines" | sort -u)
    done
done
while IFS=$'\t' read -r view program test _; do
    if gawk -F '\t' -v v="$view" -v p="$program" -v t="$test" '
        (v == "*" || $2 == v) && $3 == p { seen = 1; if ($1 == "failed" && (t == "*" || $4 == t)) hit = 1 }
        END { exit !(seen && !hit) }' "$scratch/results"
    then
        echo "note: did not fail here, though runtime-tools-expected-failures names it: $view $program: $test"
    fi
done < <(grep -vE '^(#|$)' "$expected")
for view in $views; do record "$view"; done
exit $status
