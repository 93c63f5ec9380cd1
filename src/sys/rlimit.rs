//! Our own limit on open descriptors (RLIMIT_NOFILE), for the time that we need more than the caller has.
//!
//! Not for: the limits of the container's process (see `parts::rlimits`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// While this lives, the soft limit is as high as the hard one. The drop restores the caller's limit. A forked child
/// has a copy, and restores the limit for itself.
#[derive(Debug)]
pub struct MoreDescriptors {
    before: Rlimit,
}

impl MoreDescriptors {
    /// Raises the limit. A failure is no error here: the open(2) of one descriptor too many reports it.
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
        // This was the limit before, and the hard limit is unchanged: the kernel has no reason to refuse.
        let _ = setrlimit(Resource::Nofile, self.before);
    }
}
