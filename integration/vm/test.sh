#!/bin/bash
# test.sh [--short] [SUITE...]   runs in a Debian guest what must hold on hosts that boot systemd. ORLOP is the runtime.
#   rows-root    rows.sh as root: both cgroup drivers, devices, AppArmor, crashes
#   rows-user    rows.sh in a login session of an ordinary user
#   lsm          rows.sh where the kernel has SELinux, without a policy, in place of AppArmor
#   podman-root  podman.sh with both cgroup drivers
#   podman-user  podman.sh in a login session
#   black-box    tests/ with the guest's kernel and cgroups; TESTS='' runs all of them. If TESTS is not set, tests for which the
#                host makes no difference are left out
#   crun-root, crun-user   podman.sh with crun instead of orlop, to compare; only if named
#   bats-vm, bats-vm-systemd, bats-vm-login   the files of runc's own suite (SUITE is its source tree) that need this guest: as
#                root with either driver, and in a login session. They take hours, and run only if named. BATS_FILES chooses
#                files
# --short is for each change: it runs the rows, and three of podman's rows of each kind. Without it VM_LANES suites run at a time,
# and each suite's output appears when the suite has ended. The guest is emulated, and processes take about 40 times longer. So
# nothing is timed here, and limits are generous.
# Exit status: 0 if all suites pass; 125 if the guest itself failed or took too long, and no row failed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
. "$here/config.sh"
: "${ORLOP:=$top/target/orlop}" "${ROWS:=}"
: "${TESTS=--skip bad_fields:: --skip bad_input:: --skip cli:: --skip log:: --skip features:: --skip crash:: --skip waits::}"
short=0
[ "${1:-}" != --short ] || { short=1; shift; }
suites=("$@")
if [ $short = 1 ]; then
  VM_LANES=1 ROWS='^(run|limits|life)$'
  [ $# -gt 0 ] || suites=(rows-root rows-user podman-root podman-user)
else
  export CRASHES="${CRASHES:-60}"
  [ $# -gt 0 ] || suites=(black-box rows-root podman-root rows-user podman-user lsm)
fi
free=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
: "${VM_LANES:=$((free > 2 * VM_MEM + 2048 ? 2 : 1))}"

vm_there || "$here/build.sh" || exit 125
scratch=$(mktemp -d "${TMPDIR:-/tmp}/orlop-vm.XXXXXX") || exit 125
trap 'rm -rf "$scratch"' EXIT
share=$scratch/share
# Stripped, because the guest reads it from here through the emulator.
mkdir "$share" && strip -o "$share/orlop" "$(realpath "$ORLOP")" && cp "$here/rows.sh" "$here/podman.sh" "$share/" || exit 1
guest() { "$here/run.sh" --timeout "${VM_TIMEOUT:-1500}" --share "$share" "$@"; }

rows() { # rows [OPTION...] -- [ROW...]
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  guest "${options[@]}" -- "ORLOP=/share/orlop CRASHES=${CRASHES:-} bash /share/rows.sh $*"
}

podman() { # podman RUNTIME [OPTION...]
  guest "${@:2}" -- "ROWS='$ROWS' RUNTIME=$1 ORLOP=/share/orlop bash /share/podman.sh"
}

# The test binary is static. It looks for its files where it was built, so the guest gets them at the same paths.
black_box() {
  local tests target tree=$scratch/tree
  tests=$(cd "$top" && PATH="$(tools/toolchain):$PATH" && cargo build --quiet --locked --example guest &&
    cargo test --quiet --locked --no-run --test main --message-format json |
    jq -r 'select(.executable != null and .target.name == "main") | .executable') || return 1
  target=$(dirname "$(dirname "$tests")")
  # A copy, because the tree may change meanwhile.
  mkdir -p "$tree/tests" "$tree/integration" "$tree/${target#"$top"}/examples"
  strip -o "$tree/main" "$tests" && cp -r "$top/src" "$tree" && cp -rp "$top/tests/guest" "$top/tests/guest.rs" "$tree/tests" &&
    cp -p "$top/integration/cgroup-view" "$tree/integration" &&
    cp -p "$target/orlop" "$tree/${target#"$top"}" && cp -p "$target/examples/guest" "$tree/${target#"$top"}/examples" || return 1
  guest --share "$tree" -- "mkdir -p '$top' && mount --bind /share1 '$top' && cd '$top' && \
    ORLOP=/share/orlop ORLOP_TEST_PATIENCE=120 ORLOP_RACES=1 TMPDIR=/var/tmp \
    /share1/main --test-threads 2 --skip stress --skip structure $TESTS"
}

bats() { # bats VIEW
  local status tree=$scratch/$1
  [ -d "${SUITE:-}/tests/integration" ] || { echo "bats: SUITE is not the source tree of runc: ${SUITE:-}" >&2; return 1; }
  (flock 9 && "$top/integration/conformance/bats.sh" --images) 9>"$scratch/images" || return 1
  # A copy, because the tree may change meanwhile.
  mkdir -p "$tree/keep" "$tree/integration" "$tree/target" && cp -r "$top/tools" "$tree" &&
    cp -r "$here/../conformance" "$tree/integration" && cp -rp "$top/target/conformance" "$tree/target" || return 1
  touch "$tree/target/conformance/recvtty"
  VM_TIMEOUT=${VM_TIMEOUT:-10000} guest --share "$SUITE:ro" --share "$tree" -- "\
    ORLOP=/share/orlop KEEP=/share2/keep FILE_TIMEOUT=3600 BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-300} VIEWS=$1 \
    /share2/integration/conformance/bats.sh /share1 ${BATS_FILES:-cgroups cgroup_delegation update delete events exec dev userns run}"
  status=$?
  [ -z "${KEEP:-}" ] || cp -r "$tree/keep/." "$KEEP"
  return $status
}

suite() {
  case $1 in
    rows-root) rows --;;
    rows-user) rows --user user --;;
    lsm) rows --cold --append 'security=selinux selinux=1 enforcing=0' -- selinux no_apparmor;;
    podman-root) podman /share/orlop;;
    podman-user) podman /share/orlop --user user;;
    crun-root) podman /usr/bin/crun;;
    crun-user) podman /usr/bin/crun --user user;;
    black-box) black_box;;
    bats-*) bats "${1#bats-}";;
    *) echo "no suite $1"; return 2;;
  esac
}

