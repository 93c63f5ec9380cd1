#!/bin/bash
# The Container Runtime Interface, as a kubelet uses it: containerd's CRI plugin with the runtime as the default and as a
# handler of its own (what a RuntimeClass names), CNI's bridge from Debian's package, and cri.py in the place of crictl.
#
#   integration/engines/cri.sh              all rows
#   ROWS=log integration/engines/cri.sh     those whose name matches
#   RUNTIME=/usr/sbin/runc integration/engines/cri.sh   another runtime, for comparison
#
# It needs root and Debian, and installs missing packages. It prints one line for each row, then "N passed, N failed". It ends
# with 1 if a row failed that is not in known-failures. RECORD=1 writes the result to integration/README.md.
set -eu
# shellcheck source=integration/engines/lib.sh
. "$(dirname "$0")/lib.sh"

if [ "${1:-}" != row ] && outside; then
    "$project/tools/need" containerd:containerd busybox:busybox-static protoc:protobuf-compiler jq:jq pgrep:procps ip:iproute2 \
        /usr/lib/cni/bridge:containernetworking-plugins
    python3 -c 'import grpc, google.protobuf' 2>/dev/null || "$project/tools/need" -- python3-grpcio python3-protobuf
    private "$@"
fi

export CONTAINERD_ADDRESS=$work/containerd.sock CRI_ADDRESS=$work/containerd.sock CRI_PYTHON=$work
dir=$work/$$
cri() { "$engines/cri.py" "$@"; }
# words WORD...: prints the words as a JSON array.
words() { jq -nc '$ARGS.positional' --args -- "$@"; }
# state: the runtime's state directory for the containers of this script.
state() { echo /run/containerd/runc/k8s.io; }

