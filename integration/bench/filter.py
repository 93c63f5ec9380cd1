#!/usr/bin/env python3
"""What a seccomp profile of Docker's breadth costs each system call, as orlop compiles it and as libseccomp does
(crun and runc). `make bench-filter` calls it; see README.md.

environment: as for bench.py
"""

import json
import shutil
import subprocess
import sys

import bench

ROUNDS = 5


def bundle(filtered):
    where = bench.make_bundle("calls-" + ("filtered" if filtered else "bare"), docker=True)
    shutil.copy(bench.OUT / "calls", where / "rootfs/bin/calls")
    config = json.loads((where / "config.json").read_text())
    config["process"]["args"] = ["/bin/calls"]
    # Without the filter these calls must fail by themselves and change nothing.
    for kind in config["process"]["capabilities"]:
        config["process"]["capabilities"][kind] = []
    if not filtered:
        del config["linux"]["seccomp"]
    (where / "config.json").write_text(json.dumps(config))
    return where


def times(runtime, where, name):
    done = bench.in_view(VIEW, [runtime, "--root", str(bench.WORK / "calls"), "run", "-b", str(where), "oc-" + name])
    if done.returncode:
        print(f"{name} left out: {done.stderr.strip()}", file=sys.stderr)
        return {}
    rows = (line.rsplit(" ", 1) for line in done.stdout.splitlines())
    return {call: float(took) for call, took in rows}


def main():
    bench.own_mounts()
    bench.prepare()
    subprocess.run(["cc", "-O2", "-static", "-o", bench.OUT / "calls", bench.HERE / "calls.c"], check=True)
    peers = {name: program for name, program in bench.PEERS.items() if name not in ("floor", "youki")}
    bare, filtered = bundle(False), bundle(True)
    found = {}
    for _ in range(ROUNDS):  # in turn, so that other work disturbs all alike
        for name, program in {"no filter": peers["orlop"], **peers}.items():
            for call, took in times(program, bare if name == "no filter" else filtered, name.split()[0]).items():
                row = found.setdefault(call, {})
                row[name] = min(took, row.get(name, took))
    names = [name for name in ("no filter", *peers) if any(name in row for row in found.values())]
    table = ["| call, ns | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for call, row in found.items():
        added = [f"+{row[name] - row['no filter']:.0f}" if name in row else "" for name in names[1:]]
        table.append(f"| {call} | {row['no filter']:.0f} | " + " | ".join(added) + " |")
    (bench.OUT / "filter.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


VIEW = "v1"  # the view in which Debian's crun runs, too

if __name__ == "__main__":
    main()
