//! `hooks`: programs that run at six points of a container's life (config.md, "POSIX-platform Hooks").
//!
//! This file decides the hooks and runs those of one kind.
//! Not for: when each kind runs and what its failure means (`launch`, `init`, `destroy`), and the state JSON
//! (`oci_state`).

mod output;

pub use output::Output;

use crate::sys::{self, Called};
use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::runtime;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The point at which a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Directly before the `CreateRuntime` hooks; deprecated by the spec.
    Prestart,
    /// At `create`, before the pivot, in the runtime's namespaces.
    CreateRuntime,
    /// At `create`, before the pivot, in the container's namespaces.
    CreateContainer,
    /// At `start`, before the process is executed, in the container's namespaces.
    StartContainer,
    /// At `start`, after the process is executed, in the runtime's namespaces.
    Poststart,
    /// At `delete`, in the runtime's namespaces.
    Poststop,
}

/// All kinds with their names in config.json, in the order in which they run.
pub const KINDS: [(Kind, &str); 6] = [
    (Kind::Prestart, "prestart"),
    (Kind::CreateRuntime, "createRuntime"),
    (Kind::CreateContainer, "createContainer"),
    (Kind::StartContainer, "startContainer"),
    (Kind::Poststart, "poststart"),
    (Kind::Poststop, "poststop"),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|row| row.0 == *self).map_or("", |row| row.1))
    }
}

/// One program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    path: PathBuf,
    args: Vec<String>,
    env: Option<Vec<(String, String)>>,
    timeout: Option<Duration>,
}

/// The hooks of a container. The record holds them, for `start` and `delete`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    #[serde(flatten)]
    lists: BTreeMap<Kind, Vec<Hook>>,
    /// Host files that get the output of the hooks, from crun's annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdout: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr: Option<PathBuf>,
}

/// Decides all hooks.
///
/// # Errors
/// A path is not absolute, a timeout is not positive, an environment entry is not NAME=value, or there is a NUL byte.
pub fn plan(spec: Option<&runtime::Hooks>, annotations: &HashMap<String, String>) -> Result<Hooks> {
    let file = |name: &str| -> Result<Option<PathBuf>> {
        let Some(path) = annotations.get(name).map(PathBuf::from) else { return Ok(None) };
        ensure!(path.is_absolute(), "annotations {name}: {path:?} is not absolute");
        Ok(Some(path))
    };
    let (stdout, stderr) = (file("run.oci.hooks.stdout")?, file("run.oci.hooks.stderr")?);
    let Some(spec) = spec else { return Ok(Hooks::default()) };
    #[allow(deprecated)] // The spec deprecates prestart, and engines still use it.
    let lists = [
        spec.prestart(),
        spec.create_runtime(),
        spec.create_container(),
        spec.start_container(),
        spec.poststart(),
        spec.poststop(),
    ];
    let mut planned_lists = BTreeMap::new();
    for ((kind, name), list) in KINDS.into_iter().zip(lists) {
        let planned: Result<Vec<Hook>> = list
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, hook)| {
                plan_one(hook).with_context(|| format!("hooks.{name}[{index}] {}", hook.path().display()))
            })
            .collect();
        let planned = planned?;
        if !planned.is_empty() {
            planned_lists.insert(kind, planned);
        }
    }
    Ok(Hooks { lists: planned_lists, stdout, stderr })
}

fn plan_one(hook: &runtime::Hook) -> Result<Hook> {
    let path = hook.path().clone();
    ensure!(path.is_absolute(), "path: not absolute");
    let args = match hook.args() {
        Some(args) if !args.is_empty() => args.clone(),
        _ => vec![path.to_string_lossy().into_owned()],
    };
    let nul = |text: &String| text.contains('\0');
    ensure!(!path.as_os_str().as_encoded_bytes().contains(&0), "path: has a NUL byte");
    ensure!(!args.iter().any(nul), "args: has a NUL byte");
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.unsigned_abs())),
        Some(seconds) => bail!("timeout: {seconds} is not greater than zero"),
    };
    let env = hook.env().as_ref();
    ensure!(!env.is_some_and(|env| env.iter().any(nul)), "env: has a NUL byte");
    let env = env.map(|env| split(env)).transpose()?;
    Ok(Hook { path, args, env, timeout })
}

