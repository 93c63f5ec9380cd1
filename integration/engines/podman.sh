#!/bin/bash
# Podman and buildah with the runtime that containers.conf names, or `--runtime`; as root, and as an ordinary user.
#
#   integration/engines/podman.sh           all rows
#   ROWS=rootless integration/engines/podman.sh     those whose name matches
#   RUNTIME=/usr/sbin/runc integration/engines/podman.sh    another runtime, for comparison
#
# It needs root and Debian, and installs missing packages. It prints one line for each row, then "N passed, N failed". It ends
# with 1 if a row failed that is not in known-failures. RECORD=1 writes the result to integration/README.md.
set -eu
# shellcheck source=integration/engines/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=integration/engines/common-rows.sh
. "$engines/common-rows.sh"

if [ "${1:-}" != row ] && outside; then
    "$project/tools/need" podman:podman buildah:buildah conmon:conmon iptables:iptables slirp4netns:slirp4netns newuidmap:uidmap \
        busybox:busybox-static cc:gcc script:bsdutils pgrep:procps ip:iproute2 wget:wget python3:python3 /usr/lib/podman/netavark:netavark \
        /usr/lib/podman/aardvark-dns:aardvark-dns /usr/libexec/podman/catatonit:catatonit
    private "$@"
fi

dir=$work/$$

row_info_names_the_runtime() {
    want "$name" podman info -f '{{.Host.OCIRuntime.Name}}'
    want "$runtime" podman info -f '{{.Host.OCIRuntime.Path}}'
    want "$("$runtime" --version | awk '$1 == "commit:"')" sh -c "podman info -f '{{.Host.OCIRuntime.Version}}' | grep ^commit:"
}
row_option_runtime_takes_a_path() {
    want yes podman --runtime "$runtime" run --rm busybox echo yes
    start it
    want "$name" inspect it .OCIRuntime
}

# --- run

row_run_d_and_ps() {
    start shown
    has 'shown' podman ps
    podman kill shown
    eventually is "" podman ps -q
    has 'Exited \(137\).*shown' podman ps -a
}
row_create_then_start_attached() {
    podman create --name it busybox sh -c 'echo said; exit 6'
    has Created podman ps -a
    ends 6 said podman start -a it
}
row_logs() {
    start talks -- sh -c 'echo one; echo two >&2; sleep 1000'
    eventually is "one two" sh -c 'podman logs talks 2>&1 | sort | xargs'
    has '^[0-9]{4}-[0-9-]+T.* one' podman logs -t talks
}
row_attach() {
    start ends -i -- sh -c 'read -r x; echo "got $x"; sleep 1; exit 9'
    has 'got word' sh -c '(sleep 1; echo word; sleep 2) | podman attach ends'
    want 9 podman wait ends
}
row_preserve_fds() { want kept sh -c 'echo kept | podman run --rm --preserve-fds 1 busybox sh -c "cat <&3" 3<&0 </dev/null'; }

# --- exec

row_exec_it_gives_a_terminal() {
    start it
    has '^/dev/pts/[0-9]' terminal podman exec -it it sh -c 'tty; sleep 0.5'
}
row_exec_with_user_env_and_workdir() {
    start it
    want "1000 1000 set /tmp" podman exec --user app --env VAR=set --workdir /tmp it sh -c 'echo $(id -u) $(id -g) $VAR $PWD'
}
row_top_and_stats() {
    start it -m 64m
    has 'sleep 1000' podman top it
    has '^1 ' podman stats --no-stream --no-reset --format '{{.PIDs}} {{.MemUsage}}' it
}

# --- the end of a container

row_stop_sends_term() {
    start it -- sh -c 'trap "echo got TERM; exit 7" TERM; echo ready; while :; do sleep 0.1; done'
    eventually is ready podman logs it
    podman stop it
    want 7 inspect it .State.ExitCode
}
row_kill_and_wait() {
    start it
    (sleep 1; podman kill it) >/dev/null &
    want 137 podman wait it
}
row_restart() {
    start it -- sh -c 'echo x >>/tmp/starts; sleep 1000'
    podman restart -t 0 it
    eventually is 2 podman exec it sh -c 'wc -l </tmp/starts'
}
row_pause_and_unpause() {
    start it
    podman pause it
    want paused inspect it .State.Status
    podman unpause it
    want ok podman exec it echo ok
}
row_rm_f() {
    start it
    fails podman rm it
    podman rm -f -t 0 it
    start it
    podman pause it
    podman rm -f -t 0 it
    want "" podman ps -aq
}

