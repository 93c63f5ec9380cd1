#!/bin/bash
# Docker (dockerd of docker.io, its own containerd) with the runtime that daemon.json names.
#
#   integration/engines/docker.sh           all rows
#   ROWS=build integration/engines/docker.sh    those whose name matches
#   RUNTIME=/usr/sbin/runc integration/engines/docker.sh    another runtime, for comparison
#
# It needs root and Debian, and installs missing packages. It prints one line for each row, then "N passed, N failed". It ends
# with 1 if a row failed that is not in known-failures. RECORD=1 writes the result to integration/README.md.
set -eu
# shellcheck source=integration/engines/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=integration/engines/common-rows.sh
. "$engines/common-rows.sh"

if [ "${1:-}" != row ] && outside; then
    "$project/tools/need" dockerd:docker.io containerd:containerd docker-registry:docker-registry docker-init:tini docker-compose:docker-compose \
        iptables:iptables busybox:busybox-static cc:gcc script:bsdutils pgrep:procps ip:iproute2
    private "$@"
fi

export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/config DOCKER_BUILDKIT=0
dir=$work/$$

# daemon NAME OPTION...: starts a dockerd with directories of its own. Its socket is $work/NAME.sock.
daemon() {
    local called=$1 config='{}' alone=()
    shift
    # Only the first daemon has bridges. The others get a network of their own, or they would remove these bridges.
    [ "$called" = docker ] || alone=(unshare --net)
    # dockerd knows runc without being told, and refuses another runtime of that name.
    [ "$name" = runc ] || config='{"runtimes": {"'$name'": {"path": "'$runtime'"}}, "default-runtime": "'$name'"}'
    echo "$config" >"$work/$called.json"
    "${alone[@]}" dockerd --config-file "$work/$called.json" --host "unix://$work/$called.sock" --data-root "$work/$called/data" --exec-root "$work/$called/exec" \
        --pidfile "$work/$called.pid" --cgroup-parent "$parent" "$@" >>"$work/$called.log" 2>&1 &
    (eventually docker --host "unix://$work/$called.sock" version) || fail "dockerd: $(tail -n 5 "$work/$called.log")"
}

# state: the runtime's state directory for Docker's containers.
state() { find /run/docker /var/run/docker "$work/docker/exec" -maxdepth 2 -type d -path "*/runtime-*/moby" 2>/dev/null | head -n 1; }

stop_daemon() {
    local pid
    pid=$(cat "$work/$1.pid")
    kill "$pid"
    eventually stopped "$pid"
}

# --- what Docker says about the runtime

