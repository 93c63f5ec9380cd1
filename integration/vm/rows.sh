#!/bin/bash
# rows.sh ROW...   runs in the guest, as root or in a login session; ORLOP is the runtime.
# Each row tests one behaviour of hosts that boot systemd. It prints "ok ROW", "not ok ROW" with the row's output, or
# "skip ROW # why". The exit status is the number of rows that failed.
set -u
: "${ORLOP:?the runtime}"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
[ "$(id -u)" = 0 ] && STATE=/run/orlop || STATE=$XDG_RUNTIME_DIR/orlop
[ "$(id -u)" = 0 ] && SYSTEMCTL="systemctl" || SYSTEMCTL="systemctl --user"

# --- the tools of the rows ------------------------------------------------

fail() { echo "$*"; exit 1; }
skip() { echo "$*"; exit 77; }
orlop() { timeout -k 5 300 "$ORLOP" "$@"; }
# eventually COMMAND...   waits for something that other processes do, with a limit that suits a busy host
eventually() { local end=$((SECONDS + 200)); until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done; }
status_is() { [ "$(orlop state "$1" | jq -r .status)" = "$2" ]; }
no_unit() { [ -z "$($SYSTEMCTL list-units --all --no-legend "$1")" ]; }
equal() { [ "$1" = "$2" ] || fail "$3: ${1@Q}, not ${2@Q}"; }
says() { case $1 in *"$2"*) ;; *) fail "no ${2@Q} in ${1@Q}";; esac; }

# bundle FILTER   makes a bundle of the busybox file system in $WORK/b; the jq filter edits its config.json
bundle() {
  local spec=()
  [ "$(id -u)" = 0 ] || spec=(--rootless)
  mkdir -p "$WORK/b" && rm -f "$WORK/b/config.json"
  orlop spec "${spec[@]}" -b "$WORK/b" || fail "spec"
  jq '.process.terminal = false | .root = {path: "/opt/busybox", readonly: true}
      | .process.args = ["sleep", "1000"] | '"${1:-.}" "$WORK/b/config.json" >"$WORK/b/c" || fail "jq"
  mv "$WORK/b/c" "$WORK/b/config.json"
}

# up [OPTION...] ID   runs a container; $C is its cgroup
up() {
  local id=${*: -1}
  orlop "${@:1:$#-1}" run -d -b "$WORK/b" "$id" </dev/null >"$WORK/out" 2>&1 || fail "run: $(cat "$WORK/out")"
  C=$(jq -r '.cgroup_paths[""]' "$STATE/$id/state.json")
  [ -d "$C" ] || fail "no cgroup ${C@Q}"
}
down() {
  orlop delete -f "$1" || fail "delete"
  [ ! -d "$C" ] || fail "$C is still there"
}
file() { cat "$C/$1"; }

LIMITS='.linux.resources.memory = {limit: 67108864} | .linux.resources.pids = {limit: 50}
  | .linux.resources.cpu = {quota: 12345, period: 50000, shares: 512, cpus: "0"}'

# limits OPTION   the files have the limits of the configuration; update changes them; a daemon-reload does not
limits() {
  bundle "$LIMITS"
  up "$@" limits
  # systemd rounds the value. If orlop did not round it now, systemd would later.
  local quota=12345; [ $# = 0 ] || quota=12500
  equal "$(file memory.max) $(file pids.max) $(file cpu.max) $(file cpu.weight) $(file cpuset.cpus)" \
    "67108864 50 $quota 50000 59 0" "after create"
  local disk='{}'
  if grep -qw io "$C/cgroup.controllers"; then
    disk='{"throttleReadBpsDevice":[{"major":254,"minor":0,"rate":1048576}]}'
  fi
  echo '{"memory":{"limit":33554432,"swap":67108864},"pids":{"limit":33},
         "cpu":{"quota":20000,"shares":1024,"cpus":"0-1"},"blockIO":'"$disk"'}' |
    orlop update -r - limits || fail "update"
  local i what="after update" expected="33554432 33554432 33 20000 50000 100 0-1"
  for i in 1 2; do
    equal "$(file memory.max) $(file memory.swap.max) $(file pids.max) $(file cpu.max) $(file cpu.weight) $(file cpuset.cpus)" \
      "$expected" "$what"
    [ "$disk" = '{}' ] || says "$(file io.max)" "rbps=1048576"
    $SYSTEMCTL daemon-reload; sleep 1
    what="after daemon-reload"
  done
  # If one limit changes, systemd writes the other limits, too, as it knows them.
  orlop update --pids-limit 44 limits || fail "second update"
  equal "$(file memory.max) $(file pids.max) $(file cpu.max)" "33554432 44 20000 50000" "after second update"
  down limits
}