# --- files

row_cp_diff_and_commit() {
    start it
    echo inward >"$work/file"
    podman cp "$work/file" it:/tmp/file
    want inward podman exec it cat /tmp/file
    has '^A /tmp/file$' podman diff it
    podman commit -q it committed
    want inward run committed cat /tmp/file
    podman rmi -f committed
}
row_volumes_and_bind_mounts() {
    podman volume create data
    run -v data:/data busybox sh -c 'echo kept >/data/file'
    want kept run -v data:/data:ro busybox cat /data/file
    mkdir -p "$dir" && echo host >"$dir/file"
    want host run -v "$dir:/mnt" busybox cat /mnt/file
    ends 1 'Read-only file system' run -v "$dir:/mnt:ro" busybox touch /mnt/file
    want lower run -v "$dir:/mnt:O" busybox sh -c 'echo lower >/mnt/file; cat /mnt/file'
    want host cat "$dir/file"
}
row_idmapped_bind_mount() {
    mkdir -p "$dir" && touch "$dir/file"
    want 0 run --uidmap 0:800000:1000 --gidmap 0:800000:1000 -v "$dir:/mnt:idmap" busybox stat -c %u /mnt/file
}
row_tmpfs_and_read_only() {
    has '^tmpfs /scratch tmpfs rw,.*size=1024k' run --tmpfs /scratch:size=1m busybox cat /proc/mounts
    ends 1 'Read-only file system' run --read-only busybox touch /file
    want ok run --read-only busybox sh -c 'touch /tmp/file /dev/shm/file && echo ok'
}
row_secret() {
    echo hidden | podman secret create word -
    want hidden run --secret word busybox cat /run/secrets/word
    podman secret rm word
}

# --- networks

row_network_none_host_and_container() {
    want lo run --network none busybox ls /sys/class/net
    want "$(readlink /proc/self/ns/net)" run --network host busybox readlink /proc/self/ns/net
    start it --network none
    want "$(podman exec it readlink /proc/self/ns/net)" run --network container:it busybox readlink /proc/self/ns/net
}
row_publish_is_reached_on_loopback() {
    start web -p 127.0.0.1:8080:80 -- httpd -f -p 80 -h /etc
    eventually wget -q -O "$work/page" http://127.0.0.1:8080/group
}
row_network_made_by_the_user() {
    podman network create pair
    start server --network pair -- httpd -f -p 80 -h /etc
    eventually run --network pair busybox wget -q -O /dev/null http://server/group
    podman rm -f -t 0 server
    podman network rm pair
}
row_hostname() { want named run --hostname named busybox hostname; }

# --- limits

