//! What only version 2 has: controllers that must be passed down, the device program, freeze and kill.

use super::devices::Policy;
use super::hierarchy::{Hierarchy, gone, value_of};
use crate::sys::{Error, bpf};
use anyhow::{Result, bail};
use rustix::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Passes all controllers of the host down to the container's cgroup, because engines read its usage also without
/// limits. If that was done before, it costs one look at each of two files.
///
/// # Errors
/// The lists of controllers cannot be read. A controller that cannot be passed down is no error here: the write of a
/// limit that needs it reports that.
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
        // This cgroup has processes ("no internal processes"). One by one, the kernel would pass down those
        // controllers that work on threads. The cgroup would then be the root of a threaded subtree, and take no
        // containers below it.
        Err(error) if error.errno() == libc::EBUSY => {}
        Err(_) => {
            for name in &missing {
                // A controller that is refused must not prevent the others.
                let _ = cgroup.write(TO, name);
            }
        }
    }
    Ok(())
}

/// Explains why the file for a limit of `controller` is missing. It tries once more to pass the controller down, from
/// the lowest cgroup that has it.
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
    // cgroups(7), "no internal processes". It does not try that here: see `pass_down`. The root is an exception; it
    // has no type.
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
            // Not the errno's words: engines take them for an error of the container's program.
            libc::EACCES | libc::EPERM => format!("{refused}: not delegated to us, {dir} does not give it"),
            _ => format!("{refused}: {error}"),
        },
    }
}

/// Explains why the cgroup takes no process, in more words than the kernel's errno.
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

/// Makes the policy the cgroup's only device program.
pub fn set_devices(cgroup: &Hierarchy, policy: &Policy) -> Result<(), Error> {
    let dir = cgroup.leaf()?;
    // The former programs stay until the new one is attached: at no time is every device allowed.
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

/// Freezes all processes, or thaws them again if that fails.
///
/// # Errors
/// A process does not freeze before `deadline`, or the kernel refuses.
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

/// Thaws the processes.
pub fn thaw(cgroup: &Hierarchy) -> Result<(), Error> {
    cgroup.write(FREEZE, "0")
}

/// Whether this cgroup itself was told to freeze.
///
/// # Errors
/// The file exists and cannot be read.
pub fn frozen(cgroup: &Hierarchy) -> Result<bool, Error> {
    Ok(cgroup.read_if_there(FREEZE)?.is_some_and(|state| state.trim() == "1"))
}

/// Whether all processes here are frozen, by this cgroup or one above it.
///
/// # Errors
/// The file exists and cannot be read.
pub fn stands_still(cgroup: &Hierarchy) -> Result<bool, Error> {
    Ok(cgroup.read_if_there("cgroup.events")?.is_some_and(|events| value_of(&events, "frozen") == Some(1)))
}

/// Kills all processes here and below, including those that are being forked. `false` if the kernel cannot: the
/// cgroup is threaded or gone.
pub fn kill(cgroup: &Hierarchy) -> Result<bool, Error> {
    match cgroup.write("cgroup.kill", "1") {
        Ok(()) => Ok(true),
        Err(error) if gone(&error) || error.errno() == libc::EOPNOTSUPP => Ok(false),
        Err(error) => Err(error),
    }
}

/// How many processes the kernel killed because memory ran out.
///
/// # Errors
/// The file exists and cannot be read.
pub fn oom_kills(cgroup: &Hierarchy) -> Result<u64, Error> {
    Ok(cgroup.read_if_there("memory.events")?.and_then(|events| value_of(&events, "oom_kill")).unwrap_or(0))
}
