# shellcheck shell=bash
# What the scripts of the engines share: namespaces of their own, images made here, rows with PASS or FAIL, the table.
#
# A row is a function `row_WHAT_IS_SHOWN` of the script, or of common-rows.sh if the script reads that; rows run in the
# order in which they are written, each in a shell of its own with errexit and a limit of time. Its last lines are shown
# when it fails.

engines=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$engines/../.." && pwd)
engine=$(basename "$0" .sh)

runtime=${RUNTIME:-${ORLOP:-$project/target/orlop}}
runtime=$(command -v "$runtime") || { echo "$engine: no runtime called ${RUNTIME:-$runtime}" >&2; exit 1; }
runtime=$(realpath "$runtime")
# What the engine calls it.
name=$(basename "$runtime")

# The engines' own helpers are looked for where Debian puts them, not in /usr/local.
PATH=/usr/sbin:/usr/bin:/sbin:/bin

skip() {
    echo "$engine: skipped: $*"
    exit 77
}

# outside: this is not yet the run in namespaces of its own.
outside() { [ -z "${ENGINES_PRIVATE:-}" ]; }

# private ARGUMENT...: runs this script again in mount, network and pid namespaces of its own. Bridges, firewall rules and mounts
# never touch the host, published ports are on this namespace's loopback, and nothing can outlive the script.
private() {
    [ "$(id -u)" = 0 ] || skip "needs root"
    [ "$(awk '$5 == "/" { print $4 }' /proc/self/mountinfo | head -n 1)" = / ] || skip "needs a root of its own"
    work=$(mktemp -d "${TMPDIR:-/tmp}/orlop-$engine.XXXXXX")
    export ENGINES_PRIVATE=$$ work
    status=0
    # Podman's own group for all containers: it stays if it was there before us.
    local before pods='/sys/fs/cgroup/*/libpod_parent /sys/fs/cgroup/libpod_parent'
    # shellcheck disable=SC2086 # patterns
    before=$(ls -d $pods 2>/dev/null) || true
    timeout --foreground --kill-after=10 "${LIMIT:-1200}" \
        unshare --mount --net --pid --fork --mount-proc --kill-child --propagation private "$0" "$@" || status=$?
    # The group of all containers, empty by now: the engines make it and leave it.
    find /sys/fs/cgroup -depth -type d -path "*/orlop-engines-$$*" -exec rmdir {} + 2>/dev/null || true
    # shellcheck disable=SC2086
    [ -n "$before" ] || find $pods -depth -type d -exec rmdir {} + 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}

# The host as systemd leaves it, in our namespaces: a shared root, a /run that is fresh.
house() {
    local hierarchy tree=$work/cgroup
    # Engines make directories for v1 controllers that the host has not, and leave them on its tmpfs: not there.
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

# The cgroup below which all containers of this run are, and two ranges for bridges: all of 10.213.0.0/24.
# shellcheck disable=SC2034 # the scripts read them
parent=/orlop-engines-${ENGINES_PRIVATE:-}
first_bridge=10.213.0.1/25
other_bridges=base=10.213.0.128/25,size=28

# --- images: nothing can be pulled, so they are made here

# make_root DIRECTORY: a root file system of busybox, with an ordinary user.
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

# make_hello DIRECTORY: a Dockerfile from scratch with one static program, and the program.
make_hello() {
    mkdir -p "$1"
    echo 'int puts(const char *); int main(void) { return puts("Hello from a static program") < 0; }' >"$1/hello.c"
    cc -Os -static -o "$1/hello" "$1/hello.c"
    printf '%s\n' 'FROM scratch' 'COPY hello /hello' 'CMD ["/hello"]' >"$1/Dockerfile"
}

# make_archive ROOT NAME COMMAND: an image of one layer, as `docker save` writes them, on stdout; COMMAND is words of JSON.
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

# log_calls FILE: makes a program of the runtime which notes each call in $work/called.
log_calls() {
    printf '%s\n' '#!/bin/sh' "echo \"\$\$ \$* \" >>$work/called" "exec $runtime \"\$@\"" >"$1"
    chmod +x "$1"
}

# Docker and podman have one command line; containerd has its own of these.
# start NAME OPTION... [-- COMMAND...]: a container in the background; it sleeps if it is not told otherwise.
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

# limit V1-FILE V2-FILE: what a container sees of its limit.
limit() { if [ -d /sys/fs/cgroup/memory ]; then echo "/sys/fs/cgroup/$1"; else echo "/sys/fs/cgroup/$2"; fi; }

# containerd_daemon: one of ours, whose configuration is $work/config.toml and whose socket containerd.sock beside it.
containerd_daemon() {
    containerd --config "$work/config.toml" >>"$work/containerd.log" 2>&1 &
    echo $! >"$work/containerd.pid"
    # Rows kill it, of which nobody needs to be told.
    disown
    (eventually ctr version) || fail "containerd: $(tail -n 5 "$work/containerd.log")"
}

# capable BIT: this host can give that capability.
capable() { [ $((0x$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status) >> $1 & 1)) = 1 ]; }

