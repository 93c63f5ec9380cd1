#!/usr/bin/env python3
"""Times orlop, other runtimes and the floor in turn. See README.md; `make bench` calls it.

environment: ORLOP (default target/orlop), CRUN, RUNC (default: from PATH), NEWCRUN, YOUKI (default: none),
             QUICK=1 (the pure v2 view, few rounds), SECONDS_PER_CELL, VIEWS, CASES (comma-separated)
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
OUT = TOP / "target" / "bench"
WORK = Path("/run/orlop-bench")
QUICK = os.environ.get("QUICK", "") not in ("", "0")

CGROUP_VIEW = TOP / "integration" / "cgroup-view"
# The configuration from which all tests start.
BASE = TOP / "tests" / "support" / "base.json"
DOCKER_CAPS = [
    "CAP_" + name
    for name in "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
    "SYS_CHROOT KILL AUDIT_WRITE".split()
]
MASKED = [
    "/proc/" + name
    for name in "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi".split()
] + ["/sys/firmware"]
READONLY = ["/proc/" + name for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")]

# Each case: its bundle, and the steps of a round. {r} is the runtime with its options, {b} the bundle, {n} a container's name,
# {p} the option for its pid file, {f} that file.
CASES = {
    "run": ("true", ["time {r} run {b} {n}"]),
    "create+start+delete": (
        "true",
        ["time {r} create {p} {b} {n}", "time {r} start {n}", "gone {f}", "time {r} delete {n}"],
    ),
    "exec": ("sleep", ["setup {r} run -d {b} {c}", "time {r} exec {c} /bin/true", "teardown {r} delete -f {c}"]),
    "state": ("sleep", ["setup {r} run -d {b} {c}", "time {r} state {c}", "teardown {r} delete -f {c}"]),
    "kill+delete": (
        "sleep",
        ["before {r} run -d {p} {b} {n}", "time {r} kill {n} KILL", "gone {f}", "time {r} delete {n}"],
    ),
    "delete --force": ("sleep", ["before {r} run -d {b} {n}", "time {r} delete -f {n}"]),
    "run docker": ("docker", ["time {r} run {b} {n}"]),
    "run docker userns": ("docker-userns", ["time {r} run {b} {n}"]),
}
# The (peer, view, case) that do not work on this host.
CANNOT = set()
# The cases in the other views than v2.
ELSEWHERE = ["run", "create+start+delete", "exec", "state", "delete --force"]


def config(args, docker=False, userns=False, bundle=None):
    """config.json: like that of `spec`, or with what docker adds to it."""
    said = json.loads(BASE.read_text())
    said["process"].update(
        terminal=False,
        args=args,
        env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
    )
    said["root"]["readonly"] = True
    said["hostname"] = "orlop"
    linux = said["linux"]
    linux.update(maskedPaths=MASKED, readonlyPaths=READONLY)
    if docker:
        said["process"]["capabilities"] = {kind: DOCKER_CAPS for kind in said["process"]["capabilities"]}
        said["mounts"][0]["options"] = ["nosuid", "noexec", "nodev"]
        for number in range(10):
            said["mounts"].append({"destination": f"/volumes/{number}", "type": "bind", "source": f"{bundle}/volumes/{number}",
                                   "options": ["rbind", "rprivate", "ro" if number % 2 else "rw"]})
        linux["seccomp"] = json.loads((TOP / "bundles" / "seccomp-default.json").read_text())
    if userns:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    return said


def make_bundle(name, **options):
    bundle = WORK / "bundles" / name
    for directory in ("bin", "proc", "dev", "sys", "etc"):
        (bundle / "rootfs" / directory).mkdir(parents=True, exist_ok=True)
    shutil.copy(shutil.which("busybox"), bundle / "rootfs/bin/busybox")
    for applet in ("true", "sleep"):
        (bundle / "rootfs/bin" / applet).symlink_to("busybox")
    for number in range(10):
        (bundle / "rootfs/volumes" / str(number)).mkdir(parents=True)
        (bundle / "volumes" / str(number)).mkdir(parents=True)
    command = ["/bin/sleep", "3600"] if name == "sleep" else ["/bin/true"]
    (bundle / "config.json").write_text(json.dumps(config(command, bundle=bundle, **options), indent=1))
    return bundle


def make_bundles(orlop):
    (WORK / "floor").mkdir()
    make_bundle("true")
    make_bundle("sleep")
    for name, userns in (("docker", False), ("docker-userns", True)):
        bundle = make_bundle(name, docker=True, userns=userns)
        # The floor has no compiler for filters, so it loads the filter that orlop has compiled.
        root = ["--root", str(WORK / "filter")]
        subprocess.run([orlop, *root, "create", "-b", bundle, "filter"], check=True, stdout=subprocess.DEVNULL,
                       stdin=subprocess.DEVNULL)
        kept = (WORK / "filter/filter/seccomp.bpf").read_bytes()
        (bundle / "filter.bpf").write_bytes(kept.split(b"\n", 1)[1])
        subprocess.run([orlop, *root, "delete", "-f", "filter"], check=True)


def peers_of(view, case):
    """The peers that can do `case` in `view`: name → program."""
    found = {}
    for name, program in PEERS.items():
        if "crun" in name and view == "hybrid":
            continue  # crun refuses hybrid hosts
        if (name, view, case) in CANNOT:
            continue
        if name == "youki" and case != "create+start+delete":
            continue  # its foreground run sometimes never returns
        found[name] = program
    return found


def steps_of(name, program, view, case):
    bundle_name, steps = CASES[case]
    bundle = WORK / "bundles" / bundle_name
    container = f"ob-{name}-%"
    fixed = f"ob-{name}-c"
    lines = []
    for step in steps:
        if name == "floor":
            # The floor's command line: VERB ID BUNDLE COMMAND.
            kind, _, rest = step.partition(" ")
            if "{r}" not in rest:
                lines.append(step.format(f=WORK / "floor" / container / "state"))
                continue
            words = rest.replace("{r} ", "").replace("run -d", "create")
            command = words.split()[2:] if words.startswith("exec") else []
            verb = words.split()[0]
            who = fixed if "{c}" in words else container
            options = f"--{view}" + (" --docker" if "docker" in case else "") + (" --userns" if "userns" in case else "")
            ends = command or (["/bin/sleep", "3600"] if bundle_name == "sleep" else ["/bin/true"])
            lines.append(f"{kind} {program} {options} {verb} {who} {bundle} {' '.join(ends)}")
            if verb == "create" and "run -d" in rest:
                lines.append(f"{kind} {program} {options} start {who} {bundle}")
            continue
        words = f"{program} --root {WORK / name}"
        pid_file = WORK / f"pid-{name}-%"
        if name == "youki":
            step = step.replace("delete -f", "delete --force")
        lines.append(step.format(r=words, b=f"-b {bundle}", n=container, c=fixed,
                                 p=f"--pid-file {pid_file}", f=pid_file))
    return lines


def in_view(view, command, said=""):
    """Runs the command in the view. Its output goes through files: a container that is left would keep a pipe open."""
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        stdin.write(said)
        stdin.seek(0)
        done = subprocess.run(["unshare", "-m", "--propagation", "private", CGROUP_VIEW, view, *command],
                              stdin=stdin, stdout=out, stderr=err)
        for file in (out, err):
            file.seek(0)
        done.stdout, done.stderr = out.read(), err.read()
        return done


def clean(view):
    """Removes what a failed command has left: containers of all peers, and cgroups."""
    for name, program in PEERS.items():
        for state in (WORK / name).glob("ob-*"):
            if name == "floor":
                in_view(view, [program, f"--{view}", "delete", state.name, "-"])
            else:
                force = "--force" if name == "youki" else "-f"
                in_view(view, [program, "--root", str(WORK / name), "delete", force, state.name])
    for left in sorted(Path("/sys/fs/cgroup").glob("**/ob-*"), reverse=True):
        left.rmdir()


def measure(view, case, gap, seconds):
    peers = peers_of(view, case)
    text = ""
    for name, program in peers.items():
        text += "\n".join([f"peer {name}", *steps_of(name, program, view, case)]) + "\n"
    done = in_view(view, [str(OUT / "timer"), "100000", str(seconds), str(gap)], text)
    if done.returncode:
        # Find the peer that fails. It is named and left out, unless it is orlop or the floor, which must work.
        culprit = re.search(r"^timer: (\w+):", done.stderr, re.M)
        if not culprit or culprit[1] in ("orlop", "floor"):
            sys.exit(f"{view} {case}: {done.stderr}")
        print(f"{view} {case}: {culprit[1]} left out: {done.stderr.strip()}", file=sys.stderr)
        CANNOT.add((culprit[1], view, case))
        clean(view)
        return measure(view, case, gap, seconds)
    samples = {name: [] for name in peers}
    cpu = {name: [] for name in peers}
    peaks = dict.fromkeys(peers, 0)
    for line in done.stdout.splitlines():
        name, took, busy, peak = line.split()
        samples[name].append(int(took))
        cpu[name].append(int(busy))
        peaks[name] = max(peaks[name], int(peak))
    return {"samples": samples, "cpu": cpu, "peaks": peaks}


def count(view, case):
    """The number of system calls of one round's timed commands and their children."""
    counts = {}
    for name, program in peers_of(view, case).items():
        total = 0
        steps = [step.replace("%", "s").split() for step in steps_of(name, program, view, case)]
        script = []
        files = []
        for kind, *words in steps:
            if kind == "gone":
                script.append(f"while kill -0 $(cat {words[0]}) 2>/dev/null; do sleep 0.01; done")
            elif kind == "time":
                files.append(WORK / f"strace-{len(files)}")
                line = f"strace -f -c -o {files[-1]} {' '.join(words)}"
                # strace stays with init until the container ends.
                script.append(f"{line} & sleep 3" if "create" in words else line)
            else:
                script.append(" ".join(words))
        done = in_view(view, ["sh", "-ec", "\n".join([*script, "wait"])])
        if done.returncode:
            sys.exit(f"{view} {case} {name} under strace: {done.stderr}")
        for file in files:
            # The column of errors may be empty.
            total += int(re.search(r"^100\.00\s+\S+\s+(?:\S+\s+)?(\d+)\s+(?:\d+\s+)?total$", file.read_text(), re.M)[1])
        counts[name] = total
    return counts


