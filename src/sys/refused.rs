//! The error that a cgroup takes no process. It has a type of its own, because `exec` looks for another cgroup then.
//!
//! An errno cannot tell: a container can make other calls of `exec` answer EBUSY or ENOENT, for example by a FUSE
//! mount.

use super::Error;
use std::fmt;

/// The cgroup takes no process (EBUSY), or is gone (ENOENT, ENODEV).
#[derive(Debug)]
pub struct Refused {
    text: String,
    error: Error,
}

impl Refused {
    /// The error of clone3(2) into a cgroup: a refusal by the cgroup, or another error.
    pub fn by_clone(error: Error) -> anyhow::Error {
        Self::explained(None, error)
    }

    /// [`by_clone`](Self::by_clone) with an explanation from the cgroup's files.
    pub fn explained(why: Option<String>, error: Error) -> anyhow::Error {
        let is_refusal = error.errno() == libc::EBUSY || gone(&error);
        let text = why.map(|why| format!("{PLACE}: {why}"));
        match text {
            text if is_refusal => Self { text: text.unwrap_or_else(|| PLACE.into()), error }.into(),
            Some(text) => anyhow::Error::from(error).context(text),
            None => error.into(),
        }
    }

    /// The error of opening the cgroup's directory.
    pub fn by_open(error: Error) -> anyhow::Error {
        const TEXT: &str = "can't open cgroup";
        let is_refusal = gone(&error);
        if is_refusal {
            Self { text: TEXT.into(), error }.into()
        } else {
            anyhow::Error::from(error).context(TEXT)
        }
    }

    /// The [`Refused`] that another process reported.
    pub fn told(error: Error) -> anyhow::Error {
        Self { text: PLACE.into(), error }.into()
    }

    /// Whether a refusal is the cause of `error`.
    pub fn is_cause_of(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| cause.is::<Self>())
    }
}

const PLACE: &str = "linux.cgroupsPath";

/// The cgroup has been removed: its directory is missing, or belongs to a dead cgroup.
fn gone(error: &Error) -> bool {
    matches!(error.errno(), libc::ENOENT | libc::ENODEV)
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_cgroup_says_is_its_refusal() {
        let clone = |errno| Refused::by_clone(Error::new("clone3", "", errno));
        assert!(Refused::is_cause_of(&clone(libc::EBUSY)) && Refused::is_cause_of(&clone(libc::ENODEV)));
        assert!(Refused::is_cause_of(&clone(libc::EBUSY).context("more")));
        assert!(!Refused::is_cause_of(&clone(libc::EAGAIN)));
        let other = anyhow::Error::from(Error::new("chdir", "\"/fuse\"", libc::EBUSY));
        assert!(!Refused::is_cause_of(&other));
        let text = format!("{:#}", clone(libc::EBUSY));
        assert_eq!(text, "linux.cgroupsPath: clone3: device or resource busy");
    }
}