row_memory_is_enforced() {
    want 33554432 run -m 32m busybox cat "$(limit memory/memory.limit_in_bytes memory.max)"
    ends 137 '' run -m 32m busybox dd if=/dev/zero of=/dev/null bs=128M count=1
}
row_oom_is_noticed_by_conmon() {
    # conmon reports it by a file in the directory in which podman was called.
    rm -f oom
    ends 137 '' run -m 32m busybox dd if=/dev/zero of=/dev/null bs=128M count=1
    eventually test -e oom
}
row_oom_is_reported() {
    ends 137 '' podman run --name it -m 32m busybox dd if=/dev/zero of=/dev/null bs=128M count=1
    eventually is true inspect it .State.OOMKilled
}
row_cpus_and_cpuset() {
    want 50000 run --cpus 0.5 busybox cat "$(limit cpu/cpu.cfs_quota_us cpu.max)"
    has 'Cpus_allowed_list:[[:space:]]1$' run --cpuset-cpus 1 busybox cat /proc/self/status
}
row_pids_limit_is_enforced() { ends 2 "can't fork" run --pids-limit 5 busybox sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait'; }
row_update() {
    start it -m 64m
    podman update -m 128m --cpus 0.5 it
    want 134217728 podman exec it cat "$(limit memory/memory.limit_in_bytes memory.max)"
}
row_ulimit() { want "100 200" run --ulimit nofile=100:200 --ulimit nproc=500:600 busybox sh -c 'echo $(ulimit -Sn) $(ulimit -Hn)'; }
row_cgroup_parent() { has ":$parent/below/" run --cgroupns host --cgroup-parent "$parent/below" busybox cat /proc/self/cgroup; }

# --- rights

row_user_and_groups() {
    want "1000 1000" run --user app busybox sh -c 'echo $(id -u) $(id -g)'
    want "1000 50 77" run --user app --group-add 77 busybox id -G
    want 0077 run --umask 0077 busybox sh -c umask
}
row_capabilities() {
    want 00000000800405fb run busybox awk '$1 == "CapEff:" { print $2 }' /proc/self/status
    want 0000000000000000 run --cap-drop ALL busybox awk '$1 == "CapBnd:" { print $2 }' /proc/self/status
    want 0000000000001000 run --user app --cap-drop ALL --cap-add NET_ADMIN busybox awk '$1 == "CapEff:" { print $2 }' /proc/self/status
}
row_seccomp() {
    has '^Seccomp:[[:space:]]2' run busybox cat /proc/self/status
    has '^Seccomp:[[:space:]]0' run --security-opt seccomp=unconfined busybox cat /proc/self/status
    echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}' >"$work/profile.json"
    ends 1 'Operation not permitted' run --security-opt "seccomp=$work/profile.json" busybox chmod 700 /tmp
}
row_no_new_privileges() { has '^NoNewPrivs:[[:space:]]1' run --security-opt no-new-privileges busybox cat /proc/self/status; }
row_privileged() {
    has '^Seccomp:[[:space:]]0' run --privileged busybox cat /proc/self/status
    want ok run --privileged busybox sh -c 'mkdir /m && mount -t tmpfs t /m && echo ok'
}
row_device() {
    want 4 run --device /dev/zero:/dev/mine busybox sh -c 'head -c 4 /dev/mine | wc -c'
    ends 1 'Operation not permitted' run --device /dev/fuse:/dev/mine:r busybox sh -c ': >/dev/mine'
}
row_sysctl() { want 77 run --network none --sysctl net.core.somaxconn=77 busybox cat /proc/sys/net/core/somaxconn; }
row_init_is_pid_1() { has '^ *1 root .*init' run --init busybox ps; }
row_systemd_mode() {
    has '^cgroup2? .*/sys/fs/cgroup/systemd|^tmpfs /run tmpfs' run --systemd=always busybox cat /proc/mounts
}

# --- namespaces of others

row_pid_ipc_and_uts_of_the_host() {
    want "$(readlink /proc/self/ns/pid)" run --pid host busybox readlink /proc/self/ns/pid
    want "$(readlink /proc/self/ns/ipc)" run --ipc host busybox readlink /proc/self/ns/ipc
    want "$(readlink /proc/self/ns/uts)" run --uts host busybox readlink /proc/self/ns/uts
}
row_user_namespace() {
    has '^ *0 +800000 +1000$' run --uidmap 0:800000:1000 --gidmap 0:800000:1000 busybox cat /proc/self/uid_map
    start it --uidmap 0:800000:2000 --gidmap 0:800000:2000
    want 800000 stat -c %u "/proc/$(inspect it .State.Pid)"
    want ok podman exec -u app it sh -c 'touch /tmp/file && echo ok'
}
row_cgroup_namespace() { has ':/$' run --cgroupns private busybox grep -E 'pids|^0:' /proc/self/cgroup; }

# --- health, sd_notify

row_healthcheck() {
    podman run -d --name it --health-cmd 'test -e /tmp/well' --health-interval disable --health-retries 1 busybox sleep 1000
    fails podman healthcheck run it
    want unhealthy inspect it .State.Health.Status
    podman exec it touch /tmp/well
    podman healthcheck run it
    want healthy inspect it .State.Health.Status
}

