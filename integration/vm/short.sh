#!/bin/bash
# short.sh   the part of test.sh that is short enough for each change: it builds the guest if there is none, and runs the rows.
# ORLOP is the runtime. If the guest cannot be had, or not within VM_LIMIT seconds, that is no failure of the change: the last
# line says SKIPPED and why. A row that says "not ok" is a failure, whatever else went wrong.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
: "${VM_LIMIT:=1500}" # this includes the build
skip() { echo "test-vm-short: SKIPPED: $*"; exit 0; }
left() { echo $((VM_LIMIT - SECONDS)); }
log=$(mktemp) && trap 'rm -f "$log"' EXIT || skip "no temporary files"

timeout -k 30 "$(left)" "$top/tools/need" qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs cpio:cpio \
  xz:xz-utils zstd:zstd jq:jq strip:binutils >"$log" 2>&1 </dev/null ||
  { tail -n 5 "$log"; skip "what builds and runs the guest cannot be installed"; }
. "$here/config.sh"
mkdir -p "$VM_CACHE" || skip "the guest's cache cannot be made"
free=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
[ "$free" -ge $((VM_MEM + 512)) ] || skip "the guest wants $VM_MEM MiB of memory and some for its machine, $free MiB are available"
wanted=2000
vm_there || wanted=6000
free=$(df --output=avail -m "$VM_CACHE" | tail -n 1)
[ "$free" -ge $wanted ] || skip "the guest wants $wanted MiB of disk, $VM_CACHE has $free"

if ! vm_there; then
  # Packages come from elsewhere. A fault in them, or on their way here, is no fault of the change.
  timeout -k 30 "$(left)" "$here/build.sh" </dev/null 2>&1 | tee "$log"
  case ${PIPESTATUS[0]} in
    0) ;;
    124 | 137) skip "the guest was not built in $VM_LIMIT s on this machine";;
    *) skip "the guest cannot be built: $(tail -n 1 "$log")";;
  esac
fi
[ "$(left)" -gt 0 ] || skip "the guest was not built in $VM_LIMIT s on this machine"
timeout -k 30 "$(left)" "$here/test.sh" --short </dev/null 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
[ "$status" != 0 ] || exit 0
! grep -q '^not ok' "$log" || exit 1
case $status in
  124 | 137) skip "the rows were not through in $VM_LIMIT s on this machine; those that were have passed";;
  125) skip "the guest did not work on this machine: $(tail -n 1 "$log")";;
esac
exit "$status"
