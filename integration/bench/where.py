#!/usr/bin/env python3
"""Shows which system calls take the time of a command, and of the floor. See README.md;
`make bench-where` calls it.

Samples of the CPU clock, of the commands and of all processes that they make, payload included: what waits or sleeps is
not in them. The samples slow down what they count, so the sums are above what `make bench` says: it is the differences
that tell. environment: ORLOP, CASES, SECONDS_PER_CELL as for bench.py, VIEW (default v2), LEAST (default 5): no rows below
that many µs
"""

import os
import re
import subprocess
import sys
from collections import Counter

import bench

# Only cases that make no container first in each round: the sampling also counts steps that are not timed.
CASES = ["run", "create+start+delete", "exec", "state"]
VIEW = os.environ.get("VIEW", "v2")
# The processes of the measurement itself.
NOT_OURS = {"timer", "perf", "sh"}
ENTRY = re.compile(r"__(?:x64|arm64|se|do)_sys_(\w+)")


def kind(frames):
    """The kind of a sample. `frames` are its kernel and user functions, the innermost first."""
    call = next((found[1] for found in map(ENTRY.search, frames) if found), None)
    if any("page_fault" in frame for frame in frames):
        return f"page faults in {call}" if call else "page faults"
    if call:
        return call
    if any("ret_from_fork" in frame for frame in frames):
        return "first steps of a new process"
    if any("do_syscall_64" in frame or "el0_svc" in frame for frame in frames):
        return "ways into system calls and out"
    if "kernel" in frames[0]:
        return "interrupts"
    return "own instructions, C library's included"


def samples(name, program, case, seconds):
    """Microseconds of CPU in each round, by kind."""
    data = bench.OUT / f"where-{name}.data"
    steps = bench.steps_of(name, program, VIEW, case)
    script = "\n".join([f"peer {name}", *steps]) + "\n"
    done = bench.in_view(VIEW, ["perf", "record", "-q", "-e", "cpu-clock", "-F", "20000", "-g", "-o", str(data),
                                str(bench.OUT / "timer"), "100000", str(seconds), "0"], script)
    if done.returncode:
        sys.exit(f"{case} {name}: {done.stderr}")
    rounds = len(done.stdout.splitlines()) + 1  # the first one is not printed
    text = subprocess.run(["perf", "script", "-i", data, "-F", "comm,ip,sym,dso"], check=True, capture_output=True,
                          text=True, errors="replace").stdout
    data.unlink()
    found = Counter()
    for sample in text.split("\n\n"):
        comm, *frames = sample.strip("\n").split("\n")
        if frames and comm.strip() not in NOT_OURS:
            found[kind(frames)] += 1
    return {what: number * 50 / rounds for what, number in found.items()}


def table(case, seconds, least):
    orlop, floor = (samples(name, bench.PEERS[name], case, seconds) for name in ("orlop", "floor"))
    rows = sorted(orlop.keys() | floor.keys(), key=lambda what: floor.get(what, 0) - orlop.get(what, 0))
    lines = [f"## {case}: µs of CPU", "", "| | orlop | floor | more |", "|---|---|---|---|"]
    small = 0
    for what in rows:
        mine, plain = orlop.get(what, 0), floor.get(what, 0)
        if abs(mine - plain) < least:
            small += mine - plain
            continue
        lines.append(f"| {what} | {mine:.0f} | {plain:.0f} | {mine - plain:.0f} |")
    lines.append(f"| all others | | | {small:.0f} |")
    mine, plain = sum(orlop.values()), sum(floor.values())
    lines.append(f"| **together** | {mine:.0f} | {plain:.0f} | {mine - plain:.0f} |")
    return "\n".join(lines) + "\n"


def main():
    bench.own_mounts()
    bench.prepare()
    seconds = int(os.environ.get("SECONDS_PER_CELL", "3"))
    least = float(os.environ.get("LEAST", "5"))
    cases = os.environ["CASES"].split(",") if "CASES" in os.environ else CASES
    text = "\n".join(table(case, seconds, least) for case in cases)
    (bench.OUT / "where.md").write_text(text)
    bench.clean(VIEW)
    print(text)
    print(f"written: {bench.OUT}/where.md")


if __name__ == "__main__":
    main()
