//! The mask of the modes of new files (umask(2)): ours while we make files, the caller's for whatever else is executed.
//!
//! Without ours a caller with the mask 077 gives every directory that a mount needs the mode 0700, and a container's
//! process that is not root cannot pass through it.
//! Not for: deciding the mask of the container's process (see `parts::user`).

use rustix::fs::Mode;
use std::sync::atomic::{AtomicU32, Ordering};

/// Leaves the modes that we ask for as they are: none of ours is writable for others.
const OURS: u32 = 0o022;
/// No mask has this bit.
const NONE: u32 = 1 << 31;

/// The caller's mask, as long as ours is in force. A forked child has a copy.
static CALLERS: AtomicU32 = AtomicU32::new(NONE);

/// Puts our mask in force, and remembers the caller's.
pub fn ours() {
    if CALLERS.load(Ordering::Relaxed) == NONE {
        let before = rustix::process::umask(Mode::from_raw_mode(OURS));
        CALLERS.store(before.as_raw_mode(), Ordering::Relaxed);
    }
}

/// Gives the caller's mask back, if ours is in force. Allocates nothing: also for a child of ours before it executes.
pub fn callers() {
    let before = CALLERS.swap(NONE, Ordering::Relaxed);
    if before != NONE {
        rustix::process::umask(Mode::from_raw_mode(before));
    }
}

/// Sets the mask of the container's process, for good.
pub fn set(mask: u32) {
    CALLERS.store(NONE, Ordering::Relaxed);
    rustix::process::umask(Mode::from_raw_mode(mask));
}
