#!/bin/sh
# The README's commands with a busybox root file system, as a user types them, in each view of the host's cgroup tree. Then a
# terminal, in the foreground under script(1).
#
#   integration/smoke/run.sh [RUNTIME]      needs root, busybox (static), unshare, script
#
# It leaves nothing behind, and ends with "smoke: ok" or with the error.
set -eu

runtime=${1:-${ORLOP:-orlop}}
here=$(cd "$(dirname "$0")" && pwd)
id=smoke-$$

fail() {
    echo "smoke: $*" >&2
    exit 1
}

# skip REASON: nothing that follows can run here. 77 means a skip to automake and meson.
skip() {
    echo "smoke: skipped: $*"
    exit 77
}

# want TEXT COMMAND...: the command succeeds and prints exactly this.
want() {
    wanted=$1
    shift
    printed=$("$@") || fail "$*: exit $?, and it printed: $printed"
    [ "$printed" = "$wanted" ] || fail "$*: printed \"$printed\", not \"$wanted\""
}

# status STATUS: the container is in this state.
status() {
    "$runtime" --root "$state" state "$id" | grep -q "\"status\": \"$1\"" || fail "the container is not $1"
}

# clean: fails if anything on the host still has the container's id.
clean() {
    [ -z "$(ls "$state")" ] || fail "left in the state directory: $(ls "$state")"
    left=$(find /sys/fs/cgroup -type d -name "$id*" 2>/dev/null || true)
    [ -z "$left" ] || fail "left of the cgroups: $left"
    ! grep -q "$bundle" /proc/self/mountinfo || fail "left of the mounts: $(grep "$bundle" /proc/self/mountinfo)"
}

make_bundle() {
    mkdir -p "$bundle/rootfs/bin" "$state"
    cp "$(command -v busybox)" "$bundle/rootfs/bin/busybox"
    for applet in sh cat echo hostname id ps sleep stty true tty; do
        ln -s busybox "$bundle/rootfs/bin/$applet"
    done
    (cd "$bundle" && "$runtime" spec)
}

# config SED-EXPRESSION: edits config.json.
config() {
    sed -i "$1" "$bundle/config.json"
}

lifecycle() {
    config 's/"terminal": true/"terminal": false/; s/^\(\t*\)"sh"$/\1"sleep", "100"/'
    "$runtime" --root "$state" create --bundle "$bundle" "$id" </dev/null >"$work/out" 2>&1 || fail "create: $(cat "$work/out")"
    status created
    "$runtime" --root "$state" start "$id"
    status running
    want orlop "$runtime" --root "$state" exec "$id" hostname
    want "uid 0, pid not 1" "$runtime" --root "$state" exec "$id" sh -c '[ $$ != 1 ] && echo "uid $(id -u), pid not 1"'
    want "$id" "$runtime" --root "$state" list --quiet
    "$runtime" --root "$state" ps "$id" | grep -q 'sleep 100' || fail "ps does not show the process"
    set +e
    "$runtime" --root "$state" exec "$id" sh -c 'exit 42'
    code=$?
    set -e
    [ "$code" = 42 ] || fail "exec: exit $code, not 42"
    "$runtime" --root "$state" kill "$id" KILL
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        "$runtime" --root "$state" state "$id" | grep -q '"status": "stopped"' && break
        sleep 0.1
    done
    status stopped
    "$runtime" --root "$state" delete "$id"
    clean
}

foreground() {
    config 's/"terminal": true/"terminal": false/; s/^\(\t*\)"sh"$/\1"sh", "-c", "hostname; exit 3"/'
    set +e
    printed=$("$runtime" --root "$state" run --bundle "$bundle" "$id" </dev/null)
    code=$?
    set -e
    [ "$printed/$code" = orlop/3 ] || fail "run: printed \"$printed\", exit $code"
    clean
}

terminal() {
    command -v script >/dev/null || skip "no script(1)"
    config 's/^\(\t*\)"sh"$/\1"sh", "-c", "tty; sleep 0.3; stty size"/'
    set +e
    printed=$(script -qec "stty rows 33 cols 99; '$runtime' --root '$state' run --bundle '$bundle' $id" /dev/null </dev/null | tr -d '\r')
    set -e
    case $printed in
    */dev/pts/0*"33 99"*) ;;
    *) fail "run under script: printed \"$printed\"" ;;
    esac
    clean
}

# Runs one part in a bundle of its own. The loop below calls the script again like this, in each view.
if [ "${2:-}" = part ]; then
    work=$(mktemp -d)
    bundle=$work/bundle state=$work/state
    trap '"$runtime" --root "$state" delete --force "$id" >/dev/null 2>&1; rm -rf "$work"' EXIT
    make_bundle
    "$3"
    exit 0
fi

[ "$(id -u)" = 0 ] || skip "needs root"
command -v busybox >/dev/null || skip "needs busybox"
command -v "$runtime" >/dev/null || fail "no runtime called $runtime"

for view in host v1 v2; do
    if [ $view = v1 ] && [ ! -e /sys/fs/cgroup/unified/cgroup.procs ]; then
        echo "smoke: skipped the view v1: the host has no v1 hierarchies to show"
        continue
    fi
    for part in lifecycle foreground terminal; do
        unshare -m --propagation private "$here/../cgroup-view" $view "$here/run.sh" "$runtime" part $part ||
            fail "$part failed in the view $view"
        echo "smoke: $view: $part"
    done
done
echo "smoke: ok"
