#!/usr/bin/python3 -IS
"""The helper programs of runc's integration tests, in one file.

Called by the name of one of them: pidfd-kill, fs-idmap, remap-rootfs, seccompagent, sd-helper (recvtty is recvtty.c).
The suite's own are written in Go and want a newer compiler than distributions ship. Not here: key_label (needs SELinux). `with-tty COMMAND...` is for bats.sh: it gives the command a controlling
terminal, and is its init.
"""

# Each program imports what only it needs, because the suite hardly waits for the programs.
import array
import errno
import getopt
import os
import socket
import sys


def options(*names):
    """Reads the command line: options by name (one dash is enough, as in Go), then the other words."""
    words = [word if word.startswith("--") else "-" + word if word.startswith("-") else word for word in sys.argv[1:]]
    given, rest = getopt.gnu_getopt(words, "", names)
    return {name.lstrip("-"): value for name, value in given}, rest


def write_pid(path):
    if path:
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")


def listen(path):
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(16)
    return server


def receive(server):
    """Receives one message with one descriptor: (payload, descriptor)."""
    connection, _ = server.accept()
    with connection:
        fds = array.array("i")
        payload, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(fds.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data)
    if len(fds) != 1:
        raise OSError(errno.EPROTO, f"{len(fds)} descriptors in place of 1")
    return payload, fds[0]


def copy(source, target):
    """Copies until the source ends. A terminal whose other end is closed answers EIO."""
    while True:
        try:
            data = os.read(source, 65536)
        except OSError:
            return
        if not data:
            return
        if target is not None:
            os.write(target, data)


def pidfd_kill():
    import signal

    given, [path] = options("signal=", "pid-file=")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    write_pid(given["pid-file"])
    _, pidfd = receive(listen(path))
    signal.sigwait([signal.SIGTERM])
    signal.pidfd_send_signal(pidfd, signal.Signals[given.get("signal", "SIGKILL")])
    os.unlink(given["pid-file"])


