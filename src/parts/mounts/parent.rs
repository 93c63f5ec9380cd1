//! What init has the parent do while it makes the mounts, and what it may do itself while the parent is at it.

use super::{Mount, What};
use anyhow::Result;
use rustix::fd::BorrowedFd;
use std::path::Path;

/// What the parent does for mounts.
pub struct Parent<'a> {
    /// It gives the mount of that index its id maps.
    pub map_ids: &'a dyn Fn(usize, BorrowedFd<'_>) -> Result<()>,
    /// It has made the network namespace: whoever mounts is in it from here on.
    pub network: &'a dyn Fn(&Halfway<'_>) -> Result<()>,
}

/// Where the mounts wait for the network namespace: what may be done meanwhile depends on it.
pub struct Halfway<'a> {
    /// As in [`super::Late`].
    pub dev: Option<BorrowedFd<'a>>,
    /// The mounts that are still to be made.
    pub rest: &'a [Mount],
}

impl Halfway<'_> {
    /// Whether what is still to be made is a sysfs, and mounts in it: no link of the image can lead them elsewhere.
    pub fn is_sysfs_only(&self) -> bool {
        let sys = Path::new("/sys");
        let begins = |first: &Mount| {
            first.destination == sys && matches!(&first.what, What::New(new) if new.ordinary_directory)
        };
        self.rest.first().is_some_and(begins)
            && self.rest.iter().all(|mount| mount.destination.starts_with(sys))
    }
}