fn split(env: &[String]) -> Result<Vec<(String, String)>> {
    env.iter()
        .enumerate()
        .map(|(index, entry)| match entry.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            // Without the entry's text, which may be a secret.
            _ => bail!("env[{index}]: not NAME=value"),
        })
        .collect()
}

impl Output {
    /// The descriptors of both files, for a caller that closes all others.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdout, &self.stderr].into_iter().flatten().map(AsFd::as_fd)
    }
}

impl Hooks {
    /// The hooks of one kind, in the order in which they run.
    pub fn of(&self, kind: Kind) -> &[Hook] {
        self.lists.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// Runs the hooks of one kind, and stops at the first that fails. A hook starts in our working directory and reads
    /// `state` (JSON) from stdin. If the configuration gives it no environment, it gets ours in the runtime's
    /// namespaces, and `env` in the container's namespaces, as in runc.
    ///
    /// # Errors
    /// A hook could not be executed, did not exit with 0, ran longer than its timeout, or we were asked to end.
    pub fn run(&self, kind: Kind, state: &[u8], env: &[(String, String)], output: &Output) -> Result<()> {
        for (index, hook) in self.of(kind).iter().enumerate() {
            hook.run(kind, state, env, output)
                .with_context(|| format!("error running {kind} hook #{index}"))
                .with_context(|| format!("hooks.{kind}[{index}] {}", hook.path.display()))?;
        }
        Ok(())
    }

    /// Runs all hooks of one kind, even if some fail, and returns the failures.
    pub fn run_all(
        &self,
        kind: Kind,
        state: &[u8],
        env: &[(String, String)],
        output: &Output,
    ) -> Vec<anyhow::Error> {
        let run = |(index, hook): (usize, &Hook)| {
            let place = || format!("hooks.{kind}[{index}] {}", hook.path.display());
            hook.run(kind, state, env, output).with_context(place).err()
        };
        self.of(kind).iter().enumerate().filter_map(run).collect()
    }
}

/// How long a hook without a `timeout` may run. The specification sets no limit. runc waits for ever: an engine that
/// waits for runc then hangs too, and nobody learns which hook is at fault. Engines give up on a container after
/// minutes, so no hook of theirs needs this long. A hook that needs longer can have a `timeout`.
const LONGEST: Duration = Duration::from_secs(600);

/// How long a killed hook may take to end, in milliseconds.
const DEATH_PATIENCE: i32 = 10_000;

/// How many bytes of each output stream of a hook we keep for the error message.
const KEPT: usize = 16 << 10;

impl Hook {
    fn run(&self, kind: Kind, state: &[u8], env: &[(String, String)], output: &Output) -> Result<()> {
        let mut child = self.spawn(kind, env, output)?;
        let timeout = self.timeout.unwrap_or(LONGEST);
        // A timeout that the clock cannot express means no timeout.
        let deadline = Instant::now().checked_add(timeout);
        let ended = Talk::new(&mut child, state).and_then(|mut talk| {
            let end = talk.until_end(deadline)?;
            Ok((end, talk))
        });
        if !matches!(ended, Ok((End::Exited, _))) {
            // The hook may have ended meanwhile. It is not reaped yet, so its pid is not another process's.
            let _ = child.kill();
        }
        if let Ok((_, talk)) = &ended
            && !sys::pidfd::poll_ended(talk.pidfd.as_fd(), DEATH_PATIENCE)?
        {
            bail!("hook killed, and still running");
        }
        let status = sys::pidfd::reap_in_time(|| child.try_wait().called("waitpid", String::new))?;
        let (end, talk) = ended?;
        match end {
            End::Exited => {}
            End::OutOfTime => {
                let limit = match self.timeout {
                    Some(_) => "specified timeout",
                    None => "the default limit",
                };
                bail!("hook ran past {limit} of {:.1}s", timeout.as_secs_f64());
            }
            End::Asked(signal) => bail!("hook killed because the runtime got {}", sys::signal::name(signal)),
        }
        ensure!(
            status.success(),
            "{}, stdout: {}, stderr: {}",
            describe(status),
            talk.stdout.text(),
            talk.stderr.text()
        );
        Ok(())
    }

