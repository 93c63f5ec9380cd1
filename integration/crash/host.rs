//! What is really there: the bundle, and everything on the host that carries a container's id or root.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long any command may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bundle, and the state root of its containers.
pub struct Bundle {
    pub dir: tempfile::TempDir,
    pub runtime: PathBuf,
    rootfs: (u64, u64),
}

impl Bundle {
    pub fn new(runtime: &Path, user_namespace: bool) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("orlop-crash.").tempdir()?;
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let rootfs = dir.path().join("rootfs");
        for name in ["rootfs", "rootfs/etc", "state"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let own = std::env::current_exe()?;
        let guest = own.with_file_name("guest");
        fs::copy(&guest, rootfs.join("guest")).with_context(|| format!("{}", guest.display()))?;
        fs::write(dir.path().join("config.json"), serde_json::to_vec_pretty(&config(user_namespace))?)?;
        if user_namespace {
            std::os::unix::fs::chown(&rootfs, Some(100_000), Some(100_000))?;
        }
        let found = fs::metadata(&rootfs)?;
        Ok(Self { dir, runtime: runtime.into(), rootfs: (found.dev(), found.ino()) })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The words of a command line.
    pub fn line(&self, words: &[&str]) -> Vec<String> {
        let root = self.path("state").display().to_string();
        let first = [self.runtime.display().to_string(), "--root".to_owned(), root];
        first.into_iter().chain(words.iter().map(|&word| word.to_owned())).collect()
    }

    /// Runs it to its end: exit status and stdout. The output goes to files, since containers inherit it.
    pub fn call(&self, words: &[&str]) -> Result<(i32, String)> {
        let line = self.line(words);
        let (program, args) = line.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(args);
        self.finish(command)
    }

    pub fn finish(&self, command: Command) -> Result<(i32, String)> {
        let code = self.finish_within(command, PATIENCE)?.context("hang")?;
        Ok((code, fs::read_to_string(self.path("out"))?))
    }

    /// The exit status; `None` if it had to be killed.
    pub fn finish_within(&self, mut command: Command, patience: Duration) -> Result<Option<i32>> {
        // New ones: a process that outlives its command goes on to write to those of before.
        let file = |name| {
            let _ = fs::remove_file(self.path(name));
            fs::File::create(self.path(name))
        };
        command.stdin(Stdio::null()).stdout(file("out")?).stderr(file("err")?).current_dir(self.dir.path());
        let mut child = command.spawn()?;
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let timeout = rustix::event::Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
        let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let ended = rustix::event::poll(&mut polled, Some(&timeout))? > 0;
        if !ended {
            child.kill()?;
        }
        let status = child.wait()?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
        Ok(ended.then(|| status.code().unwrap_or(128 + signal)))
    }

    /// A call that has to succeed.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        let (code, out) = self.call(words)?;
        let err = fs::read_to_string(self.path("err")).unwrap_or_default();
        ensure!(code == 0, "{}: exit {code}: {}", words.join(" "), err.trim());
        Ok(out)
    }

