//! Checks that no other user can have written the state. Otherwise that user could run hooks with our rights.
//!
//! Not for: the content of the files.

use anyhow::Result;
use rustix::fs::Stat;
use std::fmt;

/// The error that another user owns a directory or file of the state, or may write to it.
#[derive(Debug)]
pub struct Untrusted(String);

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Untrusted {}

/// Whether other users may add entries to a directory of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They may not.
    Excluded,
    /// They may if the sticky bit is set, as in /tmp: then they cannot rename our entries. Each entry is checked by
    /// itself.
    BehindStickyBit,
}

/// Refuses a file that is neither ours nor root's, or that others may write to. `found` is the answer of fstat(2) for a
/// descriptor; a path could lead to another file when it is used.
///
/// # Errors
/// [`Untrusted`].
pub fn check(found: &Stat, others: Others, shown: impl Fn() -> String) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if found.st_uid != own && found.st_uid != 0 {
        let why = format!("owned by user {}, who could have written it, and we are user {own}", found.st_uid);
        return Err(Untrusted(format!("{}: not used: {why}", shown())).into());
    }
    let sticky = others == Others::BehindStickyBit && found.st_mode & libc::S_ISVTX != 0;
    if found.st_mode & 0o022 != 0 && !sticky {
        let mode = found.st_mode & 0o7777;
        let why = format!("mode {mode:04o} lets other users write to it (chmod go-w)");
        return Err(Untrusted(format!("{}: not used: {why}", shown())).into());
    }
    Ok(())
}

/// Refuses a directory on the way to the state in which another user could exchange what stands there.
///
/// # Errors
/// [`Untrusted`].
pub fn check_way(found: &Stat, shown: impl Fn() -> String) -> Result<()> {
    let why = if !is_trusted(found.st_uid) {
        let own = rustix::process::geteuid().as_raw();
        format!("owned by user {}, who could exchange what is in it, and we are user {own}", found.st_uid)
    } else if found.st_mode & 0o022 != 0 && found.st_mode & libc::S_ISVTX == 0 {
        let mode = found.st_mode & 0o7777;
        format!("mode {mode:04o} lets other users exchange what is in it (chmod go-w)")
    } else {
        return Ok(());
    };
    Err(Untrusted(format!("{}: not used: {why}; or choose another directory", shown())).into())
}

/// Refuses a symbolic link that another user has made.
///
/// # Errors
/// [`Untrusted`].
pub fn check_link(found: &Stat, shown: impl Fn() -> String) -> Result<()> {
    if is_trusted(found.st_uid) {
        return Ok(());
    }
    let own = rustix::process::geteuid().as_raw();
    let why = format!("a symbolic link of user {}, and we are user {own}", found.st_uid);
    Err(Untrusted(format!("{}: not followed: {why} (give the path without the link)", shown())).into())
}

/// Returns true for us and for root.
///
/// A user namespace that does not map the host's root shows root's files with the overflow id. There /, /run and
/// /run/user have this owner, and no other owner can be told from root. The id is trusted only there: in the initial
/// user namespace it is that of an ordinary user, usually "nobody".
fn is_trusted(uid: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    uid == 0
        || uid == rustix::process::geteuid().as_raw()
        || (uid == OVERFLOW && !crate::sys::ns::is_initial_user())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(uid: u32, mode: u32, others: Others) -> Option<String> {
        let mut found = rustix::fs::stat("/").unwrap();
        (found.st_uid, found.st_mode) = (uid, mode);
        check(&found, others, || "\"/s\"".into()).err().map(|error| error.to_string())
    }

    #[test]
    fn state_is_ours_or_roots_and_nobody_else_writes_to_it() {
        let own = rustix::process::geteuid().as_raw();
        for mode in [0o700, 0o711, 0o755, 0o1700] {
            assert_eq!(refusal(own, mode, Others::Excluded), None);
            assert_eq!(refusal(0, mode, Others::Excluded), None);
        }
        assert_eq!(
            refusal(own + 7, 0o700, Others::BehindStickyBit),
            Some(format!(
                "\"/s\": not used: owned by user {}, who could have written it, and we are user {own}",
                own + 7
            ))
        );
        assert_eq!(
            refusal(own, 0o770, Others::BehindStickyBit).as_deref(),
            Some("\"/s\": not used: mode 0770 lets other users write to it (chmod go-w)")
        );
        assert_eq!(refusal(own, 0o1777, Others::BehindStickyBit), None);
        assert!(refusal(own, 0o1777, Others::Excluded).is_some());
    }

    #[test]
    fn the_way_to_the_state_leads_through_what_is_ours_or_roots() {
        let own = rustix::process::geteuid().as_raw();
        let refusal = |uid: u32, mode: u32| {
            let mut found = rustix::fs::stat("/").unwrap();
            (found.st_uid, found.st_mode) = (uid, mode);
            let link = check_link(&found, String::new).is_err();
            (check_way(&found, String::new).is_err(), link)
        };
        for uid in [0, own] {
            for mode in [0o700, 0o711, 0o755, 0o1777] {
                assert_eq!(refusal(uid, mode), (false, false), "{uid} {mode:o}");
            }
            for mode in [0o770, 0o707, 0o2775] {
                assert_eq!(refusal(uid, mode), (true, false), "{uid} {mode:o}");
            }
        }
        assert_eq!(refusal(own + 7, 0o700), (true, true));
        assert_eq!(refusal(65534, 0o755).0, crate::sys::ns::is_initial_user());
    }
}
