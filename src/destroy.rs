//! The end of a container: processes → hooks → cgroup → other files → its directory, whose renaming is the commit.
//!
//! `delete`, `delete --force` and the undo of a `create` that failed are this one code, over the same record: it
//! works from any point at which the runtime may have died. Ending the processes and removing what was made for them
//! needs only the essentials, which have a file of their own; the hooks stand in the record.

use crate::cgroup::Cgroup;
use crate::log;
use crate::parts::hooks::Kind as HookKind;
use crate::state::{Essentials, Phase, Record, Root};
use crate::sys::pidfd;
use anyhow::{Result, bail};
use std::os::fd::AsFd;

/// How long a process may take to die of SIGKILL, in milliseconds.
const DEATH_PATIENCE: i32 = 10_000;

/// Kills what is left of the container, undoes what was made for it, and forgets it.
///
/// # Errors
/// Something resists; the record is kept then, so that the next `delete` can finish.
pub fn container(root: &Root, record: &Record) -> Result<()> {
    kill(record.essentials())?;
    dead(root, record)
}

/// The same for a container whose processes have ended.
///
/// # Errors
/// The same.
pub fn dead(root: &Root, record: &Record) -> Result<()> {
    if record.orlop.phase == Phase::Created || record.orlop.hooks_ran {
        run_poststop(record);
    }
    remove(root, record.essentials())
}

/// The same for a container whose record cannot be read: what its poststop hooks are, nobody knows.
///
/// # Errors
/// The same.
pub fn without_record(root: &Root, of: Essentials<'_>) -> Result<()> {
    kill(of)?;
    remove(root, of)
}

fn remove(root: &Root, of: Essentials<'_>) -> Result<()> {
    if of.cgroup.remove().is_err() {
        // Processes that are in no pid namespace of the container's, or were left by another `exec`.
        of.cgroup.kill_all()?;
        of.cgroup.remove()?;
    }
    if let Some(rdt) = of.resctrl {
        rdt.remove()?;
    }
    root.remove(of.id)
}

/// Ends the runtime that is still making it, init, and where that does not end all others, those.
///
/// # Errors
/// One of them does not end.
pub fn kill(of: Essentials<'_>) -> Result<()> {
    if of.phase == Phase::Creating && of.owner != crate::state::Process::own()? {
        end(of.owner.open()?, "the runtime that creates it", of.cgroup)?;
    }
    let init = of.init.open()?;
    // A frozen version 1 cgroup would not let it die.
    if !of.ends_with_init() || (init.is_some() && of.cgroup.frozen()?) {
        of.cgroup.kill_all()?;
    }
    end(init, "container init", of.cgroup)
}

/// How long a process dies before we look what keeps it from that, in milliseconds.
const USUAL_DEATH: i32 = 50;

fn end(process: Option<std::os::fd::OwnedFd>, who: &str, cgroup: &Cgroup) -> Result<()> {
    let Some(process) = process else { return Ok(()) };
    match pidfd::send_signal(process.as_fd(), libc::SIGKILL) {
        Err(error) if error.errno() == libc::ESRCH => return Ok(()),
        other => other?,
    }
    if pidfd::poll_ended(process.as_fd(), USUAL_DEATH)? {
        return Ok(());
    }
    // A frozen cgroup of version 1, also one that the container made below its own. Init waits for all that are in its
    // pid namespace, which by now have got SIGKILL too: none of them is left to freeze another one.
    cgroup.let_die()?;
    if !pidfd::poll_ended(process.as_fd(), DEATH_PATIENCE)? {
        bail!("{who} still running");
    }
    Ok(())
}

/// Whatever they do, the container goes (runtime.md, step 13): failures are only said.
fn run_poststop(record: &Record) {
    let Ok(state) = record.oci_state("stopped", 0).json() else { return };
    let hooks = &record.orlop.hooks;
    let output = hooks.open_output().unwrap_or_else(|error| {
        log::warn(format!("{error:#}, ignoring"));
        Default::default()
    });
    for error in hooks.run_all(HookKind::Poststop, &state, &[], &output) {
        log::warn(format!("{error:#}, ignoring"));
    }
}