# --- pods

row_pod_shares_namespaces() {
    podman pod create --name both -p 127.0.0.1:8081:80
    podman run -d --pod both --name server busybox httpd -f -p 80 -h /etc
    eventually podman run --rm --pod both busybox wget -q -O /dev/null http://127.0.0.1/group
    eventually wget -q -O "$work/page" http://127.0.0.1:8081/group
    want "$(podman exec server readlink /proc/self/ns/ipc)" podman run --rm --pod both busybox readlink /proc/self/ns/ipc
    podman pod pause both
    podman pod unpause both
    podman pod stop -t 0 both
    podman pod start both
    want ok podman exec server echo ok
}
row_pod_is_removed() {
    podman pod create --name both
    podman run -d --pod both --name server busybox sleep 1000
    podman pod rm -f -t 0 both
    want "" podman ps -aq
}
row_play_kube() {
    cat >"$work/pod.yaml" <<'Y'
apiVersion: v1
kind: Pod
metadata: {name: kube}
spec:
  containers:
  - name: server
    image: localhost/busybox:latest
    imagePullPolicy: Never
    command: [sh, -c, 'echo "$WORD" >/data/page; exec httpd -f -p 8082 -h /data']
    env: [{name: WORD, value: served}]
    volumeMounts: [{name: data, mountPath: /data}]
    resources: {limits: {memory: 64Mi}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  - name: client
    image: localhost/busybox:latest
    imagePullPolicy: Never
    command: [sh, -c, 'until wget -q -O - http://127.0.0.1:8082/page; do sleep 0.1; done; sleep 1000']
  volumes: [{name: data, emptyDir: {}}]
Y
    podman play kube "$work/pod.yaml"
    eventually is served podman logs kube-client
    want 67108864 podman exec kube-server cat "$(limit memory/memory.limit_in_bytes memory.max)"
    has 'kind: Pod' podman generate kube kube
}
row_play_kube_down() {
    row_play_kube
    podman play kube --down "$work/pod.yaml"
    want "" podman ps -aq
}

# --- images

row_build() {
    mkdir -p "$dir"
    printf '%s\n' 'FROM localhost/busybox' 'ARG WORD=none' 'WORKDIR /work' 'RUN echo "$WORD" >word' 'USER app' 'RUN id -u >/tmp/id' \
        'CMD cat /work/word /tmp/id' >"$dir/Dockerfile"
    podman build -q --build-arg WORD=said -t built "$dir"
    want "said 1000" sh -c "podman run --rm built | xargs"
    printf 'FROM localhost/busybox\nRUN exit 9\n' >"$dir/Dockerfile"
    ends '9|125' 'exit status 9' podman build "$dir"
    podman rmi -f built
}
row_buildah() {
    local working
    working=$(buildah from localhost/busybox)
    buildah run --runtime "$runtime" "$working" sh -c 'echo made >/made'
    want made buildah run --runtime "$runtime" --user app "$working" cat /made
    buildah config --cmd 'cat /made' "$working"
    buildah commit -q "$working" by-buildah
    buildah rm "$working"
    want made run by-buildah
    podman rmi -f by-buildah
}

# --- as an ordinary user: without a systemd that delegates cgroups, the user has no cgroup and no limits

# user COMMAND...: runs it as the user 7000, who has 65536 subordinate ids, a home and a runtime directory.
user() {
    (cd "$work/home" && setpriv --reuid 7000 --regid 7000 --clear-groups -- env -i PATH="$PATH" HOME="$work/home" \
        USER=rootless XDG_RUNTIME_DIR="$work/home/run" TERM=xterm "$@" 2>&1) || return
}
row_rootless_run() {
    want "Hello from a static program" user podman run --rm --network none localhost/hello
    want 0 user podman run --rm --network none busybox id -u
    has '^ *0 +7000 +1$' user podman run --rm --network none busybox cat /proc/self/uid_map
    ends 7 '' user podman run --rm --network none busybox sh -c 'exit 7'
    want "1000 1000" user podman run --rm --network none --user app busybox sh -c 'echo $(id -u) $(id -g)'
}
row_rootless_life() {
    user podman run -d --name it --network none busybox sleep 1000
    want ok user podman exec it echo ok
    has 'sleep 1000' user podman top it
    user podman stop -t 1 it
    want 137 user podman inspect -f '{{.State.ExitCode}}' it
    user podman rm it
}
row_rootless_network() {
    has 'tap0' user podman run --rm busybox ls /sys/class/net
    user podman run -d --name web -p 127.0.0.1:8083:80 busybox httpd -f -p 80 -h /etc
    eventually wget -q -O "$work/page" http://127.0.0.1:8083/group
    user podman rm -f -t 0 web
}
row_rootless_build() {
    mkdir -p "$work/home/build"
    printf 'FROM localhost/busybox\nRUN echo made >/made\nCMD cat /made\n' >"$work/home/build/Dockerfile"
    user podman build -q -t built "$work/home/build"
    want made user podman run --rm --network none built
}
row_rootless_volume_and_keep_id() {
    want 7000 user podman run --rm --network none --userns keep-id busybox id -u
    user podman run --rm --network none -v data:/data busybox sh -c 'echo kept >/data/file'
    want kept user podman run --rm --network none -v data:/data busybox cat /data/file
}
row_rootless_pod() {
    user podman pod create --name both
    user podman run -d --pod both --name server busybox httpd -f -p 80 -h /etc
    (eventually user podman run --rm --pod both busybox wget -q -O /dev/null http://127.0.0.1/group)
    user podman pod rm -f -t 0 both
}

# --- many containers, and what they leave behind

row_twenty_side_by_side_and_nothing_left() {
    local i pids=()
    for i in {1..20}; do
        podman run --rm -m 32m busybox sh -c "sleep 1; exit $i" &
        pids+=($!)
    done
    for i in {1..20}; do
        local status=0
        wait "${pids[i - 1]}" || status=$?
        [ "$status" = "$i" ] || fail "container $i ended with $status"
    done
    eventually is "" podman ps -aq
    eventually fails pgrep conmon
    want "" sh -c "find /run/$name -mindepth 1 -maxdepth 1 2>/dev/null || true"
    want "" sh -c "find /sys/fs/cgroup -type d -path '*$parent/*' -not -path '*/below' -not -path '*/conmon*'"
}

# This row is before the rows whose errors belong in the log.
row_log_of_the_engine_holds_no_error_of_the_runtime() {
    # podman has no daemon: most errors are in the output of its caller. Not the runtime's errors: buildah asks for ambient
    # capabilities without inheritable ones (runc since 1.2 warns in the same words); and errors that rows provoke.
    grep -hE 'level=(warning|error|fatal)|panic|^Error' "$work/syslog" "$work/said" |
        grep -vE "can't raise ambient capability|StopSignal SIGTERM failed to stop|cannot remove container .* as it is running" >"$work/errors" || true
    want "" cat "$work/errors"
}

# --- errors that a user meets

row_missing_command_is_127() {
    ends 127 'executable file `nosuch` not found|executable file not found in \$PATH' podman run --rm busybox nosuch
    ends 127 'no such file or directory' podman run --rm busybox /no/such
}
row_command_without_permission_is_126() { ends 126 '[Pp]ermission denied' podman run --rm busybox /etc/passwd; }
row_exec_of_a_missing_command_is_127() {
    start it
    ends 127 'executable file' podman exec it nosuch
    ends 126 'permission denied' podman exec it /etc/passwd
}
row_exec_in_a_missing_directory() {
    start it
    ends '12[67]' 'no such file or directory' podman exec -w /no/such it true
}
row_bad_sysctl_is_refused() { ends '12[567]' 'kernel.pid_max' podman run --rm --sysctl kernel.pid_max=99999 busybox true; }
row_error_of_the_runtime_is_one_clear_line() {
    ends '12[567]' '/etc' podman run --rm -v "$work/busybox.tar:/etc" busybox true
    # podman reads the runtime's log as JSON. It must not print the log itself.
    hasnt 'level=error msg=.*level' sh -c "podman run --rm busybox nosuch || true"
}

if [ "${1:-}" = row ]; then
    # conmon may leave its file `oom` in this directory.
    cd "$work"
    "$2"
    exit 0
fi

house
# podman has no daemon: its messages, and those of the `podman container cleanup` that conmon calls, go to the host's log.
mkdir "$work/bin"
printf '%s\n' '#!/bin/sh' "exec $(command -v podman)"' --syslog "$@"' >"$work/bin/podman"
chmod +x "$work/bin/podman"
PATH=$work/bin:$PATH
python3 - /run/log "$work/syslog" <<'PYTHON' &
import os, socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
with open(sys.argv[2], "wb", buffering=0) as file:
    while True:
        file.write(log.recv(1 << 16).rstrip(b"\n") + b"\n")
PYTHON
eventually test -S /run/log
mkdir -p "$work/home/run" "$work/run"
chmod 711 "$work"
# conf FILE DIRECTORY RUNTIME...: the containers.conf of a user.
conf() {
    cat >"$1" <<C
[containers]
${4:-}
[network]
network_backend = "netavark"
network_config_dir = "$2/networks"
default_subnet = "10.213.0.0/25"
default_subnet_pools = [{"base" = "10.213.0.128/25", "size" = 28}]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "$name"
# The runtime's log is JSON, and podman shows its message.
runtime_supports_json = ["$name"]
[engine.runtimes]
$name = ["$3"]
C
}
# In a file and not in the environment: conmon calls `podman container cleanup` without it when a container ends.
cp -a /etc/containers "$work/containers"
mount --bind "$work/containers" /etc/containers
conf /etc/containers/containers.conf "$work/podman" "$runtime"
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/storage"\nrunroot = "%s/run"\n' "$work" "$work" >/etc/containers/storage.conf
make_root "$work/busybox"
tar -C "$work/busybox" -c . >"$work/busybox.tar"
podman import -q --change 'CMD ["sh"]' --change 'ENV PATH=/bin' "$work/busybox.tar" localhost/busybox >/dev/null
make_hello "$work/hello"
podman build -q -t localhost/hello-world "$work/hello" >/dev/null

# The ordinary user, who exists only in this mount namespace.
sed '$arootless:x:7000:7000::'"$work"'/home:/bin/sh' /etc/passwd >"$work/passwd" && mount --bind "$work/passwd" /etc/passwd
sed '$arootless:x:7000:' /etc/group >"$work/group" && mount --bind "$work/group" /etc/group
echo rootless:700000:65536 >"$work/ids" && mount --bind "$work/ids" /etc/subuid && mount --bind "$work/ids" /etc/subgid
mkdir -p "$work/home/.config/containers"
conf "$work/home/.config/containers/containers.conf" "$work/home/podman" "$runtime"
printf '[storage]\ndriver = "vfs"\n' >"$work/home/.config/containers/storage.conf"
chmod 644 "$work/busybox.tar"
cp -r "$work/hello" "$work/home/hello"
chown -R 7000:7000 "$work/home"
# On most hosts all users may open it.
mknod -m 666 "$work/tun" c 10 200 && mount --bind "$work/tun" /dev/net/tun
user podman import -q --change 'CMD ["sh"]' --change 'ENV PATH=/bin' "$work/busybox.tar" localhost/busybox && user podman build -q -t localhost/hello "$work/home/hello" || echo "rootless: no image"

clean_up() {
    podman pod rm -f -t 0 -a
    podman rm -f -t 0 -a
    podman volume prune -f
    podman network prune -f
}
status=0
rows clean_up || status=$?
[ -z "${KEEP_LOG:-}" ] || cat "$work/syslog" "$work/said" >"$KEEP_LOG"
record "podman $(dpkg-query -W -f '${Version}' podman), conmon $(dpkg-query -W -f '${Version}' conmon), buildah $(dpkg-query -W -f '${Version}' buildah)"
exit $status