# Its output and its exit status go to files. If other suites run beside it, its output appears at its end.
run() {
  local said=$scratch/$1.said begin=$SECONDS
  {
    echo "# $1"
    suite "$1" 2>&1
    status=$?
    # An emulated kernel dies now and then, so the suite gets a second try.
    [ $status != 125 ] || grep -q '^not ok' "$said" || { echo "# $1: the guest failed, once more"; suite "$1" 2>&1; status=$?; }
    echo $status >"$scratch/$1.status"
    echo "# $1: $((SECONDS - begin)) s"
  } | if [ "$VM_LANES" = 1 ]; then tee "$said"; else cat >"$said"; fi
  [ "$VM_LANES" = 1 ] || cat "$said"
}

for suite in "${suites[@]}"; do
  [ "$(jobs -rp | wc -l)" -lt "$VM_LANES" ] || wait -n
  run "$suite" &
done
wait
failed=() ended=()
for suite in "${suites[@]}"; do
  status=$(cat "$scratch/$suite.status" 2>/dev/null || echo 1)
  [ "$status" != 0 ] || continue
  case $status in 124 | 125) grep -q '^not ok' "$scratch/$suite.said" || { ended+=("$suite"); continue; };; esac
  failed+=("$suite")
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
[ ${#ended[@]} = 0 ] || { echo "the guest failed, or was not through: ${ended[*]}" >&2; exit 125; }
echo "all suites passed in $SECONDS s: ${suites[*]}"
