#!/usr/bin/env python3
"""Measures what each trick gives. It compares this commit as it is built with builds without one trick, in one interleaved run.
See README.md; `make bench-ablation` calls it.

environment: ROUNDS (default 300), ONLY (names of variants, comma-separated), PROGRAMS (name=path, comma-separated:
             existing programs, instead of building any; the others are compared with the first)
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import bench

OUT = bench.OUT / "ablation"
# Rust's own start-up code in place of C's main. It passes the words of the command line, which this code joins again.
RUST_MAIN = """
fn main() {
    use std::os::unix::ffi::OsStrExt;
    unsafe extern "C" { static environ: *const *const std::ffi::c_char; }
    let words: Vec<_> = std::env::args_os().filter_map(|word| std::ffi::CString::new(word.as_bytes()).ok()).collect();
    let mut args: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    args.push(std::ptr::null());
    match unsafe { orlop::sys::entry::begin(words.len() as i32, args.as_ptr(), environ) } {
        Ok(args) => std::process::exit(run(args)),
        Err(error) => std::process::exit(not_sealed(error)),
    }
}
"""

# name: changes in the sources (file, before, after), and in the environment of tools/build-release.
VARIANTS = {
    "as it is built": ([], {}),
    "glibc": ([], {"ORLOP_LIBC": "glibc"}),
    "no PIE": ([], {"EXTRA_RUSTFLAGS": "-C relocation-model=static"}),
    "opt-level 3": ([], {"CARGO_PROFILE_RELEASE_OPT_LEVEL": "3"}),
    "the C library's allocator": ([("src/main.rs", "#[global_allocator]\n", "")], {}),
    "Rust's main": (
        [
            ("src/main.rs", "#![no_main]\n", "#![allow(unsafe_code, clippy::all)]\n"),
            ("src/main.rs", "orlop::program!(run, not_sealed);\n", RUST_MAIN),
            # These words are copies, and not where the kernel has put them.
            ("src/sys/entry.rs", "unsafe { super::cmdline::remember(count, args, env) };", ""),
        ],
        {},
    ),
    # The seal is no trick. This measures the price of a promise.
    "no seal": ([("src/sys/entry.rs", "if sealed {", "if sealed && false {")], {}),
}
# {r}: the program with its options; {b}: the bundles; {n}: a new name; {c}: the name of a container.
CASES = {
    "run": "{r} run -b {b}/true {n}",
    "exec": "{r} exec {c} /bin/true",
    "state": "{r} state {c}",
}


def build(name, edits, changed):
    """Builds this commit with these edits. None if the sources do not have the text to be edited."""
    tree = OUT / "tree"
    subprocess.run(["rm", "-rf", tree], check=True)
    tree.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", bench.TOP, "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", tree], input=archive, check=True)
    for file, before, after in edits:
        text = (tree / file).read_text()
        if before not in text:
            print(f"{name}: {file} has no {before!r}, left out", file=sys.stderr)
            return None
        (tree / file).write_text(text.replace(before, after))
    command = [tree / "tools/build-release", "--target-dir", OUT / "target"]
    done = subprocess.run(command, env={**os.environ, **changed}, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def programs():
    given = os.environ.get("PROGRAMS")
    if given:
        found = dict(each.split("=", 1) for each in given.split(","))
    else:
        wanted = os.environ.get("ONLY", ",".join(VARIANTS)).split(",")
        found = {}
        for name in wanted:
            program = build(name, *VARIANTS[name])
            if program:
                # The next variant is built in the same place.
                found[name] = bench.installed(f"built-{len(found)}", program)
    return {name: bench.installed(f"ablation-{place}", path) for place, (name, path) in enumerate(found.items())}


def words_of(place, program, case, name):
    root = f"{program} --root {bench.WORK}/ablation-{place}"
    return CASES[case].format(r=root, b=bench.WORK / "bundles", n=name, c=f"ob-ablation-{place}").split()


def once(words):
    """Wall clock, processor time and page faults of a command and of the children that it waits for."""
    begun = time.perf_counter()
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    _, status, used = os.wait4(pid, 0)
    took = time.perf_counter() - begun
    if status:
        sys.exit(f"{' '.join(words)}: status {status}")
    return took * 1e3, (used.ru_utime + used.ru_stime) * 1e3, used.ru_minflt


def measure(found):
    """(variant, case) → the rounds. In each round another variant goes first."""
    samples = {(name, case): [] for name in found for case in CASES}
    for number in range(int(os.environ.get("ROUNDS", "300"))):
        for case in CASES:
            order = list(enumerate(found.items()))
            first = number % len(order)
            for place, (name, program) in order[first:] + order[:first]:
                words = words_of(place, program, case, f"ob-ablation-{place}-{number}")
                samples[name, case].append(once(words))
    return samples


def calls(words):
    done = subprocess.run(["strace", "-f", "-c", "-o", "/dev/stdout", *words], capture_output=True, text=True)
    total = [line.split() for line in done.stdout.splitlines() if line.endswith("total")]
    return int(total[-1][3]) if total else 0


def table(found, samples, counted):
    first = next(iter(found))
    rows = ["| | " + " | ".join(f"{case}: CPU, ms | of it | faults | calls" for case in CASES) + " | MB |"]
    rows.append("|---" * (2 + 4 * len(CASES)) + "|")
    for name, program in found.items():
        cells = []
        for case in CASES:
            wall, cpu, faults = (list(column) for column in zip(*samples[name, case]))
            # Compared in pairs: other work in a round disturbs both alike.
            ratio = statistics.median(
                mine[1] / base[1] for mine, base in zip(samples[name, case], samples[first, case])
            )
            cells.append(f"{statistics.median(cpu):.3f} | {ratio:.3f} | {statistics.median(faults):.0f} | {counted[name, case]}")
        rows.append(f"| {name} | {' | '.join(cells)} | {os.path.getsize(program) / 1e6:.2f} |")
    return "\n".join(rows) + "\n"


def svg(found, samples):
    """Draws a bar for each variant and verb: its processor time, as a part of the first variant's."""
    first = next(iter(found))
    names, colours = list(found)[1:], ("#4269d0", "#efb118", "#3ca951")
    parts, y = [], 30
    for name in names:
        parts.append(f'<text x="170" y="{y + 22}" text-anchor="end">{name}</text>')
        for case, colour in zip(CASES, colours):
            ratio = statistics.median(m[1] / b[1] for m, b in zip(samples[name, case], samples[first, case]))
            parts.append(f'<rect x="180" y="{y}" width="{ratio * 250:.0f}" height="10" fill="{colour}"/>')
            parts.append(f'<text x="{186 + ratio * 250:.0f}" y="{y + 9}">{case} {ratio:.2f}</text>')
            y += 12
        y += 10
    line = f'<line x1="430" y1="20" x2="430" y2="{y}" stroke="#888"/>'
    head = '<text x="430" y="14" text-anchor="middle">as it is built = 1 (processor time)</text>'
    body = "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{y}" font-family="sans-serif" font-size="11">{head}{line}{body}</svg>\n'


def main():
    bench.own_mounts()
    OUT.mkdir(parents=True, exist_ok=True)
    found = programs()
    subprocess.run([bench.CGROUP_VIEW, "v2", "true"], check=True)
    bench.make_bundle("true")
    bench.make_bundle("sleep")
    for place, program in enumerate(found.values()):
        root = ["--root", f"{bench.WORK}/ablation-{place}"]
        subprocess.run([program, *root, "run", "-d", "-b", bench.WORK / "bundles/sleep", f"ob-ablation-{place}"], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        samples = measure(found)
        counted = {
            (name, case): calls(words_of(place, program, case, f"ob-ablation-{place}-calls"))
            for place, (name, program) in enumerate(found.items())
            for case in CASES
        }
    finally:
        for place, program in enumerate(found.values()):
            subprocess.run([program, "--root", f"{bench.WORK}/ablation-{place}", "delete", "-f", f"ob-ablation-{place}"])
    text = table(found, samples, counted)
    (bench.OUT / "ablation.md").write_text(text)
    (bench.OUT / "ablation.svg").write_text(svg(found, samples))
    print(text)
    print(f"written: {bench.OUT}/ablation.md, ablation.svg")


if __name__ == "__main__":
    main()
