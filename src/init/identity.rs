//! Who the process is: its rights, its directory, its program and its filter. One path for `create`, `run` and `exec`.
//!
//! The order is the point. [`give_up_rights`] comes before [`settle`]: each name that the image can influence is looked up
//! with the rights of the container's process only. The filter comes after all that decides these rights, except one last
//! capset(2): a filter can answer a call in place of the kernel. The parent verifies the process from outside before it
//! lets the process go (`launch/verify.rs`).

use super::Held;
use crate::log;
use crate::parts::rlimits::Rlimits;
use crate::parts::user;
use crate::plan::Process;
use crate::sys::{self, Called, path::Root, prctl};
use crate::wire::{Event, InitEnd};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::ffi::CString;
use std::os::fd::IntoRawFd;

/// From now on the kernel kills this process when the parent dies. If the parent is dead already, the wire ends.
pub fn die_with_parent() -> Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).called("prctl", || "(PR_SET_PDEATHSIG)".into())?)
}

/// Takes that back: from the parent's answer on init may outlive the parent.
pub fn outlive_parent() -> Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(None).called("prctl", || "(PR_SET_PDEATHSIG, 0)".into())?)
}

/// Joins the container's session keyring.
pub fn join_keyring(process: &Process, held: &Held) -> Result<()> {
    let Some(keyring) = &process.keyring else { return Ok(()) };
    process.labels.begin_keyring(&held.proc)?;
    if let Some(warning) = keyring.apply()? {
        log::warn(warning);
    }
    process.labels.end_keyring(&held.proc)
}

/// What [`give_up_rights`] leaves to [`settle`].
pub struct Standing {
    /// The working directory has been entered. Root may enter what the user may not, and (on a FUSE mount) the other way
    /// round: both are tried, as in runc.
    in_cwd: bool,
    /// The permitted capabilities that we had. Asked for once: behind the filter no answer is believed.
    available: u64,
}

/// Becomes the container's user with its capabilities. What needs more rights than these is done here, before.
pub fn give_up_rights(process: &Process, root: &Root, is_bound: bool) -> Result<Standing> {
    if let Some(priority) = process.io_priority {
        priority.apply()?;
    }
    if let Some(personality) = process.personality {
        personality.apply()?;
    }
    if let Some(policy) = &process.memory_policy {
        policy.apply()?;
    }
    process.rlimits.make_room();
    let in_cwd = process.program.enter_cwd(root).is_ok();
    let available = prctl::capget()?.permitted;
    // First, so that the warning is seen if a later step fails.
    process.capabilities.warnings(available).iter().for_each(log::warn);
    // Takes CAP_SETPCAP.
    if !is_bound {
        process.capabilities.bound()?;
    }
    // Keeps the permitted set over setresuid(2), which would clear what the next lines keep.
    process.user.apply()?.iter().for_each(log::warn);
    // The change of ids has set "dumpable" to the value of fs.suid_dumpable.
    match process.open_to_caller {
        true => prctl::set_dumpable()?,
        false => prctl::set_not_dumpable()?,
    }
    process.capabilities.apply(available, kept_for_filter(process))?.iter().for_each(log::warn);
    if process.no_new_privileges {
        prctl::set_no_new_privs()?;
    }
    // The change of ids has cleared the parent-death signal.
    die_with_parent()?;
    Ok(Standing { in_cwd, available })
}

/// Without no_new_privs, seccomp(2) wants CAP_SYS_ADMIN in our user namespace. It is the one right that is kept until the
/// filter is loaded, and given up right behind it.
fn kept_for_filter(process: &Process) -> u64 {
    const SYS_ADMIN: u64 = 1 << 21;
    if process.seccomp.is_some() && !process.no_new_privileges { SYS_ADMIN } else { 0 }
}

/// With the rights of the container's process: finds its HOME, enters its directory, and finds its program. Returns the
/// program's file.
pub fn settle(process: &mut Process, root: &Root, standing: &Standing) -> Result<CString> {
    if process.program.wants_home() {
        let home = user::home_dir(root, process.user.uid)?;
        process.program.set_env("HOME", home.as_deref().unwrap_or("/"));
    }
    if !standing.in_cwd {
        process.program.enter_cwd(root)?;
    }
    process.program.resolve()
}

/// Sets the limits of this process. From here on no descriptor is opened: RLIMIT_NOFILE may be 1.
pub fn limit(limits: &Rlimits, wire: &InitEnd) -> Result<()> {
    match limits.apply(None) {
        // Init may not raise a hard limit; the parent may.
        Err(error) if sys::errno_of(&error) == Some(libc::EPERM) => wire.ask(&Event::SetLimits, None),
        other => other,
    }
}

/// Loads the filter, and then gives up the right that loading takes.
pub fn load_early(process: &Process, standing: &Standing, wire: &InitEnd) -> Result<()> {
    load_filter(process, wire)?;
    process.capabilities.confine(standing.available, kept_for_filter(process))
}

/// Loads the seccomp filter, and has the parent hand its listener to the agent.
pub fn load_filter(process: &Process, wire: &InitEnd) -> Result<()> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    log::debug(|| format!("seccomp filter flags: {}", filter.flags()));
    match filter.install()? {
        // The agent must answer from now on: the parent hands it the descriptor before we go on. Ours is closed
        // by execve: close(2) may be one of the calls that wait for the agent.
        Some(listener) => wire.ask(&Event::SeccompFd { fd: listener.into_raw_fd() }, None),
        None => Ok(()),
    }
}