    fn spawn(&self, kind: Kind, env: &[(String, String)], output: &Output) -> Result<Child> {
        let to = |file: &Option<OwnedFd>| -> Result<Stdio> {
            let Some(file) = file else { return Ok(Stdio::piped()) };
            Ok(file.try_clone().called("fcntl", || "(F_DUPFD)".into())?.into())
        };
        let mut command = Command::new(&self.path);
        if let Some((first, rest)) = self.args.split_first() {
            command.arg0(first).args(rest);
        }
        let env = match kind {
            Kind::CreateContainer | Kind::StartContainer => self.env.as_deref().or(Some(env)),
            Kind::Prestart | Kind::CreateRuntime | Kind::Poststart | Kind::Poststop => self.env.as_deref(),
        };
        if let Some(env) = env {
            command.env_clear().envs(env.iter().map(|(name, value)| (name, value)));
        }
        command.stdin(Stdio::piped()).stdout(to(&output.stdout)?).stderr(to(&output.stderr)?);
        sys::spawn::without_inherited(&mut command);
        sys::spawn::dies_with_us(&mut command);
        if kind != Kind::StartContainer {
            // Init has reset its signals already. A loaded seccomp filter may forbid these calls now.
            sys::signal::reset_in(&mut command);
        }
        Ok(command.spawn().called("execve", || format!("{:?}", self.path))?)
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        // SIGSYS is the signal of a seccomp filter. "bad system call" is the C library's text for it.
        (None, Some(libc::SIGSYS)) => "killed by SIGSYS (bad system call)".into(),
        (None, Some(signal)) => format!("killed by {}", sys::signal::name(signal)),
        (None, None) => status.to_string(),
    }
}

/// Why we stop waiting for a hook.
enum End {
    Exited,
    OutOfTime,
    /// The runtime got this signal, which asks it to end.
    Asked(i32),
}

/// The three pipes and the pidfd of a running hook. One poll(2) waits for all of them.
struct Talk<'a> {
    pidfd: OwnedFd,
    stdin: Option<OwnedFd>,
    unsent: &'a [u8],
    stdout: Captured,
    stderr: Captured,
}

/// An output stream of the hook, and the bytes kept of it.
struct Captured {
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl<'a> Talk<'a> {
    fn new(child: &mut Child, state: &'a [u8]) -> Result<Self> {
        let pid = Pid::from_child(child);
        let pidfd =
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).called("pidfd_open", String::new)?;
        let captured = |pipe: Option<OwnedFd>| Captured { pipe, kept: Vec::new() };
        let talk = Self {
            pidfd,
            stdin: child.stdin.take().map(OwnedFd::from),
            unsent: state,
            stdout: captured(child.stdout.take().map(OwnedFd::from)),
            stderr: captured(child.stderr.take().map(OwnedFd::from)),
        };
        for pipe in [&talk.stdin, &talk.stdout.pipe, &talk.stderr.pipe].into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true).called("ioctl", || "FIONBIO".into())?;
        }
        Ok(talk)
    }

    /// Feeds and reads the pipes until the hook has ended, its time is over, or a signal asks us to end. Does not wait
    /// for the pipes to close: a hook may leave a daemon behind that holds them.
    fn until_end(&mut self, deadline: Option<Instant>) -> Result<End> {
        loop {
            self.send();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(End::OutOfTime);
            }
            let exited = self.wait(left)?;
            self.stdout.drain();
            self.stderr.drain();
            if exited {
                return Ok(End::Exited);
            }
            if let Some(signal) = sys::signal::take_end() {
                return Ok(End::Asked(signal));
            }
        }
    }

    fn wait(&self, left: Option<Duration>) -> Result<bool> {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        fds.extend(self.stdin.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        let outputs = [&self.stdout, &self.stderr];
        fds.extend(
            outputs.iter().filter_map(|out| out.pipe.as_ref()).map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        let asked = sys::signal::end_is_asked();
        fds.extend(asked.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(anyhow!(sys::Error::new("poll", "", errno.raw_os_error()))),
        }
        Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty()))
    }

    // Stops without an error if the hook closes its stdin: a hook need not read the state.
    fn send(&mut self) {
        let Some(pipe) = &self.stdin else { return };
        while !self.unsent.is_empty() {
            match sys::fd::again(|| rustix::io::write(pipe, self.unsent)) {
                // A container's filter may answer in place of the kernel, when init runs the hook.
                Ok(0) => break,
                Ok(sent) => self.unsent = self.unsent.get(sent..).unwrap_or_default(),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => break,
            }
        }
        self.stdin = None;
    }
}

