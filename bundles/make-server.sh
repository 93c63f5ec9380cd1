#!/bin/sh
# Makes bundles/server. mmdebstrap makes a Debian userland with nginx from this machine's package sources. config.json is
# config.in.json with the seccomp profile. The script makes the userland once, and config.json if one of its sources is newer.
set -eu
cd "$(dirname "$0")"

if [ ! server/config.json -nt server/config.in.json ] || [ ! server/config.json -nt seccomp-default.json ]; then
    jq --tab --slurpfile seccomp seccomp-default.json '.linux.seccomp = $seccomp[0]' \
        server/config.in.json > server/config.json.new
    mv server/config.json.new server/config.json
    echo "made $PWD/server/config.json"
fi

cd server
[ ! -e rootfs ] || exit 0
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
set --
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    if [ -s "$list" ]; then set -- "$@" "$list"; fi
done
trap 'rm -rf rootfs.new' EXIT
rm -rf rootfs.new
mmdebstrap --quiet --variant=essential --include=nginx-light "$suite" rootfs.new "$@"
rm -rf rootfs.new/usr/share/doc rootfs.new/usr/share/locale rootfs.new/var/cache/apt rootfs.new/var/lib/apt
mkdir -p rootfs.new/srv/www
mv rootfs.new rootfs # last, so that an existing rootfs is whole
echo "made $PWD/rootfs"
