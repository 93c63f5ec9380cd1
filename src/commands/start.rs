//! `start`: lets the process of a created container run, and reports whether its program was executed.
//!
//! Init waits at the gate, two fifos in the container's directory. `start` writes to one of them, and reads init's
//! answer from the other until execve(2) closes it.

use crate::cli;
use crate::cli::global::Global;
use crate::destroy;
use crate::log;
use crate::notify::{self, Notify};
use crate::parts::hooks::Kind as HookKind;
use crate::state::{Container, Status};
use crate::sys::{Called, pidfd};
use crate::wire::{COMPLETE, FIFO, Failure, RELEASED, RESULT};
use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Runs the verb.
///
/// # Errors
/// The container is not `created`, or its program could not be executed; the text is init's own reason.
pub fn run(args: &cli::Start, global: &Global) -> Result<i32> {
    let container = Container::load(&global.root, &args.id)?;
    let (init, notify) = {
        let _lock = container.dir.lock()?;
        let (status, init) = container.look()?;
        match status {
            Status::Created => {}
            Status::Stopped => bail!("cannot start a container that has stopped"),
            Status::Running => bail!("cannot start an already running container"),
            other @ (Status::Creating | Status::Paused) => {
                bail!("cannot start a container in the {other} state")
            }
        }
        let init = init.context("container process is already dead")?;
        let notify = listen(&container)?;
        let result = release(&container);
        // Init may go on now: no other `start` may find the gate.
        container.dir.close_gate()?;
        let heard = hear(&result?, &init);
        container.dir.remove_gate()?;
        if let Err(Ended::InHook(error)) = heard {
            undo(&container);
            return Err(error);
        }
        heard.map_err(Ended::reason)?;
        (init, notify)
    };
    if let Err(error) = run_poststart(&container, &init) {
        // If another command has deleted the container meanwhile, there is nothing to undo.
        if let Ok(_lock) = container.dir.lock() {
            undo(&container);
        }
        return Err(error);
    }
    if let Some(mut notify) = notify {
        notify.wait(container.record.init_process_pid, init.as_fd());
    }
    Ok(0)
}

/// Listens at the container's notify socket if the caller of `start` has NOTIFY_SOCKET, and `create` had it too: only
/// then was the directory of the socket mounted into the container.
fn listen(container: &Container) -> Result<Option<Notify>> {
    let Some(host) = notify::asked_for() else { return Ok(None) };
    if !container.dir.path().join(notify::DIRECTORY).exists() {
        return Ok(None);
    }
    let directory = container.dir.make_directory(notify::DIRECTORY)?;
    Notify::listen(directory.as_fd(), host).map(Some)
}

/// Lets init go on. Returns the fifo that init writes its result to.
fn release(container: &Container) -> Result<OwnedFd> {
    let open = |name: &str, flags: OFlags| {
        let flags = flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(container.dir.fd(), name, flags, Mode::empty())
    };
    let result = open(RESULT, OFlags::RDONLY).called("openat", || RESULT.into())?;
    let go = match open(FIFO, OFlags::WRONLY) {
        // No process has the other end open: init is dead.
        Err(rustix::io::Errno::NXIO) => bail!("container process is already dead"),
        other => other.called("openat", || FIFO.into())?,
    };
    rustix::io::write(&go, b"0").called("write", || FIFO.into())?;
    Ok(result)
}

/// Destroys the container after a hook failed, and runs the poststop hooks (runtime.md, "Lifecycle", steps 7, 9, 12
/// and 13).
fn undo(container: &Container) {
    if let Err(left) = destroy::container(container.dir.root(), &container.record) {
        log::warn(format!("undo of start {}: {left:#}", container.record.id));
    }
}

/// Why init did not execute its program.
enum Ended {
    /// A startContainer hook failed, or init failed before these hooks. The container must be destroyed.
    InHook(anyhow::Error),
    /// Any other reason. As with runc, the container is stopped, and the caller deletes it.
    Otherwise(anyhow::Error),
}

impl Ended {
    fn reason(self) -> anyhow::Error {
        match self {
            Self::InHook(error) | Self::Otherwise(error) => error,
        }
    }
}

/// Reads init's result, until execve(2) closes init's end.
fn hear(result: &OwnedFd, init: &OwnedFd) -> Result<(), Ended> {
    let failed = |failure: &[u8]| match serde_json::from_slice::<Failure>(failure) {
        Ok(failure) => failure.into_error().context("unable to start container process"),
        Err(error) => anyhow!(error).context("message from init"),
    };
    match read_all(result, init).map_err(Ended::Otherwise)?.as_slice() {
        [RELEASED, COMPLETE] => Ok(()),
        // Init was killed: before it had read our message, or later, most likely in a hook. Both look the same here.
        [] | [RELEASED] => {
            Err(Ended::Otherwise(anyhow!("container process ended before its program was executed")))
        }
        [RELEASED, COMPLETE, failure @ ..] => Err(Ended::Otherwise(failed(failure))),
        [RELEASED, failure @ ..] | failure => Err(Ended::InHook(failed(failure))),
    }
}

/// Reads all that init writes, until it closes the fifo or has ended.
fn read_all(result: &OwnedFd, init: &OwnedFd) -> Result<Vec<u8>> {
    let mut said = Vec::new();
    loop {
        let mut polled = [
            PollFd::from_borrowed_fd(result.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(init.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut polled, None)).called("poll", || RESULT.into())?;
        let [readable, ended] = polled.map(|fd| !fd.revents().is_empty());
        if !readable && ended {
            return Ok(said);
        }
        let mut buffer = [0; 4096];
        match rustix::io::read(result, &mut buffer) {
            Ok(0) => return Ok(said),
            Ok(length) => said.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            other => drop(other.called("read", || RESULT.into())?),
        }
    }
}

/// Runs the poststart hooks of a container that has just been started.
///
/// # Errors
/// A hook failed. Init has been killed then (runtime.md, "Lifecycle", step 9).
pub fn run_poststart(container: &Container, init: &OwnedFd) -> Result<()> {
    let record = &container.record;
    if record.orlop.hooks.of(HookKind::Poststart).is_empty() {
        return Ok(());
    }
    let state = record.oci_state("running", record.init_process_pid);
    let hooks = &record.orlop.hooks;
    let done =
        hooks.open_output().and_then(|output| hooks.run(HookKind::Poststart, &state.json()?, &[], &output));
    if done.is_err() {
        // The error is dropped: init may have ended by itself.
        let _ = pidfd::send_signal(init.as_fd(), libc::SIGKILL);
    }
    done
}
