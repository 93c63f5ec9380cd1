#!/bin/bash
# short.sh   what a check of every change has time for of test.sh: the guest is built if there is none, then the rows.
# ORLOP is the runtime. A machine on which the guest cannot be had is no failure of the change: the last line says
# SKIPPED and why. A guest that is there and a row that fails are.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
skip() { echo "test-vm-short: SKIPPED: $*"; exit 0; }
log=$(mktemp) && trap 'rm -f "$log"' EXIT

offline='Could not resolve|Failed to fetch|Unable to (connect|locate)|Temporary failure|Connection (failed|refused|timed out)|no installation candidate'
"$top/tools/need" qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs cpio:cpio xz:xz-utils \
  zstd:zstd jq:jq strip:binutils >"$log" 2>&1 || { tail -n 3 "$log"; skip "what builds and runs the guest cannot be installed"; }
. "$here/config.sh"
free=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
[ "$free" -ge $((VM_MEM + 512)) ] || skip "the guest wants $VM_MEM MiB of memory and some for its machine, $free MiB are available"

if [ ! -s "$VM_CACHE/root.img" ]; then
  timeout "${VM_BUILD_LIMIT:-1500}" "$here/build.sh" 2>&1 | tee "$log"
  case ${PIPESTATUS[0]} in
    0) ;;
    124) skip "the guest was not built in ${VM_BUILD_LIMIT:-1500} s on this machine";;
    *) grep -Eq "$offline" "$log" && skip "the guest's packages cannot be fetched (no network?)"; echo "the guest cannot be built" >&2; exit 1;;
  esac
fi
timeout "${VM_TEST_LIMIT:-1800}" "$here/test.sh" --short
status=$?
[ $status != 124 ] || skip "the rows were not through in ${VM_TEST_LIMIT:-1800} s on this machine"
exit $status
