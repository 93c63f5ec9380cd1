//! Our own limit on open descriptors (RLIMIT_NOFILE), while we need more than the caller has.
//!
//! Not for: the limits of the container's process (see `parts::rlimits`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit is raised to the hard one; dropping this gives the caller's back. A child of ours has a copy, and
/// drops it for itself.
#[derive(Debug)]
pub struct MoreDescriptors {
    before: Rlimit,
}

impl MoreDescriptors {
    /// Raises the limit. Not an error: where it cannot be raised, the descriptor that is one too many is.
    pub fn allow() -> Option<Self> {
        let before = getrlimit(Resource::Nofile);
        if before.current == before.maximum {
            return None;
        }
        setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }).ok()?;
        Some(Self { before })
    }
}

impl Drop for MoreDescriptors {
    fn drop(&mut self) {
        // It was the limit before, and the hard limit is as it was: the kernel has no reason to refuse.
        let _ = setrlimit(Resource::Nofile, self.before);
    }
}
