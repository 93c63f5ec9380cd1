//! The kernel, thin and typed: all of orlop's `unsafe` blocks and raw system calls are below this module.
//!
//! A function does what its system call does. It returns owned file descriptors that are CLOEXEC from birth. It
//! reports a failure as [`Error`]: the call, its arguments, the reason.
//! Not for: decisions, defaults, or anything that knows config.json.

pub mod bpf;
pub mod cmdline;
pub mod entry;
pub mod fd;
pub mod host_path;
pub mod keyctl;
pub mod memory;
pub mod mount;
pub mod mountinfo;
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

    /// The error that another process reported: its whole text, and the errno that callers branch on.
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

/// The errno of the system call that caused `error`, if a system call did.
pub fn errno_of(error: &anyhow::Error) -> Option<i32> {
    error.chain().find_map(|cause| cause.downcast_ref::<Error>()).map(Error::errno)
}

/// The oldest kernel that has every call of orlop. close_range(2) has its flag since 5.11, mount_setattr(2) exists
/// since 5.12, `nosymfollow` and cgroup.kill since 5.14.
const FLOOR: (u32, u32) = (5, 14);

/// The words to add to an error if the kernel may be too old for the call; empty if it is new enough. Only called
/// after a failure.
pub fn kernel_too_old(errno: Option<i32>) -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match errno {
        Some(libc::ENOSYS | libc::EINVAL) if is_below_floor(&release) => {
            format!(" (orlop needs Linux {}.{}, and this is {release})", FLOOR.0, FLOOR.1)
        }
        _ => String::new(),
    }
}

fn is_below_floor(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < FLOOR,
        _ => false,
    }
}

/// Turns the error of a wrapper crate into [`Error`]. `args` runs only if there is an error.
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

/// Checks the result of a `libc::syscall`: if it is negative, `errno` has the reason.
pub(crate) fn check(result: libc::c_long) -> std::io::Result<libc::c_long> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_told_by_its_release() {
        for old in ["4.18.0-553.el8.x86_64", "5.10.0-30-amd64", "5.13", "3.10.0"] {
            assert!(is_below_floor(old), "{old}");
        }
        for new in ["5.14.0-427.el9.x86_64", "5.15.167", "6.1.0-26-amd64", "10.0", "unheard of"] {
            assert!(!is_below_floor(new), "{new}");
        }
        assert_eq!(kernel_too_old(Some(libc::ENOSYS)), "", "the tests run on a kernel that is new enough");
    }

    #[test]
    fn an_error_reads_as_the_call_and_the_reason() {
        let error = Error::new("open_tree", "\"/src\" (OPEN_TREE_CLONE)", libc::ENOENT);
        assert_eq!(error.to_string(), "open_tree \"/src\" (OPEN_TREE_CLONE): no such file or directory");
    }
}
