//! The kernel, thin and typed: every `unsafe` block and every raw system call of orlop lives below this module.
//!
//! No policy here: a function does what its system call does, returns owned file descriptors that are
//! CLOEXEC from birth, and reports a failure as [`Error`], the call with its arguments.
//! Not for: decisions, defaults, or anything that knows config.json.

pub mod bpf;
pub mod cmdline;
pub mod entry;
pub mod fd;
pub mod keyctl;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod nodes;
pub mod ns;
pub mod path;
pub mod pidfd;
pub mod prctl;
pub mod proc;
mod refused;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod selfexe;
pub mod signal;
pub mod spawn;
mod start;
pub mod tty;
pub mod umask;

pub use refused::Refused;
use std::fmt;

/// A system call that failed: its name, its arguments as a person would write them, and the reason.
///
/// Shown as `open_tree "/src" (OPEN_TREE_CLONE): no such file or directory`. The reason is in lower case
/// because engines match the wording of runc, which is Go's.
#[derive(Debug)]
pub struct Error {
    call: &'static str,
    args: String,
    errno: i32,
}

impl Error {
    /// An error of `call` with `args` and the raw `errno` value.
    pub fn new(call: &'static str, args: impl Into<String>, errno: i32) -> Self {
        Self { call, args: args.into(), errno }
    }

    /// What another process has said of its error: its whole text, and the errno that callers branch on.
    pub fn told(text: String, errno: i32) -> Self {
        Self { call: "", args: text, errno }
    }

    /// The raw errno value, for callers that branch on it.
    pub fn errno(&self) -> i32 {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.call.is_empty() {
            return f.write_str(&self.args);
        }
        f.write_str(self.call)?;
        if !self.args.is_empty() {
            write!(f, " {}", self.args)?;
        }
        write!(f, ": {}", strerror(self.errno))
    }
}

impl std::error::Error for Error {}

/// The reason text for `errno` in lower case, as Go (and so runc) words it.
pub fn strerror(errno: i32) -> String {
    let text = nix::errno::Errno::from_raw(errno).desc();
    let mut chars = text.chars();
    match chars.next() {
        // "RFS specific error", "I/O error": an acronym keeps its case.
        Some(first) if chars.clone().next().is_some_and(|c| c.is_lowercase() || c == ' ') => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// The errno of the system call at the root of `error`, if a system call is its cause.
pub fn errno_of(error: &anyhow::Error) -> Option<i32> {
    error.chain().find_map(|cause| cause.downcast_ref::<Error>()).map(Error::errno)
}

/// Turns the error of a wrapper crate into [`Error`]; `args` is only run when there is an error.
pub trait Called<T> {
    /// Names the call and its arguments: `openat2(…).called("openat2", || format!("{path:?}"))?`.
    fn called(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Called<T> for Result<T, rustix::io::Errno> {
    fn called(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|errno| Error::new(call, args(), errno.raw_os_error()))
    }
}

impl<T> Called<T> for Result<T, nix::errno::Errno> {
    fn called(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|errno| Error::new(call, args(), errno as i32))
    }
}

impl<T> Called<T> for std::io::Result<T> {
    fn called(self, call: &'static str, args: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::new(call, args(), error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

/// Checks the result of a `libc::syscall`: negative means that `errno` holds the reason.
pub(crate) fn check(result: libc::c_long) -> std::io::Result<libc::c_long> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_the_call_and_the_reason() {
        let error = Error::new("open_tree", "\"/src\" (OPEN_TREE_CLONE)", libc::ENOENT);
        assert_eq!(error.to_string(), "open_tree \"/src\" (OPEN_TREE_CLONE): no such file or directory");
    }
}