# devices OPTION   allowed devices stay allowed and denied ones stay denied, whatever systemd does
devices() {
  bundle '.linux.resources.devices = [{allow: false, access: "rwm"}, {allow: true, type: "c", major: 10, minor: 229, access: "rwm"}]
    | .process.capabilities.bounding += ["CAP_MKNOD"] | .process.capabilities.effective += ["CAP_MKNOD"]
    | .process.capabilities.permitted += ["CAP_MKNOD"]
    | .mounts += [{destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid"]}]
    | .linux.devices = [{path: "/dev/fuse", type: "c", major: 10, minor: 229}]'
  up "$@" devices
  local check='echo x >/dev/null && head -c 4 /dev/urandom >/dev/null && : <>/dev/fuse && mknod /tmp/$1 b 254 0 && ! head -c 1 /tmp/$1 2>/dev/null'
  orlop exec devices sh -c "$check" _ a || fail "at first"
  $SYSTEMCTL daemon-reload; sleep 1
  orlop exec devices sh -c "$check" _ b || fail "after daemon-reload"
  orlop update --pids-limit 40 --memory 50000000 devices || fail "update"
  orlop exec devices sh -c "$check" _ c || fail "after update"
  down devices
}

# --- rows for root and users ---------------------------------------------------

limits_systemd() { limits --systemd-cgroup; }
limits_cgroupfs() { [ "$(id -u)" = 0 ] || skip "no permission"; limits; }
devices_systemd() { [ "$(id -u)" = 0 ] || skip "a user's manager guards no devices"; devices --systemd-cgroup; }
devices_cgroupfs() { [ "$(id -u)" = 0 ] || skip "no permission"; devices; }

life_systemd() {
  bundle
  orlop --systemd-cgroup create -b "$WORK/b" life </dev/null || fail "create"
  status_is life created || fail "not created"
  orlop start life || fail "start"
  says "$($SYSTEMCTL show -p Description,Delegate,Slice,CollectMode orlop-life.scope)" "Delegate=yes"
  orlop pause life && status_is life paused && orlop resume life || fail "pause"
  equal "$(orlop ps -f json life | jq length)" 1 "processes"
  says "$(orlop exec life cat /proc/self/cgroup)" "0::/"
  equal "$(wc -l <"/sys/fs/cgroup$(cut -d: -f3 "/proc/$(jq .init_process_pid "$STATE/life/state.json")/cgroup")/cgroup.procs")" 1 "processes"
  says "$(orlop events --stats life)" '"pids"'
  orlop kill life KILL || fail "kill"
  eventually status_is life stopped || fail "it lives on"
  orlop delete life || fail "delete"
  eventually no_unit 'orlop-*' || fail "$($SYSTEMCTL list-units --all --no-legend 'orlop-*')"
}

named_scope() {
  bundle '.linux.cgroupsPath = "rowa-rowb.slice:pre:named"'
  up --systemd-cgroup named
  says "$C" "/rowa.slice/rowa-rowb.slice/pre-named.scope"
  down named
  for path in /a/b x:y row:a:b a--b.slice:a:b; do
    bundle '.linux.cgroupsPath = "'$path'"'
    says "$(orlop --systemd-cgroup run -b "$WORK/b" named 2>&1)" "linux.cgroupsPath"
  done
  [ ! -e "$STATE/named" ] || fail "a record is left"
}

properties() {
  bundle '.annotations = {"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.After": "[\"dbus.service\"]",
    "org.systemd.property.MemoryHigh": "uint64 50000000"}'
  up --systemd-cgroup properties
  local shown; shown=$($SYSTEMCTL show -p TimeoutStopUSec,After orlop-properties.scope)
  says "$shown" "TimeoutStopUSec=7s"; says "$shown" "dbus.service"
  equal "$(file memory.high)" "$((50000000 / 4096 * 4096))" memory.high
  down properties
  bundle '.annotations = {"org.systemd.property.DeviceAllow": "[]"}'
  says "$(orlop --systemd-cgroup run -b "$WORK/b" properties 2>&1)" "annotations.org.systemd.property.DeviceAllow"
  # The type is right, but systemd does not know the value.
  bundle '.annotations = {"org.systemd.property.KillMode": "\u0027sometimes\u0027"}'
  says "$(orlop --systemd-cgroup run -b "$WORK/b" properties 2>&1)" "orlop-properties.scope: StartTransientUnit: "
  [ ! -e "$STATE/properties" ] || fail "a record is left"
  bundle '.annotations = {"org.systemd.property.MemoryHigh": "int32 5"}'
  says "$(orlop --systemd-cgroup run -b "$WORK/b" properties 2>&1)" "int32 is given where uint64 is expected"
}

below_the_scope() { # crun's annotations: the container's cgroup is below the scope, and its process in a cgroup below that
  bundle "$LIMITS"' | .annotations = {"run.oci.systemd.subgroup": "inner", "run.oci.delegate-cgroup": "mine"}'
  up --systemd-cgroup below
  says "$C" "/orlop-below.scope/inner"
  equal "$(file memory.max)" 67108864 memory.max
  says "$(orlop exec below cat /proc/self/cgroup)" "0::/mine"
  says "$(cat "/proc/$(jq .init_process_pid "$STATE/below/state.json")/cgroup")" "/orlop-below.scope/inner/mine"
  down below
}

owned() { # if a scope's cgroup is given to the container's root, it stays theirs, and the limits stay the runtime's
  local ids='[{containerID: 0, hostID: 100000, size: 1000}]' owner=100000
  [ "$(id -u)" = 0 ] || ids='[{containerID: 0, hostID: 1000, size: 1}]' owner=1000
  bundle "$LIMITS"' | .linux.namespaces += [{type: "user"}, {type: "cgroup"}] | .linux.namespaces |= unique_by(.type)
    | .linux.gidMappings = '"$ids"' | .linux.uidMappings = '"$ids"'
    | .mounts |= map(select(.destination != "/sys/fs/cgroup"))
    | .mounts += [{destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["nosuid", "noexec", "nodev"]}]'
  up --systemd-cgroup owned
  orlop exec owned sh -c 'cd /sys/fs/cgroup && mkdir init && echo 1 >init/cgroup.procs && echo 0 >init/cgroup.procs &&
    echo "+pids +memory" >cgroup.subtree_control && echo 20 >init/pids.max' || fail "the container's own cgroups"
  local what
  for what in "at first" "after daemon-reload"; do
    equal "$(stat -c %u "$C" "$C/cgroup.procs" "$C/cgroup.subtree_control" "$C/init" | uniq)" $owner "owner $what"
    echo '{"memory":{"limit":33554432,"swap":67108864},"pids":{"limit":33},"cpu":{"quota":20000}}' |
      orlop update -r - owned || fail "update $what"
    equal "$(file memory.max) $(file pids.max) $(file cpu.max) $(file init/pids.max)" "33554432 33 20000 50000 20" "limits $what"
    says "$(orlop exec owned cat /proc/self/cgroup)" "0::/init"
    $SYSTEMCTL daemon-reload; sleep 1
  done
  equal "$(file memory.max) $(file pids.max) $(file cpu.max) $(file init/pids.max)" "33554432 33 20000 50000 20" "at last"
  down owned
}

undelegated() { # a limit of a controller that is not delegated to the user's systemd
  [ "$(id -u)" != 0 ] || skip "root has all"
  bundle '.linux.resources.hugepageLimits = [{pageSize: "2MB", limit: 0}]'
  local said; said=$(orlop --systemd-cgroup run -b "$WORK/b" undelegated 2>&1)
  says "$said" "linux.resources.hugepageLimits[0]: "
  says "$said" 'controller \"hugetlb\" not available: not delegated to us'
  equal "$(wc -l <<<"$said")" 1 lines
  [ ! -e "$STATE/undelegated" ] || fail "a record is left"
  eventually no_unit 'orlop-undelegated*' || fail "the scope is left"
}

scope_in_use() {
  local usual=system.slice
  [ "$(id -u)" = 0 ] || usual=user.slice
  in_use_in "$usual" "is not empty: 1 process(es)"
  # The scope is not where the container's would be: only systemd knows it.
  in_use_in rows.slice "(UnitExists)"
}
in_use_in() {
  local run=(systemd-run --quiet)
  [ "$(id -u)" = 0 ] || run+=(--user)
  "${run[@]}" --scope --slice="$1" --unit=orlop-used.scope sleep 1000 & local other=$!
  eventually $SYSTEMCTL -q is-active orlop-used.scope || fail "no scope to begin with"
  bundle
  says "$(orlop --systemd-cgroup run -d -b "$WORK/b" used 2>&1)" "$2"
  [ ! -e "$STATE/used" ] || fail "a record is left"
  $SYSTEMCTL -q is-active orlop-used.scope || fail "the other's scope was stopped"
  kill -9 $other; $SYSTEMCTL stop orlop-used.scope
  true
}

frozen_scope() { # a frozen directory was left at the place of the scope
  local dir=/sys/fs/cgroup/system.slice/orlop-frozen.scope
  [ "$(id -u)" = 0 ] || dir="/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/orlop-frozen.scope"
  mkdir -p "$dir" && echo 1 >"$dir/cgroup.freeze" || fail "no cgroup"
  bundle
  says "$(orlop --systemd-cgroup run -d -b "$WORK/b" frozen 2>&1)" "container's cgroup unexpectedly frozen"
  [ ! -e "$STATE/frozen" ] || fail "a record is left"
  rmdir "$dir"
}

failed_scope() {
  local run=(systemd-run --quiet); [ "$(id -u)" = 0 ] || run+=(--user)
  "${run[@]}" --scope --unit=orlop-failed.scope -p RuntimeMaxSec=1 sleep 1000
  eventually $SYSTEMCTL -q is-failed orlop-failed.scope || fail "no failed scope to begin with"
  bundle; up --systemd-cgroup failed; down failed
}

crash() { # delete --force clears everything that a killed runtime leaves, whenever it is killed
  bundle
  local i
  for i in $(seq "${CRASHES:-15}"); do
    timeout -s KILL "0.$(printf %03d $((RANDOM % 900 + 20)))" "$ORLOP" --systemd-cgroup run -d -b "$WORK/b" "crash$i" </dev/null >/dev/null 2>&1
    orlop delete --force "crash$i" || fail "delete --force of crash$i"
    eventually no_unit "orlop-crash$i.scope" || fail "the scope of crash$i is left"
    [ ! -e "$STATE/crash$i" ] || fail "a record is left"
  done
}

# --- rows for root ----------------------------------------------------------------

apparmor() {
  [ "$(id -u)" = 0 ] || skip "needs root"
  [ -d /sys/kernel/security/apparmor ] || skip "no AppArmor"
  echo 'abi <abi/3.0>,
profile orlop-rows flags=(attach_disconnected,mediate_deleted) {
  file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,
  deny /etc/group r,
}' | apparmor_parser -r || fail "apparmor_parser"
  bundle '.process.apparmorProfile = "orlop-rows"'
  up apparmor
  equal "$(tr -d '\0' <"/proc/$(jq .init_process_pid $STATE/apparmor/state.json)/attr/current")" "orlop-rows (enforce)" "label"
  equal "$(orlop exec apparmor cat /proc/self/attr/current)" "orlop-rows (enforce)" "label of exec"
  orlop exec apparmor cat /etc/group 2>/dev/null && fail "a denied file was read"
  orlop exec apparmor cat /etc/passwd >/dev/null || fail "an allowed file was not read"
  says "$(orlop exec --apparmor no-such-profile apparmor true 2>&1)" "no-such-profile"
  equal "$(orlop exec --apparmor unconfined apparmor cat /proc/self/attr/current)" unconfined "label of exec --apparmor"
  down apparmor
  bundle '.process.apparmorProfile = "no-such-profile"'
  says "$(orlop run -b "$WORK/b" apparmor 2>&1)" "no-such-profile"
  [ ! -e "$STATE/apparmor" ] || fail "a record is left"
}

no_apparmor() {
  [ ! -d /sys/kernel/security/apparmor ] || skip "the host has AppArmor"
  bundle '.process.apparmorProfile = "some-profile"'
  says "$(orlop run -b "$WORK/b" noapparmor 2>&1)" \
    'process.apparmorProfile: \"some-profile\" is given, but apparmor is disabled or not supported on this host'
  [ ! -e "$STATE/noapparmor" ] || fail "a record is left"
}

selinux() { # as far as a kernel without a policy can go: it accepts each label, and has only its initial ones
  grep -qw selinux /sys/kernel/security/lsm || skip "the kernel was booted without SELinux"
  mountpoint -q /sys/fs/selinux || mount -t selinuxfs selinuxfs /sys/fs/selinux || fail "no selinuxfs"
  # The kernel accepts the label, and orlop reads it back. Without a policy no process gets it at execve(2).
  bundle '.process.selinuxLabel = "unlabeled"'
  up selinux
  equal "$(orlop exec selinux cat /proc/self/attr/current | tr -d '\0')" kernel "label of exec"
  orlop exec --process-label kernel selinux true || fail "exec --process-label"
  says "$(orlop exec --process-label no_u:no_r:no_t:s0 selinux true 2>&1)" 'process.selinuxLabel: wanted \"no_u:no_r:no_t:s0\", the kernel says \"kernel\"'
  down selinux
  bundle '.process.selinuxLabel = "no_u:no_r:no_t:s0"'
  says "$(orlop run -b "$WORK/b" selinux 2>&1)" 'process.selinuxLabel: wanted \"no_u:no_r:no_t:s0\", the kernel says \"kernel\"'
  bundle '.linux.mountLabel = "unlabeled"'
  says "$(orlop run -b "$WORK/b" selinux 2>&1)" "mounts["
  [ ! -e "$STATE/selinux" ] || fail "a record is left"
}

no_bus() {
  [ "$(id -u)" = 0 ] || skip "the next row says it for users"
  bundle
  # Only in a mount namespace of its own: the guest's own mount stays.
  local said; said=$(unshare -m sh -c 'mount -t tmpfs tmpfs /run/dbus && exec "$@"' _ "$ORLOP" --systemd-cgroup run -b "$WORK/b" nobus 2>&1)
  says "$said" "nobody listens at unix:path=/run/dbus/system_bus_socket"
  [ ! -e "$STATE/nobus" ] || fail "a record is left"
}

# --- rows for users -----------------------------------------------------------------

dead_bus() {
  [ "$(id -u)" != 0 ] || skip "needs a user"
  bundle
  says "$(DBUS_SESSION_BUS_ADDRESS=unix:path=$WORK/none orlop --systemd-cgroup run -b "$WORK/b" dead 2>&1)" "nobody listens at unix:path=$WORK/none"
  socat "UNIX-LISTEN:$WORK/hang,fork" "EXEC:sleep 100" & local hang=$!
  eventually [ -S "$WORK/hang" ] || fail "nobody who does not answer"
  says "$(DBUS_SESSION_BUS_ADDRESS=unix:path=$WORK/hang orlop --systemd-cgroup run -b "$WORK/b" dead 2>&1)" "does not answer"
  kill $hang
  [ ! -e "$STATE/dead" ] || fail "a record is left"
}

deaf_systemd() { # the bus works, and systemd does not answer; the row clears later what systemd may still do
  [ "$(id -u)" != 0 ] || skip "needs a user"
  [ "${CRASHES:-15}" -gt 15 ] || skip "a minute of waiting"
  bundle
  local manager; manager=$(ps -o ppid= -p "$(pgrep -u "$(id -u)" -x dbus-daemon)" | tr -d ' ')
  kill -STOP "$manager" || fail "no systemd ${manager@Q}"
  local said; said=$(orlop --systemd-cgroup run -d -b "$WORK/b" deaf 2>&1 </dev/null)
  kill -CONT "$manager"
  says "$said" "orlop-deaf.scope: no answer from systemd to StartTransientUnit (30s)"
  # The second line comes from the clean-up, which systemd has not answered either.
  [ "$(wc -l <<<"$said")" -le 2 ] || fail "$said"
  orlop delete -f deaf || fail "delete"
  [ ! -e "$STATE/deaf" ] || fail "a record is left"
  eventually no_unit 'orlop-deaf*' || fail "the scope is left"
}

delegated_cgroupfs() { # a cgroup that the user may write to needs no --systemd-cgroup
  [ "$(id -u)" != 0 ] || skip "needs a user"
  bundle "$LIMITS"'| .linux.cgroupsPath = "/user.slice/user-1000.slice/user@1000.service/rows.slice/delegated"'
  systemd-run --user --quiet --scope --slice=rows.slice -p Delegate=yes "$0" inner_delegated || fail "inner"
}
inner_delegated() { up delegated; equal "$(file memory.max) $(file pids.max)" "67108864 50" "limits"; orlop exec delegated true || fail "exec"; down delegated; }

no_cgroup() { # a container without limits needs no permission for cgroups
  [ "$(id -u)" != 0 ] || skip "needs a user"
  bundle 'del(.linux.resources)'
  orlop run -d -b "$WORK/b" none </dev/null >"$WORK/out" 2>&1 || fail "run: $(cat "$WORK/out")"
  equal "$(orlop exec none echo alive)" alive exec
  orlop delete -f none || fail "delete"
}

# --- run ----------------------------------------------------------------------------

ROWS=(life_systemd limits_systemd limits_cgroupfs devices_systemd devices_cgroupfs named_scope properties below_the_scope owned
  undelegated scope_in_use frozen_scope failed_scope crash apparmor no_apparmor selinux no_bus dead_bus deaf_systemd delegated_cgroupfs no_cgroup)
[ "${1:-}" != --list ] || { printf '%s\n' "${ROWS[@]}"; exit 0; }
[ "${1:-}" != inner_delegated ] || { bundle "$LIMITS"'| .linux.cgroupsPath = "/user.slice/user-1000.slice/user@1000.service/rows.slice/delegated"'; inner_delegated; exit; }
[ $# = 0 ] || ROWS=("$@")
failed=0
# The first message to a user's bus starts the bus. On a busy machine that takes longer than orlop waits.
bus=(); [ "$(id -u)" = 0 ] || bus=(--user)
eventually busctl "${bus[@]}" list >/dev/null 2>&1
for row in "${ROWS[@]}"; do
  begin=$SECONDS
  for attempt in 1 2 3; do
    # To a file: a process that a row has left behind would hold a pipe open.
    ("$row") >"$WORK/said" 2>&1 </dev/null; status=$?
    case $status in 0 | 77) break;; esac
    # A busy machine may also be slow later. A fault that always happens fails the second time, too.
    [ $attempt -lt 3 ] && grep -Eq 'does not answer \([0-9]+s\)|no answer from systemd' "$WORK/said" || break
    echo "again $row # $(head -n 1 "$WORK/said")"
    for id in $(ls "$STATE" 2>/dev/null); do orlop delete -f "$id"; done
  done
  case $status in
    0) echo "ok $row ($((SECONDS - begin))s)";;
    77) echo "skip $row # $(cat "$WORK/said")";;
    *) failed=$((failed + 1)); echo "not ok $row ($((SECONDS - begin))s)"; sed 's/^/    /' "$WORK/said";;
  esac
done
exit $failed
