# shellcheck shell=bash
# The code that the scripts of the engines share: namespaces, images, rows with PASS or FAIL, and the table of results.
#
# A row is a function `row_WHAT_IS_SHOWN` of the script, or of common-rows.sh if the script reads that. Rows run in the order of
# the file, each in a shell of its own with errexit and a time limit. If a row fails, its last lines are shown.

engines=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$engines/../.." && pwd)
engine=$(basename "$0" .sh)

runtime=${RUNTIME:-${ORLOP:-$project/target/orlop}}
runtime=$(command -v "$runtime") || { echo "$engine: no runtime called ${RUNTIME:-$runtime}" >&2; exit 1; }
runtime=$(realpath "$runtime")
# The engine's name for the runtime.
name=$(basename "$runtime")

# The engines must find their helpers where Debian puts them, and none in /usr/local.
PATH=/usr/sbin:/usr/bin:/sbin:/bin

skip() {
    echo "$engine: skipped: $*"
    exit 77
}

# outside: true until the script runs in namespaces of its own.
outside() { [ -z "${ENGINES_PRIVATE:-}" ]; }

# private ARGUMENT...: runs this script again in mount, network and pid namespaces of its own. So bridges, firewall rules and
# mounts never touch the host, published ports are on the new namespace's loopback, and no process outlives the script.
private() {
    [ "$(id -u)" = 0 ] || skip "needs root"
    [ "$(awk '$5 == "/" { print $4 }' /proc/self/mountinfo | head -n 1)" = / ] || skip "needs a root of its own"
    work=$(mktemp -d "${TMPDIR:-/tmp}/orlop-$engine.XXXXXX")
    export ENGINES_PRIVATE=$$ work
    status=0
    # podman's own cgroup for all containers. If it was there before this script, it stays.
    local before pods='/sys/fs/cgroup/*/libpod_parent /sys/fs/cgroup/libpod_parent'
    # shellcheck disable=SC2086 # patterns
    before=$(ls -d $pods 2>/dev/null) || true
    timeout --foreground --kill-after=10 "${LIMIT:-1200}" \
        unshare --mount --net --pid --fork --mount-proc --kill-child --propagation private "$0" "$@" || status=$?
    # The engines make this cgroup for all containers, and leave it. It is empty now.
    find /sys/fs/cgroup -depth -type d -path "*/orlop-engines-$$*" -exec rmdir {} + 2>/dev/null || true
    # shellcheck disable=SC2086
    [ -n "$before" ] || find $pods -depth -type d -exec rmdir {} + 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}

# house: makes these namespaces look like a host with systemd: a shared root, and a fresh /run.
house() {
    local hierarchy tree=$work/cgroup
    # Engines make directories for v1 controllers that the host lacks, and leave them on the host's tmpfs. Here they get a tmpfs of
    # their own, with only the hierarchies that the host has.
    if [ "$(stat -fc %T /sys/fs/cgroup)" = tmpfs ]; then
        mkdir "$tree"
        mount -t tmpfs -o mode=755 tmpfs "$tree"
        for hierarchy in /sys/fs/cgroup/*; do
            mountpoint -q "$hierarchy" || continue
            mkdir "$tree/${hierarchy##*/}"
            mount --move "$hierarchy" "$tree/${hierarchy##*/}"
        done
        umount /sys/fs/cgroup
        mount --move "$tree" /sys/fs/cgroup
    fi
    mount --make-rshared /
    mount -t tmpfs -o mode=755 tmpfs /run
    ip link set lo up
}

# All containers of this run are below this cgroup. The two ranges for bridges are from 10.213.0.0/24.
# shellcheck disable=SC2034 # the scripts read them
parent=/orlop-engines-${ENGINES_PRIVATE:-}
first_bridge=10.213.0.1/25
other_bridges=base=10.213.0.128/25,size=28

# --- images, which are made here, because none can be pulled