impl Captured {
    fn drain(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let mut chunk = [0; 4096];
        // At most one full pipe (64 KiB): a hook that prints without end must not keep us from checking its deadline.
        for _ in 0..16 {
            match rustix::io::read(pipe.as_fd(), &mut chunk) {
                Ok(0) => return self.pipe = None,
                Ok(length) => {
                    let room = KEPT.saturating_sub(self.kept.len()).min(length);
                    self.kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => return self.pipe = None,
            }
        }
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<Hooks> {
        plan(Some(&serde_json::from_str(json).unwrap()), &HashMap::new())
    }

    fn shell(script: &str, more: &str) -> Hooks {
        let script = serde_json::to_string(script).unwrap();
        planned(&format!(
            r#"{{"createRuntime":[{{"path":"/bin/true"}},
            {{"path":"/bin/sh","args":["sh","-c",{script}]{more}}}]}}"#
        ))
        .unwrap()
    }

    fn fails(hooks: &Hooks, state: &[u8]) -> String {
        format!("{:#}", hooks.run(Kind::CreateRuntime, state, &[], &Output::default()).unwrap_err())
    }

    #[test]
    fn bad_hooks_are_refused_with_their_place() {
        for (json, text) in [
            (r#"{"poststop":[{"path":"/a"},{"path":"b"}]}"#, "hooks.poststop[1] b: path: not absolute"),
            (
                r#"{"prestart":[{"path":"/a","timeout":0}]}"#,
                "hooks.prestart[0] /a: timeout: 0 is not greater than zero",
            ),
            (
                r#"{"poststart":[{"path":"/a","timeout":-3}]}"#,
                "hooks.poststart[0] /a: timeout: -3 is not greater than zero",
            ),
            (
                r#"{"createContainer":[{"path":"/a","env":["A=b","C"]}]}"#,
                "hooks.createContainer[0] /a: env[1]: not NAME=value",
            ),
            (
                r#"{"startContainer":[{"path":"/a","args":["\u0000"]}]}"#,
                "hooks.startContainer[0] /a: args: has a NUL byte",
            ),
        ] {
            assert_eq!(format!("{:#}", planned(json).unwrap_err()), text);
        }
    }

    #[test]
    fn the_record_gives_the_same_hooks_back() {
        let hooks =
            planned(r#"{"poststop":[{"path":"/a","args":["x"],"env":["A=b=c"],"timeout":5}]}"#).unwrap();
        let json = serde_json::to_string(&hooks).unwrap();
        assert_eq!(serde_json::from_str::<Hooks>(&json).unwrap(), hooks);
        assert!(json.contains(r#"{"poststop":["#), "{json}");
    }

    #[test]
    fn the_state_is_on_stdin_and_the_output_in_the_error() {
        let hooks = shell("cat; echo oops >&2; exit 3", "");
        assert_eq!(
            fails(&hooks, b"{\"id\":1}"),
            "hooks.createRuntime[1] /bin/sh: error running createRuntime hook #1: \
             exit status 3, stdout: {\"id\":1}, stderr: oops\n"
        );
    }

    #[test]
    fn a_hook_that_neither_reads_nor_stops_printing_does_not_hang_us() {
        let big = vec![b'x'; 1 << 20];
        assert_eq!(
            shell("exit 0", "").run(Kind::CreateRuntime, &big, &[], &Output::default()).ok(),
            Some(())
        );
        let error = fails(&shell("head -c 1000000 /dev/zero | tr '\\0' y; exit 1", ""), &big);
        assert!(error.contains("exit status 1, stdout: yyy") && error.len() < KEPT + 200, "{}", error.len());
    }

    #[test]
    fn a_daemon_that_holds_the_pipes_is_not_waited_for() {
        let begin = Instant::now();
        shell("sleep 20 & exit 0", "").run(Kind::CreateRuntime, b"", &[], &Output::default()).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_hook_that_outlives_its_timeout_is_killed() {
        let begin = Instant::now();
        let error = fails(&shell("exec sleep 20", r#","timeout":1"#), b"");
        assert!(error.ends_with("hook #1: hook ran past specified timeout of 1.0s"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_hook_that_prints_without_end_is_killed_too() {
        let error = fails(&shell("exec cat /dev/zero", r#","timeout":1"#), b"");
        assert!(error.ends_with("hook ran past specified timeout of 1.0s"), "{error}");
        let forever = shell("exit 0", r#","timeout":9223372036854775807"#);
        forever.run(Kind::CreateRuntime, b"", &[], &Output::default()).unwrap();
    }

    #[test]
    fn the_environment_is_the_one_of_the_config_or_the_given_one() {
        let given = [("B".to_owned(), "2".to_owned())];
        let script = "test \"$A-$B-$HOME\" = ";
        let own = shell(&format!("{script}1--"), r#","env":["A=1"]"#);
        own.run(Kind::CreateRuntime, b"", &given, &Output::default()).unwrap();
        let others = shell(&format!("{script}-2-"), "");
        let lists = [(Kind::CreateContainer, others.of(Kind::CreateRuntime).to_vec())].into();
        let others = Hooks { lists, ..Hooks::default() };
        others.run(Kind::CreateContainer, b"", &given, &Output::default()).unwrap();
        shell(&format!("{script}--"), r#","env":[]"#)
            .run(Kind::CreateRuntime, b"", &[], &Output::default())
            .unwrap();
    }

    #[test]
    fn a_signal_and_a_missing_program_are_told() {
        assert!(fails(&shell("kill -9 $$", ""), b"").contains("killed by SIGKILL, stdout: "));
        assert!(
            fails(&shell("kill -SYS $$", ""), b"").contains("killed by SIGSYS (bad system call), stdout: ")
        );
        let missing = planned(r#"{"createRuntime":[{"path":"/no/such"}]}"#).unwrap();
        assert_eq!(
            fails(&missing, b""),
            "hooks.createRuntime[0] /no/such: error running createRuntime hook #0: \
             execve \"/no/such\": no such file or directory"
        );
    }

    #[test]
    fn a_hook_runs_in_the_namespaces_and_the_directory_of_its_caller() {
        use crate::sys::prctl::testing::{in_child, privileged, unshare};
        if !privileged("a_hook_runs_in_the_namespaces_and_the_directory_of_its_caller") {
            return;
        }
        in_child(|| {
            unshare(nix::sched::CloneFlags::CLONE_NEWUTS | nix::sched::CloneFlags::CLONE_NEWPID)?;
            rustix::system::sethostname(b"inside").called("sethostname", String::new)?;
            std::env::set_current_dir("/usr")?;
            // The hook is pid 1 of the new pid namespace. We must not take that number for its pid in ours.
            let hooks = shell("echo $$ $(uname -n) $(pwd); exit 1", "");
            let lists = [(Kind::CreateContainer, hooks.of(Kind::CreateRuntime)[1..].to_vec())].into();
            let hooks = Hooks { lists, ..Hooks::default() };
            let error =
                format!("{:#}", hooks.run(Kind::CreateContainer, b"", &[], &Output::default()).unwrap_err());
            ensure!(error.contains("exit status 1, stdout: 1 inside /usr\n"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn every_hook_runs_where_failures_are_only_collected() {
        let hooks =
            planned(r#"{"poststop":[{"path":"/bin/false"},{"path":"/bin/true"},{"path":"/bin/false"}]}"#);
        let failures = hooks.unwrap().run_all(Kind::Poststop, b"", &[], &Output::default());
        assert_eq!(failures.len(), 2);
        assert!(
            format!("{:#}", failures.first().unwrap())
                .starts_with("hooks.poststop[0] /bin/false: exit status 1")
        );
    }
}
