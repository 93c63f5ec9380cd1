//! An error that crosses a process boundary: from init to the parent over the wire, and from init to `start` by the gate.
//!
//! The parts of the chain arrive as they were said, and the errno at its root, on which callers branch.
//! Not for: how it is sent (`wire.rs`).

use crate::sys::{self, Refused};
use anyhow::anyhow;
use serde::{Deserialize, Serialize};

// A chain within these always fits: a character is at most 6 bytes of JSON.
const CHAIN_LIMIT: usize = 10;
const TEXT_LIMIT: usize = 1000;

/// An error chain on its way over the wire.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Failure {
    /// The chain's texts, outermost first.
    pub chain: Vec<String>,
    /// The errno at its root, if a system call is the cause.
    pub errno: Option<i32>,
    /// A cgroup took no process: the parent may look for another one.
    #[serde(default)]
    pub cgroup_refused: bool,
}

impl Failure {
    /// Takes an error apart.
    pub fn of(error: &anyhow::Error) -> Self {
        let cgroup_refused = Refused::is_cause_of(error);
        let texts =
            error.chain().filter(|cause| !cause.is::<Refused>()).take(CHAIN_LIMIT).map(ToString::to_string);
        let chain = texts.map(|text| text.chars().take(TEXT_LIMIT).collect()).collect();
        Self { chain, errno: sys::errno_of(error), cgroup_refused }
    }

    /// Puts the error together again.
    pub fn into_error(self) -> anyhow::Error {
        let mut texts = self.chain.into_iter().rev();
        let root = texts.next().unwrap_or_else(|| "no reason given".into());
        let root = match self.errno {
            Some(errno) if self.cgroup_refused => Refused::told(sys::Error::told(root, errno)),
            Some(errno) => sys::Error::told(root, errno).into(),
            None => anyhow!(root),
        };
        texts.fold(root, |error, text| error.context(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_put_together_as_it_was() {
        let cause = sys::Error::new("open_tree", "\"/x\"", libc::ENOENT);
        let error = anyhow::Error::from(cause).context("mounts[0] /mnt");
        let error = Failure::of(&error).into_error();
        assert_eq!(sys::errno_of(&error), Some(libc::ENOENT), "callers branch on it on this side too");
        assert_eq!(format!("{error:#}"), "mounts[0] /mnt: open_tree \"/x\": no such file or directory");
    }
}
