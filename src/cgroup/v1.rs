//! What only version 1 has: cpusets that must be filled, the device lists, the freezer.

use super::devices::Policy;
use super::hierarchy::{Hierarchy, WALK_PATIENCE, gone};
use crate::sys::Error;
use anyhow::{Result, bail};
use rustix::fd::BorrowedFd;
use rustix::fs::OFlags;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Fills the empty cpusets from the root down to the container's: no process can enter an empty one. It leaves those
/// of the container's own files alone that are `set_later`.
pub fn inherit_cpuset(cpuset: &Hierarchy, set_later: &[&str]) -> Result<(), Error> {
    let (prefix, mut cpus, mut mems) = match cpuset.at("").read("cpuset.cpus") {
        // Android mounts this controller without the prefix.
        Err(error) if gone(&error) => ("", cpuset.at("").read("cpus")?, cpuset.at("").read("mems")?),
        cpus => ("cpuset.", cpus?, cpuset.at("").read("cpuset.mems")?),
    };
    let mut at = PathBuf::new();
    for name in &cpuset.path {
        at.push(name);
        let here = cpuset.at(&at);
        let new = at == cpuset.path && cpuset.fresh();
        for (file, above) in [("cpus", &mut cpus), ("mems", &mut mems)] {
            if at == cpuset.path && set_later.contains(&format!("cpuset.{file}").as_str()) {
                continue;
            }
            let file = format!("{prefix}{file}");
            let value = if new { String::new() } else { here.read(&file)? };
            if value.trim().is_empty() {
                here.write(&file, above)?;
            } else {
                *above = value;
            }
        }
    }
    Ok(())
}

/// Makes the device lists agree with the policy.
///
/// # Errors
/// The kernel refuses a rule, for example one that the cgroup above does not allow.
pub fn set_devices(devices: &Hierarchy, policy: &Policy) -> Result<(), Error> {
    if policy.denies_nothing() && devices.fresh() {
        return Ok(());
    }
    let (default, exceptions) = match policy.allow_by_default {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    // "a" also clears the lists.
    devices.write(default, "a")?;
    let fd = devices.open(exceptions, OFlags::WRONLY)?;
    for line in policy.lines() {
        devices.put(rustix::fd::AsFd::as_fd(&fd), exceptions, &line)?;
    }
    Ok(())
}

const STATE: &str = "freezer.state";
const SELF_FREEZING: &str = "freezer.self_freezing";

/// Freezes all processes, or thaws them again if that fails.
///
/// # Errors
/// Processes do not freeze before `deadline`, or the kernel refuses.
pub fn freeze(freezer: &Hierarchy, deadline: Instant) -> Result<()> {
    let frozen = try_freeze(freezer, deadline);
    if frozen.is_err() {
        // Processes of a half frozen cgroup cannot be killed.
        let _ = thaw(freezer);
    }
    frozen
}

fn try_freeze(freezer: &Hierarchy, deadline: Instant) -> Result<()> {
    // While processes fork, the kernel stays at FREEZING. Writing again freezes the new ones; a short thaw helps if
    // they are many. The kernel has no event to wait for.
    for round in 1..=1000u32 {
        if round % 50 == 0 {
            thaw(freezer)?;
            std::thread::sleep(Duration::from_millis(10));
        }
        freezer.write(STATE, "FROZEN")?;
        if round % 25 == 0 {
            std::thread::sleep(Duration::from_micros(10));
        }
        match freezer.read(STATE)?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            other => bail!("{}/{STATE} is {other:?} while it is being frozen", freezer.dir().display()),
        }
        if Instant::now() > deadline {
            break;
        }
    }
    bail!("unable to freeze {}", freezer.dir().display())
}

/// Thaws the processes.
pub fn thaw(freezer: &Hierarchy) -> Result<(), Error> {
    freezer.write(STATE, "THAWED")
}

/// Thaws the processes here and below, whichever process froze them.
///
/// # Errors
/// The kernel refuses, or the walk takes too long.
pub fn thaw_all(freezer: &Hierarchy) -> Result<(), Error> {
    let thaw_one = |dir: BorrowedFd<'_>| {
        // To read is cheaper than to write: for a write the kernel visits all cgroups below.
        match freezer.read_in(dir, SELF_FREEZING)?.trim() {
            "1" => freezer.write_in(dir, STATE, "THAWED"),
            _ => Ok(()),
        }
    };
    match freezer.walk(Instant::now() + WALK_PATIENCE, thaw_one, |_, _| Ok(())) {
        Err(error) if gone(&error) => Ok(()),
        walked => walked,
    }
}

/// Whether this cgroup itself was told to freeze, not only one above it.
///
/// # Errors
/// The file exists and cannot be read.
pub fn frozen(freezer: &Hierarchy) -> Result<bool, Error> {
    Ok(freezer.read_if_there(SELF_FREEZING)?.is_some_and(|state| state.trim() == "1"))
}

/// Whether this cgroup or one above it is frozen or is being frozen.
///
/// # Errors
/// The file exists and cannot be read.
pub fn stands_still(freezer: &Hierarchy) -> Result<bool, Error> {
    Ok(freezer.read_if_there(STATE)?.is_some_and(|state| state.trim() != "THAWED"))
}

/// The name of the hierarchy's mount, as containers expect it: `cpu,cpuacct`.
pub fn mount_name(hierarchy: &Hierarchy) -> String {
    hierarchy.mount.file_name().unwrap_or(Path::new("cgroup").as_os_str()).to_string_lossy().into_owned()
}