    /// Everything on the host that belongs to this container.
    pub fn leftovers(&self, id: &str) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        left.extend(self.processes(id).iter().map(|pid| format!("process {pid} {}", name_of(*pid))));
        left.extend(cgroups(id).iter().map(|path| format!("cgroup {}", path.display())));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let name = self.dir.path().display().to_string();
        let ours = mounts.lines().filter(|line| line.contains(&name) || line.contains(id));
        left.extend(ours.map(|line| format!("mount {line}")));
        left.extend(names(&self.path("state")).iter().map(|name| format!("state {name}")));
        const KNOWN: [&str; 8] =
            ["config.json", "short.json", "err", "out", "pid", "report", "rootfs", "state"];
        let files = names(self.dir.path());
        let foreign = files.iter().filter(|name| !KNOWN.contains(&name.as_str()));
        left.extend(foreign.map(|name| format!("file {name}")));
        left
    }

    /// As [`Self::leftovers`], when the kernel has had the time to end what was killed.
    pub fn leftovers_after(&self, id: &str, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        loop {
            let left = self.leftovers(id);
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Living processes of the container, and those of the runtime that are at work on it.
    pub fn processes(&self, id: &str) -> Vec<i32> {
        let mut found = Vec::new();
        for name in names(Path::new("/proc")) {
            let Ok(pid) = name.parse::<i32>() else { continue };
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let dead = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
            if dead || pid == std::process::id() as i32 {
                continue;
            }
            let has = |file: &str| {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).contains(id)
            };
            let root = fs::metadata(format!("/proc/{pid}/root")).map(|meta| (meta.dev(), meta.ino())).ok();
            if root == Some(self.rootfs) || has("cgroup") || has("cmdline") {
                found.push(pid);
            }
        }
        found
    }

    /// Clears the host by hand of what the runtime could not, so that the next point begins clean.
    pub fn sweep(&self, id: &str) {
        for path in cgroups(id) {
            let _ = fs::write(path.join("cgroup.freeze"), "0"); // Only version 2 has it,
            let _ = fs::write(path.join("freezer.state"), "THAWED"); // and only version 1 this.
        }
        for _ in 0..200 {
            for pid in self.processes(id) {
                kill(pid, Signal::KILL);
            }
            for path in cgroups(id).iter().rev() {
                let _ = fs::remove_dir(path); // Busy until the processes are gone: the next round.
            }
            for name in names(&self.path("state")) {
                let _ = fs::remove_dir_all(self.path("state").join(name)); // As above.
            }
            if self.leftovers(id).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal); // It may be gone.
    }
}

pub fn name_of(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

pub fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The cgroups whose path has the id, in every hierarchy that is mounted; parents before their children.
pub fn cgroups(id: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in mounts.lines() {
        if let Some((point, fstype)) = line.split_once(" - ")
            && fstype.starts_with("cgroup")
        {
            below(Path::new(point.split(' ').nth(4).unwrap_or("/")), id, &mut found);
        }
    }
    found
}

fn below(dir: &Path, id: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.path().display().to_string().contains(id) {
                found.push(entry.path());
            }
            below(&entry.path(), id, found);
        }
    }
}

/// Whether there are controllers: a version 2 tree beside version 1 has none to give.
pub fn limits() -> bool {
    let has = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.contains("pids"));
    Path::new("/sys/fs/cgroup/pids").exists() || has("/sys/fs/cgroup/cgroup.controllers")
}

/// A container that uses most of what leaves something on a host: cgroups with limits, hooks, a filter, mounts.
fn config(user_namespace: bool) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let hook = json!([{"path": "/bin/true"}]);
    let mut namespaces = json!([
        {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
        {"type": "cgroup"},
    ]);
    if user_namespace && let Some(list) = namespaces.as_array_mut() {
        list.push(json!({"type": "user"}));
    }
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let maps = if user_namespace { map } else { json!(null) };
    let mut resources = json!({"devices": [{"allow": false, "access": "rwm"}]});
    if limits() {
        resources["memory"] = json!({"limit": 256 << 20});
        resources["pids"] = json!({"limit": 100});
        resources["cpu"] = json!({"shares": 512});
    }
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 1, "gid": 1, "additionalGids": [5]},
            "args": ["/guest", "pause"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "oomScoreAdj": 100,
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "crash",
        "hooks": {"createRuntime": hook, "poststart": hook, "poststop": hook},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/data", "type": "bind", "source": "/usr/share",
             "options": ["rbind", "ro"]},
        ],
        "linux": {
            "uidMappings": maps,
            "gidMappings": maps,
            "namespaces": namespaces,
            "resources": resources,
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["keyctl", "bpf"], "action": "SCMP_ACT_ERRNO"}]},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
