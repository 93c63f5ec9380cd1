#!/usr/bin/env python3
"""Writes target/layout.ld, which puts the functions that the usual verbs execute next to each other. See README.md; `make layout`
calls it, on x86_64. environment: ORLOP, a release build that has its symbols
"""

import bisect
import os
import re
import subprocess
import sys

import bench

# The commands that engines call, in the pure version 2 view. {b} is a bundle, {c} a container that an earlier command has made.
STEPS = [
    ("run", "run -b {b}/true ob-layout-r"),
    ("create", "create -b {b}/sleep {c}"),
    ("start", "start {c}"),
    ("exec", "exec {c} /bin/true"),
    ("state", "state {c}"),
    ("kill", "kill {c} KILL"),
    ("delete", "delete {c}"),
]
TARGET = bench.TOP / "target/layout.ld"
HEAD = """/*
 * Puts the functions that the usual verbs execute next to each other, so that each start of the program maps few pages. The
 * functions that most verbs execute come first, then the order is that of the first call. They stand before the constants, in a
 * mapping apart from the other functions: on a fault the kernel maps the whole folio of the page cache, up to the mapping's end.
 *
 * `make layout` makes this file from a trace. A pattern that matches no function does no harm, nor does a function that no
 * pattern matches. integration/bench/README.md says what the layout gives.
 */
SECTIONS {
  .text.usual : {
"""
TAIL = """  }
}
INSERT BEFORE .rodata;
"""


def lines(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def functions(program):
    """address → names, sorted. One address has several names if the compiler merged functions with the same code."""
    rows = (line.split() for line in lines("nm", "--defined-only", program))
    found = {}
    for address, kind, name in rows:
        if kind in "tTwWi":
            found.setdefault(int(address, 16), []).append(name)
    return dict(sorted(found.items()))


def members(program):
    """function → archive and member, for functions that are not Rust's."""
    compiler = "musl-gcc" if "-musl/" in program else "cc"
    # musl-gcc -print-file-name finds only glibc's files. The linker names each file that it reads.
    linked = f"echo 'int main(void) {{}}' | {compiler} -static -Wl,--trace -x c - -o /dev/null"
    found = {}
    for path in sorted({line for line in lines("sh", "-c", linked) if line.endswith((".a", "crt1.o"))}):
        for line in lines("sh", "-c", f"nm -A --defined-only {path} 2>/dev/null"):
            place, kind, name = line.rsplit(" ", 2)
            member = f":{place.split(':')[1]}" if path.endswith(".a") else ""
            if kind in "tTwWi":
                found.setdefault(name, f"*{os.path.basename(path)}{member}(.text .text.*)")
    return found


def reached(program, names):
    """A function's address → the verbs that execute it, in the order of the first call."""
    addresses = list(names)
    low, high = f"{addresses[0]:x}", f"{addresses[-1] + 0x10000:x}"
    found = {}
    for verb, words in STEPS:
        out = bench.WORK / f"reached-{verb}"
        said = words.format(b=bench.WORK / "bundles", c="ob-layout")
        command = [bench.OUT / "reached", low, high, out, program, "--root", bench.WORK / "layout", *said.split()]
        done = bench.in_view("v2", [str(word) for word in command])
        if done.returncode:
            sys.exit(f"{verb}: {done.stderr}")
        for line in out.read_text().splitlines():
            place = bisect.bisect(addresses, int(line, 16)) - 1
            found.setdefault(addresses[place], {}).setdefault(verb)
    return found


def pattern(name, archive):
    # Hashes change with each compiler. They are at the end of a name, and with each crate in the name. The number that tells two
    # functions of the same name apart changes, too.
    if name.startswith("_ZN"):
        name = re.sub("17h[0-9a-f]{16}E", "17h*", name)
    elif name.startswith("_R"):
        # So does the length of a hash, and with it the references back to places in the name. References come first, because a
        # length may look like one.
        name = re.sub(r"\.[0-9]+$", "*", re.sub("B[0-9A-Za-z]{0,3}_", "B*_", re.sub("Cs[0-9A-Za-z]+_", "Cs*_", name)))
    if name.startswith("_"):
        # Functions that are marked as cold have sections of their own, although they are executed.
        return archive.get(name, f"*(.text.{name} .text.unlikely.{name})")
    return archive.get(name, f"*(.text.{name})")


def main():
    bench.own_mounts()
    bench.prepare()
    subprocess.run(["cc", "-O2", "-static", "-o", bench.OUT / "reached", bench.HERE / "reached.c"], check=True)
    program = os.environ["ORLOP"]
    names = functions(program)
    found = reached(program, names)
    archive = members(program)
    # Sorted by the number of verbs: most, some, or few. The sort is stable.
    order = sorted(found, key=lambda place: (len(found[place]) < len(STEPS) - 1, len(found[place]) < 3))
    patterns = dict.fromkeys(pattern(name, archive) for place in order for name in names[place])
    TARGET.write_text(HEAD + "".join(f"    {each}\n" for each in patterns) + TAIL)
    print(f"{len(found)} functions; written: {TARGET}")


if __name__ == "__main__":
    main()
