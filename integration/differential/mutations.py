"""Configurations from numbers: a usual one with up to five changes, most of which make sense."""

import json
import random
from pathlib import Path

CAPS = ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE"]
# The configuration from which all tests start.
BASE = Path(__file__).resolve().parents[2] / "tests" / "support" / "base.json"
ARGS = ["/probe", "one", "two words", ""]


def base():
    c = json.loads(BASE.read_text())
    c["process"].update(terminal=False, args=list(ARGS), env=["PATH=/bin", "A=b"])
    for caps in c["process"]["capabilities"].values():
        caps.insert(2, "CAP_MKNOD")
    c["root"]["readonly"] = False
    c["hostname"] = "probe"
    for mount in c["mounts"]:
        mount["source"] = mount["type"]
        mount.setdefault("options", [])
    c["linux"].update(
        maskedPaths=["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"],
        readonlyPaths=["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    )
    return c


# --- changes that make sense ---

FLAGS = ["ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "relatime", "strictatime", "nodiratime", "diratime", "atime",
         "norelatime", "nostrictatime", "sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand", "iversion", "noiversion", "silent",
         "loud", "defaults", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"]
RECURSIVE = ["rro", "rrw", "rnosuid", "rsuid", "rnodev", "rdev", "rnoexec", "rexec", "rnoatime", "rrelatime", "rstrictatime", "rnodiratime",
             "rdiratime", "rnosymfollow", "rsymfollow", "nosymfollow", "symfollow"]


def some(r, words, most=4):
    return [r.choice(words) for _ in range(r.randint(0, most))]


def bind_mount(r, c, bundle):
    source, destination = r.choice([("volume", "/data"), ("volume", "/new/deep/place"), ("volume", "/link"), ("volume/inner", "/data/below"),
                                    ("config.json", "/file"), ("config.json", "/etc/new"), (bundle + "/volume", "/tmp"), ("volume", "data")])
    options = [r.choice(["bind", "rbind"]), *some(r, FLAGS + RECURSIVE)]
    r.shuffle(options)
    c["mounts"].append({"destination": destination, "type": r.choice(["bind", "none", ""]), "source": source, "options": options})


def tmpfs_mount(r, c, _):
    options = some(r, FLAGS) + some(r, ["size=64k", "mode=700", "mode=1777", "nr_inodes=100", "uid=5", "gid=6", "size=1m", "tmpcopyup"], 3)
    r.shuffle(options)
    c["mounts"].append({"destination": r.choice(["/data", "/tmp", "/new/deep/place", "/link", "/dev/extra", "/etc"]), "type": "tmpfs", "source": "tmpfs",
                        "options": options})


def change_mount(r, c, _):
    mount = r.choice(c["mounts"])
    mount.setdefault("options", [])
    mount["options"].insert(r.randint(0, len(mount["options"])), r.choice(FLAGS))


def drop_mount(r, c, _):
    mount = r.choice(c["mounts"])
    if mount["destination"] != "/proc":  # the probe reads most from there
        c["mounts"].remove(mount)


def other_mount(r, c, _):
    c["mounts"].append(r.choice([
        {"destination": "/data", "type": "mqueue", "source": "mqueue"},
        {"destination": "/data", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/data", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
        {"destination": "/data", "type": "ramfs", "source": "ramfs"},
        {"destination": "/data", "type": "cgroup2", "source": "cgroup2", "options": ["ro"]},
        {"destination": "/data", "type": "cgroup", "source": "cgroup", "options": ["rw", "nosuid"]},
        {"destination": "/proc/cpuinfo", "type": "bind", "source": "config.json", "options": ["bind", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
    ]))


def capabilities(r, c, _):
    sets = {}
    bounding = r.sample(CAPS, r.randint(0, len(CAPS)))
    sets["bounding"] = bounding
    sets["permitted"] = [cap for cap in bounding if r.random() < 0.8]
    sets["effective"] = [cap for cap in sets["permitted"] if r.random() < 0.8]
    if r.random() < 0.4:
        sets["inheritable"] = [cap for cap in sets["permitted"] if r.random() < 0.5]
        if r.random() < 0.7:
            sets["ambient"] = [cap for cap in sets["inheritable"] if r.random() < 0.7]
    for name in list(sets):
        if r.random() < 0.08:
            del sets[name]
    c["process"]["capabilities"] = sets
    if r.random() < 0.1:
        del c["process"]["capabilities"]


def user(r, c, _):
    found = {"uid": r.choice([0, 1, 1000, 65534, 2147483647]), "gid": r.choice([0, 1, 1000, 65534, 2147483647])}
    if r.random() < 0.5:
        found["additionalGids"] = some(r, [0, 1, 5, 10, 1000, 100000])
    if r.random() < 0.4:
        found["umask"] = r.choice([0, 0o22, 0o77, 0o777])
    c["process"]["user"] = found


def rlimits(r, c, _):
    rows = []
    for name, values in r.sample([("NOFILE", [5, 64, 1024, 4096]), ("CORE", [0, 1 << 20, 2**64 - 1]), ("NPROC", [100, 1000]), ("STACK", [8 << 20]),
                                  ("FSIZE", [1 << 30, 2**64 - 1]), ("CPU", [60]), ("MEMLOCK", [65536]), ("SIGPENDING", [100]), ("MSGQUEUE", [819200]),
                                  ("NICE", [0]), ("RTPRIO", [0]), ("AS", [1 << 32, 2**64 - 1]), ("LOCKS", [10]), ("RSS", [1 << 30]),
                                  ("RTTIME", [1000000]), ("DATA", [1 << 30])], r.randint(0, 5)):
        hard = r.choice(values)
        rows.append({"type": "RLIMIT_" + name, "hard": hard, "soft": r.choice([value for value in values if value <= hard])})
    c["process"]["rlimits"] = rows


def seccomp(r, c, _):
    calls = ["getpriority", "sync_file_range", "swapoff", "mkdirat", "kcmp", "ioprio_get", "sched_yield", "no_such_call"]
    actions = ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP", "SCMP_ACT_LOG", "SCMP_ACT_ALLOW",
               "SCMP_ACT_TRACE"]
    rows = []
    for _ in range(r.randint(1, 5)):
        row = {"names": r.sample(calls, r.randint(1, 3)), "action": r.choice(actions)}
        if row["action"] == "SCMP_ACT_ERRNO" and r.random() < 0.6:
            row["errnoRet"] = r.choice([0, 1, 13, 38, 95, 255])
        if r.random() < 0.5:
            row["args"] = [{"index": 0, "value": r.choice([0, 1, 2, 3, 2**64 - 1]), "valueTwo": r.choice([0, 1, 2]),
                            "op": "SCMP_CMP_" + r.choice(["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"])}]
            if row["args"][0]["op"] == "SCMP_CMP_MASKED_EQ":
                # A mask of 0 always holds: libseccomp takes the rule for one without conditions, orlop does not.
                row["args"][0]["value"] = row["args"][0]["value"] or 3
            row["names"] = row["names"][:1]
        rows.append(row)
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rows}
    if r.random() < 0.5:
        profile["architectures"] = ["SCMP_ARCH_X86_64", *r.sample(["SCMP_ARCH_X86", "SCMP_ARCH_X32"], r.randint(0, 2))]
    if r.random() < 0.2:
        profile["flags"] = some(r, ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"], 2)
    c["linux"]["seccomp"] = profile


def paths(r, c, _):
    known = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sys", "/proc/sysrq-trigger", "/sys/firmware", "/data", "/data/below", "/file",
             "/does/not/exist", "/link", "/tmp", "/proc/scsi", "/dev/shm"]
    c["linux"]["maskedPaths"] = r.sample(known, r.randint(0, 5))
    c["linux"]["readonlyPaths"] = r.sample(known, r.randint(0, 5))
    if r.random() < 0.1:
        del c["linux"][r.choice(["maskedPaths", "readonlyPaths"])]


def namespaces(r, c, _):
    names = ["pid", "network", "ipc", "uts", "mount"]
    for name in ["network", "ipc", "pid", "uts"]:
        if r.random() < 0.15:
            names.remove(name)
    if r.random() < 0.5:
        names.append("cgroup")
    r.shuffle(names)
    c["linux"]["namespaces"] = [{"type": name} for name in names]
    if r.random() < 0.15:
        c["linux"]["namespaces"].append({"type": "network", "path": "/proc/self/ns/net"})


def user_namespace(r, c, _):
    if not any(row["type"] == "user" for row in c["linux"]["namespaces"]):
        c["linux"]["namespaces"].append({"type": "user"})
    first = r.choice([100000, 0, 500000])
    maps = [{"containerID": 0, "hostID": first, "size": r.choice([65536, 2000, 70000])}]
    if r.random() < 0.2:
        maps.append({"containerID": 200000, "hostID": 300000, "size": 10})
    c["linux"]["uidMappings"], c["linux"]["gidMappings"] = maps, maps


def names(r, c, _):
    c["hostname"] = r.choice(["a", "web.example.org", "x" * 64, "UPPER-case_1", ""])
    if r.random() < 0.3:
        del c["hostname"]
    if r.random() < 0.2:
        c["domainname"] = "example.org"


def devices(r, c, _):
    rows = []
    for _ in range(r.randint(1, 3)):
        kind = r.choice(["c", "b", "p", "u"])
        row = {"path": r.choice(["/dev/fuse", "/dev/deep/er", "/dev/null", "/data/node", "/dev/zero0", "/new/node"]), "type": kind}
        if kind != "p":
            row.update({"major": r.choice([10, 1, 7]), "minor": r.choice([229, 3, 5, 0])})
        for name, values in [("fileMode", [0o600, 0o666, 0, 0o4755]), ("uid", [0, 1000]), ("gid", [0, 5])]:
            if r.random() < 0.6:
                row[name] = r.choice(values)
        rows.append(row)
    c["linux"]["devices"] = rows


def device_rules(r, c, _):
    rules = [{"allow": False, "access": "rwm"}] if r.random() < 0.8 else []
    for _ in range(r.randint(0, 4)):
        rule = {"allow": r.random() < 0.75, "access": r.choice(["r", "w", "m", "rw", "rwm", "rm"])}
        if r.random() < 0.95:
            rule["type"] = r.choice(["c", "c", "b", "a"])
        for name, values in [("major", [10, 1, 7, 254]), ("minor", [229, 3, 1, 0])]:
            if r.random() < 0.75:
                rule[name] = r.choice(values)
        rules.append(rule)
    c["linux"]["resources"]["devices"] = rules
    if r.random() < 0.05:
        del c["linux"]["resources"]["devices"]


def sysctl(r, c, _):
    known = {"net.core.somaxconn": ["256", "1"], "net.ipv4.ip_forward": ["0", "1"], "net.ipv4.ping_group_range": ["0 0", "0 2147483647"],
             "kernel.shm_rmid_forced": ["0", "1"], "kernel.msgmax": ["4096", "65536"], "fs.mqueue.msg_max": ["8", "20"],
             "kernel.sem": ["250 32000 100 128"], "net/core/somaxconn": ["99"]}
    c["linux"]["sysctl"] = {name: r.choice(known[name]) for name in r.sample(sorted(known), r.randint(0, 3))}


def limits(r, c, _):
    found = c["linux"]["resources"]
    for name in r.sample(["memory", "cpu", "pids", "blockIO", "cpuset"], r.randint(1, 3)) + ([r.choice(["network", "hugepageLimits"])] if r.random() < 0.03 else []):
        if name == "memory":
            limit = r.choice([16 << 20, 64 << 20, 1 << 30, -1])
            found["memory"] = {"limit": limit}
            if r.random() < 0.5:
                found["memory"]["reservation"] = r.choice([8 << 20, -1])
            if r.random() < 0.3 and limit > 0:
                found["memory"]["swap"] = r.choice([limit, 2 * limit, -1])
            if r.random() < 0.3:
                found["memory"]["swappiness"] = r.choice([0, 60, 100])
            if r.random() < 0.3:
                found["memory"]["disableOOMKiller"] = r.random() < 0.5
        elif name == "cpu":
            found["cpu"] = {key: r.choice(values) for key, values in
                            [("shares", [2, 512, 1024, 262144, 0]), ("quota", [50000, -1, 1000, 0]), ("period", [100000, 50000, 1000, 0])] if r.random() < 0.7}
        elif name == "cpuset":
            found.setdefault("cpu", {}).update({"cpus": r.choice(["0", "0-1", "1", ""]), "mems": r.choice(["0", ""])})
        elif name == "pids":
            found["pids"] = {"limit": r.choice([50, 1000, -1])}
        elif name == "blockIO":
            found["blockIO"] = {"weight": r.choice([10, 500, 1000]),
                                "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": r.choice([1048576, 10485760])}]}
            if r.random() < 0.7:
                del found["blockIO"]["weight"]
        elif name == "network":
            found["network"] = {"classID": 1048577}
        else:
            found["hugepageLimits"] = [{"pageSize": "2MB", "limit": 4194304}]


def cgroups_path(r, c, _):
    c["linux"]["cgroupsPath"] = r.choice(["/differential/a", "differential/b", "/differential/../differential/c", "../../differential-d", "/differential/é f"])


def hooks(r, c, bundle):
    found = {}
    for kind in r.sample(["prestart", "createRuntime", "createContainer", "poststart", "poststop"], r.randint(1, 3)):
        path = "/probe" if kind == "startContainer" else bundle + "/rootfs/probe"
        # What a hook is told of the process, not its own arguments, is of interest: they are the same in both.
        rows = [{"path": path, "args": ["probe", f"hook-{kind}-{at}", bundle + "/hooks.log", r.choice(["0", "0", "0", "0", "3"])]}
                for at in range(r.randint(1, 2))]
        for row in rows:
            if r.random() < 0.4:
                row["env"] = ["H=1", "PATH=/x"]
            if r.random() < 0.3:
                row["timeout"] = 10
        found[kind] = rows
    c["hooks"] = found


def environment(r, c, _):
    c["process"]["env"] = r.choice([[], ["PATH=/bin", "PATH=/usr/bin"], ["HOME=/data", "A=1"], ["X=a=b", "EMPTY=", "PATH=/bin"], ["LONG=" + "x" * 5000],
                                    ["TERM=xterm", "A=b", "A=c"]])
    if r.random() < 0.1:
        del c["process"]["env"]


def working_directory(r, c, _):
    c["process"]["cwd"] = r.choice(["/", "/data", "/data/below", "/new/made", "/link", "/tmp/../data", "//data/"])


def arguments(r, c, _):
    c["process"]["args"] = r.choice([["/probe"], ["probe"], ["/probe", "é", "$HOME", "*"], ["/link/../probe"], ["./probe"], ["/probe"] + ["x"] * 500])
    if c["process"]["args"][0] in ["probe"]:
        c["process"]["env"] = ["PATH=/bin:/"]


def oom(r, c, _):
    c["process"]["oomScoreAdj"] = r.choice([0, 100, 1000, -1, 500])


def no_new_privileges(r, c, _):
    c["process"]["noNewPrivileges"] = r.random() < 0.4
    if r.random() < 0.2:
        del c["process"]["noNewPrivileges"]


def annotations(r, c, _):
    c["annotations"] = r.choice([{}, {"a": "b"}, {"org.example": "", "é": "ü \n x"}, {"run.oci.keep_original_groups": "1"}, {"org.criu.config": "/x"}])


def root(r, c, bundle):
    c["root"] = r.choice([{"path": "rootfs", "readonly": True}, {"path": "rootfs"}, {"path": bundle + "/rootfs", "readonly": False},
                          {"path": "./rootfs/../rootfs/", "readonly": True}])


def propagation(r, c, _):
    c["linux"]["rootfsPropagation"] = r.choice(["rprivate", "private", "rslave", "slave", "rshared", "shared", "unbindable", "runbindable", ""])


def unknown_fields(r, c, _):
    r.choice([c, c["process"], c["linux"], c["root"]])["newer"] = {"than": ["us"]}


def version(r, c, _):
    c["ociVersion"] = r.choice(["1.0.0", "1.0.2-dev", "1.1.0", "1.0.1"])


VALID = [bind_mount, bind_mount, bind_mount, tmpfs_mount, tmpfs_mount, change_mount, drop_mount, other_mount, capabilities, capabilities, user, user, rlimits,
         seccomp, seccomp, paths, namespaces, namespaces, user_namespace, names, devices, device_rules, device_rules, sysctl, limits, limits, cgroups_path,
         hooks, environment, working_directory, arguments, oom, no_new_privileges, annotations, root, propagation, unknown_fields, version]


# --- changes that do not ---

def put(*row):
    """Sets a value at a place."""
    *path, last, value = row

    def change(_r, c, _bundle):
        for step in path:
            if isinstance(c, dict):
                c = c.setdefault(step, {})
            else:
                c = c[step]
        c[last] = value
    change.__name__ = ".".join(map(str, [*path, last])) + "=" + json.dumps(value)[:40]
    return change


def without(*path):
    """Removes what is at a place."""
    def change(_r, c, _bundle):
        for step in path[:-1]:
            c = c[step]
        c.pop(path[-1], None)
    change.__name__ = "without " + ".".join(path)
    return change


def append(*row):
    """Adds an element to a list."""
    *path, value = row

    def change(_r, c, _bundle):
        for step in path[:-1]:
            c = c.setdefault(step, {})
        c.setdefault(path[-1], []).append(value)
    change.__name__ = "append " + ".".join(path) + " " + json.dumps(value)[:60]
    return change


INVALID = [
    put("ociVersion", ""), put("ociVersion", "2.0.0"), put("ociVersion", "x"), put("ociVersion", 1), without("ociVersion"),
    without("root"), put("root", "path", ""), put("root", "path", "/does/not/exist"), put("root", "path", "config.json"), put("root", "path", "/"),
    put("root", "readonly", "yes"), without("process"), put("process", "args", []), put("process", "args", "x"), without("process", "args"),
    put("process", "args", [""]), put("process", "args", ["/does/not/exist"]), put("process", "args", ["nowhere"]), put("process", "args", ["/data"]),
    put("process", "args", ["/file"]), put("process", "args", ["/probe", "a\0b"]), put("process", "cwd", ""), put("process", "cwd", "data"),
    put("process", "cwd", "/file"), without("process", "cwd"), put("process", "env", ["NOEQUALS"]), put("process", "env", ["=x"]), put("process", "env", ["A=a\0b"]),
    put("process", "user", "uid", -1), put("process", "user", "uid", 4294967295), put("process", "user", "gid", 4294967295),
    put("process", "user", "uid", 4294967296), put("process", "user", "uid", "0"), put("process", "user", "additionalGids", [4294967295]),
    put("process", "user", "umask", 0o7777), without("process", "user"), put("process", "capabilities", "bounding", ["CAP_NO_SUCH"]),
    put("process", "capabilities", "effective", CAPS + ["CAP_BPF"]), put("process", "capabilities", "ambient", ["CAP_NET_RAW"]),
    put("process", "capabilities", "bounding", ["net_raw"]), put("process", "capabilities", []),
    append("process", "rlimits", {"type": "RLIMIT_NO_SUCH", "hard": 1, "soft": 1}), append("process", "rlimits", {"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}),
    append("process", "rlimits", {"type": "RLIMIT_CORE", "hard": 1, "soft": 2}), append("process", "rlimits", {"type": "RLIMIT_CORE", "hard": -1, "soft": 0}),
    put("process", "oomScoreAdj", 1001), put("process", "oomScoreAdj", -1001), put("process", "oomScoreAdj", "0"), put("process", "terminal", True),
    put("process", "noNewPrivileges", "true"), put("process", "noNewPrivileges", None), put("hostname", 5), put("hostname", "x" * 65), put("hostname", "a\0b"),
    append("mounts", {"destination": "/data", "type": "bind", "source": "missing", "options": ["bind"]}), append("mounts", {"type": "tmpfs", "source": "tmpfs"}),
    append("mounts", {"destination": "/data"}), append("mounts", {"destination": "/data", "type": "no-such-fs", "source": "x"}),
    append("mounts", {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["no-such-option"]}),
    append("mounts", {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=many"]}),
    append("mounts", {"destination": "/data", "type": "bind", "source": "volume", "options": ["bind", "no-such-option"]}),
    append("mounts", {"destination": "/file", "type": "tmpfs", "source": "tmpfs"}), append("mounts", {"destination": "/", "type": "tmpfs", "source": "tmpfs"}),
    append("mounts", {"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}), append("mounts", {"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}),
    append("mounts", {"destination": "/data", "type": "bind", "source": "config.json", "options": ["bind"]}),
    append("mounts", {"destination": "/file", "type": "bind", "source": "volume", "options": ["bind"]}), put("mounts", {}), put("mounts", 0, "options", "ro"),
    append("linux", "namespaces", {"type": "no-such"}), append("linux", "namespaces", {"type": "pid"}), append("linux", "namespaces", {"path": "/proc/self/ns/net"}),
    append("linux", "namespaces", {"type": "ipc", "path": "/does/not/exist"}), put("linux", "namespaces", []), put("linux", "namespaces", [{"type": "pid"}]),
    put("linux", "uidMappings", [{"containerID": 0, "hostID": 1000, "size": 1}]), append("linux", "namespaces", {"type": "user"}),
    append("linux", "devices", {"path": "/dev/x", "type": "x", "major": 1, "minor": 3}), append("linux", "devices", {"path": "dev/x", "type": "c", "major": 1, "minor": 3}),
    append("linux", "devices", {"path": "", "type": "c"}), append("linux", "devices", {"path": "/dev/x", "type": "c", "major": -1, "minor": 3}),
    append("linux", "resources", "devices", {"allow": True, "type": "x", "access": "rwm"}), append("linux", "resources", "devices", {"allow": True, "type": "c", "access": "x"}),
    append("linux", "resources", "devices", {"allow": True, "type": "c", "access": ""}), append("linux", "resources", "devices", {"type": "c", "access": "r"}),
    put("linux", "resources", "memory", {"limit": 1}), put("linux", "resources", "memory", {"limit": "64M"}), put("linux", "resources", "memory", {"swap": 1 << 20, "limit": 1 << 26}),
    put("linux", "resources", "memory", {"swappiness": 101}), put("linux", "resources", "memory", {"limit": 2**63}), put("linux", "resources", "cpu", {"cpus": "99"}),
    put("linux", "resources", "cpu", {"cpus": "x"}), put("linux", "resources", "cpu", {"period": 1}), put("linux", "resources", "cpu", {"quota": 1}),
    put("linux", "resources", "pids", {"limit": "x"}), put("linux", "resources", "pids", {}), put("linux", "resources", "blockIO", {"weight": 5}),
    put("linux", "resources", "hugepageLimits", [{"pageSize": "3MB", "limit": 0}]), put("linux", "resources", "unified", {"memory.high": "1000000"}),
    put("linux", "resources", "unified", {"../x": "1"}), put("linux", "cgroupsPath", 5),
    put("linux", "sysctl", {"kernel.no_such": "1"}), put("linux", "sysctl", {"vm.swappiness": "1"}), put("linux", "sysctl", {"net.core.somaxconn": "many"}),
    put("linux", "sysctl", {"net.core.no_such": "1"}), put("linux", "sysctl", {"kernel.hostname": "x"}), put("linux", "sysctl", {"net.core.somaxconn": 5}),
    put("linux", "sysctl", {"kernel.domainname": "d"}), put("linux", "sysctl", {"net/../kernel/msgmax": "5"}),
    put("linux", "maskedPaths", ["relative"]), put("linux", "readonlyPaths", ["relative"]), put("linux", "maskedPaths", "x"), put("linux", "maskedPaths", ["/file/x"]),
    put("linux", "rootfsPropagation", "no-such"), put("linux", "seccomp", {"defaultAction": "SCMP_ACT_NO_SUCH"}), put("linux", "seccomp", {}),
    put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}),
    put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [""], "action": "SCMP_ACT_ERRNO"}]}),
    put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NO_SUCH"]}),
    put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NO_SUCH"]}),
    put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kcmp"], "action": "SCMP_ACT_ERRNO",
                                                                              "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
    put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kcmp"], "action": "SCMP_ACT_NOTIFY"}]}),
    put("linux", "personality", {"domain": "LINUX32"}), put("linux", "intelRdt", {"closID": "x"}), put("linux", "mountLabel", "x"),
    put("process", "selinuxLabel", "x"), put("process", "apparmorProfile", "no-such"),
    put("hooks", {"prestart": [{"path": "relative"}]}), put("hooks", {"prestart": [{"path": "/does/not/exist"}]}), put("hooks", {"poststart": [{"path": "/bin/false"}]}),
    put("hooks", {"prestart": [{"path": "/bin/true", "timeout": 0}]}), put("hooks", {"prestart": [{"path": "/bin/true", "timeout": -1}]}),
    put("hooks", {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1}]}), put("hooks", {"prestart": [{}]}), put("hooks", []),
    put("annotations", {"a": 5}), put("annotations", []), put("linux", []), put("process", []), put("root", []),
]


def text_change(r, text):
    """Damage to the file itself."""
    return r.choice([
        text[:r.randint(0, len(text))], text + "x", text + "{}", "", "null", "[]", text.replace(":", ": ", 5), text.replace("{", '{"process": {}, ', 1),
        "\ufeff" + text, text.replace("false", "False"), text.replace("}", ",}", 1),
    ])


def make(seed, number, bundle):
    """The text of a configuration, and the names of what was changed in it."""
    r = random.Random(f"{seed}-{number}")
    config, changes = base(), [r.choice(VALID) for _ in range(r.randint(0, 5))]
    if r.random() < 0.18:
        changes.append(r.choice(INVALID))
    names_of = []
    for change in changes:
        try:
            change(r, config, bundle)
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # what it would change is not there any more
        names_of.append(change.__name__)
    text = json.dumps(config, indent=1)
    if r.random() < 0.01:
        text = text_change(r, text)
        names_of.append("text")
    return text, ", ".join(names_of)
