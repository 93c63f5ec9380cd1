#!/usr/bin/env python3
"""Runs mutated configurations under two runtimes, and explains or reports every difference.

Each configuration is made from a seed and a number, so a difference can be had again: `--only NUMBER`. A process in
the container says what it sees (probe.c); the host's side of it (cgroup files, what was made in the root, hooks) is
read here. Differences are lines; each must match a row of `explained`, or the run fails.
"""

import argparse
import collections
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import mutations

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 30
PR_SET_CHILD_SUBREAPER = 36


class Runtime:
    def __init__(self, name, path, work):
        self.name, self.path = name, path
        self.root = os.path.join(work, "state-" + name)

    def call(self, *args, out=None, timeout=PATIENCE):
        command = [self.path, "--root", self.root, *args]
        with open(out or os.devnull, "wb") as stdout, open(self.root + ".err", "w+b") as stderr:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, timeout=timeout,
                                  cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, check=False)
            stderr.seek(0)
            return done.returncode, stderr.read().decode(errors="replace").strip()


def make_root(bundle, probe):
    """Makes a new root for each run, because the runs also compare what the runtime made in it."""
    root = os.path.join(bundle, "rootfs")
    shutil.rmtree(root, ignore_errors=True)
    for name in ["proc", "sys", "dev", "tmp", "data", "data/below", "etc"]:
        os.makedirs(os.path.join(root, name))
    os.chmod(os.path.join(root, "tmp"), 0o1777)
    os.symlink("/data", os.path.join(root, "link"))
    with open(os.path.join(root, "file"), "w", encoding="utf-8") as file:
        file.write("text")
    os.link(probe, os.path.join(root, "probe"))
    for name in ["volume", "volume/inner"]:
        os.makedirs(os.path.join(bundle, name), exist_ok=True)
    for name in ["hooks.log"]:
        with open(os.path.join(bundle, name), "w", encoding="utf-8"):
            pass


# The parents of the containers' cgroups. A cgroupsPath of mutations.py names them, and runtimes leave them behind.
PARENTS = set()


def remove_parents():
    """Removes the cgroups that are this program's, and empty."""
    for directory in PARENTS:
        if os.path.basename(directory) == "differential" and os.path.isdir(directory):
            os.rmdir(directory)


def cgroup_files(pid):
    """The limits of the container's cgroups, as the host sees them."""
    wanted = re.compile(
        r"^(memory\.(limit_in_bytes|soft_limit_in_bytes|memsw\.limit_in_bytes|swappiness|oom_control|use_hierarchy|kmem\.tcp\.limit_in_bytes)"
        r"|cpu\.(shares|cfs_quota_us|cfs_period_us|cfs_burst_us|idle|rt_runtime_us|rt_period_us)|cpuset\.(cpus|mems)|pids\.max"
        r"|blkio\..*(weight|throttle\..*_device)|devices\.list|freezer\.state|net_cls\.classid|net_prio\.ifpriomap|hugetlb\..*limit_in_bytes)$")
    facts = []
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            mount = "unified" if not controllers else controllers.removeprefix("name=")
            facts.append(f"place: {mount} {path}")
            directory = f"/sys/fs/cgroup/{mount}{path}"
            PARENTS.add(os.path.dirname(directory))
            for name in sorted(os.listdir(directory) if os.path.isdir(directory) else []):
                if wanted.match(name):
                    try:
                        with open(os.path.join(directory, name), encoding="utf-8") as content:
                            text = content.read().rstrip("\n")
                    except OSError as error:
                        text = error.strerror
                    facts += [f"limits: {name} {line}" for line in text.split("\n")]
    return facts


def made_in(root):
    """The files in the root after the run."""
    facts = []
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            found = os.lstat(path)
            target = os.readlink(path) if os.path.islink(path) else ""
            facts.append(f"made: {path.removeprefix(root)} {found.st_mode:o} {found.st_uid}:{found.st_gid} {target}")
    return facts


HOST_DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"]


def host_facts():
    """What no container may change on the host. This also repairs it for the next container."""
    facts = []
    for path in HOST_DEVICES:
        found = os.stat(path)
        facts.append(f"host: {path} {found.st_mode:o} {found.st_uid}:{found.st_gid}")
        if (found.st_uid, found.st_gid) != (0, 0):
            os.chown(path, 0, 0)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        facts.append(f"host: {len(file.readlines())} mounts")
    return facts


