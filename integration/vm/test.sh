#!/bin/bash
# test.sh [--short] [SUITE...]   what must hold on hosts that boot systemd, in a Debian guest; ORLOP is the runtime.
#   rows-root    rows.sh as root: both cgroup drivers, devices, AppArmor, crashes
#   rows-user    rows.sh in a login session of an ordinary user
#   lsm          rows.sh where the kernel has SELinux, without a policy, in place of AppArmor
#   podman       podman.sh as root and as the user, with both cgroup drivers
#   black-box    tests/ as on any host, by the guest's kernel and cgroups
#   bats         runc's own suite (SUITE is its source tree), the files that need what only this guest has; an hour or
#                two, and only if it is named. BATS_FILES and BATS_VIEWS choose; RECORD=1 writes the table into ../README.md
# --short is for every change: the rows, and of podman's three of each kind. The guest is software-emulated, about 40 times slower for each
# process: nothing is timed here, and limits are generous. Exit status: 0 if all suites pass.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
. "$here/config.sh"
short=0
[ "${1:-}" != --short ] || { short=1; shift; }
suites=("$@")
if [ $# = 0 ]; then
  if [ $short = 1 ]; then suites=(rows-root rows-user podman) rows='^(run|limits|life)$'
  else suites=(rows-root rows-user lsm podman black-box) rows=; fi
fi
: "${ORLOP:=$top/target/orlop}"

[ -s "$VM_CACHE/root.img" ] || "$here/build.sh" || exit 1
share=$(mktemp -d "${TMPDIR:-/tmp}/orlop-vm.XXXXXX") || exit 1
trap 'rm -rf "$share"' EXIT
# Small: the guest reads it from here.
strip -o "$share/orlop" "$(realpath "$ORLOP")" && cp "$here/rows.sh" "$here/podman.sh" "$share/" && chmod 755 "$share" || exit 1
guest() { "$here/run.sh" --timeout "${VM_TIMEOUT:-1500}" --share "$share" "$@"; }

# The test binary is static; what it looks for where it was built it finds there.
black_box() {
  local tests target tree=$share/tree
  tests=$(cd "$top" && PATH="$(tools/toolchain):$PATH" && cargo build --quiet --locked --example guest &&
    cargo test --quiet --locked --no-run --test main --message-format json |
    jq -r 'select(.executable != null and .target.name == "main") | .executable') || return 1
  target=$(dirname "$(dirname "$tests")")
  # A copy: the tree may be worked in.
  mkdir -p "$tree/tests" "$tree/${target#"$top"}/examples"
  cp "$tests" "$share/tests" && cp -p "$top/tests/guest.rs" "$tree/tests" &&
    cp -p "$target/orlop" "$tree/${target#"$top"}" && cp -p "$target/examples/guest" "$tree/${target#"$top"}/examples" || return 1
  guest -- "mkdir -p '$top' && mount --bind /share/tree '$top' && cd '$top' && \
    ORLOP=/share/orlop ORLOP_TEST_PATIENCE=120 TMPDIR=/var/tmp /share/tests --test-threads 2 --skip stress --skip structure"
}

bats() {
  local status
  [ -d "${SUITE:-}/tests/integration" ] || { echo "bats: SUITE is not the source tree of runc: ${SUITE:-}" >&2; return 1; }
  "$top/integration/conformance/bats.sh" --images || return 1
  mkdir -p "$share/keep" "$share/tree/integration" "$share/tree/target"
  # A copy: the tree may be worked in.
  cp -r "$top/tools" "$share/tree" && cp -r "$here/../conformance" "$share/tree/integration" &&
    cp -rp "$top/target/conformance" "$share/tree/target" || return 1
  touch "$share/tree/target/conformance/recvtty"
  VM_TIMEOUT=${VM_TIMEOUT:-10000} guest --share "$SUITE:ro" -- "\
    ORLOP=/share/orlop KEEP=/share/keep TABLE=/share/table FILE_TIMEOUT=3600 BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-300} VIEWS='${BATS_VIEWS:-vm vm-systemd vm-login}' \
    /share/tree/integration/conformance/bats.sh /share1 ${BATS_FILES:-cgroups cgroup_delegation update delete events exec dev userns run}"
  status=$?
  [ -z "${KEEP:-}" ] || cp -r "$share/keep/." "$KEEP"
  [ -z "${RECORD:-}" ] || [ ! -s "$share/table" ] || sed -i -e '/<!-- bats in the guest -->/,/<!-- end -->/ {
    /<!-- bats in the guest -->/ r '"$share/table"'
    /<!--/ !d }' "$top/integration/README.md"
  return $status
}

failed=()
for suite in "${suites[@]}"; do
  echo "# $suite"
  case $suite in
    rows-root) guest -- 'ORLOP=/share/orlop bash /share/rows.sh';;
    rows-user) guest --user user -- 'ORLOP=/share/orlop bash /share/rows.sh';;
    lsm) guest --cold --append 'security=selinux selinux=1 enforcing=0' -- 'ORLOP=/share/orlop bash /share/rows.sh selinux no_apparmor';;
    podman)
      guest -- "ROWS='${rows:-}' ORLOP=/share/orlop bash /share/podman.sh" &&
        guest --user user -- "ROWS='${rows:-}' ORLOP=/share/orlop bash /share/podman.sh";;
    black-box) black_box;;
    bats) bats;;
    *) echo "no suite $suite" >&2; exit 2;;
  esac || failed+=("$suite")
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
echo "all suites passed: ${suites[*]}"
