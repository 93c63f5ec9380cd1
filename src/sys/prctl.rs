//! The credentials and flags of the calling thread: prctl(2), capget(2), set*id(2), personality(2).
//!
//! These calls act on one thread. Init has a single thread, so they act on the process. The module uses no libc wrapper
//! that signals other threads.
//! Not for: which capabilities or ids a container gets.

use super::{Called, Error};
use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::{process, thread};

fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> std::io::Result<libc::c_int> {
    // SAFETY: every option that this module passes takes only integers, so the kernel follows no pointer.
    let result = unsafe { libc::prctl(option, a, b, 0 as libc::c_ulong, 0 as libc::c_ulong) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// Keeps the permitted set over the next change of user ids. execve(2) removes the flag.
///
/// # Errors
/// EPERM if SECBIT_KEEP_CAPS_LOCKED is set.
pub fn set_keepcaps() -> Result<(), Error> {
    thread::set_keep_capabilities(true).called("prctl", || "PR_SET_KEEPCAPS 1".into())
}

/// From now on no exec gives this process more privileges. This cannot be undone.
pub fn set_no_new_privs() -> Result<(), Error> {
    thread::set_no_new_privs(true).called("prctl", || "PR_SET_NO_NEW_PRIVS 1".into())
}

/// Hides /proc/self from less privileged processes (ptrace, fds, exe). execve(2) and new ids undo it.
pub fn set_not_dumpable() -> Result<(), Error> {
    process::set_dumpable_behavior(process::DumpableBehavior::NotDumpable)
        .called("prctl", || "PR_SET_DUMPABLE 0".into())
}

/// Lets other processes of our user look into this process.
pub fn set_dumpable() -> Result<(), Error> {
    process::set_dumpable_behavior(process::DumpableBehavior::Dumpable)
        .called("prctl", || "PR_SET_DUMPABLE 1".into())
}

/// Removes capability `number` from the bounding set. `false`: the kernel knows no such capability.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn bounding_drop(number: u8) -> Result<bool, Error> {
    match prctl(libc::PR_CAPBSET_DROP, number.into(), 0) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error).called("prctl", || format!("PR_CAPBSET_DROP {number}")),
    }
}

/// Whether capability `number` is in the bounding set. `None`: the kernel knows no such capability.
#[cfg(test)]
pub fn bounding_has(number: u8) -> Result<Option<bool>, Error> {
    match prctl(libc::PR_CAPBSET_READ, number.into(), 0) {
        Ok(value) => Ok(Some(value == 1)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error).called("prctl", || format!("PR_CAPBSET_READ {number}")),
    }
}

/// Adds capability `number` to the ambient set.
///
/// # Errors
/// EPERM unless it is both permitted and inheritable.
pub fn ambient_raise(number: u8) -> Result<(), Error> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, number.into())
        .map(drop)
        .called("prctl", || format!("PR_CAP_AMBIENT_RAISE {number}"))
}

/// Empties the ambient set.
pub fn ambient_clear() -> Result<(), Error> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)
        .map(drop)
        .called("prctl", || "PR_CAP_AMBIENT_CLEAR_ALL".into())
}

/// Whether capability `number` is in the ambient set; an unknown one is not.
#[cfg(test)]
pub fn ambient_has(number: u8) -> bool {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong, number.into())
        .is_ok_and(|value| value == 1)
}

/// The three sets that capget(2) and capset(2) carry, bit `n` for capability `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSets {
    /// The capabilities that permission checks look at.
    pub effective: u64,
    /// The capabilities that may become effective.
    pub permitted: u64,
    /// The capabilities that file capabilities may keep over execve(2).
    pub inheritable: u64,
}

/// capget(2) of the calling thread.
pub fn capget() -> Result<CapSets, Error> {
    let sets = thread::capabilities(None).called("capget", String::new)?;
    Ok(CapSets {
        effective: sets.effective.bits(),
        permitted: sets.permitted.bits(),
        inheritable: sets.inheritable.bits(),
    })
}

/// capset(2) of the calling thread, all three sets at once.
///
/// # Errors
/// EPERM if a set has more than the present sets allow (capabilities(7)).
pub fn capset(sets: &CapSets) -> Result<(), Error> {
    let value = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(sets.effective),
        permitted: CapabilitySet::from_bits_retain(sets.permitted),
        inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
    };
    thread::set_capabilities(None, value).called("capset", || {
        format!(
            "effective {:#x} permitted {:#x} inheritable {:#x}",
            sets.effective, sets.permitted, sets.inheritable
        )
    })
}

/// setgroups(2). The ids must not be `u32::MAX`.
///
/// # Errors
/// EPERM without CAP_SETGID, or if the user namespace denies it; EINVAL for an unmapped id.
pub fn setgroups(gids: &[u32]) -> Result<(), Error> {
    let groups: Vec<_> = gids.iter().map(|&gid| rustix::fs::Gid::from_raw(gid)).collect();
    thread::set_thread_groups(&groups).called("setgroups", || format!("{gids:?}"))
}

