//! The bundle, and what the host really has of its containers.

use crate::leftovers;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, PidfdFlags};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A command that takes longer than this counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A user id that need not exist on the host.
const USER: u32 = 64_322;

/// The user that runs the runtime, and the user namespace of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Root, without a user namespace.
    Root,
    /// Root, with a user namespace.
    Mapped,
    /// An ordinary user: rootless.
    User,
}

impl Who {
    pub fn of(name: &str) -> Result<Self> {
        Ok(match name {
            "root" => Self::Root,
            "userns" => Self::Mapped,
            "rootless" => Self::User,
            other => bail!("--as {other}: not one of root, userns, rootless"),
        })
    }

    /// The host's id of the container's root user.
    fn root(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Mapped => 100_000,
            Self::User => USER,
        }
    }
}

/// A bundle, and the state root of its containers.
pub struct Bundle {
    pub dir: tempfile::TempDir,
    runtime: PathBuf,
    pub who: Who,
}

impl Bundle {
    pub fn new(runtime: &Path, who: Who) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("orlop-crash.").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        for name in ["rootfs", "rootfs/etc", "state"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let guest = std::env::current_exe()?.with_file_name("guest");
        fs::copy(&guest, dir.path().join("rootfs/guest")).with_context(|| format!("{}", guest.display()))?;
        fs::write(dir.path().join("config.json"), serde_json::to_vec_pretty(&config(who)?)?)?;
        let root = Some(who.root());
        chown(dir.path().join("rootfs"), root, root)?;
        let mut this = Self { dir, runtime: runtime.into(), who };
        if who == Who::User {
            // The directory of the original may be closed to other users.
            this.runtime = this.path("runtime");
            fs::copy(runtime, &this.runtime)?;
            for name in [".", "state"] {
                chown(this.path(name), root, root)?;
            }
        }
        Ok(this)
    }

    /// The id of the user that calls the runtime.
    pub fn user(&self) -> u32 {
        if self.who == Who::User { USER } else { 0 }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The commit from which the runtime was built.
    pub fn commit(&self) -> Result<String> {
        let said = self.ok(&["--version"])?;
        let commit = said.lines().find_map(|line| line.strip_prefix("commit: "));
        Ok(commit.unwrap_or("unknown").to_owned())
    }

    /// The words of a command line.
    pub fn line(&self, words: &[&str]) -> Vec<String> {
        let root = self.path("state").display().to_string();
        let first = [self.runtime.display().to_string(), "--root".to_owned(), root];
        first.into_iter().chain(words.iter().map(|&word| word.to_owned())).collect()
    }

    /// Runs a command to its end; returns exit status and stdout. The output goes to files, because containers
    /// inherit it.
    pub fn call(&self, words: &[&str]) -> Result<(i32, String)> {
        let line = self.line(words);
        let (program, args) = line.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(args);
        if self.user() != 0 {
            command.uid(self.user()).gid(self.user());
        }
        let code = self.finish_within(command, PATIENCE)?.context("hang")?;
        Ok((code, fs::read_to_string(self.path("out"))?))
    }

    /// The exit status; `None` if the command had to be killed.
    pub fn finish_within(&self, mut command: Command, patience: Duration) -> Result<Option<i32>> {
        // New files each time: a process that outlives its command still writes to the files of that command.
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
        Ok(ended.then(|| status.code().unwrap_or(128 + status.signal().unwrap_or_default())))
    }

    /// A call that must succeed; returns its output.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        let (code, out) = self.call(words)?;
        let err = fs::read_to_string(self.path("err")).unwrap_or_default();
        ensure!(code == 0, "{}: exit {code}: {}", words.join(" "), err.trim());
        Ok(out)
    }

    /// Everything on the host that belongs to this container, and every unexpected file.
    pub fn leftovers(&self, id: &str) -> Vec<String> {
        self.leftovers_after(id, Duration::ZERO)
    }

    /// As [`Self::leftovers`], after giving the kernel time to end the killed processes.
    pub fn leftovers_after(&self, id: &str, patience: Duration) -> Vec<String> {
        const KNOWN: [&str; 9] =
            ["config.json", "short.json", "err", "out", "pid", "report", "rootfs", "runtime", "state"];
        let mut left = leftovers::leftovers_after(id, self.dir.path(), patience);
        let files = leftovers::names(self.dir.path());
        let foreign = files.iter().filter(|name| !KNOWN.contains(&name.as_str()));
        left.extend(foreign.map(|name| format!("file {name}")));
        left
    }

    /// The command lines of the container's processes, and of the runtime's processes at work on it.
    pub fn processes(&self, id: &str) -> Vec<String> {
        let found = leftovers::processes(id, self.dir.path());
        found.into_iter().map(|(pid, _)| leftovers::name_of(pid)).collect()
    }

    /// Removes from the host what the runtime could not remove, so that the next point begins clean.
    pub fn sweep(&self, id: &str) {
        leftovers::sweep(id, self.dir.path());
    }
}

/// True if there are controllers. On a hybrid host the version 2 tree has none.
pub fn limits() -> bool {
    let has = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.contains("pids"));
    Path::new("/sys/fs/cgroup/pids").exists() || has("/sys/fs/cgroup/cgroup.controllers")
}

/// A container that has most of what can leave something on a host: cgroups with limits, hooks, a filter, mounts.
fn config(who: Who) -> Result<Value> {
    let mut config: Value = serde_json::from_str(include_str!("../../tests/support/base.json"))?;
    // An ordinary user can map one id, so the container has no other user and no group 5.
    let (size, user) = match who {
        Who::User => (1, json!({"uid": 0, "gid": 0})),
        Who::Root | Who::Mapped => (65536, json!({"uid": 1, "gid": 1, "additionalGids": [5]})),
    };
    let process = &mut config["process"];
    process["user"] = user;
    process["args"] = json!(["/guest", "pause"]);
    process["oomScoreAdj"] = json!(100);

    let mounts = config["mounts"].as_array_mut().context("mounts")?;
    mounts.retain(|mount| mount["destination"] != "/dev/shm" && mount["destination"] != "/dev/mqueue");
    for options in mounts.iter_mut().filter_map(|mount| mount.get_mut("options")?.as_array_mut()) {
        options.retain(|option| option != "gid=5");
    }
    mounts.push(json!({"destination": "/data", "type": "bind", "source": "/usr/share",
        "options": ["rbind", "ro"]}));
    let hook = json!([{"path": "/bin/true"}]);
    config["hooks"] = json!({"createRuntime": hook, "poststart": hook, "poststop": hook});

    let linux = &mut config["linux"];
    let namespaces = linux["namespaces"].as_array_mut().context("namespaces")?;
    namespaces.push(json!({"type": "cgroup"}));
    if who != Who::Root {
        namespaces.push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": who.root(), "size": size}]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    }
    if who == Who::User {
        linux["resources"] = json!(null);
    } else if limits() {
        linux["resources"]["memory"] = json!({"limit": 256 << 20});
        linux["resources"]["pids"] = json!({"limit": 100});
        linux["resources"]["cpu"] = json!({"shares": 512});
    }
    linux["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["keyctl", "bpf"], "action": "SCMP_ACT_ERRNO"}]});
    linux["maskedPaths"] = json!(["/proc/kcore", "/proc/keys", "/sys/firmware"]);
    linux["readonlyPaths"] = json!(["/proc/sys", "/proc/sysrq-trigger"]);
    Ok(config)
}
