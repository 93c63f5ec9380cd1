//! The runtime under test: which binary it is, how it is called, what it printed. Each call ends by itself or is
//! killed.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long one command may take. `ORLOP_TEST_PATIENCE` sets it in seconds, for an emulated machine.
fn patience() -> Duration {
    let said = std::env::var("ORLOP_TEST_PATIENCE").ok().and_then(|said| said.parse().ok());
    Duration::from_secs(said.unwrap_or(20))
}

/// The length of a window in which something must happen: `seconds` on an ordinary machine, more on a slow one.
pub fn window(seconds: u64) -> u64 {
    (seconds * patience().as_secs() / 20).max(seconds)
}

/// The binary under test: orlop, or the one that `ORLOP` names (to check the tests on another runtime).
pub fn runtime() -> String {
    std::env::var("ORLOP").unwrap_or_else(|_| env!("CARGO_BIN_EXE_orlop").to_owned())
}

/// Gives this process the usual umask: the users as whom the tests run must be able to read what the tests make.
pub fn usual_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
}

/// Copies a program that is to be executed. cp(1) does it: a writable descriptor of this process would get into
/// the children that other tests fork meanwhile, and executing the copy would fail with ETXTBSY.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status().expect("cp");
    assert!(copied.success(), "a copy of {:?}", from.as_ref());
}

/// True if the tests run on runc: the tests then do not ask for what orlop promises beyond runc.
pub fn under_runc() -> bool {
    Path::new(&runtime()).file_name().is_some_and(|name| name == "runc")
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The script that shows a command another view of the host's cgroup tree.
pub const CGROUP_VIEW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/cgroup-view");

/// How the host's cgroup tree looks to the runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// As the host has it.
    Host,
    /// Only v1 hierarchies.
    V1,
    /// Only the v2 tree, at /sys/fs/cgroup.
    V2,
}

impl View {
    pub const ALL: [View; 3] = [View::Host, View::V1, View::V2];

    /// The words in front of a command that give it this view in a private mount namespace. The cgroups themselves
    /// are the host's in every view, so each command may have a view of its own.
    pub fn wrapper(self) -> Vec<String> {
        let view = match self {
            View::Host => return Vec::new(),
            View::V1 => "v1",
            View::V2 => "v2",
        };
        ["unshare", "-m", "--propagation", "private", CGROUP_VIEW, view].map(str::to_owned).to_vec()
    }

    /// True if this view has only the v2 tree.
    pub fn unified(self) -> bool {
        self == View::V2 || (self == View::Host && Path::new("/sys/fs/cgroup/cgroup.controllers").exists())
    }

    /// Why this host cannot show this view; nothing if it can.
    pub fn missing(self) -> Option<&'static str> {
        let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
        match self {
            View::V1 if !hybrid => Some("the host has no v1 hierarchies to show"),
            View::V1 | View::V2 if !is_root() => Some("changing the view of the cgroup tree needs root"),
            _ => None,
        }
    }

    /// True if a container can be limited by this controller in this view.
    pub fn has(self, controller: &str) -> bool {
        let v2 = |tree: &str| {
            let controllers = fs::read_to_string(format!("{tree}/cgroup.controllers")).unwrap_or_default();
            controllers.split_whitespace().any(|name| name == controller)
        };
        let v1 = || Path::new("/sys/fs/cgroup").join(controller).join("tasks").exists();
        match self {
            View::Host => v1() || v2("/sys/fs/cgroup"),
            View::V1 => v1(),
            View::V2 => v2("/sys/fs/cgroup/unified") || v2("/sys/fs/cgroup"),
        }
    }
}

/// What a command left: its exit status and its output.
#[derive(Debug)]
pub struct Output {
    /// The exit status; 128 + the signal if a signal killed the command.
    pub code: i32,
    pub out: String,
    pub err: String,
    /// The command line, for messages.
    pub command: String,
}

impl Output {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit status of {self}");
        self
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts success, and exactly this text on stdout; a newline at the end does not count.
    #[track_caller]
    pub fn prints(self, expected: &str) -> Self {
        let this = self.ok();
        assert_eq!(this.out.trim_end_matches('\n'), expected, "stdout of {this}");
        this
    }

    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(self.out.contains(part), "stdout has no {part:?}: {self}");
        self
    }

    /// Asserts this exit status, and one line on stderr that contains all these parts, in upper or lower case.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) -> Self {
        let this = self.exits(code);
        // The text format of the log quotes the message in Go's way.
        let said = this.err.replace("\\\"", "\"").to_lowercase();
        for part in parts {
            assert!(said.contains(&part.to_lowercase()), "stderr has no {part:?}: {this}");
        }
        // runc logs warnings beside the error. orlop promises one line, because podman reads only one.
        let lines = this.err.lines().filter(|line| !line.is_empty()).count();
        assert!(lines == 1 || under_runc(), "an error is one line, and here are {lines}: {this}");
        this
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  exit {}\n  out: {}\n  err: {}", self.command, self.code, self.out, self.err)
    }
}

/// Starts a command with its output in files. A created container keeps both open: a pipe would not end before the
/// container does.
pub fn start(mut command: Command, dir: &Path) -> Running {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (out, err) = (dir.join(format!("out.{number}")), dir.join(format!("err.{number}")));
    let file = |path| File::create(path).expect("a file for the output");
    command.stdout(file(&out)).stderr(file(&err));
    for leaked in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "XDG_RUNTIME_DIR"] {
        if command.get_envs().all(|(name, _)| name != leaked) {
            command.env_remove(leaked);
        }
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    Running { child, line, out, err }
}

/// A command that the test has not waited for yet.
pub struct Running {
    pub child: Child,
    line: String,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
}

impl Running {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the command is running");
    }

    /// Waits until it ends; kills it and panics if it takes too long.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let pid = rustix::process::Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd");
        let limit = Timespec { tv_sec: patience().as_secs() as i64, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).expect("poll");
        if ended == 0 {
            let _ = self.child.kill(); // It may just have ended.
            let _ = self.child.wait();
            panic!("{} hung for {:?}\n  out: {}\n  err: {}", self.line, patience(), self.out(), self.err());
        }
        let status = self.child.wait().expect("the command was not waited for before");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
        let code = status.code().unwrap_or(128 + signal);
        Output { code, out: self.out(), err: self.err(), command: self.line }
    }

    /// As `finish`, and returns the file of its output, to which a created container keeps writing.
    #[track_caller]
    pub fn finish_but_keep(self) -> (Output, std::path::PathBuf) {
        let path = self.out.clone();
        (self.finish(), path)
    }

    /// Waits until it has printed this text.
    #[track_caller]
    pub fn until(&self, text: &str) {
        eventually(&format!("{} says {text:?}", self.line), || self.out().contains(text));
    }
}

/// Runs the runtime with these words and without a bundle.
#[track_caller]
pub fn output(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(runtime());
    command.args(args).stdin(Stdio::null()).current_dir(dir.path());
    start(command, dir.path()).finish()
}

/// Waits until a condition holds that another process brings about.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + patience();
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "not within {:?}: {what}", patience());
        std::thread::sleep(Duration::from_millis(5));
    }
}
