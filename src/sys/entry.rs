//! The program's entry: C's `main` in place of that of Rust's runtime.
//!
//! Rust's runtime reads /proc/self/maps to find the stack's guard page, and installs a handler that reports a stack
//! overflow. That takes 17 system calls. Verbs that enter containers execute the program again (`selfexe`), and so
//! pay them twice. `main` seals first, before the program allocates or parses anything. This file may go when Rust
//! lets a program leave out its start-up.

use super::{Called, Error, fd, selfexe, signal};
use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

/// The verbs with processes that a container can see.
const SEALED: [&CStr; 4] = [c"run", c"create", c"exec", c"restore"];

/// Defines the program's `main`. It does what [`begin`] says, then calls the given `fn(Vec<OsString>) -> i32` with
/// the command line.
#[macro_export]
macro_rules! program {
    ($run:path, $fail:path) => {
        /// What the C runtime calls.
        #[allow(unsafe_code)] // the name is taken once, here
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: std::ffi::c_int,
            args: *const *const std::ffi::c_char,
            env: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: the C runtime calls `main` with the process's own arguments and environment.
            match unsafe { $crate::sys::entry::begin(count, args, env) } {
                Ok(args) => std::process::exit($run(args)),
                Err(error) => $fail(error),
            }
        }
    };
}

/// Prepares the process, and returns the command line, which `std::env::args` would know only with glibc.
///
/// - It seals the executable if a container will see it.
/// - It opens the standard streams that the caller left closed.
/// - It ignores SIGPIPE: a hook that does not read its input must not end the runtime.
/// - It gives SIGCHLD its default action. A caller may ignore it; then the kernel would reap our children itself and
///   forget how they ended.
///
/// An argument that only looks like one of the verbs costs no more than the sealing.
///
/// # Errors
/// The executable cannot be sealed, or one of the other steps fails.
///
/// # Safety
/// `args` must be `count` C strings, `env` C strings up to a null pointer.
pub unsafe fn begin(
    count: c_int,
    args: *const *const c_char,
    env: *const *const c_char,
) -> Result<Vec<OsString>, Error> {
    // SAFETY: the caller's promise.
    unsafe { super::cmdline::remember(count, args, env) };
    // SAFETY: the caller's promise: there are `count` C strings.
    let words =
        (0..usize::try_from(count).unwrap_or_default()).map(|at| unsafe { CStr::from_ptr(*args.add(at)) });
    let sealed = words.clone().skip(1).any(|word| SEALED.contains(&word));
    if sealed {
        // SAFETY: the caller's promise.
        unsafe { selfexe::seal(args, env)? };
        // Before Linux 6.14, a process that was executed by descriptor has the descriptor's number as its name.
        if let Some(program) = words.clone().next() {
            rustix::thread::set_name(file_name(program)).called("prctl", || "PR_SET_NAME".into())?;
        }
    }
    fd::fill_standard_streams()?;
    signal::set_default(libc::SIGCHLD)?;
    // SAFETY: SIG_IGN runs none of our code.
    match unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(std::io::Error::last_os_error()).called("sigaction", || "SIGPIPE".into()),
        _ => Ok(words.map(|word| OsStr::from_bytes(word.to_bytes()).to_owned()).collect()),
    }
}

/// The part after the last slash.
fn file_name(path: &CStr) -> &CStr {
    let bytes = path.to_bytes_with_nul();
    let name = bytes.rsplit(|byte| *byte == b'/').next();
    name.and_then(|name| CStr::from_bytes_with_nul(name).ok()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_follows_the_last_slash() {
        for (path, name) in [(c"/usr/bin/orlop", c"orlop"), (c"orlop", c"orlop"), (c"./a/", c""), (c"", c"")]
        {
            assert_eq!(file_name(path), name);
        }
    }
}