# pod NAME [JSON [HANDLER]]: runs a pod and prints its id. JSON replaces parts of its configuration.
pod() {
    mkdir -p "$work/logs"
    jq -nc --arg name "$1" --arg logs "$work/logs" --arg parent "$parent" --argjson more "${2:-null}" '{
        metadata: {name: $name, uid: $name, namespace: "rows"}, hostname: $name, log_directory: $logs,
        linux: {cgroup_parent: $parent, security_context: {namespace_options: {pid: "CONTAINER"}}}} * ($more // {})' >"$work/pod-$1"
    local answer
    answer=$(cri RunPodSandbox "$(jq -c --arg handler "${3:-}" '{config: ., runtime_handler: $handler}' "$work/pod-$1")") || return
    jq -r .pod_sandbox_id <<<"$answer" | tee "$work/pod-$1.id"
}
# create POD NAME JSON [COMMAND...]: a container in the pod of that name, not started; prints its id.
create() {
    local pod=$1 called=$2 more=$3 answer
    shift 3
    [ $# -gt 0 ] || set -- sleep 1000
    answer=$(cri CreateContainer "$(jq -nc --arg id "$(cat "$work/pod-$pod.id")" --arg name "$called" --slurpfile pod "$work/pod-$pod" --argjson more "$more" --argjson command "$(words "$@")" '{
        pod_sandbox_id: $id, sandbox_config: $pod[0], config: ({
            metadata: {name: $name}, image: {image: "docker.io/library/busybox:latest"}, command: $command, log_path: ($name + ".log"),
            linux: {security_context: {namespace_options: {pid: "CONTAINER"}}}} * ($more // {}))}')") || return
    jq -r .container_id <<<"$answer"
}
# start POD NAME JSON [COMMAND...]: creates the container and starts it.
start() {
    local id
    id=$(create "$@") || return
    cri StartContainer "{\"container_id\": \"$id\"}" >/dev/null || return
    echo "$id"
}
# within ID COMMAND...: runs the command in the container and waits for it.
within() {
    local id=$1
    shift
    cri ExecSync "{\"container_id\": \"$id\", \"cmd\": $(words "$@"), \"timeout\": 30}"
}
of_container() { cri ContainerStatus "{\"container_id\": \"$1\"}" | jq -r ".status.$2"; }
of_pod() { cri PodSandboxStatus "{\"pod_sandbox_id\": \"$1\"}" | jq -r ".status.$2"; }
stop() { cri StopContainer "{\"container_id\": \"$1\", \"timeout\": $2}" >/dev/null; }
# printed NAME: the output of a container, without the time stamps of the log.
printed() { sed 's/^[^ ]* [^ ]* [^ ]* //' "$work/logs/$1.log"; }

# --- the runtime

row_version_and_conditions() {
    want containerd sh -c "$engines/cri.py Version | jq -r .runtime_name"
    want "NetworkReady true RuntimeReady true" sh -c "$engines/cri.py Status | jq -r '.status.conditions | sort_by(.type) | map(\"\\(.type) \\(.status)\") | join(\" \")'"
}

# --- pods

row_pod_is_ready_and_has_an_address() {
    local id
    id=$(pod web)
    want SANDBOX_READY of_pod "$id" state
    [[ $(of_pod "$id" network.ip) = 10.213.0.* ]]
    # The runtime itself knows the sandbox: this does not rely on containerd's answer.
    has '"status": "running"' "$runtime" --root "$(state)" state "$id"
    grep -q " create --bundle .*$id" "$work/called"
}
row_pod_with_the_handler_of_a_runtime_class() {
    local id
    : >"$work/called"
    id=$(pod classy null "$name")
    want "$name" of_pod "$id" runtime_handler
    id=$(start classy main null sh -c 'echo yes; sleep 1000')
    eventually is yes printed main
    has '"status": "running"' "$runtime" --root "$(state)" state "$id"
    # The handler names the runtime's own path, not the one of the default.
    want "" cat "$work/called"
    fails pod other null nosuch
}
row_containers_of_a_pod_share_its_namespaces() {
    local one two kind
    pod web
    one=$(start web one null httpd -f -p 80 -h /etc)
    two=$(start web two null)
    for kind in net ipc uts; do
        [ "$(within "$one" readlink "/proc/self/ns/$kind")" = "$(within "$two" readlink "/proc/self/ns/$kind")" ] || fail "$kind is not shared"
    done
    for kind in mnt pid; do
        [ "$(within "$one" readlink "/proc/self/ns/$kind")" != "$(within "$two" readlink "/proc/self/ns/$kind")" ] || fail "$kind is shared"
    done
    want web within "$two" hostname
    eventually within "$two" wget -q -O /dev/null http://127.0.0.1/group
}
row_pod_with_one_pid_namespace() {
    local id
    pod web '{"linux": {"security_context": {"namespace_options": {"pid": "POD"}}}}'
    start web one '{"linux": {"security_context": {"namespace_options": {"pid": "POD"}}}}' sleep 2000
    id=$(start web two '{"linux": {"security_context": {"namespace_options": {"pid": "POD"}}}}')
    has 'sleep 2000' within "$id" ps
    has '^ *1 root .*sleep 1000000' within "$id" ps
}
row_container_in_the_pid_namespace_of_another() {
    local one two
    pod web
    one=$(start web one null sleep 2000)
    two=$(start web two '{"linux": {"security_context": {"namespace_options": {"pid": "TARGET", "target_id": "'"$one"'"}}}}')
    has 'sleep 2000' within "$two" ps
}
row_pod_on_the_host() {
    local id all='{"linux": {"security_context": {"namespace_options": {"network": "NODE", "pid": "NODE", "ipc": "NODE"}}}}' kind
    pod host "$(jq -c 'del(.hostname) + {hostname: ""}' <<<"$all")"
    id=$(start host main "$all")
    for kind in net pid ipc; do want "$(readlink /proc/self/ns/$kind)" within "$id" readlink /proc/self/ns/$kind; done
}
row_pods_reach_each_other_by_address() {
    local first second
    first=$(pod first)
    start first main null httpd -f -p 80 -h /etc
    pod second
    second=$(start second main null)
    eventually within "$second" wget -q -O /dev/null "http://$(of_pod "$first" network.ip)/group"
    ends 1 '' within "$second" wget -q -O /dev/null http://127.0.0.1/group
}
row_sysctl_and_dns_of_the_pod() {
    local id
    pod web '{"linux": {"sysctls": {"net.core.somaxconn": "77"}}, "dns_config": {"servers": ["192.0.2.1"]}}'
    id=$(start web main '{"mounts": []}')
    want 77 within "$id" cat /proc/sys/net/core/somaxconn
    has 'nameserver 192.0.2.1' within "$id" cat /etc/resolv.conf
}

# --- containers

row_created_then_running_then_exited() {
    local id
    pod web
    id=$(create web main null sh -c 'echo said; echo aside >&2; exit 7')
    want CONTAINER_CREATED of_container "$id" state
    cri StartContainer "{\"container_id\": \"$id\"}"
    eventually is CONTAINER_EXITED of_container "$id" state
    want "7 Error" sh -c "echo $(of_container "$id" exit_code) $(of_container "$id" reason)"
    has '^[0-9]{4}-[0-9-]+T[^ ]+ stdout F said$' cat "$work/logs/main.log"
    has '^[0-9]{4}-[0-9-]+T[^ ]+ stderr F aside$' cat "$work/logs/main.log"
}
row_log_is_reopened() {
    local id
    pod web
    id=$(start web main null sh -c 'while :; do echo tick; sleep 0.1; done')
    eventually grep -q tick "$work/logs/main.log"
    mv "$work/logs/main.log" "$work/logs/main.log.1"
    cri ReopenContainerLog "{\"container_id\": \"$id\"}"
    eventually grep -q tick "$work/logs/main.log"
}
row_exec_sync() {
    local id
    pod web
    id=$(start web main null)
    want out sh -c "$engines/cri.py ExecSync '{\"container_id\": \"$id\", \"cmd\": [\"sh\", \"-c\", \"echo out; echo err >&2\"]}' 2>/dev/null"
    ends 3 '' within "$id" sh -c 'exit 3'
    ends 125 'executable file not found in \$PATH' within "$id" nosuch
    ends 125 'DEADLINE_EXCEEDED|timeout' cri ExecSync "{\"container_id\": \"$id\", \"cmd\": [\"sleep\", \"5555\"], \"timeout\": 1}"
    eventually fails pgrep -xf 'sleep 5555'
    want CONTAINER_RUNNING of_container "$id" state
}
row_stop_sends_term_then_kill() {
    local id
    pod web
    id=$(start web listens null sh -c 'trap "echo got TERM; exit 9" TERM; echo ready; while :; do sleep 0.1; done')
    eventually is ready printed listens
    stop "$id" 10
    want 9 of_container "$id" exit_code
    id=$(start web deaf null)
    stop "$id" 1
    want 137 of_container "$id" exit_code
}
row_env_workdir_and_tty() {
    pod web
    start web main '{"envs": [{"key": "VAR", "value": "set"}], "working_dir": "/tmp"}' sh -c 'echo $VAR $PWD'
    eventually is "set /tmp" printed main
    start web tty '{"tty": true}' tty
    eventually is /dev/pts/0 sh -c "sed 's/.* //' $work/logs/tty.log | tr -d '\r'"
}
row_mounts_and_devices() {
    local id
    mkdir -p "$dir/sub" && echo host >"$dir/file"
    pod web
    id=$(start web main '{"mounts": [{"container_path": "/mnt", "host_path": "'"$dir"'", "readonly": true},
        {"container_path": "/slave", "host_path": "'"$dir"'", "propagation": 1}, {"container_path": "/shared", "host_path": "'"$dir"'", "propagation": 2}],
        "devices": [{"container_path": "/dev/mine", "host_path": "/dev/zero", "permissions": "r"}],
        "linux": {"security_context": {"privileged": false}}}')
    want host within "$id" cat /mnt/file
    ends 1 'Read-only file system' within "$id" touch /mnt/file
    within "$id" touch /slave/file
    mount -t tmpfs tmpfs "$dir/sub" && touch "$dir/sub/late"
    want late within "$id" ls /slave/sub
    want "" within "$id" ls /mnt/sub
    umount "$dir/sub"
    want 4 within "$id" sh -c 'head -c 4 /dev/mine | wc -c'
}

# --- limits and rights

file() { if [ -d /sys/fs/cgroup/memory ]; then echo "/sys/fs/cgroup/$1$parent"; else echo "/sys/fs/cgroup$parent"; fi; }
row_limits_are_set_and_updated() {
    local id
    pod web
    id=$(start web main '{"linux": {"resources": {"memory_limit_in_bytes": 67108864, "cpu_quota": 20000, "cpu_period": 100000, "cpuset_cpus": "1"}}}')
    want 67108864 cat "$(file memory)/$id/$(basename "$(limit memory.limit_in_bytes memory.max)")"
    has 'Cpus_allowed_list:[[:space:]]1$' within "$id" cat /proc/self/status
    cri UpdateContainerResources '{"container_id": "'"$id"'", "linux": {"memory_limit_in_bytes": 134217728, "cpuset_cpus": "0"}}'
    want 134217728 cat "$(file memory)/$id/$(basename "$(limit memory.limit_in_bytes memory.max)")"
    has 'Cpus_allowed_list:[[:space:]]0$' within "$id" cat /proc/self/status
}
row_oom_is_reported() {
    local id
    pod web
    id=$(start web main '{"linux": {"resources": {"memory_limit_in_bytes": 33554432}}}' sh -c 'sleep 1; dd if=/dev/zero of=/dev/null bs=128M count=1')
    eventually is CONTAINER_EXITED of_container "$id" state
    want "137 OOMKilled" sh -c "echo $(of_container "$id" exit_code) $(of_container "$id" reason)"
}
row_stats_are_sane() {
    local id stats
    pod web
    id=$(start web main '{"linux": {"resources": {"memory_limit_in_bytes": 67108864}}}' sh -c 'while :; do :; done')
    sleep 1
    stats=$(cri ContainerStats "{\"container_id\": \"$id\"}")
    jq -e '(.stats.cpu.usage_core_nano_seconds.value | tonumber) as $cpu | (.stats.memory.working_set_bytes.value | tonumber) as $memory
        | $cpu > 100000000 and $cpu < 20000000000 and $memory > 10000 and $memory < 67108864' <<<"$stats" || fail "$stats"
}
row_user_groups_and_capabilities() {
    local id
    pod web
    id=$(start web main '{"linux": {"security_context": {"run_as_user": {"value": 1000}, "run_as_group": {"value": 77}, "supplemental_groups": [50],
        "no_new_privs": true, "readonly_rootfs": true, "capabilities": {"drop_capabilities": ["ALL"]}}}}')
    want "1000 77 77 50" within "$id" sh -c 'echo $(id -u) $(id -g) $(id -G)'
    has '^CapBnd:.*0000000000000000' within "$id" cat /proc/1/status
    has '^NoNewPrivs:[[:space:]]1' within "$id" cat /proc/self/status
    ends 1 'Read-only file system' within "$id" touch /file
    id=$(start web rights '{"linux": {"security_context": {"capabilities": {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["CHOWN"]}}}}')
    want 00000000a80435fa within "$id" awk '$1 == "CapEff:" { print $2 }' /proc/1/status
}
row_seccomp() {
    local id
    pod web
    id=$(start web default '{"linux": {"security_context": {"seccomp": {"profile_type": "RuntimeDefault"}}}}')
    has '^Seccomp:[[:space:]]2' within "$id" cat /proc/self/status
    id=$(start web unconfined '{"linux": {"security_context": {"seccomp": {"profile_type": "Unconfined"}}}}')
    has '^Seccomp:[[:space:]]0' within "$id" cat /proc/self/status
    echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}' >"$work/profile.json"
    id=$(start web own '{"linux": {"security_context": {"seccomp": {"profile_type": "Localhost", "localhost_ref": "'"$work/profile.json"'"}}}}')
    ends 1 'Operation not permitted' within "$id" chmod 700 /tmp
}
row_masked_and_readonly_paths() {
    local id
    pod web
    id=$(start web main '{"linux": {"security_context": {"masked_paths": ["/proc/keys", "/sys/firmware"], "readonly_paths": ["/proc/sys"]}}}')
    want 0 within "$id" sh -c 'wc -c </proc/keys'
    want "" within "$id" ls /sys/firmware
    ends 1 'Read-only file system' within "$id" sh -c 'echo 1 >/proc/sys/kernel/domainname'
}

