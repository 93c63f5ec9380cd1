//! Attributes and propagation of mounts, in as few calls as can be, and what becomes of locked flags.
//!
//! Not for: deciding them (see `parts::mounts::plan`).

use super::{Attributes, Mount};
use crate::sys::Error;
use crate::sys::mount::{self as sys, Change, Depth, NODEV, NOEXEC, NOSUID, Propagation, RDONLY};
use rustix::fd::BorrowedFd;

/// What a user namespace inherits locked.
const LOCKABLE: u64 = RDONLY | NOSUID | NODEV | NOEXEC;
const ATIMES: u64 = sys::ATIME_MASK | sys::NODIRATIME;

/// Whether flags that the source has are locked by the kernel, or shall be treated so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Kernel,
    /// The parent does for a container in a user namespace what that could not do for itself.
    Emulated,
}

/// What a mount is given that was cloned, or is there already.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The propagation before those that the configuration names.
    pub base: Option<Propagation>,
    /// The propagation that the configuration names, in order.
    pub propagation: &'a [(Propagation, Depth)],
    pub attributes: Attributes,
    /// What was cloned: one mount, or those below it, too.
    pub depth: Depth,
    pub lock: Lock,
}

impl Wanted<'_> {
    pub(super) fn apply(&self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.calls()
            .into_iter()
            .try_for_each(|(change, depth)| change_attributes(fd, depth, change, &self.attributes, self.lock))
    }

    /// The mount_setattr(2) calls: attributes ride on a propagation change where the depths agree.
    fn calls(&self) -> Vec<(Change, Depth)> {
        let deep = |depth: Depth| if self.depth == Depth::One { Depth::One } else { depth };
        let mut calls = Vec::new();
        let push = |calls: &mut Vec<(Change, Depth)>, propagation, depth| {
            calls.push((Change { propagation: Some(propagation), ..Change::default() }, deep(depth)));
        };
        let overrides = |(first, depth): &(Propagation, Depth)| {
            deep(*depth) == deep(Depth::Tree) && *first != Propagation::Shared
        };
        if let Some(base) = self.base
            && !self.propagation.first().is_some_and(overrides)
        {
            push(&mut calls, base, Depth::Tree);
        }
        for (propagation, depth) in self.propagation {
            push(&mut calls, *propagation, *depth);
        }
        let tree = self.attributes.tree_change().map(|change| (change, deep(Depth::Tree)));
        for (change, depth) in
            self.attributes.change().map(|change| (change, Depth::One)).into_iter().chain(tree)
        {
            match calls.last_mut() {
                Some((last, at)) if *at == depth => {
                    last.set = last.set & !change.clear | change.set;
                    last.clear |= change.clear;
                }
                _ => calls.push((change, depth)),
            }
        }
        calls
    }
}

fn change_attributes(
    fd: BorrowedFd<'_>,
    depth: Depth,
    change: Change,
    asked: &Attributes,
    lock: Lock,
) -> Result<(), Error> {
    if lock == Lock::Emulated && change.set | change.clear != 0 {
        return sys::set_attributes(fd, depth, keep_locked(fd, change, asked)?);
    }
    match sys::set_attributes(fd, depth, change) {
        // A user namespace inherits the host's flags locked: those not spoken about stay as they are.
        Err(error) if error.errno() == libc::EPERM && depth == Depth::One => {
            sys::set_attributes(fd, depth, keep_locked(fd, change, asked)?)
        }
        result => result,
    }
}

/// `change` without what would clear a locked flag of the source, unless it was asked for: then EPERM.
fn keep_locked(fd: BorrowedFd<'_>, change: Change, asked: &Attributes) -> Result<Change, Error> {
    let have = sys::attributes(fd)?;
    let refused = asked.forbidden & have & LOCKABLE;
    if refused != 0 {
        return Err(Error::new(
            "mount_setattr",
            format!("cannot clear locked flags {refused:#x}"),
            libc::EPERM,
        ));
    }
    let asks_atime = change.clear & sys::ATIME_MASK != 0;
    if asks_atime && change.set & ATIMES != have & ATIMES {
        let locked = have & ATIMES;
        return Err(Error::new(
            "mount_setattr",
            format!("cannot change locked atime flags {locked:#x}"),
            libc::EPERM,
        ));
    }
    Ok(Change {
        set: change.set & !ATIMES,
        clear: change.clear & !ATIMES & !(have & LOCKABLE),
        propagation: change.propagation,
    })
}

/// A new mount is private and has its attributes from fsmount(2): only what differs is a call.
pub(super) fn propagate_new(fd: BorrowedFd<'_>, mount: &Mount) -> Result<(), Error> {
    for (propagation, depth) in &mount.propagation {
        let change = Change { propagation: Some(*propagation), ..Change::default() };
        sys::set_attributes(fd, *depth, change)?;
    }
    if let Some(change) = mount.attributes.tree_change() {
        sys::set_attributes(fd, Depth::Tree, change)?;
    }
    Ok(())
}

pub(super) fn set_readonly(fd: BorrowedFd<'_>) -> Result<(), Error> {
    sys::set_attributes(fd, Depth::One, Change { set: RDONLY, ..Change::default() })
}
