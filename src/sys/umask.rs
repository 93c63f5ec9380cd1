//! The umask (umask(2)): the runtime's own while it makes files, the caller's for programs that it executes.
//!
//! With the caller's mask 077, each directory that a mount needs would get the mode 0700. A container process that is
//! not root could not pass through it.
//! Not for: which umask the container's process gets (see `parts::user`).

use rustix::fs::Mode;
use std::sync::atomic::{AtomicU32, Ordering};

/// Changes none of the modes that the runtime asks for: none is writable for others.
const OURS: u32 = 0o022;
/// No mask has this bit.
const NONE: u32 = 1 << 31;

/// The caller's mask while ours is in force. A forked child has a copy.
static CALLERS: AtomicU32 = AtomicU32::new(NONE);

/// Sets our mask, and remembers the caller's.
pub fn ours() {
    if CALLERS.load(Ordering::Relaxed) == NONE {
        let before = rustix::process::umask(Mode::from_raw_mode(OURS));
        CALLERS.store(before.as_raw_mode(), Ordering::Relaxed);
    }
}

/// Restores the caller's mask if ours is in force. It allocates nothing, so a forked child can call it before it
/// executes.
pub fn callers() {
    let before = CALLERS.swap(NONE, Ordering::Relaxed);
    if before != NONE {
        rustix::process::umask(Mode::from_raw_mode(before));
    }
}

/// Sets the mask of the container's process. The caller's mask is forgotten.
pub fn set(mask: u32) {
    CALLERS.store(NONE, Ordering::Relaxed);
    rustix::process::umask(Mode::from_raw_mode(mask));
}