# --- the end

row_pod_is_stopped_with_its_containers() {
    local pod id
    pod=$(pod web)
    id=$(start web main null sleep 4242)
    cri StopPodSandbox "{\"pod_sandbox_id\": \"$pod\"}"
    want SANDBOX_NOTREADY of_pod "$pod" state
    want "CONTAINER_EXITED 137" sh -c "echo $(of_container "$id" state) $(of_container "$id" exit_code)"
    fails pgrep -xf 'sleep 4242'
}
no_cgroups() {
    local left
    left=$(find /sys/fs/cgroup -mindepth 3 -path "*$parent/*" -type d)
    [ -z "$left" ] || fail "cgroups: $left"
}
row_ten_pods_and_nothing_left() {
    local i
    for i in {1..10}; do (pod "many-$i" && start "many-$i" "main-$i" null) & done
    wait
    want 20 sh -c "find $(state) -mindepth 1 -maxdepth 1 | wc -l"
    clean_up
    want "" find "$(state)" -mindepth 1 -maxdepth 1
    eventually no_cgroups
    eventually fails pgrep -f containerd-shim
    want "" sh -c "grep -E '$work/(root|run)/.*/(rootfs|shm)|/netns/cni' /proc/self/mountinfo || true"
    want "" sh -c 'ip -o link show type veth'
}
# This row is before the rows whose errors belong in the log.
row_log_of_the_engine_holds_no_error_of_the_runtime() {
    # Errors that the rows provoke on purpose.
    grep -E 'level=(error|fatal)|panic' "$work/containerd.log" | grep -vE 'nosuch|level=warning msg="cleanup warnings|timeout|context deadline exceeded|failed to load cni during init' >"$work/errors" || true
    want "" cat "$work/errors"
}
row_missing_command_is_an_error_of_start() {
    local id
    pod web
    id=$(create web main null nosuch)
    ends 125 'exec: "nosuch": executable file not found in \$PATH' cri StartContainer "{\"container_id\": \"$id\"}"
    want "CONTAINER_EXITED 128 StartError" sh -c "echo $(of_container "$id" state) $(of_container "$id" exit_code) $(of_container "$id" reason)"
}
row_containerd_is_killed_and_finds_its_pods_again() {
    local pod id
    pod=$(pod web)
    id=$(start web main null)
    kill -KILL "$(cat "$work/containerd.pid")"
    sleep 0.5
    containerd_daemon
    want SANDBOX_READY of_pod "$pod" state
    want ok within "$id" echo ok
    stop "$id" 0
    want 137 of_container "$id" exit_code
}
row_shim_is_killed_and_the_pod_can_be_removed() {
    local pod id
    pod=$(pod web)
    id=$(start web main null sleep 4243)
    kill -KILL "$(pgrep -f "containerd-shim-runc-v2 -namespace k8s.io -id $pod ")"
    eventually fails pgrep -xf 'sleep 4243'
    eventually is CONTAINER_EXITED of_container "$id" state
    cri StopPodSandbox "{\"pod_sandbox_id\": \"$pod\"}"
    cri RemovePodSandbox "{\"pod_sandbox_id\": \"$pod\"}"
    want "" find "$(state)" -mindepth 1 -maxdepth 1
}
clean_up() {
    local id
    for id in $(cri ListPodSandbox | jq -r '.items[]?.id'); do
        cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}"
        cri RemovePodSandbox "{\"pod_sandbox_id\": \"$id\"}"
    done
    rm -rf "$work/logs"
}

