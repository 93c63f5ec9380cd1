#!/usr/bin/env python3
"""Measures curves: many containers, many at once, many mounts, many rules, little memory. See README.md.

environment: as for bench.py; MOST=1000 (containers alive at once)
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import bench
from bench import OUT, WORK, config, in_view, ms

MOST = int(os.environ.get("MOST", "1000"))


def runtime(name):
    return [bench.PEERS[name], "--root", str(WORK / name)]


def timed(command):
    """Runs the command. Returns seconds of wall clock, and of CPU with its reaped children."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with open("/dev/null") as null, open(WORK / "said", "w+") as said:
        subprocess.run(command, stdin=null, stdout=said, stderr=said, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begin, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def living(name):
    """Medians of `run -d` and `delete --force` of one more container, beside a growing and then shrinking number of idle ones.
    Three times up and down: otherwise changes of the machine would look like growth."""
    marks = [mark for mark in (10, 100, 300) if mark < MOST] + [MOST]
    samples = {mark: [] for mark in marks}
    alive = []

    def made(each):
        return timed([*runtime(name), "run", "-d", "-b", str(WORK / "bundles/sleep"), each])

    def gone(each):
        return timed([*runtime(name), "delete", "--force", each])

    for mark in 3 * [*marks, *marks[-2:0:-1]] + marks[:1]:
        while len(alive) < mark:
            alive.append(f"ob-{name}-{len(alive)}")
            made(alive[-1])
        while len(alive) > mark:
            gone(alive.pop())
        time.sleep(1)  # The kernel still cleans up.
        samples[mark] += [(*made(f"ob-{name}-more"), *gone(f"ob-{name}-more")) for _ in range(10)]
    while alive:
        gone(alive.pop())
    return [[str(mark), *(ms(statistics.median(each) * 1e9) for each in zip(*samples[mark]))] for mark in marks]


def parallel(name):
    """Containers a second, with N `create` at once."""
    rows = []
    for width in (1, 2, 8, 32):
        count, running, begin = 64, [], time.monotonic()
        for number in range(count):
            if len(running) == width:
                running.pop(0).wait()
            running.append(subprocess.Popen(
                [*runtime(name), "create", "-b", str(WORK / "bundles/sleep"), f"ob-{name}-{number}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for process in running:
            process.wait()
        rows.append([str(width), f"{count / (time.monotonic() - begin):.0f}"])
        for number in range(count):
            subprocess.run([*runtime(name), "delete", "--force", f"ob-{name}-{number}"], check=True)
    return rows


def of_config(name, change, sizes):
    """Times `run` of the bundle `true` with a config.json that `change` has made larger."""
    rows = []
    for size in sizes:
        wanted = config(["/bin/true"])
        change(wanted, size)
        (WORK / "bundles/true/config.json").write_text(json.dumps(wanted))
        command = [*runtime(name), "run", "-b", str(WORK / "bundles/true"), f"ob-{name}-s"]
        try:
            times = [timed(command) for _ in range(10)]
        except subprocess.CalledProcessError:
            rows.append([str(size), (WORK / "said").read_text().strip()[:80]])
            continue
        rows.append([str(size), *(ms(statistics.median(t[i] for t in times) * 1e9) for i in (0, 1))])
    return rows


def more_mounts(wanted, size):
    (WORK / "volume").mkdir(exist_ok=True)
    for number in range(size):
        wanted["mounts"].append({"destination": f"/dev/shm/{number}", "type": "bind", "source": str(WORK / "volume"),
                                 "options": ["rbind", "ro"]})


def more_rules(wanted, size):
    names = json.loads((bench.TOP / "bundles/seccomp-default.json").read_text())["syscalls"][0]["names"]
    rules = [{"names": [names[i % len(names)]], "action": "SCMP_ACT_ALLOW",
              **({} if i < len(names) else {"args": [{"index": 1, "value": i, "op": "SCMP_CMP_NE"}]})}
             for i in range(size)]
    wanted["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}


def least_memory(name):
    """The lowest memory limit, in KiB, with which /bin/true of busybox still runs (view: hybrid or v1)."""
    low, high = 0, 16384
    while high - low > 16:
        middle = (low + high) // 2
        wanted = config(["/bin/true"])
        wanted["linux"]["resources"]["memory"] = {"limit": middle * 1024}
        (WORK / "bundles/true/config.json").write_text(json.dumps(wanted))
        try:
            timed([*runtime(name), "run", "-b", str(WORK / "bundles/true"), f"ob-{name}-m"])
            high = middle
        except subprocess.CalledProcessError:
            low = middle
            subprocess.run([*runtime(name), "delete", "--force", f"ob-{name}-m"], stderr=subprocess.DEVNULL)
    return high


def table(title, head, rows):
    lines = ["", f"## {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def inner(view, names):
    bench.OUT.mkdir(exist_ok=True)
    text = ""
    both = ["ms", "CPU ms"]
    for name in names:
        if view == "v1":
            text += table(f"{name}: lowest memory limit ({view})", ["KiB"], [[str(least_memory(name))]])
            continue
        text += table(f"{name}: living containers ({view})",
                      ["alive", "run -d, " + both[0], both[1], "delete --force, " + both[0], both[1]], living(name))
        text += table(f"{name}: at once ({view})", ["at once", "creates a second"], parallel(name))
        text += table(f"{name}: mounts ({view})", ["more mounts", *both], of_config(name, more_mounts, (0, 10, 100, 1000)))
        text += table(f"{name}: seccomp rules ({view})", ["rules", *both], of_config(name, more_rules, (10, 50, 100, 250, 500)))
    print(text)


def main():
    if len(sys.argv) == 3:
        # This program again, inside a view. The caller passes the peers.
        bench.PEERS = json.loads(sys.argv[2])
        return inner(sys.argv[1], bench.PEERS)
    bench.own_mounts()
    bench.prepare()
    bench.PEERS.pop("floor")
    text = "# Curves\n"
    for view in ("v2", "v1"):
        peers = {name: program for name, program in bench.PEERS.items() if name in ("orlop", "newcrun", "crun")}
        if view == "v2" and "newcrun" in peers:
            peers.pop("crun", None)
        done = in_view(view, [sys.executable, str(Path(__file__)), view, json.dumps(peers)])
        bench.clean(view)
        if done.returncode:
            sys.exit(done.stderr)
        text += done.stdout
    (OUT / "scale.md").write_text(text)
    print(text)
    print(f"written: {OUT}/scale.md")


if __name__ == "__main__":
    main()
