#!/bin/bash
# test.sh [--short] [SUITE...]   what must hold on hosts that boot systemd, in a Debian guest; ORLOP is the runtime.
#   rows-root    rows.sh as root: both cgroup drivers, devices, AppArmor, crashes
#   rows-user    rows.sh in a login session of an ordinary user
#   podman       podman.sh as root and as the user, with both cgroup drivers
#   black-box    tests/ as on any host, by the guest's kernel and cgroups
# --short leaves out black-box, which takes longest. The guest is software-emulated, about 40 times slower for each
# process: nothing is timed here, and limits are generous. Exit status: 0 if all suites pass.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
. "$here/config.sh"
short=0
[ "${1:-}" != --short ] || { short=1; shift; }
suites=("$@")
[ $# -gt 0 ] || { suites=(rows-root rows-user podman); [ $short = 1 ] || suites+=(black-box); }
: "${ORLOP:=$top/target/orlop}"

[ -s "$VM_CACHE/root.img" ] || "$here/build.sh" || exit 1
share=$(mktemp -d "${TMPDIR:-/tmp}/orlop-vm.XXXXXX") || exit 1
trap 'rm -rf "$share"' EXIT
cp "$(realpath "$ORLOP")" "$share/orlop" && cp "$here/rows.sh" "$here/podman.sh" "$share/" && chmod 755 "$share" || exit 1
guest() { "$here/run.sh" --timeout "${VM_TIMEOUT:-1500}" --share "$share" "$@"; }

black_box() { # the test binary is static, and finds what it was built with where it was built
  local tests
  tests=$(cd "$top" && PATH="$(tools/toolchain):$PATH" && cargo build --quiet --locked --example guest &&
    cargo test --quiet --locked --no-run --test main --message-format json |
    jq -r 'select(.executable != null and .target.name == "main") | .executable') || return 1
  cp "$tests" "$share/tests" || return 1
  guest --share "$top:ro" -- "mkdir -p '$top' && mount --bind /share1 '$top' && cd '$top' && \
    ORLOP=/share/orlop ORLOP_TEST_PATIENCE=120 TMPDIR=/var/tmp /share/tests --test-threads 2 --skip stress --skip structure $*"
}

failed=()
for suite in "${suites[@]}"; do
  echo "# $suite"
  case $suite in
    rows-root) guest -- 'ORLOP=/share/orlop bash /share/rows.sh';;
    rows-user) guest --user user -- 'ORLOP=/share/orlop bash /share/rows.sh';;
    podman) guest -- 'ORLOP=/share/orlop bash /share/podman.sh' && guest --user user -- 'ORLOP=/share/orlop bash /share/podman.sh';;
    black-box) black_box;;
    *) echo "no suite $suite" >&2; exit 2;;
  esac || failed+=("$suite")
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
echo "all suites passed: ${suites[*]}"