if [ "${1:-}" = row ]; then
    "$2"
    exit 0
fi

house
mkdir -p "$work/cni"
log_calls "$work/default"
# A sandbox asks for an OOM score below that of others, which only CAP_SYS_RESOURCE may set.
capable 24 && restrict=false || restrict=true
cat >"$work/config.toml" <<C
version = 2
root = "$work/root"
state = "$work/run/containerd"
[grpc]
address = "$work/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:latest"
restrict_oom_score_adj = $restrict
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$work/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "default"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.default]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.default.options]
BinaryName = "$work/default"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.$name]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.$name.options]
BinaryName = "$runtime"
SystemdCgroup = false
C
cat >"$work/cni/rows.conflist" <<C
{"cniVersion": "0.4.0", "name": "rows", "plugins": [{"type": "bridge", "bridge": "cri0", "isGateway": true,
    "ipam": {"type": "host-local", "dataDir": "$work/addresses", "ranges": [[{"subnet": "10.213.0.0/24"}]]}}]}
C
containerd_daemon
protoc --proto_path="$engines" --python_out="$work" cri.proto
make_root "$work/busybox"
make_archive "$work/busybox" docker.io/library/busybox:latest '"sh"' | ctr -n k8s.io image import - >/dev/null
make_archive "$work/busybox" docker.io/library/pause:latest '"sleep", "1000000"' | ctr -n k8s.io image import - >/dev/null
eventually cri Status

status=0
rows clean_up || status=$?
kill "$(cat "$work/containerd.pid")"
[ -z "${KEEP_LOG:-}" ] || cp "$work/containerd.log" "$KEEP_LOG"
record "containerd $(dpkg-query -W -f '${Version}' containerd), CNI plugins $(dpkg-query -W -f '${Version}' containernetworking-plugins)"
exit $status