def quartiles(samples):
    if len(samples) < 4:
        return min(samples), min(samples), statistics.median(samples), max(samples)
    low, middle, high = statistics.quantiles(samples, n=4)
    return min(samples), low, middle, high


def ms(nanoseconds):
    return f"{nanoseconds / 1e6:.2f}"


def markdown(results, names):
    lines = ["# Orlop beside others", "", f"kernel {os.uname().release}, {os.cpu_count()} CPUs; times in ms.", ""]
    lines += ["| program | version | size of the binary |", "|---|---|---|"]
    for name in names:
        said = "" if name == "floor" else subprocess.run([PEERS[name], "--version"], capture_output=True, text=True).stdout
        size = Path(PEERS[name]).stat().st_size
        lines.append(f"| {name} | {(said.splitlines() or [''])[0]} | {size:,} |")
    for view in dict.fromkeys(key[0] for key in results):
        here = {key: value for key, value in results.items() if key[0] == view}
        present = [name for name in names if any(name in value["samples"] for value in here.values())]
        others = [name for name in present if name not in ("orlop",)]
        lines += ["", f"## {view}: median (min, quartiles), ms", ""]
        lines.append("| case | gap | " + " | ".join(present) + " | " + " | ".join(f"orlop / {name}" for name in others) + " |")
        lines.append("|---" * (2 + len(present) + len(others)) + "|")
        for (_, case, gap), value in here.items():
            table = {name: quartiles(samples) for name, samples in value["samples"].items()}
            cells = [
                f"{ms(table[name][2])} ({', '.join(ms(table[name][i]) for i in (0, 1, 3))})" if name in table else ""
                for name in present
            ]
            ratios = [f"**{table['orlop'][2] / table[name][2]:.2f}**" if name in table else "" for name in others]
            lines.append("| " + " | ".join([case, f"{gap} ms", *cells, *ratios]) + " |")
        lines += ["", f"### {view}: system calls; CPU time in ms (median, with that of reaped children); peak resident memory in KiB", ""]
        lines.append("| case | " + " | ".join(f"{name} calls" for name in present) + " | "
                     + " | ".join(f"{name} CPU" for name in present) + " | "
                     + " | ".join(f"CPU orlop / {name}" for name in others) + " | "
                     + " | ".join(f"{name} KiB" for name in present) + " |")
        lines.append("|---" * (1 + 3 * len(present) + len(others)) + "|")
        for (_, case, gap), value in here.items():
            if value.get("calls"):
                cells = [str(value["calls"].get(name, "")) for name in present]
                cells += [f"{statistics.median(value['cpu'][name]) / 1e3:.2f}" if name in value["cpu"] else ""
                          for name in present]
                cpu = {name: statistics.median(busy) for name, busy in value["cpu"].items()}
                cells += [f"**{cpu['orlop'] / cpu[name]:.2f}**" if name in cpu else "" for name in others]
                cells += [str(value["peaks"].get(name, "")) for name in present]
                lines.append("| " + " | ".join([case, *cells]) + " |")
    return "\n".join(lines) + "\n"