# stopped PID: for `eventually`.
stopped() { [ ! -e "/proc/$1" ]; }

# --- what a row asserts

fail() {
    echo "$*" >&2
    exit 1
}

# want TEXT COMMAND...: it succeeds and its standard output is exactly this.
want() {
    local wanted=$1 printed
    shift
    printed=$("$@" | tr -d '\r') || fail "$*: exit $?, and it printed: $printed"
    [ "$printed" = "$wanted" ] || fail "$*: printed \"$printed\", not \"$wanted\""
}

# has REGEX COMMAND...: it succeeds and what it prints, errors too, has a line that matches.
has() {
    local wanted=$1 printed
    shift
    printed=$("$@" 2>&1 | tr -d '\r') || fail "$*: exit $?, and it printed: $printed"
    grep -qE -- "$wanted" <<<"$printed" || fail "$*: printed \"$printed\", which has no /$wanted/"
}

# hasnt REGEX COMMAND...
hasnt() {
    local unwanted=$1 printed
    shift
    printed=$("$@" 2>&1) || fail "$*: exit $?, and it printed: $printed"
    ! grep -E -- "$unwanted" <<<"$printed" || fail "$*: printed \"$printed\", which has /$unwanted/"
}

# ends CODE REGEX COMMAND...: its exit status matches CODE, and what it prints REGEX.
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

# eventually COMMAND...: within ten seconds it succeeds.
eventually() {
    local _
    for _ in {1..100}; do
        ! ("$@") >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    ("$@") || fail "after ten seconds, still not: $*"
}

# is TEXT COMMAND...: for `eventually`.
is() {
    local wanted=$1
    shift
    [ "$("$@")" = "$wanted" ]
}

# terminal COMMAND...: runs it on a terminal of 33 by 99, as a user at a keyboard; what is typed is our standard input. Of a
# program that ends as soon as it has printed podman may show nothing: on a busy machine in 2 of 60 runs with orlop, 2 of
# 60 with runc. Not the runtime's: the text was in conmon's log each time (3 of 50), so the terminal had given all of it,
# and it was lost on the way from conmon to the caller; script(1) by itself lost none in 300. So they linger.
terminal() {
    script -qec "stty rows 33 cols 99 && ${*@Q}" /dev/null | sed 's/^\^@//' | tr -d '\r\0'
}

# --- the rows

# known ROW: the reason why it fails for this runtime on a host like this one, if that is known.
known() {
    awk -v engine="$engine" -v row="${1#row_}" -v name="$name" '
        /^#/ || NF < 4 { next }
        $1 == engine && $2 == row && ($3 == "any" || $3 == name) { $1 = $2 = $3 = ""; sub(/^ +/, ""); print; exit }
    ' "$engines/known-failures"
}

# rows [CLEANUP]: all rows, or those whose name matches ROWS, the common ones first. CLEANUP is called after each. What
# engines print in rows that pass and in cleaning up, and no row reads, is in $work/said.
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

# record VERSIONS: puts the result in the table of integration/README.md, in the line of this engine and this runtime.
record() {
    [ -n "${RECORD:-}" ] || return 0
    [ -z "${ROWS:-}" ] || { echo "only some rows: not recorded"; return 0; }
    local version line
    version=$("$runtime" --version | awk 'NR == 1 { v = $3 } $1 == "commit:" { v = v " (" $2 ")" } END { print v }')
    line="| $engine, $name | $1 | $name $version | $result | $(uname -r | cut -d. -f1,2), $(view) | $(date -u +%F) |"
    "$engines/table" "$project/integration/README.md" engines "$line"
}

# view: which cgroup tree the host shows.
view() {
    case $(stat -fc %T /sys/fs/cgroup) in
    cgroup2fs) echo "cgroup v2" ;;
    *) if [ -e /sys/fs/cgroup/unified/cgroup.procs ]; then echo "cgroup hybrid"; else echo "cgroup v1"; fi ;;
    esac
}
