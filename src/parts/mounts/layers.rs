//! A file system that finds its disk or its layers in the container's root.
//!
//! The kernel looks such paths up by name and as paths of the host, so a link of the image would lead it to the host.
//! Each of these paths is opened once, in the root. The file system gets the name of the descriptor in its place.
//! Not for: the sources of bind mounts (see `bind`).

use super::{New, data};
use crate::sys::host_path::{self, LastLink, Place};
use crate::sys::path::Root;
use crate::sys::proc::Proc;
use anyhow::{Result, bail, ensure};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The source and the options of a file system, without names of the image.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) source: CString,
    pub(super) data: Vec<data::Pair>,
    pub(super) one_string: Option<CString>,
    /// What the names say. Open until the mount is made.
    _open: Vec<OwnedFd>,
}

/// Opens what lies in `root`; `None` if nothing does, and the file system may be made as the plan says.
pub(super) fn open(root: &Root, new: &New) -> Result<Option<Named>> {
    let absolute = |value: &CString| value.as_bytes().contains(&b'/');
    if !absolute(&new.source) && !new.data.iter().any(|(_, value)| value.as_ref().is_some_and(absolute)) {
        return Ok(None);
    }
    let mut open = Vec::new();
    let source = path(root, new.source.as_bytes(), &mut open)?;
    let mut data = Vec::with_capacity(new.data.len());
    for (key, value) in &new.data {
        let value = value.as_ref().map(|value| option(root, key, value, &mut open)).transpose()?;
        data.push((key.clone(), value));
    }
    if open.is_empty() {
        return Ok(None);
    }
    // The names lead where they say only in the kernel's own /proc.
    drop(Proc::open_host()?);
    let one_string = new.one_string.as_deref();
    let one_string = one_string.map(|string| data::rewrite(string, &new.data, &data)).transpose()?;
    Ok(Some(Named { source: CString::new(source)?, data, one_string, _open: open }))
}

fn option(root: &Root, key: &CStr, value: &CStr, open: &mut Vec<OwnedFd>) -> Result<CString> {
    let pieces = data::pieces(key, value.to_bytes()).into_iter();
    let pieces = pieces.map(|piece| path(root, piece, open)).collect::<Result<Vec<_>>>()?;
    Ok(CString::new(pieces.join(&b':'))?)
}

/// The name for `piece`: itself, if it does not lead into the root.
fn path(root: &Root, piece: &[u8], open: &mut Vec<OwnedFd>) -> Result<Vec<u8>> {
    let Some(below) = in_root(root, piece)? else {
        let plain = unescape(piece);
        ensure!(
            plain == piece || in_root(root, &plain)?.is_none(),
            "{:?} in the root: a backslash in such a path is not supported",
            String::from_utf8_lossy(piece)
        );
        return Ok(piece.to_vec());
    };
    let fd = match root.find_without_links(&below) {
        Err(error) if error.errno() == libc::ELOOP => {
            bail!("{below:?} in the root: a symbolic link of the image would be followed on the host")
        }
        found => found?,
    };
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open.push(fd);
    Ok(name.into_bytes())
}

/// Where in the root an absolute path leads. What is not there is no path, or is the kernel's to complain about.
fn in_root(root: &Root, path: &[u8]) -> Result<Option<PathBuf>> {
    if path.first() != Some(&b'/') {
        return Ok(None);
    }
    match host_path::walk(Path::new(OsStr::from_bytes(path)), LastLink::Follow, root.as_fd()) {
        Ok(Place::Root(below)) => Ok(Some(below)),
        Err(error) if error.errno() == libc::EXDEV => Err(error.into()),
        Ok(Place::Host(_)) | Err(_) => Ok(None),
    }
}

/// A path as overlay reads it: a backslash takes the meaning from the letter behind it.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let mut plain = Vec::with_capacity(path.len());
    for byte in path {
        escaped = *byte == b'\\' && !escaped;
        if !escaped {
            plain.push(*byte);
        }
    }
    plain
}
