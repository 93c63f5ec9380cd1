#!/bin/sh
# Builds the probe, and runs the configurations in a mount namespace of its own. Arguments go to differential.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
# Users of the containers' own user namespaces must reach the bundle.
work=$(mktemp -d /var/tmp/orlop-differential.XXXXXX)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p target/differential
cc -O1 -Wall -Wextra -static -o "$work/probe" "$here/probe.c"
unshare --mount --propagation private python3 "$here/differential.py" --runtime "$(readlink -f "$ORLOP")" \
    --other "${RUNC:-/usr/sbin/runc}" --probe "$work/probe" --work "$work" --report target/differential/results "$@"
