#!/bin/sh
# A few points of the crash sweep, for `make test`, in at most a minute. It uses the binaries that `cargo test` has built.
#
#   integration/crash/quick.sh        needs root
set -eu

cd "$(dirname "$0")/../.."
programs=$(ls -d target/*/debug/examples | head -n 1)

# All points of all commands take more than an hour (`make crash`). These are a few of each command, and others each time.
"$programs/crash" sweep --points 2 --how main,all,EIO --view host,v1,v2 --ops create,run,exec,start,delete-f
"$programs/crash" sweep --points 2 --how main,caller,EIO --view host --as userns --ops create,run-fg,exec
"$programs/crash" sweep --points 2 --how main,caller,EIO --view host --as rootless --ops create,run-fg,exec
"$programs/crash" stress --containers 40 --parallel 4