COLOURS = {"floor": "#999", "orlop": "#1f77b4", "crun": "#ff7f0e", "newcrun": "#d95f0e", "runc": "#2ca02c", "youki": "#9467bd"}


def svg(results, names):
    """Draws bars of medians in units of the floor, on a logarithmic scale. The whiskers are the quartiles."""
    import math
    bar, left, width = 11, 250, 560
    worst = max(quartiles(s)[3] / quartiles(v["samples"]["floor"])[2] for v in results.values() for s in v["samples"].values())
    decades = math.log10(max(worst, 10))
    x = lambda ratio: left + max(0, math.log10(max(ratio, 0.5) / 0.5)) / (decades + math.log10(2)) * width
    body, y = [], 40
    for (view, case, gap), value in results.items():
        floor = quartiles(value["samples"]["floor"])[2]
        body.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{case}, {view}, {gap} ms apart</text>'
                    if gap else f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{case}, {view}, back to back</text>')
        for name in names:
            if name not in value["samples"]:
                continue
            _, low, middle, high = (n / floor for n in quartiles(value["samples"][name]))
            body.append(f'<rect x="{left}" y="{y}" width="{x(middle) - left:.1f}" height="{bar - 2}" fill="{COLOURS[name]}"/>'
                        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + 4.5}" y2="{y + 4.5}" stroke="#000"/>'
                        f'<text x="{x(high) + 5:.1f}" y="{y + 9}" font-size="9">{ms(middle * floor)} ms</text>')
            y += bar
        y += 8
    grid = "".join(f'<line x1="{x(r):.1f}" x2="{x(r):.1f}" y1="30" y2="{y}" stroke="#ccc"/>'
                   f'<text x="{x(r):.1f}" y="26" text-anchor="middle">{r}×</text>'
                   for r in (0.5, 1, 2, 5, 10, 20, 50, 100) if math.log10(r) <= decades)
    legend = "".join(f'<rect x="{left + 90 * i}" y="2" width="10" height="10" fill="{COLOURS[n]}"/>'
                     f'<text x="{left + 90 * i + 14}" y="11">{n}</text>' for i, n in enumerate(names))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{y + 10}" '
            f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>{legend}{grid}{"".join(body)}</svg>\n')


