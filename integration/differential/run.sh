#!/bin/sh
# Builds the probe, and runs differential.py in a new mount namespace. The arguments go to differential.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
# The users of the containers' user namespaces must be able to reach the bundle.
work=$(mktemp -d /var/tmp/orlop-differential.XXXXXX)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p target/differential
cc -O1 -Wall -Wextra -static -o "$work/probe" "$here/probe.c"
unshare --mount --propagation private python3 "$here/differential.py" --runtime "$(readlink -f "$ORLOP")" \
    --other "${RUNC:-/usr/sbin/runc}" --probe "$work/probe" --work "$work" --report target/differential/results "$@"
