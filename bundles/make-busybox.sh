#!/bin/sh
# Makes bundles/busybox/rootfs from Debian's busybox-static: the program, and a link for each of its commands.
# It does nothing if the rootfs exists.
set -eu
cd "$(dirname "$0")/busybox"
[ ! -e rootfs ] || exit 0

busybox=$(command -v busybox)
if "$busybox" ldd "$busybox" >/dev/null 2>&1 || ! "$busybox" true; then
    echo "$0: $busybox is not a static busybox (package busybox-static)" >&2
    exit 1
fi
trap 'rm -rf rootfs.new' EXIT
rm -rf rootfs.new
for dir in bin dev etc proc sys tmp; do mkdir -p "rootfs.new/$dir"; done
cp "$busybox" rootfs.new/bin/busybox
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "rootfs.new/bin/$applet"
done
printf 'root:x:0:0::/:/bin/sh\nsailor:x:1000:1000::/:/bin/sh\n' > rootfs.new/etc/passwd
printf 'root:x:0:\nsailor:x:1000:\n' > rootfs.new/etc/group
mv rootfs.new rootfs # last, so that an existing rootfs is whole
echo "made $PWD/rootfs"
