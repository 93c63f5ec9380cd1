//! What is particular to version 2: controllers that must be passed down, the device program, freeze and kill.

use super::devices::Policy;
use super::hierarchy::{Hierarchy, gone, value_of};
use crate::sys::{Error, bpf};
use anyhow::{Result, bail};
use rustix::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Passes all controllers that the host has down to the container's cgroup. Engines read its usage also
/// where nothing is limited. Cheap if somebody did so before: one look at each of two files.
///
/// # Errors
/// The lists of controllers cannot be read. That a controller cannot be passed down is none: it is, when a
/// limit needs it, and is said then.
pub fn enable_controllers(cgroup: &Hierarchy, needed: &[&str]) -> Result<(), Error> {
    const HAS: &str = "cgroup.controllers";
    if cgroup.path.as_os_str().is_empty() {
        return Ok(());
    }
    let above = cgroup.path.parent().unwrap_or(Path::new(""));
    let (here, parent) = (cgroup.read(HAS)?, cgroup.read_above(HAS)?);
    if here == parent && needed.iter().all(|name| here.split_ascii_whitespace().any(|has| has == *name)) {
        return Ok(());
    }
    let mut at = PathBuf::new();
    pass_down(&cgroup.at(""))?;
    for name in above {
        at.push(name);
        pass_down(&cgroup.at(&at))?;
    }
    Ok(())
}