row_info_names_the_runtime() {
    local commit
    commit=$("$runtime" --version | awk '$1 == "commit:" { print $2; exit }')
    has "Runtimes:.* $name( |\$)" docker info
    want "$name" docker info -f '{{.DefaultRuntime}}'
    has "runc version: $(cut -c 1-12 <<<"${commit//+/.}")" docker info
}
row_version_has_that_of_the_runtime() {
    want "$("$runtime" --version | awk 'NR == 1 { print $3 }')" docker version -f "{{range .Server.Components}}{{if eq .Name \"$name\"}}{{.Version}}{{end}}{{end}}"
}
row_inspect_names_the_runtime() {
    start it
    want "$name" inspect it .HostConfig.Runtime
    # The runtime itself knows the container: this does not rely on Docker's answer.
    has '"status": "running"' "$runtime" --root "$(state)" state "$(inspect it .Id)"
}

# --- run

row_run_by_the_name_of_the_runtime() { want yes run --runtime "$name" busybox echo yes; }
row_run_d_prints_the_id_and_ps_shows_it() {
    local id
    id=$(docker run -d --name shown busybox sleep 1000)
    want "$id" docker ps -q --no-trunc
    has 'shown' docker ps
    docker kill shown
    eventually is "" docker ps -q
    has 'Exited \(137\).*shown' docker ps -a
    want "$id" docker container ls -aq --no-trunc
}
row_publish_is_reached_on_loopback() {
    start web -p 127.0.0.1:8080:80 -- httpd -f -p 80 -h /etc
    eventually wget -q -O "$work/page" http://127.0.0.1:8080/group
    grep -q 'root:x:0:' "$work/page"
}
row_logs() {
    start talks -- sh -c 'echo one; echo two >&2; echo three; sleep 1000'
    eventually is "one three" sh -c 'docker logs talks 2>/dev/null | xargs'
    want two sh -c 'docker logs talks 2>&1 >/dev/null'
    has '^three$' docker logs --tail 2 talks
    has '^[0-9]{4}-[0-9-]+T.*Z one' docker logs -t talks
    docker kill talks
    want "one three" timeout 10 sh -c 'docker logs -f talks 2>/dev/null | xargs'
}
row_attach_and_detach() {
    start echoes -it -- cat
    has 'read escape sequence' sh -c "(sleep 1; echo hello; sleep 1; printf '\\020\\021'; sleep 1) | script -qec 'docker attach echoes' /dev/null"
    has '^hello' docker logs echoes
    want true inspect echoes .State.Running
}
row_attach_gives_the_exit_status() {
    start ends -i -- sh -c 'read -r x; echo "got $x"; sleep 1; exit 9'
    ends 9 'got word' sh -c '(sleep 1; echo word; sleep 2) | docker attach ends'
}
row_sigint_on_the_client_ends_the_container() {
    ends 5 interrupted timeout --foreground --preserve-status -s INT 2 docker run --rm busybox sh -c 'trap "echo interrupted; exit 5" INT; while :; do sleep 0.1; done'
}

# --- exec

row_exec_it_gives_a_terminal() {
    start it
    has '^/dev/pts/[0-9]' terminal docker exec -it it sh -c 'tty; sleep 0.5'
    has '^sum 42$' terminal docker exec -it it sh <<<'echo sum $((6*7)); exit'
}
row_exec_with_user_env_and_workdir() {
    start it
    want "1000 1000 set /tmp" docker exec --user app --env VAR=set --workdir /tmp it sh -c 'echo $(id -u) $(id -g) $VAR $PWD'
    want "5 6" docker exec --user 5:6 it sh -c 'echo $(id -u) $(id -g)'
    has 'CapEff:.*0000000000000000' docker exec --user app it cat /proc/self/status
}
row_exec_joins_the_namespaces_and_cgroup() {
    start it
    # shellcheck disable=SC2016 # for the container's shell
    want same docker exec it sh -c 'for n in ipc mnt net pid uts; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done;
        cmp /proc/1/cgroup /proc/self/cgroup && echo same'
}

# --- top, stats, events

row_top() {
    start it
    has 'sleep 1000' docker top it
    has '^COMMAND|sleep' docker top it -o pid,comm
}
row_stats_are_sane() {
    local used
    start it -m 64m -- sh -c 'sleep 1000 & while :; do :; done'
    sleep 1
    read -r cpu memory limit pids < <(docker stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' it | sed 's,/,,')
    echo "cpu $cpu memory $memory limit $limit pids $pids"
    [ "$limit" = 64MiB ] && [ "$pids" = 2 ]
    awk -v c="${cpu%\%}" 'BEGIN { exit !(c > 10 && c < 210) }'
    used=${memory%[KM]iB}
    awk -v m="$used" 'BEGIN { exit !(m > 0 && m < 1024) }'
}
row_events() {
    local since
    since=$(date +%s)
    run --name seen busybox true
    want "create start die" sh -c "docker events --since $since --until $(($(date +%s) + 1)) --filter container=seen --format '{{.Action}}' | grep -xE 'create|start|die' | xargs"
}

# --- the end of a container

row_stop_sends_term() {
    start it -- sh -c 'trap "echo got TERM; exit 7" TERM; echo ready; while :; do sleep 0.1; done'
    eventually is ready docker logs it
    docker stop it
    want 7 inspect it .State.ExitCode
    has 'got TERM' docker logs it
}
row_stop_signal() {
    start it --stop-signal USR1 -- sh -c 'trap "exit 8" USR1; echo ready; while :; do sleep 0.1; done'
    eventually is ready docker logs it
    docker stop it
    want 8 inspect it .State.ExitCode
}
row_kill() {
    start it -- sh -c 'trap "echo got HUP" HUP; echo ready; while :; do sleep 0.1; done'
    eventually is ready docker logs it
    docker kill -s HUP it
    eventually is "ready got HUP" sh -c 'docker logs it | xargs'
    docker kill it
    eventually is 137 inspect it .State.ExitCode
}
row_restart() {
    start it -- sh -c 'echo x >>/tmp/starts; sleep 1000'
    docker restart -t 0 it
    eventually is 2 docker exec it sh -c 'wc -l </tmp/starts'
    docker stop -t 0 it && docker start it
    eventually is 3 docker exec it sh -c 'wc -l </tmp/starts'
}
row_pause_and_unpause() {
    start it -- sh -c 'while :; do echo x >>/tmp/ticks; sleep 0.05; done'
    docker pause it
    want paused inspect it .State.Status
    ends 1 'is paused' docker exec it true
    local file
    file=/proc/$(inspect it .State.Pid)/root/tmp/ticks
    local before
    before=$(wc -l <"$file")
    sleep 0.5
    [ "$before" = "$(wc -l <"$file")" ]
    docker unpause it
    want 0 docker exec it sh -c 'echo 0'
    eventually sh -c "[ \$(wc -l <$file) -gt $before ]"
}
row_rename() {
    start old
    docker rename old new
    want ok docker exec new echo ok
    fails docker inspect old
}
row_wait_gives_the_exit_status() {
    start first -- sh -c 'sleep 1; exit 4'
    want 4 docker wait first
    start second
    (sleep 1; docker kill second) >/dev/null &
    want 137 docker wait second
}
row_rm() {
    start it
    fails docker rm it
    docker rm -f it
    want "" docker ps -aq
}
row_rm_f_of_a_paused_container() {
    start it
    docker pause it
    docker rm -f it
    want "" docker ps -aq
}

# --- files

row_cp() {
    start it
    echo inward >"$work/file"
    docker cp "$work/file" it:/tmp/file
    want inward docker exec it cat /tmp/file
    docker exec it sh -c 'echo outward >/tmp/file'
    docker cp it:/tmp/file "$work/file"
    want outward cat "$work/file"
}
row_diff_commit_and_export() {
    docker run --name it busybox sh -c 'echo kept >/tmp/kept; rm /etc/group'
    want "A /tmp/kept" sh -c 'docker diff it | grep kept'
    want "D /etc/group" sh -c 'docker diff it | grep ^D'
    docker commit -c 'CMD cat /tmp/kept' it committed
    want kept run committed
    has '^tmp/kept$' sh -c 'docker export it | tar -t'
    docker rmi -f committed
}
row_volumes() {
    docker volume create data
    want data docker volume ls -q -f name=data
    want local docker volume inspect -f '{{.Driver}}' data
    run -v data:/data busybox sh -c 'echo kept >/data/file'
    want kept run -v data:/data busybox cat /data/file
    run -v data:/data:ro busybox sh -c '! echo more >/data/file'
    start holder -v /made
    docker exec holder sh -c 'echo shared >/made/file'
    want shared run --volumes-from holder busybox cat /made/file
}
row_volume_is_filled_from_the_image() { want "root:x:0:" run -v fresh:/etc busybox head -n 1 /etc/group; }
row_bind_mounts() {
    mkdir -p "$dir" && echo host >"$dir/file"
    want host run -v "$dir:/mnt" busybox cat /mnt/file
    run -v "$dir:/mnt" busybox sh -c 'echo container >/mnt/file'
    want container cat "$dir/file"
    ends 1 'Read-only file system' run -v "$dir:/mnt:ro" busybox touch /mnt/file
    want container run --mount "type=bind,source=$dir/file,target=/etc/one,readonly" busybox cat /etc/one
}
row_bind_mounts_propagate_when_asked() {
    mkdir -p "$dir/sub"
    start it -v "$dir:/mnt:rslave"
    start private -v "$dir:/mnt"
    mount -t tmpfs tmpfs "$dir/sub" && touch "$dir/sub/late"
    want late docker exec it ls /mnt/sub
    want "" docker exec private ls /mnt/sub
    umount "$dir/sub"
}
row_bind_of_the_host_root() { want "$(cat /etc/debian_version)" run -v /:/host:ro busybox chroot /host cat /etc/debian_version; }
row_bind_of_the_docker_socket() { want "$DOCKER_HOST" run -v "$work/docker.sock:/var/run/docker.sock" busybox sh -c "[ -S /var/run/docker.sock ] && echo $DOCKER_HOST"; }
row_tmpfs() {
    has '^tmpfs /scratch tmpfs rw,.*noexec.*size=1024k' run --tmpfs /scratch:size=1m busybox cat /proc/mounts
    ends 1 'No space left' run --tmpfs /scratch:size=1m busybox dd if=/dev/zero of=/scratch/x bs=1M count=2
    has '^tmpfs /scratch tmpfs .*mode=1770' run --mount type=tmpfs,dst=/scratch,tmpfs-mode=1770 busybox cat /proc/mounts
}
row_read_only() {
    ends 1 'Read-only file system' run --read-only busybox touch /file
    want ok run --read-only --tmpfs /tmp busybox sh -c 'touch /tmp/file && echo ok'
}
row_dev_is_as_it_should_be() {
    has '^1:3 666 /dev/null 1:5 666 /dev/zero' run busybox sh -c 'stat -c "%t:%T %a %n" /dev/null /dev/zero | xargs'
    want "/proc/self/fd pts/ptmx" run busybox sh -c 'echo $(readlink /dev/fd) $(readlink /dev/ptmx)'
    ends 1 'Operation not permitted' run --cap-add MKNOD busybox sh -c 'mknod /tmp/fuse c 10 229 && : </tmp/fuse'
}
row_proc_is_masked() {
    want 0 run busybox sh -c 'wc -c </proc/keys'
    ends 1 'Read-only file system' run busybox sh -c 'echo 1 >/proc/sys/kernel/domainname'
    want "" run busybox ls /sys/firmware
}

# --- networks

row_network_none() { want lo run --network none busybox ls /sys/class/net; }
row_network_host() { want "$(readlink /proc/self/ns/net)" run --network host busybox readlink /proc/self/ns/net; }
row_network_of_another_container() {
    start it
    want "$(docker exec it readlink /proc/self/ns/net)" run --network container:it busybox readlink /proc/self/ns/net
}
row_network_made_by_the_user() {
    docker network create pair
    start server --network pair -- httpd -f -p 80 -h /etc
    eventually run --network pair busybox wget -q -O /dev/null http://server/group
    start other
    fails docker exec other nslookup server
    fails docker exec other nc -w 2 "$(inspect server '.NetworkSettings.Networks.pair.IPAddress')" 80
    docker network connect pair other
    has 'root:x:0' docker exec other wget -q -O - http://server/group
    docker network disconnect pair other
    docker rm -f server other
    docker network rm pair
}
row_hostname_hosts_and_dns() {
    want named run --hostname named busybox hostname
    want dom run --domainname dom busybox cat /proc/sys/kernel/domainname
    has '192.0.2.9[[:space:]]+far' run --add-host far:192.0.2.9 busybox cat /etc/hosts
    has 'nameserver 192.0.2.1' run --dns 192.0.2.1 busybox cat /etc/resolv.conf
}

# --- limits

row_memory_is_enforced_and_oom_is_reported() {
    want 33554432 run -m 32m busybox cat "$(limit memory/memory.limit_in_bytes memory.max)"
    ends 137 '' docker run --name it -m 32m busybox dd if=/dev/zero of=/dev/null bs=128M count=1
    eventually is true inspect it .State.OOMKilled
}
row_memory_of_six_megabytes_is_enough() { want ok run -m 6m busybox echo ok; }
row_cpus_are_enforced() {
    start it --cpus 0.2 -- sh -c 'while :; do :; done'
    sleep 2
    has '^nr_throttled [1-9]' docker exec it cat "$(limit cpu/cpu.stat cpu.stat)"
}
row_cpuset() { has 'Cpus_allowed_list:[[:space:]]1$' run --cpuset-cpus 1 busybox cat /proc/self/status; }
row_cpu_shares() {
    local shares
    shares=$(run --cpu-shares 512 busybox cat "$(limit cpu/cpu.shares cpu.weight)")
    [ "$shares" = 512 ] || [ "$shares" = 20 ] || [ "$shares" = 59 ] || fail "shares $shares"
}
row_pids_limit_is_enforced() {
    ends 2 "can't fork" run --pids-limit 5 busybox sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait'
}
row_update() {
    start it -m 64m --cpus 1
    docker update -m 128m --memory-swap 256m --cpus 0.5 --pids-limit 77 it
    want 134217728 docker exec it cat "$(limit memory/memory.limit_in_bytes memory.max)"
    has '^(50000|50000 100000)$' docker exec it cat "$(limit cpu/cpu.cfs_quota_us cpu.max)"
    want 77 docker exec it cat "$(limit pids/pids.max pids.max)"
}
row_ulimit() { want "100 200" run --ulimit nofile=100:200 busybox sh -c 'echo $(ulimit -Sn) $(ulimit -Hn)'; }
row_cgroup_parent() { has ":$parent/below/[0-9a-f]{64}" run --cgroup-parent "$parent/below" --cgroupns host busybox cat /proc/self/cgroup; }
row_cgroup_namespace() {
    has ':/$' run --cgroupns private busybox grep -E 'pids|^0:' /proc/self/cgroup
    has "pids|^0:.*:$parent/[0-9a-f]{64}" run --cgroupns host busybox cat /proc/self/cgroup
}
row_oom_score_adj() { want 500 run --oom-score-adj 500 busybox cat /proc/self/oom_score_adj; }

# --- rights

row_user_and_groups() {
    want "1000 1000" run --user app busybox sh -c 'echo $(id -u) $(id -g)'
    want "1234 4321" run --user 1234:4321 busybox sh -c 'echo $(id -u) $(id -g)'
    want "1000 50 77" run --user app --group-add 77 busybox sh -c 'id -G'
    want "/home/app" run --user app busybox sh -c 'echo $HOME'
}
row_user_may_write_to_the_inherited_output() { want ok run --user app busybox sh -c 'echo ok >/dev/stdout'; }
row_capabilities() {
    want 00000000a80425fb run busybox awk '$1 == "CapEff:" { print $2 }' /proc/self/status
    want 0000000000000000 run --cap-drop ALL busybox awk '$1 == "CapBnd:" { print $2 }' /proc/self/status
    want 0000000000000400 run --cap-drop ALL --cap-add NET_BIND_SERVICE busybox awk '$1 == "CapEff:" { print $2 }' /proc/self/status
    ends 1 'Operation not permitted' run --cap-drop CHOWN busybox chown 5 /tmp
    want ok run --cap-add NET_ADMIN busybox sh -c 'ip link add dummy0 type dummy 2>/dev/null || ip link set lo mtu 1400; echo ok'
}
row_seccomp_default() {
    has '^Seccomp:[[:space:]]2' run busybox cat /proc/self/status
    ends 1 'Operation not permitted' run --user app busybox unshare -U true
}
row_seccomp_own_profile() {
    echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}' >"$work/profile.json"
    ends 1 'Operation not permitted' run --security-opt "seccomp=$work/profile.json" busybox chmod 700 /tmp
}
row_seccomp_unconfined() {
    has '^Seccomp:[[:space:]]0' run --security-opt seccomp=unconfined busybox cat /proc/self/status
    want ok run --user app --security-opt seccomp=unconfined busybox unshare -U echo ok
}
row_no_new_privileges() {
    has '^NoNewPrivs:[[:space:]]1' run --security-opt no-new-privileges busybox cat /proc/self/status
    has '^NoNewPrivs:[[:space:]]0' run busybox cat /proc/self/status
}
row_device() {
    want 4 run --device /dev/zero:/dev/mine busybox sh -c 'head -c 4 /dev/mine | wc -c'
    ends 1 'Operation not permitted' run --device /dev/fuse:/dev/mine:r busybox sh -c ': >/dev/mine'
    want ok run --device-cgroup-rule 'c 10:229 r' --cap-add MKNOD busybox sh -c 'mknod /tmp/fuse c 10 229 && : </tmp/fuse && echo ok'
}
row_sysctl() {
    want 77 run --sysctl net.core.somaxconn=77 busybox cat /proc/sys/net/core/somaxconn
    want 1234567 run --sysctl kernel.shmmax=1234567 busybox cat /proc/sys/kernel/shmmax
}
row_init_is_pid_1_and_reaps() {
    has '^ *1 root .*init' run --init busybox ps
    # shellcheck disable=SC2016 # for the container's shell
    want 0 run --init busybox sh -c '(sh -c "sleep 0.1 & exit 0"); sleep 0.5; grep -l "^State:.Z" /proc/[0-9]*/status | wc -l'
}

# --- namespaces of others

row_pid_host() { want "$(readlink /proc/self/ns/pid)" run --pid host busybox readlink /proc/self/ns/pid; }
row_pid_host_is_killed_whole() {
    start it --pid host -- sh -c 'sleep 4242 & sleep 4242'
    eventually is 2 pgrep -fc 'sleep 4242'
    docker rm -f it
    eventually fails pgrep -f 'sleep 4242'
}
row_ipc() {
    want "$(readlink /proc/self/ns/ipc)" run --ipc host busybox readlink /proc/self/ns/ipc
    start it --ipc shareable
    docker exec it touch /dev/shm/shared
    want shared run --ipc container:it busybox ls /dev/shm
}
row_uts_host() { want "$(hostname)" run --uts host busybox hostname; }
row_userns_remap() {
    # The users and ids of this mount namespace, not those of the host.
    chmod o+x "$work"
    printf 'remap:700000:65536\n' >"$work/ids"
    mount --bind "$work/ids" /etc/subuid && mount --bind "$work/ids" /etc/subgid
    sed '$aremap:x:7000:7000::/:/bin/false' /etc/passwd >"$work/passwd" && mount --bind "$work/passwd" /etc/passwd
    sed '$aremap:x:7000:' /etc/group >"$work/group" && mount --bind "$work/group" /etc/group
    daemon remap --userns-remap remap:remap --bridge none
    DOCKER_HOST=unix://$work/remap.sock
    tar -C "$work/busybox" -c . | docker import - busybox
    has '^ *0 +700000 +65536' run --network none busybox cat /proc/self/uid_map
    want 0 run --network none busybox id -u
    start it --network none
    has '^ *0 +700000 +65536' docker exec it cat /proc/self/uid_map
    want 700000 stat -c %u "/proc/$(inspect it .State.Pid)"
    want ok docker exec -u app it sh -c 'touch /tmp/file && echo ok'
    docker rm -f it
    stop_daemon remap
    umount /etc/subuid /etc/subgid /etc/passwd /etc/group
}

# --- health

row_healthcheck() {
    start it --health-cmd 'test -e /tmp/well' --health-interval 0.5s --health-retries 2
    eventually is unhealthy inspect it .State.Health.Status
    docker exec it touch /tmp/well
    eventually is healthy inspect it .State.Health.Status
}

# --- images

row_build() {
    mkdir -p "$dir"
    cat >"$dir/Dockerfile" <<'D'
FROM busybox
ARG WORD=none
ENV HELD=$WORD
WORKDIR /work
RUN echo "$WORD" >word && id -u >id
USER app
RUN id -u >/tmp/id
CMD cat /work/word /work/id /tmp/id
D
    docker build -q --build-arg WORD=said -t built "$dir"
    want "said 0 1000" sh -c "docker run --rm built | xargs"
    printf 'FROM busybox\nRUN exit 9\n' >"$dir/Dockerfile"
    ends 9 'returned a non-zero code: 9' docker build "$dir"
    docker rmi -f built
}
row_buildkit() {
    mkdir -p "$dir"
    printf 'FROM busybox AS a\nRUN echo made >/made && sleep 0.2\nFROM busybox\nCOPY --from=a /made /made\nRUN cat /made >/again\nCMD cat /again\n' >"$dir/Dockerfile"
    : >"$work/called"
    DOCKER_BUILDKIT=1 docker build --progress plain -t kit "$dir"
    want made run kit
    # BuildKit calls `runc` by its name; in the daemon's PATH that is our runtime.
    [ "$(grep -c ' run ' "$work/called")" = 2 ] || fail "BuildKit did not call the runtime twice: $(cat "$work/called")"
    docker rmi -f kit
}
row_push_to_and_pull_from_a_registry() {
    printf '%s\n' 'version: 0.1' 'storage: {filesystem: {rootdirectory: '"$work/registry"'}}' 'http: {addr: "127.0.0.1:5000"}' >"$work/registry.yml"
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    # shellcheck disable=SC2064 # the pid of now
    trap "kill $!" EXIT
    docker tag hello-world 127.0.0.1:5000/hello:1
    eventually docker push -q 127.0.0.1:5000/hello:1
    docker rmi 127.0.0.1:5000/hello:1
    docker pull -q 127.0.0.1:5000/hello:1
    want "Hello from a static program" run 127.0.0.1:5000/hello:1
    docker rmi 127.0.0.1:5000/hello:1
}
row_images() {
    docker tag hello-world again:1
    has '^again +1 ' docker images
    want "$(docker images -q hello-world)" docker images -q again
    docker rmi again:1
    hasnt '^again' docker images
}
row_save_and_load() {
    docker tag hello-world saved
    docker save -o "$work/saved.tar" saved
    docker rmi saved
    docker load -q -i "$work/saved.tar"
    want "Hello from a static program" run saved
    docker rmi saved
}
row_compose_up_and_down() {
    mkdir -p "$dir"
    cat >"$dir/docker-compose.yml" <<'D'
version: "3"
services:
  server:
    image: busybox
    command: sh -c 'echo served >/data/page; exec httpd -f -p 80 -h /data'
    volumes: ["pages:/data"]
    networks: [inner]
  client:
    image: busybox
    command: sh -c 'until wget -q -O - http://server/page; do sleep 0.1; done; sleep 1000'
    depends_on: [server]
    networks: [inner]
volumes: {pages: {}}
networks: {inner: {}}
D
    cd "$dir"
    docker-compose -p pair up -d
    eventually is served docker logs pair_client_1
    has 'server_1.*Up' docker-compose -p pair ps
    docker-compose -p pair down -v -t 1
    want "" docker ps -aq
    want "" docker volume ls -q -f name=pair
    want "" docker network ls -q -f name=pair
}

# --- many containers, and what they leave behind

row_twenty_side_by_side_and_nothing_left() {
    local i pids=()
    for i in {1..20}; do
        docker run --rm -m 32m busybox sh -c "sleep 1; exit $i" &
        pids+=($!)
    done
    for i in {1..20}; do
        local status=0
        wait "${pids[i - 1]}" || status=$?
        [ "$status" = "$i" ] || fail "container $i ended with $status"
    done
    nothing_left
}
no_cgroups() {
    local left
    left=$(find /sys/fs/cgroup -mindepth 3 -path "*$parent/*" -type d -not -name below -not -name buildkit)
    # Two cgroups belong to no container: that of --cgroup-parent, and the one in which BuildKit makes its containers' cgroups.
    [ -z "$left" ] || fail "cgroups: $left"
}
nothing_left() {
    eventually is "" docker ps -aq
    eventually fails pgrep -f containerd-shim
    eventually no_cgroups
    want "" sh -c "grep -E '$work/docker/data/overlay2/|/containers/.*/shm|netns/[0-9a-f]' /proc/self/mountinfo | grep -v '/netns/default'"
    want "" find "$(state)" -mindepth 1 -type d
    eventually is "" sh -c "ip -o link show type veth"
}
row_live_restore() {
    daemon live --live-restore --bridge none
    DOCKER_HOST=unix://$work/live.sock
    tar -C "$work/busybox" -c . | docker import - busybox
    start it --network none
    kill -KILL "$(cat "$work/live.pid")"
    sleep 0.5
    rm -f "$work/live.pid"
    daemon live --live-restore --bridge none
    want true inspect it .State.Running
    want ok docker exec it echo ok
    docker rm -f it
    stop_daemon live
}

# This row is before the rows whose errors belong in the log.
row_log_of_the_engine_holds_no_error_of_the_runtime() {
    # Not the runtime's errors: those that a row provokes; and the shim's "cleanup warnings" (exit status 255), which appear with
    # each runtime when the shim's signal loop reaps the `delete` for which it waits.
    grep -E 'level=(error|fatal)|panic' "$work/docker.log" | grep -vE 'msg="Handler for |Error setting up exec command|resuming exited container from paused state|attach: stdout: write unix|level=warning msg="cleanup warnings' >"$work/errors" || true
    want "" cat "$work/errors"
}

# These rows are after the log's row: where they fail, the engine logs an error.
row_exec_privileged() {
    start it
    # All capabilities that this host can give.
    want "$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status)" docker exec --privileged it awk '$1 == "CapEff:" { print $2 }' /proc/self/status
}
row_privileged() {
    has '^Seccomp:[[:space:]]0' run --privileged busybox cat /proc/self/status
    want ok run --privileged busybox sh -c 'mkdir /m && mount -t tmpfs t /m && [ -b /dev/vda ] && echo 1 >/proc/sys/net/ipv4/ip_forward && echo ok'
}

# --- errors that a user meets; if versions of Docker differ in the status, the row accepts each of them

row_missing_command_is_127() {
    ends 127 'nosuch": executable file not found in \$PATH' docker run --rm busybox nosuch
    ends 127 'no such file or directory' docker run --rm busybox /no/such
}
row_command_without_permission_is_126() { ends 126 'permission denied' docker run --rm busybox /etc/passwd; }
row_command_that_is_a_directory() { ends '12[56]' 'is a directory|permission denied' docker run --rm busybox /etc; }
row_exec_of_a_missing_command() {
    start it
    ends '12[67]' 'executable file not found in \$PATH' docker exec it nosuch
    ends 126 'permission denied' docker exec it /etc/passwd
}
row_exec_in_a_missing_directory() {
    start it
    ends '12[67]' 'chdir to cwd \("/no/such"\) set in config.json failed: (chdir.*: )?no such file or directory' docker exec -w /no/such it true
}
row_file_mounted_on_a_directory() {
    mkdir -p "$dir" && echo x >"$dir/file"
    ends '12[57]' 'Are you trying to mount a directory onto a file' docker run --rm -v "$dir/file:/etc" busybox true
}
row_bad_sysctl_is_refused() { ends 125 'kernel.pid_max|sysctl' docker run --rm --sysctl kernel.pid_max=99999 busybox true; }
row_memory_below_the_minimum_is_refused() { ends 125 'Minimum memory limit' docker run --rm -m 1m busybox true; }
row_a_failed_start_leaves_nothing() {
    docker run --name it busybox nosuch || true
    want Created sh -c "docker ps -a --format '{{.Status}}'" || has Exited docker ps -a
    docker rm it
    nothing_left
}

if [ "${1:-}" = row ]; then
    "$2"
    exit 0
fi

# --- the daemon

house
mkdir -p "$work/config" "$work/bin"
# For BuildKit, which knows no other name; it notes that it was called.
log_calls "$work/bin/runc"
PATH=$work/bin:$PATH
daemon docker --bip "$first_bridge" --default-address-pool "$other_bridges"
make_root "$work/busybox"
tar -C "$work/busybox" -c . | docker import --change 'CMD ["sh"]' - busybox >/dev/null
make_hello "$work/hello"
docker build -q -t hello-world "$work/hello" >/dev/null

clean_up() {
    # shellcheck disable=SC2046 # a list of ids
    docker rm -f -v $(docker ps -aq)
    docker volume prune -f
    docker network prune -f
}
status=0
rows clean_up || status=$?
stop_daemon docker
[ -z "${KEEP_LOG:-}" ] || cp "$work/docker.log" "$KEEP_LOG"
record "docker $(dpkg-query -W -f '${Version}' docker.io), containerd $(dpkg-query -W -f '${Version}' containerd)"
exit $status
