//! A new file system whose options mount(2) takes as one string.
//!
//! The kernel's own parsers read that string: overlay's knows backslashes, and a value may be longer than fsconfig(2)
//! allows. mount(2) gives no descriptor, and a second look at the mount point could meet another mount. So it is made in
//! a tmpfs of ours, where no other process has a name, and cloned from there.

use super::apply::make_directory;
use super::{Mount, New, data};
use crate::sys::mount::{self as sys, ATIME_MASK, Change, Context, Depth, Propagation, RDONLY};
use anyhow::{Context as _, Result, ensure};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ffi::{CStr, CString};
use std::path::PathBuf;

/// What mount(2) is given.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) source: &'a CStr,
    pub(super) options: &'a CStr,
    /// `mode=`, if the configuration has none.
    pub(super) mode: Option<&'a CStr>,
    /// `context=`, if the configuration has none.
    pub(super) label: Option<&'a CStr>,
}

/// A detached mount of `new`. The tmpfs is mounted on `target` for as long as this takes.
pub(super) fn mount(mount: &Mount, new: &New, given: &Given<'_>, target: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut options = given.options.to_owned();
    if let Some(mode) = given.mode {
        options = data::append(&options, c"mode", mode)?;
    }
    if let Some(label) = given.label {
        let quoted = CString::new([b"\"", label.to_bytes(), b"\""].concat())?;
        options = data::append(&options, c"context", &quoted)?;
    }
    // The kernel cuts off what is more, in silence.
    let (length, most) = (options.count_bytes(), sys::longest_options());
    ensure!(length <= most, "options: {length} bytes, and mount(2) takes {most} at most");
    let place = Context::open(c"tmpfs")?.mount(0)?;
    sys::attach(place.as_fd(), target)?;
    let made = in_place(mount, new, given.source, &options, place.as_fd());
    let path = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let gone = sys::detach(&path).context("the tmpfs that it was made in");
    let made = made?;
    gone?;
    Ok(made)
}

fn in_place(
    mount: &Mount,
    new: &New,
    source: &CStr,
    options: &CStr,
    place: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let below = make_directory(place, "m")?;
    sys::mount_with_data(source, below.as_fd(), &new.fstype, &new.flags, options)?;
    let made = sys::clone_private(place, c"m", Depth::One, 0)?;
    let late = if new.late_readonly { RDONLY } else { 0 };
    let change = Change {
        set: mount.attributes.set & !late,
        clear: ATIME_MASK,
        // The place is a peer of mounts elsewhere if the mount that it is on is shared.
        propagation: Some(Propagation::Private),
    };
    sys::set_attributes(made.as_fd(), Depth::One, change)?;
    Ok(made)
}