def own_mounts():
    if "IN_OWN_MOUNTS" not in os.environ:
        # The state is on a tmpfs, as on real hosts. On a disk this would measure its file system, and ext4 searches longer for an
        # inode the more of them were freed in the last seconds.
        WORK.mkdir(exist_ok=True)
        # A null device of its own, too: crun changes the owner of its standard input to the container's user.
        null = f"mknod -m 666 {WORK}/null c 1 3 && mount --bind {WORK}/null /dev/null"
        script = f'mount -t tmpfs tmpfs {WORK} && {null} && exec "$@"'
        os.execvpe("unshare", ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "_", sys.executable,
                               *sys.argv], {**os.environ, "IN_OWN_MOUNTS": "1"})


def installed(name, program):
    """Copies a program, as an installation does. The pages of a file that the linker wrote are scattered in memory: from there
    the same program takes an eighth longer."""
    target = OUT / "programs" / name
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    return str(shutil.copy(program, target))


def prepare():
    """Makes the programs, the peers and the bundles."""
    global PEERS
    OUT.mkdir(parents=True, exist_ok=True)
    # With musl the floor is fastest. musl-gcc does not find the kernel's headers by itself.
    musl = ["musl-gcc", "-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
    for program, compiler in ("floor", musl if shutil.which("musl-gcc") else ["cc"]), ("timer", ["cc"]):
        command = [*compiler, "-O2", "-static", "-no-pie", "-o", OUT / program, HERE / f"{program}.c"]
        subprocess.run(command, check=True)
    given = {
        "floor": str(OUT / "floor"),
        "orlop": os.environ.get("ORLOP", str(TOP / "target/orlop")),
        "crun": os.environ.get("CRUN", shutil.which("crun")),
        "runc": os.environ.get("RUNC", shutil.which("runc")),
        "newcrun": os.environ.get("NEWCRUN"),
        "youki": os.environ.get("YOUKI"),
    }
    PEERS = {name: installed(name, program) for name, program in given.items() if program}
    for name in given.keys() - PEERS.keys():
        print(f"{name}: not there, not measured", file=sys.stderr)
    make_bundles(PEERS["orlop"])


def main():
    own_mounts()
    prepare()
    hybrid = Path("/sys/fs/cgroup/unified").exists()
    views = os.environ.get("VIEWS", "v2,hybrid,v1" if hybrid and not QUICK else "v2").split(",")
    wanted = os.environ.get("CASES", ",".join(CASES)).split(",")
    cells = [
        (view, case, gap)
        for view in views
        for case in wanted
        for gap in (0, 50)
        if view == "v2" or case in ELSEWHERE
    ]
    seconds = int(os.environ.get("SECONDS_PER_CELL", "4" if QUICK else "12"))
    results = {}
    for view, case, gap in cells:
        results[view, case, gap] = measure(view, case, gap, seconds)
        if not gap:
            results[view, case, gap]["calls"] = count(view, case)
        shown = "  ".join(f"{name} {ms(statistics.median(values))}" for name, values in results[view, case, gap]["samples"].items())
        print(f"{view:7} {case:20} {gap:2} ms apart: {shown}", file=sys.stderr, flush=True)
    names = [name for name in PEERS if any(name in value["samples"] for value in results.values())]
    (OUT / "samples.json").write_text(json.dumps([[*key, value] for key, value in results.items()]))
    text = markdown(results, names)
    (OUT / "results.md").write_text(text)
    (OUT / "results.svg").write_text(svg(results, names))
    for view in views:
        clean(view)
    print(text)
    print(f"written: {OUT}/results.md, results.svg, samples.json")


if __name__ == "__main__":
    main()
