#!/bin/bash
# podman.sh   runs in the guest, as root or in a login session: podman with both cgroup drivers. Its runtime is RUNTIME, or
# ORLOP if RUNTIME is not set. ROWS=REGEX runs only these rows. The exit status is the number of rows that failed.
set -u
: "${ORLOP:?the runtime}" "${RUNTIME:=$ORLOP}"
failed=0 said=$(mktemp)
pod() { timeout -k 5 400 podman --runtime "$RUNTIME" --cgroup-manager "$driver" "$@"; }
# All containers share one file system. It is read-only, so that no container leaves anything.
run() { pod run --rm --network none --read-only "$@"; }
tree=/opt/busybox
# podman makes a link in this file system.
[ "$(id -u)" = 0 ] || { tree=$HOME/busybox; cp -a /opt/busybox "$tree"; }
fs=(--rootfs "$tree")

try() { # try ROW EXPECTED COMMAND...   the last line of the command's output must be EXPECTED
  local row=$1 expected=$2 begin=$SECONDS; shift 2
  [[ $row =~ ${ROWS:-} ]] || return 0
  local attempt
  for attempt in 1 2 3; do
    # To a file: a process that is left behind would hold a pipe open.
    "$@" >"$said" 2>&1 </dev/null
    # The machine may have been too busy for systemd to answer in time. A fault that always happens fails the second time, too.
    [ $attempt -lt 3 ] && grep -Eq 'does not answer \([0-9]+s\)|no answer from systemd' "$said" || break
    echo "again $driver $row # $(grep -E 'answer' "$said" | head -n 1)"
    podman rm -af -t 0 >/dev/null 2>&1
  done
  if [ "$(tail -n 1 "$said")" = "$expected" ]; then
    echo "ok $driver $row ($((SECONDS - begin))s)"
  else
    failed=$((failed + 1))
    echo "not ok $driver $row ($((SECONDS - begin))s): not ${expected@Q}"
    sed 's/^/    /' "$said"
  fi
}

status() { "$@"; echo "status $?"; }
life() {
  local name=life-$driver
  pod run -d --name "$name" --network none --read-only "${limits[@]}" "${fs[@]}" sleep 1000 && pod exec "$name" true &&
    pod pause "$name" && pod unpause "$name" && pod exec "$name" cat /proc/self/cgroup && pod top "$name" &&
    { [ ${#limits[@]} = 0 ] || { pod update --pids-limit 30 "$name" && pod exec "$name" grep -x 30 /sys/fs/cgroup/pids.max; }; } &&
    pod stop -t 1 "$name" && pod rm -f "$name" && echo gone
}

nested() { # orlop runs in a container, and makes another container of busybox there
  local bundle
  bundle=$(mktemp -d)
  chmod 755 "$bundle"
  "$ORLOP" spec -b "$bundle"
  # The outer container is podman's usual privileged one. The inner container cannot have what the outer one lacks.
  mkdir "$bundle/rootfs"
  jq '.process.terminal = false | .root.readonly = true | .process.args = ["sh", "-c", "echo inner $(id -u) $$"]' \
    "$bundle/config.json" >"$bundle/c" && mv "$bundle/c" "$bundle/config.json"
  cp "$ORLOP" "$bundle/orlop"
  run --privileged -v "$bundle:/home:ro" -v "$tree:/home/rootfs:ro" --tmpfs /tmp "${fs[@]}" \
    /home/orlop --root /tmp/state run -b /home inner
  rm -rf "$bundle"
}

boot() { # runs a container whose first process is systemd, until that systemd has reached its target
  local name=boot-$driver end=$((SECONDS + 600))
  pod run -d --name "$name" --network none --systemd=always --rootfs /:O /sbin/init &&
    until pod exec "$name" systemctl is-active multi-user.target || [ $SECONDS -gt $end ]; do sleep 1; done
  pod exec "$name" systemctl is-active multi-user.target
  pod rm -f -t 2 "$name" >/dev/null 2>&1
}

for driver in systemd cgroupfs; do
  limits=(--memory 32m --pids-limit 20)
  # A login session may write to no cgroup. Its user's systemd may.
  [ "$driver" = systemd ] || [ "$(id -u)" = 0 ] || limits=()
  try run hello run "${fs[@]}" echo hello
  try exit-status "status 7" status run "${fs[@]}" sh -c 'exit 7'
  try missing-program "status 127" status run "${fs[@]}" no-such-program
  try not-executable "status 126" status run "${fs[@]}" /etc/passwd
  [ ${#limits[@]} = 0 ] ||
    try limits "33554432 20" run "${limits[@]}" "${fs[@]}" sh -c 'echo $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max)'
  try life gone life
  try user "1000 0" run --user 1000:0 "${fs[@]}" sh -c 'echo $(id -u) $(id -g)'
  if [ "$(id -u)" = 0 ]; then
    try userns "0 100000 1000" run --uidmap 0:100000:1000 --gidmap 0:100000:1000 "${fs[@]}" sh -c 'echo $(cat /proc/self/uid_map)'
  else
    try userns "1000" run --userns keep-id "${fs[@]}" id -u
    # A user namespace inside podman's. Its root may not enter the home that holds the volume.
    mkdir -p "$HOME/data" && echo volume >"$HOME/data/file" && chmod 755 "$HOME/data" && chmod 700 "$HOME"
    try inner-userns "volume 0 1 1000" run --uidmap 0:1:1000 --gidmap 0:1:1000 -v "$HOME/data:/home:ro" "${fs[@]}" \
      sh -c 'echo $(cat /home/file /proc/self/uid_map)'
  fi
  try nested "inner 0 1" nested
  # The container's root is an overlay over the guest's own file system, so its first process is the guest's systemd.
  if [ "$(id -u)" = 0 ]; then try boot active boot; elif [[ boot =~ ${ROWS:-} ]]; then echo "skip $driver boot # no overlay of / for a user"; fi
done
left=$(podman ps -aq)
[ -z "$left" ] || { failed=$((failed + 1)); echo "not ok containers are left: $left"; }
exit "$failed"
