#!/bin/bash
# Runs runc's integration suite (tests/integration/*.bats of its source tree) with orlop in the place of runc.
#
#   bats.sh SUITE [FILE...]     SUITE: runc's source tree, unpacked; FILE: mounts.bats or mounts; all if none is named
#   bats.sh --images            only makes the images, which take long, for a guest that cannot make them
#   bats.sh SUITE --table RESULTS...   only prints the table of results that runs have left in KEEP; later runs come first
#   VIEWS="hybrid v2 rootless rootless-cgroup"   the host's cgroup tree as it is; a private cgroup2 tree; an ordinary
#                               user; the same with a cgroup of their own in each hierarchy of the host
#   VIEWS="vm vm-systemd vm-login"  in the guest of integration/vm: its tree as it is; the systemd driver; an ordinary
#                               user's systemd, in a login session
#
# It needs root. It works in a scratch directory; only the images, which take long to make, stay in target/conformance. Each file
# runs in mount, pid and network namespaces of its own, with its own /etc/passwd. The suite is not changed, and nothing is
# downloaded: the images are made from Debian's packages, and bats-tools.py and recvtty.c are the suite's helper programs.
# It fails if a test fails that bats-expected-failures does not name. A run of all files in all views writes its table into
# integration/README.md.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$(dirname "$here")")
suite=${1:?the source tree of runc}
shift
[ "$suite" = --images ] || suite=$(readlink -f "$suite")
[ "$suite" = --images ] || [ -d "$suite/tests/integration" ] || { echo "$suite: no tests/integration in there" >&2; exit 2; }
"$top/tools/as-root" conformance-bats
images=$top/target/conformance
needs=(bats:bats jq:jq gawk:gawk python3:python3-minimal busybox:busybox-static ip:iproute2 losetup:mount
    setpriv:util-linux newuidmap:uidmap)