# make_root DIRECTORY: makes a root file system of busybox, with an ordinary user.
make_root() {
    mkdir -p "$1"/{bin,etc,tmp,root,proc,sys,dev,home/app,var}
    chmod 1777 "$1/tmp"
    cp "$(command -v busybox)" "$1/bin/busybox"
    local applet
    for applet in $(busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
    printf '%s\n' root:x:0:0:root:/root:/bin/sh app:x:1000:1000:app:/home/app:/bin/sh >"$1/etc/passwd"
    printf '%s\n' root:x:0: app:x:1000: staff:x:50:app >"$1/etc/group"
    chown 1000:1000 "$1/home/app"
}

# make_hello DIRECTORY: makes a static program, and a Dockerfile from scratch for it.
make_hello() {
    mkdir -p "$1"
    echo 'int puts(const char *); int main(void) { return puts("Hello from a static program") < 0; }' >"$1/hello.c"
    cc -Os -static -o "$1/hello" "$1/hello.c"
    printf '%s\n' 'FROM scratch' 'COPY hello /hello' 'CMD ["/hello"]' >"$1/Dockerfile"
}

# make_archive ROOT NAME COMMAND: prints an image of one layer, as `docker save` does. COMMAND is a list of JSON strings.
make_archive() {
    local at
    at=$(mktemp -d "$work/archive.XXXXXX")
    tar -C "$1" -cf "$at/layer.tar" .
    printf '{"architecture": "%s", "os": "linux", "config": {"Cmd": [%s], "Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' \
        "$(dpkg --print-architecture)" "$3" "$(sha256sum "$at/layer.tar" | cut -d ' ' -f 1)" >"$at/config.json"
    printf '[{"Config": "config.json", "RepoTags": ["%s"], "Layers": ["layer.tar"]}]' "$2" >"$at/manifest.json"
    tar -C "$at" -c .
    rm -rf "$at"
}

# --- what the engines have in common

# log_calls FILE: makes a program that runs the runtime and appends each call to $work/called.
log_calls() {
    printf '%s\n' '#!/bin/sh' "echo \"\$\$ \$* \" >>$work/called" "exec $runtime \"\$@\"" >"$1"
    chmod +x "$1"
}

# docker and podman have the same command line. containerd.sh has its own versions of these functions.
# start NAME OPTION... [-- COMMAND...]: starts a container in the background; without a command it sleeps.
run() { "$engine" run --rm "$@"; }
start() {
    local called=$1 options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
    [ $# -gt 0 ] || set -- -- sleep 1000
    shift
    "$engine" run -d --name "$called" "${options[@]}" busybox "$@" >/dev/null
}
inspect() { "$engine" inspect -f "{{$2}}" "$1"; }

# limit V1-FILE V2-FILE: the file in which a container sees its limit.
limit() { if [ -d /sys/fs/cgroup/memory ]; then echo "/sys/fs/cgroup/$1"; else echo "/sys/fs/cgroup/$2"; fi; }

# containerd_daemon: starts a containerd with the configuration $work/config.toml and the socket $work/containerd.sock.
containerd_daemon() {
    containerd --config "$work/config.toml" >>"$work/containerd.log" 2>&1 &
    echo $! >"$work/containerd.pid"
    # Rows kill it; the shell must not print that.
    disown
    (eventually ctr version) || fail "containerd: $(tail -n 5 "$work/containerd.log")"
}

# capable BIT: true if this host can give that capability.
capable() { [ $((0x$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status) >> $1 & 1)) = 1 ]; }

# stopped PID: true if the process is gone; for `eventually`.
stopped() { [ ! -e "/proc/$1" ]; }

# --- the assertions of rows

fail() {
    echo "$*" >&2
    exit 1
}

# want TEXT COMMAND...: the command succeeds, and its standard output is exactly this.
want() {
    local wanted=$1 printed
    shift
    printed=$("$@" | tr -d '\r') || fail "$*: exit $?, and it printed: $printed"
    [ "$printed" = "$wanted" ] || fail "$*: printed \"$printed\", not \"$wanted\""
}

# has REGEX COMMAND...: the command succeeds, and a line of its output or errors matches.
has() {
    local wanted=$1 printed
    shift
    printed=$("$@" 2>&1 | tr -d '\r') || fail "$*: exit $?, and it printed: $printed"
    grep -qE -- "$wanted" <<<"$printed" || fail "$*: printed \"$printed\", which has no /$wanted/"
}

# hasnt REGEX COMMAND...: the command succeeds, and no line of its output or errors matches.
hasnt() {
    local unwanted=$1 printed
    shift
    printed=$("$@" 2>&1) || fail "$*: exit $?, and it printed: $printed"
    ! grep -E -- "$unwanted" <<<"$printed" || fail "$*: printed \"$printed\", which has /$unwanted/"
}

# ends CODE REGEX COMMAND...: the command's exit status matches CODE, and its output matches REGEX.
ends() {
    local code=$1 wanted=$2 printed status=0
    shift 2
    printed=$("$@" 2>&1) || status=$?
    [[ $status =~ ^($code)$ ]] || fail "$*: exit $status, not $code, and it printed: $printed"
    grep -qE -- "$wanted" <<<"$printed" || fail "$*: printed \"$printed\", which has no /$wanted/"
}

# fails COMMAND...
fails() {
    ! "$@" || fail "$*: succeeded"
}

# eventually COMMAND...: the command succeeds within ten seconds.
eventually() {
    local _
    for _ in {1..100}; do
        ! ("$@") >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    ("$@") || fail "after ten seconds, still not: $*"
}

# is TEXT COMMAND...: true if the command prints exactly this; for `eventually`.
is() {
    local wanted=$1
    shift
    [ "$("$@")" = "$wanted" ]
}

# terminal COMMAND...: runs the command on a terminal of 33 by 99, as a user does. Standard input is what the user types. If a
# program ends as soon as it has printed, podman may show nothing: on a busy machine in 2 of 60 runs with orlop, and in 2 of 60
# with runc. The runtime is not at fault. Each time (3 of 50) the text was in conmon's log, so it was lost between conmon and the
# caller; script(1) alone lost none in 300. So the programs of these rows stay for a moment after they have printed.
terminal() {
    script -qec "stty rows 33 cols 99 && ${*@Q}" /dev/null | sed 's/^\^@//' | tr -d '\r\0'
}

# --- the rows

# known ROW: prints the known reason why the row fails for this runtime, if there is one.
known() {
    awk -v engine="$engine" -v row="${1#row_}" -v name="$name" '
        /^#/ || NF < 4 { next }
        $1 == engine && $2 == row && ($3 == "any" || $3 == name) { $1 = $2 = $3 = ""; sub(/^ +/, ""); print; exit }
    ' "$engines/known-failures"
}

# rows [CLEANUP]: runs all rows, or those whose name matches ROWS; the common rows first. It calls CLEANUP after each row. The
# output of passing rows and of CLEANUP, which no row has read, goes to $work/said.
rows() {
    local row reason passed=0 failed=0 unknown=0
    for row in $(grep -ohE '^row_[a-z0-9_]+' ${common_rows:+"$common_rows"} "$0"); do
        [[ $row =~ ${ROWS:-.} ]] || continue
        if timeout --kill-after=5 "${ROW_LIMIT:-60}" "$0" row "$row" >"$work/row" 2>&1 </dev/null; then
            passed=$((passed + 1))
            cat "$work/row" >>"$work/said"
            echo "PASS ${row#row_}"
        else
            failed=$((failed + 1))
            reason=$(known "$row")
            [ -n "$reason" ] || unknown=$((unknown + 1))
            echo "FAIL ${row#row_}${reason:+ (known: $reason)}"
            [ -n "$reason" ] || tail -n "${LINES_OF_FAILURE:-6}" "$work/row" | cut -c 1-600 | sed 's/^/     | /'
        fi
        ${1:-true} >>"$work/said" 2>&1 || true
    done
    echo "$engine with $name: $passed passed, $failed failed"
    result="$passed | $failed"
    [ "$unknown" = 0 ]
}

# record VERSIONS: writes the result to the line of this engine and runtime in the table of integration/README.md.
record() {
    [ -n "${RECORD:-}" ] || return 0
    [ -z "${ROWS:-}" ] || { echo "only some rows: not recorded"; return 0; }
    local version line
    version=$("$runtime" --version | awk 'NR == 1 { v = $3 } $1 == "commit:" { v = v " (" $2 ")" } END { print v }')
    line="| $engine, $name | $1 | $name $version | $result | $(uname -r | cut -d. -f1,2), $(view) | $(date -u +%F) |"
    "$engines/table" "$project/integration/README.md" engines "$line"
}

# view: prints which cgroup tree the host has.
view() {
    case $(stat -fc %T /sys/fs/cgroup) in
    cgroup2fs) echo "cgroup v2" ;;
    *) if [ -e /sys/fs/cgroup/unified/cgroup.procs ]; then echo "cgroup hybrid"; else echo "cgroup v1"; fi ;;
    esac
}
