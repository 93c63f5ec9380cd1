#!/bin/bash
# containerd with the runtime as the binary of io.containerd.runc.v2, for one task and as the default.
#
#   integration/engines/containerd.sh       all rows
#   ROWS=shim integration/engines/containerd.sh     those whose name matches
#   RUNTIME=/usr/sbin/runc integration/engines/containerd.sh    another runtime, for comparison
#
# It needs root and Debian, and installs missing packages. It prints one line for each row, then "N passed, N failed". It ends
# with 1 if a row failed that is not in known-failures. RECORD=1 writes the result to integration/README.md.
set -eu
# shellcheck source=integration/engines/lib.sh
. "$(dirname "$0")/lib.sh"

if [ "${1:-}" != row ] && outside; then
    "$project/tools/need" containerd:containerd busybox:busybox-static script:bsdutils pgrep:procps ip:iproute2
    private "$@"
fi

# containerd puts a container without a cgroup of its own below the name of its namespace.
export CONTAINERD_ADDRESS=$work/containerd.sock CONTAINERD_NAMESPACE=${parent#/}
image=docker.io/library/busybox:latest
dir=$work/$$
# run ID OPTION... -- COMMAND...: ctr itself may lose the output of a short task. On a busy machine it did so in 1 of 60 runs of
# `cat` with runc, and in none of 60 with orlop.
run() {
    local id=$1 options=()
    shift
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    ctr run --rm --runc-binary "$runtime" --cgroup "$parent/$id" "${options[@]}" "$image" "$id" "$@"
}
# start ID OPTION... [-- COMMAND...]: a task in the background; without a command it sleeps.
start() {
    local id=$1 options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
    [ $# -gt 0 ] || set -- -- sleep 1000
    shift
    ctr run -d --runc-binary "$runtime" --cgroup "$parent/$id" "${options[@]}" "$image" "$id" "$@"
}
status() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }'; }
pid() { ctr task ls | awk -v id="$1" '$1 == id { print $2 }'; }
shim() { pgrep -f "containerd-shim-runc-v2 -namespace $CONTAINERD_NAMESPACE -id $1 "; }
# state: the runtime's state directory for the tasks of this script.
state() { echo "/run/containerd/runc/$CONTAINERD_NAMESPACE"; }

row_run_with_the_runtime_as_an_option() {
    want yes run it -- echo yes
    start it
    # The runtime itself knows the container: this does not rely on containerd's answer.
    has '"status": "running"' "$runtime" --root "$(state)" state it
}
row_run_with_the_default_runtime_replaced() {
    : >"$work/called"
    want yes ctr run --rm --cgroup "$parent/it" "$image" it echo yes
    grep -q ' create --bundle ' "$work/called"
    want yes ctr run --rm --runtime io.containerd.runc.v2 --cgroup "$parent/it" "$image" it echo yes
}
row_exit_status() {
    ends 7 '' run it -- sh -c 'exit 7'
    want out sh -c "ctr run --rm --runc-binary $runtime --cgroup $parent/it $image it sh -c 'echo out; echo err >&2' 2>/dev/null"
}
row_terminal() {
    has '^/dev/pts/0$' terminal ctr run -t --rm --runc-binary "$runtime" --cgroup "$parent/it" "$image" it sh -c 'tty; sleep 0.5'
    has '^typed hello$' terminal ctr run -t --rm --runc-binary "$runtime" --cgroup "$parent/it" "$image" it sh -c 'read -r x; echo "typed $x"; sleep 1' < <(sleep 1; echo hello; sleep 2)
}
row_env_and_cwd() {
    want "set /tmp" run it --env VAR=set --cwd /tmp -- sh -c 'echo $VAR $PWD'
}
row_mounts() {
    mkdir -p "$dir" && echo host >"$dir/file"
    want host run it --mount "type=bind,src=$dir,dst=/mnt,options=rbind:ro" -- cat /mnt/file
    ends 1 'Read-only file system' run it --mount "type=bind,src=$dir,dst=/mnt,options=rbind:ro" -- touch /mnt/file
    ends 1 'Read-only file system' run it --read-only -- touch /file
}
row_limits() {
    local file=/sys/fs/cgroup/memory/memory.limit_in_bytes
    [ -e /sys/fs/cgroup/memory ] || file=/sys/fs/cgroup/memory.max
    start it --memory-limit 33554432 --cpus 0.5 --mount type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro
    want 33554432 ctr task exec --exec-id read it cat "$file"
    ends 137 '' run big --memory-limit 33554432 -- dd if=/dev/zero of=/dev/null bs=128M count=1
}
row_rights() {
    has '^Seccomp:[[:space:]]+2' run it --seccomp -- cat /proc/self/status
    has '^Seccomp:[[:space:]]0' run it -- cat /proc/self/status
    has 'CapEff:.*00000000a80435fb' run it --cap-add CAP_NET_ADMIN -- cat /proc/self/status
    has 'CapBnd:.*00000000a80425fa' run it --cap-drop CAP_CHOWN -- cat /proc/self/status
}
row_host_network() { want "$(readlink /proc/self/ns/net)" run it --net-host -- readlink /proc/self/ns/net; }
row_pid_file() {
    start it --pid-file "$work/it.pid"
    want "$(pid it)" cat "$work/it.pid"
}
row_detached_task_and_its_end() {
    start it
    want RUNNING status it
    ctr task kill -s KILL it
    eventually is STOPPED status it
    has 'exit code 137' ctr task delete it
    want "" find "$(state)" -mindepth 1 -maxdepth 1
}
row_task_create_and_start_apart() {
    ctr container create "$image" it cat /etc/group
    has 'root:x:0' ctr task start it
}
row_exec() {
    start it
    want inside ctr task exec --exec-id one it echo inside
    ends 3 '' ctr task exec --exec-id two it sh -c 'exit 3'
    want 1000 ctr task exec --exec-id three --user 1000 it id -u
    has '^/dev/pts/[0-9]' terminal ctr task exec -t --exec-id four it sh -c 'tty; sleep 0.5'
}
row_exec_in_the_background_is_killed_alone() {
    start it
    ctr task exec -d --exec-id extra it sleep 2000
    has 'extra' ctr task ps it
    ctr task kill -s KILL --exec-id extra it
    eventually fails pgrep -f 'sleep 2000'
    want RUNNING status it
}
row_kill_sends_any_signal() {
    start it -- sh -c 'trap "echo x >/tmp/usr1" USR1; echo ready >/tmp/ready; while :; do sleep 0.1; done'
    eventually test -e "/proc/$(pid it)/root/tmp/ready"
    ctr task kill -s USR1 it
    eventually test -e "/proc/$(pid it)/root/tmp/usr1"
}
row_kill_all() {
    start it -- sh -c 'sleep 3000 & sleep 3000'
    eventually is 2 pgrep -xfc 'sleep 3000'
    ctr task kill --all -s KILL it
    eventually fails pgrep -xf 'sleep 3000'
}
row_pause_and_resume() {
    start it
    ctr task pause it
    want PAUSED status it
    ctr task resume it
    want RUNNING status it
    want ok ctr task exec --exec-id one it echo ok
}
row_metrics() {
    start it --memory-limit 33554432
    has 'memory.usage_in_bytes +[1-9]|memory.*usage.* +[1-9]' ctr task metrics it
    has 'pids.current +1' ctr task metrics it
}
row_ps() {
    start it
    has "^$(pid it) " ctr task ps it
}
row_ten_tasks() {
    local i
    for i in {1..10}; do start "many-$i" & done
    wait
    want 10 sh -c 'ctr task ls -q | grep -c many-'
    for i in {1..10}; do want "$i" ctr task exec --exec-id e "many-$i" echo "$i"; done
    for i in {1..10}; do ctr task kill -s KILL "many-$i"; done
    for i in {1..10}; do
        eventually is STOPPED status "many-$i"
        ctr task delete "many-$i" || true
    done
    want "" find "$(state)" -mindepth 1 -maxdepth 1
    want "" find /sys/fs/cgroup -path "*$parent/*" -type d
}
row_shim_is_killed_and_all_is_cleaned_up() {
    start it
    local init
    init=$(pid it)
    kill -KILL "$(shim it)"
    eventually stopped "$init"
    eventually is "" status it
    eventually is "" find "$(state)" -mindepth 1 -maxdepth 1
    ctr container rm it
    start it
    want ok ctr task exec --exec-id one it echo ok
}
row_containerd_is_killed_and_finds_its_tasks_again() {
    start it
    kill -KILL "$(cat "$work/containerd.pid")"
    sleep 0.5
    containerd_daemon
    want RUNNING status it
    want ok ctr task exec --exec-id one it echo ok
    ctr task kill -s KILL it
    eventually is STOPPED status it
}
row_init_dies_while_containerd_is_away() {
    start it
    kill -KILL "$(cat "$work/containerd.pid")"
    kill -KILL "$(pgrep -xf 'sleep 1000')"
    sleep 0.5
    containerd_daemon
    eventually is STOPPED status it
    has 'exit code 137' ctr task delete it
}
row_log_of_the_engine_holds_no_error_of_the_runtime() {
    grep -E 'level=(error|fatal)|panic' "$work/containerd.log" | grep -vE 'level=warning msg="cleanup warnings|ttrpc: (closed|received)|signal: killed' >"$work/errors" || true
    want "" cat "$work/errors"
}
row_missing_command() {
    ends 1 'exec: "nosuch": executable file not found in \$PATH' run it -- nosuch
    ends 1 'stat /no/such: no such file or directory' run it -- /no/such
}
row_exec_of_a_missing_command() {
    start it
    ends 1 'executable file not found in \$PATH' ctr task exec --exec-id one it nosuch
    want RUNNING status it
}
row_kill_of_a_stopped_task() {
    start it -- true
    eventually is STOPPED status it
    ends 1 'process already finished|not found' ctr task kill it
}

if [ "${1:-}" = row ]; then
    "$2"
    exit 0
fi

house
mkdir -p "$work/bin"
log_calls "$work/bin/runc"
PATH=$work/bin:$PATH
# The CRI is in cri.sh.
cat >"$work/config.toml" <<C
version = 2
root = "$work/root"
state = "$work/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$work/containerd.sock"
[plugins."io.containerd.runtime.v1.linux"]
runtime = "$runtime"
C
containerd_daemon
make_root "$work/busybox"
make_archive "$work/busybox" "$image" '"sh"' | ctr image import - >/dev/null

clean_up() {
    local id
    for id in $(ctr container ls -q); do
        ctr task kill -s KILL "$id"
        ctr task delete -f "$id"
        ctr container rm "$id"
    done
}
status=0
rows clean_up || status=$?
kill "$(cat "$work/containerd.pid")"
[ -z "${KEEP_LOG:-}" ] || cp "$work/containerd.log" "$KEEP_LOG"
record "containerd $(dpkg-query -W -f '${Version}' containerd)"
exit $status
