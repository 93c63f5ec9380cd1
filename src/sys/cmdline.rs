//! Clears what /proc/PID/cmdline and /proc/PID/environ show of this process: strings that the kernel has put on its
//! stack.

use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The address of the first byte of the strings, and that after the last: the arguments, then the environment. 0 if
/// unknown.
static BEGIN: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// The name that /proc/PID/cmdline shows afterwards.
const NAME: &[u8] = b"orlop\0init\0";

/// Remembers where the strings are.
///
/// # Safety
/// `args` and `env` must be the kernel's for this process: `count` C strings, and C strings up to a null pointer.
pub(super) unsafe fn remember(count: c_int, args: *const *const c_char, env: *const *const c_char) {
    let Some(last) = usize::try_from(count).ok().and_then(|count| count.checked_sub(1)) else { return };
    // SAFETY: the caller's promise. The kernel has written all strings in one piece, and nothing else writes to them.
    unsafe {
        let mut end = *args.add(last);
        let mut at = env;
        while !(*at).is_null() {
            end = *at;
            at = at.add(1);
        }
        let end = CStr::from_ptr(end).to_bytes_with_nul().as_ptr_range().end;
        BEGIN.store(*args as usize, Ordering::Relaxed);
        END.store(end as usize, Ordering::Relaxed);
    }
}

/// Clears the strings. A container can read the command line of a process that it sees. There may be secrets in it
/// (`exec --env TOKEN=…`), and paths of the host. For forked copies only: their environment is gone afterwards.
pub fn hide() {
    let (begin, end) = (BEGIN.load(Ordering::Relaxed), END.load(Ordering::Relaxed));
    let Some(length) = end.checked_sub(begin).filter(|_| begin != 0) else { return };
    // SAFETY: `remember` found the kernel's strings from `begin` to `end`, on our stack, which we may write. This
    // process has one thread. Nothing in it borrows from there: the program works with copies of its arguments.
    let strings = unsafe { std::slice::from_raw_parts_mut(begin as *mut u8, length) };
    strings.fill(0);
    let shown = length.min(NAME.len());
    if let (Some(to), Some(name)) = (strings.get_mut(..shown), NAME.get(..shown)) {
        to.copy_from_slice(name);
    }
    if let Some(last) = strings.last_mut() {
        *last = 0;
    }
}