/// setresgid(2) with the same id three times. The id must not be `u32::MAX`, which would change nothing.
///
/// # Errors
/// EINVAL for an unmapped id, EPERM without CAP_SETGID.
pub fn setresgid(gid: u32) -> Result<(), Error> {
    let id = Some(rustix::fs::Gid::from_raw(gid));
    thread::set_thread_res_gid(id, id, id).called("setresgid", || gid.to_string())
}

/// setresuid(2) with the same id three times. The id must not be `u32::MAX`, which would change nothing.
///
/// # Errors
/// EINVAL for an unmapped id, EPERM without CAP_SETUID, EAGAIN if RLIMIT_NPROC is reached.
pub fn setresuid(uid: u32) -> Result<(), Error> {
    let id = Some(rustix::fs::Uid::from_raw(uid));
    thread::set_thread_res_uid(id, id, id).called("setresuid", || uid.to_string())
}

/// Real, effective and saved user id, and the same ids of the group: getresuid(2), getresgid(2).
#[cfg(test)]
pub fn ids() -> Result<([u32; 3], [u32; 3]), Error> {
    let uids = nix::unistd::getresuid().called("getresuid", String::new)?;
    let gids = nix::unistd::getresgid().called("getresgid", String::new)?;
    Ok((
        [uids.real.as_raw(), uids.effective.as_raw(), uids.saved.as_raw()],
        [gids.real.as_raw(), gids.effective.as_raw(), gids.saved.as_raw()],
    ))
}

/// personality(2). Returns the former value.
///
/// # Errors
/// EINVAL if the kernel cannot change to this persona.
pub fn set_personality(persona: u32) -> Result<u32, Error> {
    // SAFETY: personality(2) takes one integer and touches no memory.
    let result = unsafe { libc::personality(persona.into()) };
    super::check(result.into()).map(|former| former as u32).called("personality", || format!("{persona:#x}"))
}

/// Runs test code that changes the process, or enters namespaces, in a forked child.
#[cfg(test)]
pub(crate) mod testing {
    use std::io::{Read, Write};

    /// Forks and runs `body` in the child. If it fails, its error text fails the test here.
    ///
    /// glibc takes the allocator's locks before fork(2), so the child may allocate; it may not print.
    pub(crate) fn in_child(body: impl FnOnce() -> anyhow::Result<()>) {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        // SAFETY: the child runs `body`, which takes no lock that another test thread may hold; then it ends by
        // `_exit`.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                drop(reader);
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
                let text = match result {
                    Ok(Ok(())) => "ok".to_owned(),
                    Ok(Err(error)) => format!("{error:#}"),
                    Err(_) => "panicked".to_owned(),
                };
                let _ = writer.write_all(text.as_bytes());
                // SAFETY: _exit(2) ends the process without running the test harness's destructors.
                unsafe { libc::_exit(0) }
            }
            pid => {
                drop(writer);
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
                assert_eq!(text, "ok");
            }
        }
    }

    /// Whether this process has CAP_SYS_ADMIN; if not, prints why the test is skipped.
    pub(crate) fn privileged(test: &str) -> bool {
        let able = super::capget().is_ok_and(|sets| sets.effective & (1 << 21) != 0);
        if !able {
            eprintln!("{test}: skipped, needs CAP_SYS_ADMIN");
        }
        able
    }

    /// unshare(2) in a test child.
    pub(crate) fn unshare(flags: nix::sched::CloneFlags) -> anyhow::Result<()> {
        Ok(nix::sched::unshare(flags)?)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{in_child, privileged};
    use super::*;
    use anyhow::ensure;

    #[test]
    fn an_unknown_capability_is_told_apart_from_a_refusal() {
        assert_eq!(bounding_has(63).unwrap(), None);
        assert!(!ambient_has(63));
    }

    #[test]
    fn capset_is_read_back_by_capget() {
        in_child(|| {
            let before = capget()?;
            let after = CapSets { effective: 0, permitted: before.permitted & 1, inheritable: 0 };
            capset(&after)?;
            ensure!(capget()? == after, "{:?}", capget()?);
            Ok(())
        });
    }

    #[test]
    fn a_dropped_capability_is_out_of_the_bounding_set() {
        if !privileged("a_dropped_capability_is_out_of_the_bounding_set") {
            return;
        }
        in_child(|| {
            ensure!(bounding_has(0)? == Some(true), "CAP_CHOWN is not there to be dropped");
            ensure!(bounding_drop(0)?, "CAP_CHOWN is unknown");
            ensure!(bounding_has(0)? == Some(false), "CAP_CHOWN is still there");
            ensure!(!bounding_drop(63)?, "capability 63 is known");
            Ok(())
        });
    }
}