fn pass_down(cgroup: &Hierarchy) -> Result<(), Error> {
    const TO: &str = "cgroup.subtree_control";
    let has = cgroup.read("cgroup.controllers")?;
    let given = cgroup.read(TO)?;
    let given: Vec<&str> = given.split_ascii_whitespace().collect();
    let missing: Vec<String> = has
        .split_ascii_whitespace()
        .filter(|name| !given.contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    match cgroup.write(TO, &missing.join(" ")) {
        Ok(()) => {}
        // It has processes ("no internal processes"). Those controllers that work on threads it would give all the
        // same, and then take no containers below it any more: it would be the root of a threaded subtree.
        Err(error) if error.errno() == libc::EBUSY => {}
        Err(_) => {
            for name in &missing {
                // One that cannot be had must not keep the others away.
                let _ = cgroup.write(TO, name);
            }
        }
    }
    Ok(())
}

/// Why a limit of `controller` finds no file: asks the kernel once more for the controller, where it ends.
pub fn why_missing(cgroup: &Hierarchy, controller: &str) -> String {
    let has = |at: &Hierarchy| {
        let controllers = at.read("cgroup.controllers").unwrap_or_default();
        controllers.split_ascii_whitespace().any(|has| has == controller)
    };
    let mut above = cgroup.path.ancestors().skip(1).map(|path| cgroup.at(path));
    let Some(giver) = above.find(has) else {
        let above = cgroup.at(cgroup.path.parent().unwrap_or(Path::new("")));
        return format!("controller {controller:?} not available in {}", above.dir().display());
    };
    let dir = giver.dir();
    let dir = dir.display();
    let refused = format!("controller {controller:?} not available");
    // cgroups(7), "no internal processes". Not found out by trying: see `pass_down`. The root is an exception, and has
    // no type.
    let busy =
        || giver.read("cgroup.procs").is_ok_and(|pids| !pids.is_empty()) && giver.read("cgroup.type").is_ok();
    if busy() {
        return format!("{refused}: {dir} has processes, so cgroups below it get no controllers");
    }
    match giver.write("cgroup.subtree_control", &format!("+{controller}")) {
        Ok(()) => "this kernel does not have the file".to_owned(),
        Err(error) => match error.errno() {
            libc::EOPNOTSUPP => {
                format!("{refused}: {dir} is threaded, and this controller is for whole processes")
            }
            // Not in the words of the errno, which engines take for a fault of the container's program.
            libc::EACCES | libc::EPERM => format!("{refused}: not delegated to us, {dir} does not give it"),
            _ => format!("{refused}: {error}"),
        },
    }
}

/// Why the cgroup takes no process, in more words than the kernel has for it.
pub fn why_refused(cgroup: &Hierarchy, errno: i32) -> Option<String> {
    let dir = cgroup.dir();
    let dir = dir.display();
    let given = cgroup.read("cgroup.subtree_control").unwrap_or_default();
    let kind = cgroup.read("cgroup.type").unwrap_or_default();
    match errno {
        libc::EBUSY if !given.trim().is_empty() => {
            Some(format!("{dir} gives controllers to cgroups below it, so it takes no processes itself"))
        }
        libc::EOPNOTSUPP if kind.trim() != "domain" => Some(format!(
            "{dir} is in a threaded subtree ({}), which takes no further processes",
            kind.trim()
        )),
        _ => None,
    }
}

/// Makes the cgroup's device program be the policy, and no other.
///
/// # Errors
/// The kernel does not take the program.
pub fn set_devices(cgroup: &Hierarchy, policy: &Policy) -> Result<(), Error> {
    let dir = cgroup.leaf()?;
    // What was there stays until the new one is attached: at no time is everything allowed.
    let old = if cgroup.fresh() { vec![] } else { bpf::device_programs(dir)? };
    if !policy.denies_nothing() {
        let program = policy.program().ok_or_else(|| {
            Error::new("bpf", format!("{} exceptions", policy.exceptions.len()), libc::E2BIG)
        })?;
        let program = bpf::load_device_program(&program)?;
        bpf::attach_device_program(dir, program.as_fd())?;
    }
    for id in old {
        bpf::detach_device_program(dir, id)?;
    }
    Ok(())
}

const FREEZE: &str = "cgroup.freeze";

/// Freezes all processes; thaws them again if that does not come about.
///
/// # Errors
/// A process does not freeze until `deadline`, or the kernel refuses.
pub fn freeze(cgroup: &Hierarchy, deadline: Instant) -> Result<()> {
    let began = Instant::now();
    cgroup.write(FREEZE, "1")?;
    match cgroup.wait_event("frozen 1", deadline) {
        Ok(true) => Ok(()),
        not => {
            // Half frozen is worse than running.
            let _ = thaw(cgroup);
            not?;
            bail!(
                "timeout of {}s reached waiting for {} to freeze",
                began.elapsed().as_secs(),
                cgroup.dir().display()
            )
        }
    }
}

/// Lets the processes run.
///
/// # Errors
/// The kernel refuses.
pub fn thaw(cgroup: &Hierarchy) -> Result<(), Error> {
    cgroup.write(FREEZE, "0")
}

/// Whether this cgroup itself was told to freeze.
///
/// # Errors
/// The file is there and cannot be read.
pub fn frozen(cgroup: &Hierarchy) -> Result<bool, Error> {
    Ok(cgroup.read_if_there(FREEZE)?.is_some_and(|state| state.trim() == "1"))
}

/// Whether all that is here is frozen, by this cgroup or one above it.
///
/// # Errors
/// The file is there and cannot be read.
pub fn stands_still(cgroup: &Hierarchy) -> Result<bool, Error> {
    Ok(cgroup.read_if_there("cgroup.events")?.is_some_and(|events| value_of(&events, "frozen") == Some(1)))
}

/// Kills everything here and below, forks included. `false` where the kernel cannot (before 5.14, or in
/// threaded cgroups).
///
/// # Errors
/// The kernel refuses.
pub fn kill(cgroup: &Hierarchy) -> Result<bool, Error> {
    match cgroup.write("cgroup.kill", "1") {
        Ok(()) => Ok(true),
        Err(error) if gone(&error) || error.errno() == libc::EOPNOTSUPP => Ok(false),
        Err(error) => Err(error),
    }
}

/// How many processes were killed for want of memory.
///
/// # Errors
/// The count is there and cannot be read.
pub fn oom_kills(cgroup: &Hierarchy) -> Result<u64, Error> {
    Ok(cgroup.read_if_there("memory.events")?.and_then(|events| value_of(&events, "oom_kill")).unwrap_or(0))
}
