//! Keys and session keyrings.

use std::os::unix::process::CommandExt;

use nix::errno::Errno;

use super::{Fact, returned, word};

/// The name of the session keyring.
pub fn keyring(_: &[String]) -> Fact {
    let mut text = [0_u8; 256];
    // SAFETY: KEYCTL_DESCRIBE writes at most the given length into the buffer, which lives until after the call.
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_DESCRIBE,
            libc::KEY_SPEC_SESSION_KEYRING,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if length < 0 {
        return Ok(returned(length));
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let name = text.trim_end_matches('\0').rsplit(';').next().unwrap_or_default().to_owned();
    Ok(name)
}

/// Fills the user's quota of keys with the keys of a session keyring. The keyring lives as long as a process is in
/// it.
pub fn without_keys(args: &[String]) -> Fact {
    let join = libc::KEYCTL_JOIN_SESSION_KEYRING;
    // SAFETY: a null name asks for a keyring without one.
    let mut result = unsafe { libc::syscall(libc::SYS_keyctl, join, std::ptr::null::<u8>()) };
    for number in 0.. {
        if result < 0 {
            break;
        }
        let name = std::ffi::CString::new(format!("orlop-test-{number}")).map_err(|e| e.to_string())?;
        let session = libc::KEY_SPEC_SESSION_KEYRING;
        // SAFETY: type, name and payload live until after the call, and the payload has the given length.
        result = unsafe {
            libc::syscall(libc::SYS_add_key, c"user".as_ptr(), name.as_ptr(), c"x".as_ptr(), 1_usize, session)
        };
    }
    if Errno::last() != Errno::EDQUOT {
        return Err(format!("keys: {}", returned(result)));
    }
    let program = std::process::Command::new(word(args, 0)?).args(&args[1..]).exec();
    Err(program.to_string())
}

/// Puts a key into a session keyring of its own, which the program inherits.
pub fn with_key(args: &[String]) -> Fact {
    let name = std::ffi::CString::new(word(args, 0)?.as_str()).map_err(|error| error.to_string())?;
    let (join, session) = (libc::KEYCTL_JOIN_SESSION_KEYRING, libc::KEY_SPEC_SESSION_KEYRING);
    // SAFETY: a null name asks for a keyring without one.
    unsafe { libc::syscall(libc::SYS_keyctl, join, std::ptr::null::<u8>()) };
    // SAFETY: type, name and payload live until after the call, and the payload has the given length.
    let key = unsafe {
        libc::syscall(libc::SYS_add_key, c"user".as_ptr(), name.as_ptr(), c"x".as_ptr(), 1_usize, session)
    };
    if key < 0 {
        return Err(format!("add_key: {}", Errno::last()));
    }
    Err(std::process::Command::new(word(args, 1)?).args(&args[2..]).exec().to_string())
}

/// Tells whether this process possesses a key.
pub fn find_key(args: &[String]) -> Fact {
    let name = std::ffi::CString::new(word(args, 0)?.as_str()).map_err(|error| error.to_string())?;
    let (search, session) = (libc::KEYCTL_SEARCH, libc::KEY_SPEC_SESSION_KEYRING);
    // SAFETY: type and name live until after the call; 0 links the key nowhere.
    let found =
        unsafe { libc::syscall(libc::SYS_keyctl, search, session, c"user".as_ptr(), name.as_ptr(), 0) };
    Ok(if found > 0 { "found".to_owned() } else { returned(found) })
}
