//! Session keyrings: keyctl(2).

use super::{Called, Error, check};
use std::ffi::CStr;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_ulong = 1;
const KEYCTL_SETPERM: libc::c_ulong = 5;

/// The number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(i32);

/// Joins the session keyring `name`. The kernel makes it if there is none that this process may search.
///
/// # Errors
/// ENOSYS if the kernel has no keys, EDQUOT if the user has too many.
pub fn join_session_keyring(name: &CStr) -> Result<Key, Error> {
    // SAFETY: `name` is a NUL-terminated string that lives over the call, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    check(result)
        .map(|serial| Key(serial as i32))
        .called("keyctl", || format!("JOIN_SESSION_KEYRING {name:?}"))
}

/// Sets the permissions of `key`: a byte each for possessor, user, group and others.
///
/// # Errors
/// EACCES if this process may not change the key.
pub fn set_permissions(key: Key, permissions: u32) -> Result<(), Error> {
    let serial = libc::c_long::from(key.0);
    // SAFETY: KEYCTL_SETPERM takes two integers and touches no memory.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, libc::c_ulong::from(permissions)) };
    check(result).map(drop).called("keyctl", || format!("SETPERM {serial} {permissions:#010x}"))
}