[ -e "$images/debian.tar" ] || needs+=(mmdebstrap:mmdebstrap)
[ "$images/recvtty" -nt "$here/recvtty.c" ] || needs+=(gcc:gcc)
"$top/tools/need" "${needs[@]}"
runtime=${ORLOP:-$top/target/orlop}
expected=$here/bats-expected-failures
# In /tmp, where ordinary users and user namespaces may look.
scratch=$(mktemp -d /tmp/orlop-bats.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"

# Makes an archive. It appears whole or not at all.
pack() { # NAME DIRECTORY
    tar -C "$2" -cf "$images/$1.new" .
    mv "$images/$1.new" "$images/$1"
}

make_images() {
    [ -d "$images" ] || mkdir -p "$images"
    # In C and not in python: the suite does not wait until recvtty listens, and orlop is quick.
    if [ ! "$images/recvtty" -nt "$here/recvtty.c" ]; then
        [ -e /usr/include/stdio.h ] || "$top/tools/need" -- libc6-dev
        gcc -O2 -Wall -o "$images/recvtty" "$here/recvtty.c"
    fi
    local root=$scratch/image
    if [ ! -e "$images/busybox.tar" ]; then
        mkdir -p "$root"/{bin,dev,etc,home,lib,tmp,usr/sbin,var/spool/mail,var/www}
        install -d -m 700 "$root/root"
        chmod 1777 "$root/tmp"
        cp "$(command -v busybox)" "$root/bin/busybox"
        local applet
        for applet in $(busybox --list); do
            [ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"
        done
        printf '%s\n' root:x:0:0:root:/root:/bin/sh daemon:x:1:1:daemon:/usr/sbin:/bin/false \
            nobody:x:65534:65534:nobody:/home:/bin/false >"$root/etc/passwd"
        printf '%s\n' root:x:0: daemon:x:1: tty:x:5: users:x:100: nobody:x:65534: >"$root/etc/group"
        pack busybox.tar "$root"
        rm -rf "$root"
    fi
    if [ ! -e "$images/debian.tar" ]; then
        local sources=()
        mapfile -t sources < <(find /etc/apt -maxdepth 2 \( -name '*.sources' -o -name '*.list' \) -size +0)
        mmdebstrap --quiet --variant=essential "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" "${sources[@]}"
        # Some forty tests unpack this image, and none of them runs perl.
        rm -rf "$root"/usr/share/{doc,locale,man,zoneinfo,i18n,perl*} "$root"/usr/lib/*/{gconv,perl*,libperl*} \
            "$root"/usr/bin/perl* "$root"/var/{cache,lib/apt,lib/dpkg,log}/* "${root:?}"/dev/*
        pack debian.tar "$root"
        rm -rf "$root"
    fi
}

make_suite() {
    mkdir -p "$scratch/bin" "$scratch/suite"
    cp -a "$suite/tests" "$suite/go.mod" "$scratch/suite"
    # The suite asks go for the architecture in the images' names.
    printf '#!/bin/sh\necho local\n' >"$scratch/bin/go"
    # The images are where the suite would put them, so it fetches nothing.
    printf '#!/bin/sh\necho "BUSYBOX_IMAGE=%s"\necho "DEBIAN_IMAGE=%s"\n' "$images/busybox.tar" "$images/debian.tar" \
        >"$scratch/suite/tests/integration/get-images.sh"
    local bin=$scratch/suite/tests/cmd/_bin tool
    mkdir -p "$bin"
    cp "$images/recvtty" "$bin/recvtty"
    for tool in pidfd-kill fs-idmap remap-rootfs seccompagent sd-helper; do
        cp "$here/bats-tools.py" "$bin/$tool"
    done
    cp "$here/bats-tools.py" "$scratch/bin/with-tty"
    # If the kernel has no dummy network devices, one end of a veth pair replaces them.
    if ! unshare -n ip link add dummy0 type dummy 2>/dev/null; then
        # shellcheck disable=SC2016 # for the other shell
        printf '#!/bin/bash\nexec %s "${@/%%dummy/veth}"\n' "$(command -v ip)" >"$scratch/bin/ip"
    fi
    # Where there is no udev, there is nothing to wait for.
    command -v udevadm >/dev/null || printf '#!/bin/sh\n' >"$scratch/bin/udevadm"
    chmod 755 "$scratch"/bin/* "$bin"/* "$scratch/suite/tests/integration/get-images.sh"
    # A copy, because the original may be in a directory that only root may enter. help.bats wants to read the name runc.
    install -m 755 "$runtime" "$scratch/runc"
}

# inside VIEW COMMAND...: runs the command as a file of the suite runs in this view.
inside() {
    local view=$1
    shift
    case $view in vm*) in_guest "$view" "$@"; return ;; esac
    cp /etc/passwd "$scratch/passwd"
    cp /etc/group "$scratch/group"
    echo "rootless:x:2000:2000::$scratch/home:/bin/bash" >>"$scratch/passwd"
    echo "rootless:x:2000:" >>"$scratch/group"
    echo "rootless:100000:65536" >"$scratch/subuid"
    echo "rootless:200000:65536" >"$scratch/subgid"
    install -d -m 700 -o 2000 -g 2000 "$scratch/home" "$scratch/home/run"
    # shellcheck disable=SC2016 # for the other shell
    PATH=$scratch/bin:$PATH RUNC=$scratch/runc unshare -m -n -p -f --mount-proc --propagation private bash -euc '
        scratch=$1 cgroup_view=$2 view=$3
        shift 3
        ip link set lo up
        for file in passwd group subuid subgid; do mount --bind "$scratch/$file" /etc/$file; done
        case $view in
        v2) set -- "$cgroup_view" v2 "$@" ;;
        rootless*)
            export ROOTLESS_FEATURES=idmap+ HOME=$scratch/home XDG_RUNTIME_DIR=$scratch/home/run
            export ROOTLESS_UIDMAP_START=100000 ROOTLESS_UIDMAP_LENGTH=65536
            export ROOTLESS_GIDMAP_START=200000 ROOTLESS_GIDMAP_LENGTH=65536 ROOTLESS_AUX_UID=1024
            export ROOTLESS_AUX_DIR=$(mktemp -d "$scratch/aux.XXXXXX")
            chown $((ROOTLESS_UIDMAP_START - 1000 + ROOTLESS_AUX_UID)) "$ROOTLESS_AUX_DIR"
            if [ $view = rootless-cgroup ]; then
                ROOTLESS_FEATURES+=cgroup+
                for hierarchy in /sys/fs/cgroup/*/; do
                    # In version 2 the user would need write access to the root of the tree, too.
                    [ $hierarchy != /sys/fs/cgroup/unified/ ] || continue
                    own=${hierarchy}runc-cgroups-integration-test
                    mkdir -p $own
                    for file in . cgroup.procs tasks cpuset.cpus cpuset.mems cpu.rt_period_us cpu.rt_runtime_us; do
                        [ ! -e $own/$file ] || chown 2000:2000 $own/$file
                    done
                done
            fi
            set -- setpriv --reuid 2000 --regid 2000 --clear-groups --inh-caps=-all "$@" ;;
        esac
        exec "$@"' _ "$scratch" "$top/integration/cgroup-view" "$view" "$@"
}

# In the guest, which is thrown away afterwards. There is no pid namespace, because systemd must know processes by their own ids.
# A login session has the settings of the guest's user (/etc/subuid, HOME, a systemd).
in_guest() { # VIEW COMMAND...
    local view=$1 with=()
    shift
    [ "$view" = vm ] || with+=(RUNC_USE_SYSTEMD=yes)
    with+=(PATH="$scratch/bin:$PATH" RUNC="$scratch/runc" TMPDIR="$TMPDIR" ${BATS_TEST_TIMEOUT:+BATS_TEST_TIMEOUT=$BATS_TEST_TIMEOUT})
    if [ "$view" = vm-login ]; then
        local aux
        aux=$(mktemp -d "$scratch/aux.XXXXXX")
        chown 100024 "$aux"
        as-user env "${with[@]}" ROOTLESS_FEATURES=idmap+ ROOTLESS_UIDMAP_START=100000 ROOTLESS_UIDMAP_LENGTH=65536 \
            ROOTLESS_GIDMAP_START=100000 ROOTLESS_GIDMAP_LENGTH=65536 ROOTLESS_AUX_UID=1024 ROOTLESS_AUX_DIR="$aux" "$@"
    else
        env "${with[@]}" unshare -m -n --propagation private sh -c 'ip link set lo up; exec "$@"' _ "$@"
    fi
}

# Runs one file. It prints lines "VIEW FILE ok|failed|skipped NAME" on stdout, and errors on stderr.
run_file() { # VIEW FILE
    local tap=$scratch/tap temporary
    temporary=$(mktemp -d /tmp/orlop-bats.XXXXXX)
    chmod 755 "$temporary"
    case $1 in rootless*) chown 2000 "$temporary" ;; vm-login) chown 1000 "$temporary" ;; esac
    : >"$tap"
    chmod 666 "$tap"
    # shellcheck disable=SC2016 # for the other shell
    TMPDIR=$temporary inside "$1" with-tty timeout -k 10 "${FILE_TIMEOUT:-900}" bash -c 'bats --tap "$1" >"$2" 2>&1' _ \
        "$scratch/suite/tests/integration/$2" "$tap" >/dev/null </dev/null || true
    if [ -n "${KEEP:-}" ]; then mkdir -p "$KEEP" && cp "$tap" "$KEEP/$1-$2.tap"; fi
    rm -rf --one-file-system "$temporary"
    # A failing test may leave these cgroups, and the next run would stumble over them.
    find /sys/fs/cgroup -depth -type d \( -path '*/runc-tst-*' -o -path '*/runc-cgroups-integration-test*' \) \
        -exec rmdir {} + 2>/dev/null || true
    awk -v view="$1" -v file="$2" '
        match($0, /^ok [0-9]+ .* # skip/) { print view, file, "skipped", name(RLENGTH - 7); next }
        match($0, /^ok [0-9]+ /)          { print view, file, "ok", name(0); next }
        match($0, /^not ok [0-9]+ /)      { print view, file, "failed", name(0) }
        match($0, /^1\.\./)               { planned = substr($0, 4) }
        function name(end,    text) {
            text = end ? substr($0, 1, end) : $0
            sub(/^(not )?ok [0-9]+ /, "", text)
            sub(/ in [0-9]+(ms|sec)$/, "", text)
            done++
            return text
        }
        END { for (; done < planned || !planned && !done++; done++) print view, file, "failed", "(did not end)" }' "$tap"
}

# Prints the reason why a failure is expected, if it is. The view * means each view.
reason() { # VIEW FILE NAME
    awk -F '\t' -v view="$1" -v file="$2" -v name="$3" '
        !/^#/ && ($1 == view || $1 == "*") && $2 == file && $3 == name { print $4; exit }' "$expected"
}

table() {
    local version commit
    version=$("$runtime" --version | sed -n 's/^runc version //p')
    commit=$("$runtime" --version | sed -n 's/^commit: //p')
    echo "The suite of runc $(cat "$suite/VERSION" 2>/dev/null || echo '?') on orlop $version ($commit)," \
        "Linux ${KERNEL:-$(uname -r | cut -d. -f1-2)}, $(date +%F); passed / failed / skipped:"
    echo
    awk '(($1, $2) in seen) && seen[$1, $2] != FILENAME { next }
        { seen[$1, $2] = FILENAME; count[$1, $2, $3]++; files[$2]; views[$1]; total[$1, $3]++ }
        function cell(view, file,    key) {
            if (!((view, file) in seen)) return "-"
            return sprintf("%d / %d / %d", count[view, file, "ok"], count[view, file, "failed"], count[view, file, "skipped"])
        }
        END {
            n = split("hybrid v2 rootless rootless-cgroup vm vm-systemd vm-login", order); head = "| file |"; rule = "|---|"
            for (i = 1; i <= n; i++) if (order[i] in views) { head = head " " order[i] " |"; rule = rule "---|" }
            print head; print rule
            m = asorti(files, names)
            for (j = 1; j <= m; j++) {
                row = "| " names[j] " |"
                for (i = 1; i <= n; i++) if (order[i] in views) row = row " " cell(order[i], names[j]) " |"
                print row
            }
            row = "| **total** |"
            for (i = 1; i <= n; i++) if (order[i] in views)
                row = row sprintf(" %d / %d / %d |", total[order[i], "ok"], total[order[i], "failed"], total[order[i], "skipped"])
            print row
        }' "$@"
}

if [ "${1:-}" = --table ]; then
    table "${@:2}"
    exit
fi
make_images
[ "$suite" != --images ] || exit 0
make_suite
all="hybrid v2 rootless rootless-cgroup"
views=${VIEWS:-$all}
files=()
for file in "$@"; do files+=("$(basename "$file" .bats).bats"); done
whole=
if [ ${#files[@]} = 0 ]; then
    whole=yes
    for file in "$scratch"/suite/tests/integration/*.bats; do files+=("$(basename "$file")"); done
fi

results=$scratch/results
: >"$results"
for view in $views; do
    for file in "${files[@]}"; do
        run_file "$view" "$file" | tee -a "$results" | awk -v what="$view $file" '
            { n[$3]++ } END { printf "%-34s passed %3d  failed %3d  skipped %3d\n", what, n["ok"], n["failed"], n["skipped"] }'
        [ -z "${KEEP:-}" ] || cp "$results" "$KEEP/results"
    done
done

status=0
while read -r view file _ name; do
    why=$(reason "$view" "$file" "$name")
    if [ -z "$why" ]; then
        echo "FAILED: $view $file: $name"
        status=1
    else
        echo "failed as expected: $view $file: $name ($why)"
    fi
done < <(grep ' failed ' "$results" | awk '$3 == "failed"')
while IFS=$'\t' read -r view file name _; do
    [ "$view" != '*' ] || view='[^ ]*'
    if grep -q "^$view ${file//./\\.} ok " "$results" && awk -v f="$file" -v n="$name" -v v="$view" '
        $1 ~ "^" v "$" && $2 == f && $3 == "ok" && substr($0, index($0, " ok ") + 4) == n { hit = 1 } END { exit !hit }' "$results"
    then
        echo "note: passes here, though bats-expected-failures names it: $file: $name"
    fi
done < <(grep -v '^#' "$expected")

table "$results" >"$scratch/table"
tail -n 1 "$scratch/table"
[ -z "${TABLE:-}" ] || cat "$scratch/table" >"$TABLE"
if [ -n "$whole" ] && [ "$views" = "$all" ]; then
    readme=$top/integration/README.md
    awk -v table="$scratch/table" '
        /<!-- end of bats -->/ { within = 0 }
        !within { print }
        /<!-- bats -->/ { within = 1; while ((getline line <table) > 0) print line }' "$readme" >"$scratch/readme"
    cat "$scratch/readme" >"$readme"
fi
exit $status
