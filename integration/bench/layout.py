#!/usr/bin/env python3
"""Writes target/layout.ld: the functions that the usual verbs execute, next to each other. See README.md; `make layout`
calls it, on x86_64. environment: ORLOP, a release build that has its symbols
"""

import bisect
import os
import re
import subprocess
import sys

import bench

# What engines call, on the pure version 2 view; {b} is a bundle, {c} a container that was made by what stands before.
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
 * Where the functions stand that the usual verbs execute: next to each other, so that few pages have to be mapped at
 * each start of the program; those of most verbs first, then in the order in which they are first called. In front of
 * the constants, which makes it a mapping apart from the other functions: on a fault the kernel maps all of the folio
 * that the page cache has there, up to the mapping's end.
 *
 * Made by `make layout`, from what was executed. A pattern that matches nothing does no harm, nor does a function that
 * none matches. integration/bench/README.md has what it gives.
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
    """address → names, sorted: what is the same code has been made one function."""
    rows = (line.split() for line in lines("nm", "--defined-only", program))
    found = {}
    for address, kind, name in rows:
        if kind in "tTwWi":
            found.setdefault(int(address, 16), []).append(name)
    return dict(sorted(found.items()))


def members(program):
    """function → the archive and the member that has it, of what is not Rust's."""
    compiler = "musl-gcc" if "-musl/" in program else "cc"
    # musl-gcc -print-file-name knows of glibc's only. The linker names each file that it reads.
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
    """Address of a function → the verbs that execute it, in the order of the first call."""
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
    # Hashes are others with each compiler: at the end of a name, or with each crate that it mentions. So is the number
    # of one of two functions of the same name.
    if name.startswith("_ZN"):
        name = re.sub("17h[0-9a-f]{16}E", "17h*", name)
    elif name.startswith("_R"):
        # Their length too, and with it the places in the name that it refers back to; they first, for they may look
        # like one of these.
        name = re.sub(r"\.[0-9]+$", "*", re.sub("B[0-9A-Za-z]{0,3}_", "B*_", re.sub("Cs[0-9A-Za-z]+_", "Cs*_", name)))
    if name.startswith("_"):
        # Those marked as cold, though they are executed, have sections of their own.
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
    # By how many verbs: most, some, or few. Sorting is stable.
    order = sorted(found, key=lambda place: (len(found[place]) < len(STEPS) - 1, len(found[place]) < 3))
    patterns = dict.fromkeys(pattern(name, archive) for place in order for name in names[place])
    TARGET.write_text(HEAD + "".join(f"    {each}\n" for each in patterns) + TAIL)
    print(f"{len(found)} functions; written: {TARGET}")


if __name__ == "__main__":
    main()
