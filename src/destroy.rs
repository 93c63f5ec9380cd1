//! The end of a container: processes → hooks → cgroup → resctrl group → directory. Renaming the directory is the
//! commit.
//!
//! `delete`, `delete --force` and the undo of a failed `create` all use this code and the same record. It works after
//! the death of the runtime at any point. The poststop hooks are in the record; everything else needs only the
//! essentials, which have a file of their own.
//!
//! Not for: whether a container may be deleted (`delete`).

use crate::cgroup::Cgroup;
use crate::log;
use crate::parts::hooks::Kind as HookKind;
use crate::state::{Essentials, Phase, Record, Root};
use crate::sys::pidfd;
use anyhow::{Result, bail};
use std::os::fd::AsFd;

/// How long a process may take to die of SIGKILL, in milliseconds.
const DEATH_PATIENCE: i32 = 10_000;

/// Kills the container's processes, removes all that was made for it, and deletes its record.
///
/// # Errors
/// A process does not end, or something cannot be removed. The record is kept then, so that the next `delete` can go
/// on.
pub fn container(root: &Root, record: &Record) -> Result<()> {
    kill(record.essentials())?;
    dead(root, record)
}

/// As [`container`], if the container's processes have ended.
///
/// # Errors
/// As for [`container`].
pub fn dead(root: &Root, record: &Record) -> Result<()> {
    if record.orlop.phase == Phase::Created || record.orlop.hooks_ran {
        run_poststop(record);
    }
    remove(root, record.essentials())
}

/// As [`container`], if the record cannot be read. Its poststop hooks are not known, and do not run.
///
/// # Errors
/// As for [`container`].
pub fn without_record(root: &Root, of: Essentials<'_>) -> Result<()> {
    kill(of)?;
    remove(root, of)
}

fn remove(root: &Root, of: Essentials<'_>) -> Result<()> {
    if of.cgroup.remove().is_err() {
        // Processes may be left in it: those of an `exec` just now, or others that are not in the container's pid
        // namespace.
        of.cgroup.kill_all()?;
        of.cgroup.remove()?;
    }
    if let Some(rdt) = of.resctrl {
        rdt.remove()?;
    }
    root.remove(of.id)
}

/// Kills the runtime that is still creating the container, then init. If the other processes do not end with init, it
/// kills them too.
///
/// # Errors
/// A process does not end.
pub fn kill(of: Essentials<'_>) -> Result<()> {
    if of.phase == Phase::Creating && of.owner != crate::state::Process::own()? {
        end(of.owner.open()?, "the runtime that creates it", of.cgroup)?;
    }
    let init = of.init.open()?;
    // In a frozen cgroup of version 1, init would not die.
    if !of.ends_with_init() || (init.is_some() && of.cgroup.frozen()?) {
        of.cgroup.kill_all()?;
    }
    end(init, "container init", of.cgroup)
}

/// How long a process may take to die before its cgroup is thawed, in milliseconds.
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
    // A cgroup of version 1 may be frozen, also one that the container made below its own. Dying init waits for all
    // processes of its pid namespace. The kernel has sent them SIGKILL too, so none of them can freeze another cgroup.
    cgroup.let_die()?;
    if !pidfd::poll_ended(process.as_fd(), DEATH_PATIENCE)? {
        bail!("{who} still running");
    }
    Ok(())
}

/// Runs the poststop hooks. A failure is only a warning: the container is deleted in any case (runtime.md, "Lifecycle",
/// step 13).
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
