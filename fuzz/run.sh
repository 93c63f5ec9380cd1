#!/bin/sh
# Builds the fuzz targets and runs each of them for SECONDS_EACH (60). It fails if one crashes, hangs or takes too much memory.
# `TARGETS="config wire"` runs only these. New inputs that reach new code are kept in target/fuzz/corpus.
set -eu
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-60}
out=target/fuzz
version=0.13.2
host=$(rustc -vV | sed -n 's/^host: //p')
PATH=$PWD/target/tools/bin:$PATH
if [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
    cargo install cargo-fuzz --quiet --locked --version "$version" --root target/tools --target-dir target/tools/build
fi
# Without a sanitizer any stable compiler can build them. The code is safe Rust, and the targets measure memory themselves.
cargo fuzz build --sanitizer none --fuzz-dir fuzz --target-dir $out

# The targets make their files in memory, and this script removes them at its end.
TMPDIR=$(mktemp -d /dev/shm/orlop-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT INT TERM

status=0
mkdir -p $out/logs $out/artifacts
: >$out/results
for target in ${TARGETS:-$(cargo fuzz list --fuzz-dir fuzz)}; do
    mkdir -p "$out/corpus/$target"
    log=$out/logs/$target
    echo "fuzz: $target, $seconds s"
    # 512 MiB: the process has counters for all code; the largest inputs take only a few MiB of it.
    if "$out/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 -max_len=16384 \
        -artifact_prefix="$out/artifacts/$target-" -print_final_stats=1 -verbosity=1 \
        "$out/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
        result=passed
    else
        result=FAILED
        status=1
        grep -v '^#' "$log" | tail -n 40
    fi
    stat() { sed -n "s/^stat::$1: *//p" "$log"; }
    cover=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) corp: \([0-9]*\).*/coverage \1, features \2, corpus \3/p' "$log" | tail -n 1)
    echo "$target: $result, $(stat number_of_executed_units) runs, $cover, $(stat peak_rss_mb) MiB" | tee -a $out/results
done
exit $status