def fs_idmap():
    """Prints on stderr, in lower case, why the file system of a path cannot be mounted with mapped ids."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)

    def call(name, number, *args):
        result = libc.syscall(ctypes.c_long(number), *args)
        if result < 0:
            sys.exit(f"{name}: {os.strerror(ctypes.get_errno()).lower()}")
        return result

    open_tree, mount_setattr = 428, 442  # the same on all architectures
    clone, at_empty_path, attr_idmap = 1, 0x1000, 0x00100000
    path = os.fsencode(sys.argv[1])
    tree = call("open_tree", open_tree, ctypes.c_int(-100), path, ctypes.c_uint(clone | os.O_CLOEXEC))
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go[1])
        libc.unshare(0x10000000)  # CLONE_NEWUSER
        os.write(ready[1], b"0")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for kind in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{kind}", "w") as file:
            file.write("0 65536 65536\n")
    namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    attr = struct.pack("=QQQQ", attr_idmap, 0, 0, namespace)
    try:
        call("mount_setattr", mount_setattr, ctypes.c_int(tree), b"", ctypes.c_uint(at_empty_path), attr,
             ctypes.c_size_t(len(attr)))
    finally:
        os.close(go[1])
        os.waitpid(child, 0)


def remap_rootfs():
    """Changes the owners of the files in a bundle's root to the host ids to which its user namespace maps them."""
    import json
    import stat

    bundle = sys.argv[1]
    with open(os.path.join(bundle, "config.json")) as file:
        spec = json.load(file)
    uids, gids = (spec["linux"].get(key) or [] for key in ("uidMappings", "gidMappings"))
    if not uids and not gids:
        return

    def mapped(maps, inside):
        for entry in maps:
            if entry["containerID"] <= inside < entry["containerID"] + entry["size"]:
                return entry["hostID"] + inside
        return None

    seen = set()

    def remap(path):
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode) or (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        uid, gid = mapped(uids, status.st_uid), mapped(gids, status.st_gid)
        if uid is None or gid is None:
            print(f"{path}: {status.st_uid}:{status.st_gid} is not mapped")
            return
        os.chown(path, uid, gid, follow_symlinks=False)
        os.chmod(path, stat.S_IMODE(status.st_mode))  # chown(2) clears the setuid bit

    root = os.path.join(bundle, spec["root"]["path"])
    for directory, subdirectories, files in os.walk(root):
        for path in [directory, *(os.path.join(directory, name) for name in subdirectories + files)]:
            remap(path)


# The names of the agent's answers, and the kernel's numbers.
CALLS = {
    "x86_64": {83: "mkdir", 90: "chmod", 91: "fchmod", 268: "fchmodat"},
    "aarch64": {52: "fchmod", 53: "fchmodat"},
}.get(os.uname().machine, {})
NOTIF_RECV, NOTIF_SEND, NOTIF_ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
CONTINUE = 1


def make_for(pid, address, mode, suffix):
    """Does the mkdir(2) of another process, with a suffix that shows that this program did it."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        name = os.pread(memory.fileno(), 4096, address).split(b"\0")[0].decode()
    place = "root" if name.startswith("/") else "cwd"
    below = os.path.normpath("/" + f"{name}-{suffix}")
    os.umask(0)
    os.mkdir(f"/proc/{pid}/{place}{below}", mode)


def answer(listener, suffix):
    import fcntl
    import select
    import struct

    poller = select.poll()
    poller.register(listener, select.POLLIN)
    while True:
        if any(event & select.POLLHUP for _, event in poller.poll()):
            os.close(listener)
            return
        request = bytearray(80)
        try:
            fcntl.ioctl(listener, NOTIF_RECV, request)
            ident, pid, _, number, _, _, *args = struct.unpack("=QIIiIQ6Q", request)
            error, flags = 0, CONTINUE
            call = CALLS.get(number)
            if call == "mkdir":
                flags = 0
                try:
                    fcntl.ioctl(listener, NOTIF_ID_VALID, struct.pack("=Q", ident))
                    make_for(pid, args[0], args[1], suffix)
                except (OSError, UnicodeDecodeError):
                    error = -errno.ENOSYS
            elif call:
                error, flags = -errno.ENOMEDIUM, 0
            fcntl.ioctl(listener, NOTIF_SEND, bytearray(struct.pack("=QqiI", ident, 0, error, flags)))
        except OSError as error:
            # The process was killed while this program looked at its call.
            if error.errno != errno.ENOENT:
                raise


def seccompagent():
    given, _ = options("socketfile=", "pid-file=")
    if os.path.exists(given["socketfile"]):
        os.unlink(given["socketfile"])
    write_pid(given["pid-file"])
    server = listen(given["socketfile"])
    import json
    import threading

    while True:
        try:
            payload, listener = receive(server)
            state = json.loads(payload)
        except (OSError, ValueError) as error:
            print(f"seccompagent: {error}", file=sys.stderr)
            continue
        if state.get("fds") != ["seccompFd"]:
            os.close(listener)
            continue
        suffix = os.path.basename(state.get("metadata", "")) or "agent"
        threading.Thread(target=answer, args=(listener, suffix), daemon=True).start()


def sd_helper():
    """Asks systemd (a user's own, for a user) to make or remove a slice, and waits for it."""
    import subprocess
    import time

    _, [verb, unit] = options("parent=")
    user = [] if os.getuid() == 0 else ["--user"]
    manager = ["busctl", *user, "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
               "org.freedesktop.systemd1.Manager"]
    if verb == "start":
        accounting = [word for name in ("CPU", "Memory", "IO", "Tasks") for word in (f"{name}Accounting", "b", "true")]
        properties = ["5", "DefaultDependencies", "b", "false", *accounting]
        call = ["StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", *properties, "0"]
        wanted = 0
    else:
        call, wanted = ["StopUnit", "ss", unit, "replace"], 3
    subprocess.run([*manager, *call], check=True, stdout=subprocess.DEVNULL)
    for _ in range(300):
        state = subprocess.run(["systemctl", *user, "is-active", "--quiet", unit]).returncode
        if state == wanted or (wanted and state):
            return
        time.sleep(0.1)
    sys.exit(f"sd-helper: {unit} does not {verb}")


def with_tty():
    import fcntl
    import pty
    import struct
    import termios
    import threading

    child, terminal = pty.fork()
    if child == 0:
        os.execvp(sys.argv[1], sys.argv[1:])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    threading.Thread(target=copy, args=(terminal, 1), daemon=True).start()
    # This program is the first process of a pid namespace, so it reaps all orphans. The tests rely on that.
    while True:
        ended, status = os.wait()
        if ended == child:
            sys.exit(os.waitstatus_to_exitcode(status))


TOOLS = {
    "pidfd-kill": pidfd_kill,
    "fs-idmap": fs_idmap,
    "remap-rootfs": remap_rootfs,
    "seccompagent": seccompagent,
    "sd-helper": sd_helper,
    "with-tty": with_tty,
}
TOOLS[os.path.basename(sys.argv[0])]()