def wait_for(pid):
    """Waits for the end of a process that the runtime left to this one."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return "not ours"
        if found:
            return f"exit {os.waitstatus_to_exitcode(status)}"
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def run(runtime, bundle, identity):
    """All facts about one container as lines, and the error if the runtime refused it."""
    out = runtime.root + ".out"
    facts, refusal = [], ""
    try:
        code, refusal = runtime.call("create", "--bundle", bundle, identity, out=out)
        facts.append(f"create: {'refused' if code else 'accepted'}")
        if code == 0:
            pid = 0
            state_file = runtime.root + ".state"
            runtime.call("state", identity, out=state_file)
            with open(state_file, encoding="utf-8") as file:
                state = json.load(file)
            pid = state["pid"]
            # The runtimes name different versions of the specification.
            facts += [f"state: {key} {json.dumps(state.get(key), sort_keys=True)}"
                      for key in ["id", "status", "bundle", "rootfs", "annotations", "owner"]]
            facts += cgroup_files(pid)
            code, refusal = runtime.call("start", identity)
            facts.append(f"start: {'refused' if code else 'accepted'}")
            if code:
                os.kill(pid, signal.SIGKILL)
            facts.append(f"end: {wait_for(pid)}")
            with open(out, encoding="utf-8", errors="replace") as file:
                facts += file.read().splitlines()
    except subprocess.TimeoutExpired:
        facts.append("create: hangs")
    code, said = runtime.call("delete", "--force", identity)
    if code:
        facts.append(f"delete: refused {said}")
    with open(os.path.join(bundle, "hooks.log"), encoding="utf-8", errors="replace") as file:
        facts += file.read().splitlines()
    facts += made_in(os.path.join(bundle, "rootfs"))
    facts += host_facts()
    while True:  # the processes that were left to this one
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    return facts, refusal


def mount_line(line):
    """mountinfo without the fields that differ between two mounts of the same kind."""
    fields = line.removeprefix("mounts: ").split(" ")
    end = fields.index("-")
    shared = ",".join(field.split(":")[0] for field in fields[6:end])
    sort = lambda options: ",".join(sorted(options.split(",")))
    return f"mounts: {fields[4]} {fields[3]} {sort(fields[5])} [{shared}] {fields[end + 1]} {fields[end + 2]} {sort(fields[end + 3])}"


def normal(facts, runtime, bundle, host_namespaces):
    """The facts without pids, inode numbers, and names that differ between the runtimes."""
    result = []
    own = next((fact.split(" ")[2] for fact in facts if fact.startswith("ids: pid ")), "")
    for fact in facts:
        if fact.startswith(("ids: ", "status: NSpid")) and own not in ["", "1"]:
            # In the host's pid namespace.
            fact = re.sub(r"ppid \d+", "ppid N", re.sub(rf"\b{own}\b", "PID", fact))
        if fact.startswith("mounts: ") and " - " in fact:
            fact = mount_line(fact)
        elif fact.startswith("ns: "):
            _, kind, target = fact.split(" ", 2)
            fact = f"ns: {kind} {'the host' if target == host_namespaces.get(kind) else 'own'}"
        elif fact.startswith("hook ") and " stdin {" in fact:
            head, text = fact.split(" stdin ", 1)
            state = json.loads(text)
            state["pid"] = "a pid" if state.get("pid") else state.get("pid", "absent")
            state.pop("ociVersion", None)
            fact = f"{head} stdin {json.dumps(state, sort_keys=True)}"
        fact = fact.replace(bundle, "BUNDLE").replace(runtime.root, "ROOT")
        fact = re.sub(r"inode=\d+|ino:\d+", "inode", fact)
        result.append(fact)
    return collections.Counter(result)


def subject(line):
    """The subject of a fact. Two facts about the same subject make one difference."""
    fields = line.split(" ")
    if fields[0] == "mounts:" and len(fields) == 8:
        return " ".join([*fields[:3], fields[5]])
    return " ".join(fields[:2 if fields[0] in ["env:", "args:", "hook"] or "devices.list" in line else 3 if fields[0] == "limits:" else 2])


def told_apart(about, one, first, other, second):
    """The difference of two facts about one subject. For mounts, only the fields that differ."""
    if not about.startswith("mounts: "):
        return [f"{about}: {one} {first.removeprefix(about).strip()!r}, {other} {second.removeprefix(about).strip()!r}"]
    lines = []
    for name, at in [("options", 3), ("propagation", 4), ("source", 6), ("superblock", 7)]:
        left, right = (set(side.split(" ")[at].strip("[]").split(",")) for side in [first, second])
        if left != right:
            lines.append(f"{about}: {name}: {one} {','.join(sorted(left - right))}, {other} {','.join(sorted(right - left))}")
    return lines


def differences(one, other, facts, refusals):
    """One line for each subject that only one runtime has, or that differs."""
    accepted = [{line for line in side if re.match(r"(create|start|end|delete): ", line)} for side in facts]
    stage = [next((word for word in ["create: refused", "start: refused"] if word in side), "accepted") for side in accepted]
    if stage[0] != stage[1]:
        # After a refusal no other difference matters.
        return [f"outcome: {one.name} {stage[0]}, {other.name} {stage[1]}: {(refusals[0] or refusals[1]).split(chr(10))[-1]}"]
    if stage[0] != "accepted":
        return []
    sides = []
    for only in [facts[0] - facts[1], facts[1] - facts[0]]:
        by_subject = collections.defaultdict(list)
        for line in only.elements():
            by_subject[subject(line)].append(line)
        sides.append(by_subject)
    lines = []
    for about in sorted({*sides[0], *sides[1]}):
        left, right = sides[0][about], sides[1][about]
        if len(left) == 1 and len(right) == 1:
            lines += told_apart(about, one.name, left[0], other.name, right[0])
        else:
            lines += [f"only {one.name}: {line}" for line in left] + [f"only {other.name}: {line}" for line in right]
    return lines


def read_explained(path):
    rules = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                pattern, reason = line.rstrip("\n").split("\t", 1)
                rules.append((re.compile(pattern), reason.strip()))
    return rules


def compare(number, config, runtimes, args, host_namespaces):
    """The differences of one configuration, and the outcome of both runtimes."""
    bundle = args.bundle
    facts, refusals = [], []
    order = runtimes if number % 2 else runtimes[::-1]
    found = {}
    for runtime in order:
        make_root(bundle, args.probe)
        with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
            file.write(config)
        lines, refusal = run(runtime, bundle, f"differential-{number}")
        found[runtime.name] = (normal(lines, runtime, bundle, host_namespaces), refusal)
    for runtime in runtimes:
        facts.append(found[runtime.name][0])
        refusals.append(found[runtime.name][1])
    ended = "refused by both" if all("create: refused" in side or "start: refused" in side for side in facts) else "run"
    return differences(*runtimes, facts, refusals), ended, refusals


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="this number alone, and say all about it")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--other", default="/usr/sbin/runc")
    parser.add_argument("--probe", required=True)
    parser.add_argument("--work", required=True, help="an empty directory that every user may enter")
    parser.add_argument("--refusals", action="store_true", help="say why both refused a configuration")
    parser.add_argument("--report", help="a file for the result")
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    args.bundle = os.path.join(args.work, "bundle")
    os.makedirs(args.bundle, exist_ok=True)
    for path in [args.work, args.bundle]:
        os.chmod(path, 0o755)
    runtimes = [Runtime("orlop", args.runtime, args.work), Runtime("runc", args.other, args.work)]
    for runtime in runtimes:
        os.makedirs(runtime.root, exist_ok=True)
    rules = read_explained(os.path.join(HERE, "explained"))
    names = os.listdir("/proc/self/ns")
    host_namespaces = {name: os.readlink(f"/proc/self/ns/{name}") for name in names}
    seen, endings, unexplained = collections.Counter(), collections.Counter(), []
    numbers = [args.only] if args.only is not None else range(args.first, args.first + args.configs)
    begin = time.monotonic()
    for number in numbers:
        config, what = mutations.make(args.seed, number, args.bundle)
        lines, ended, refusals = compare(number, config, runtimes, args, host_namespaces)
        classes = set()
        if args.refusals and ended == "refused by both":
            print(f"config {number} ({what}): {refusals[0]}\n    {refusals[1]}", flush=True)
        endings[ended] += 1
        for line in lines:
            reason = next((reason for pattern, reason in rules if pattern.search(line)), None)
            if args.only is not None:
                print(f"{line}\n    {reason or 'NOT EXPLAINED'}")
            if reason is None:
                unexplained.append((number, what, line))
                print(f"config {number} ({what}): {line}", flush=True)
            else:
                classes.add(reason)
        seen.update(classes)
        endings["the same" if not lines else "explained" if classes else "unexplained"] += 1
        if args.only is not None:
            print(config)
    remove_parents()
    took = time.monotonic() - begin
    report = [f"seed {args.seed}, configs {numbers[0]} to {numbers[-1]}: {len(numbers)} in {took:.0f} s"]
    report += [f"{count:6} {name}" for name, count in endings.most_common()]
    report.append("classes of explained differences, by the number of configs:")
    report += [f"{count:6} {reason}" for reason, count in seen.most_common()]
    report.append(f"{len(unexplained)} differences in {len({row[0] for row in unexplained})} configs are not explained")
    print("\n".join(report))
    if args.report:
        with open(args.report, "w", encoding="utf-8") as file:
            file.write("\n".join(report) + "\n")
            file.writelines(f"config {number} ({what}): {line}\n" for number, what, line in unexplained)
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
