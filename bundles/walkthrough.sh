#!/bin/sh
# A container's life, command by command, with the output of each. README.md shows the output of this script.
set -eu
orlop=$(realpath "${ORLOP:-target/orlop}")
rootfs=$(realpath "$(dirname "$0")/busybox/rootfs")
scratch=$(mktemp -d)
bundle=/tmp/first # a fixed name, because the output shows it
orlop() { "$orlop" --root "$scratch/state" "$@"; }
mkdir "$bundle"
trap 'orlop delete --force c1; rm -rf "$scratch" "$bundle"' EXIT
cd "$bundle"
ln -s "$rootfs" rootfs

show() {
    echo "\$ $*"
    # To a file: the container's process inherits this output, and would keep a pipe open.
    eval "$*" >"$scratch/out" 2>&1 </dev/null || true
    sed "s|$rootfs|$bundle/rootfs|g; s/ *$//" "$scratch/out"
}
show orlop spec
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sleep", "1000"/' config.json
show orlop create c1
show orlop state c1
show orlop start c1
show orlop list
show orlop ps c1
show "orlop exec c1 sh -c 'hostname; id; ps'"
show orlop kill c1 KILL
n=0
while orlop state c1 | grep -q running && [ $n -lt 100 ]; do n=$((n + 1)); done
show orlop list
show orlop delete c1
show orlop state c1
