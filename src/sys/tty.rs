//! Terminals: the ioctls of pty(7) and tty_ioctl(4).

use super::{Called, Error, check};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Allows the slave side of `master` to be opened (TIOCSPTLCK).
///
/// # Errors
/// `ENOTTY`: it is no pty.
pub fn unlock(master: BorrowedFd<'_>) -> Result<(), Error> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) }.into())
        .map(drop)
        .called("ioctl", || "(TIOCSPTLCK)".into())
}

/// The slave side of `master`, opened without a path (TIOCGPTPEER).
///
/// # Errors
/// `ENOTTY`: it is no pty.
pub fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())
        .called("ioctl", || "(TIOCGPTPEER)".into())?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The number of `master`'s slave side in its devpts (TIOCGPTN).
///
/// # Errors
/// `ENOTTY`: it is no pty.
pub fn number(master: BorrowedFd<'_>) -> Result<u32, Error> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) }.into())
        .called("ioctl", || "(TIOCGPTN)".into())?;
    Ok(number)
}

/// Makes `slave` the controlling terminal of this session.
///
/// # Errors
/// `EPERM`: this process does not lead the session, or the session has one already.
pub fn set_controlling(slave: BorrowedFd<'_>) -> Result<(), Error> {
    // SAFETY: TIOCSCTTY takes an int by value.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())
        .map(drop)
        .called("ioctl", || "(TIOCSCTTY)".into())
}

/// Whether `fd` is a terminal.
pub fn is_tty(fd: BorrowedFd<'_>) -> bool {
    tcgetattr(fd).is_ok()
}

/// Turns off ONLCR: the terminal no longer turns `\n` into `\r\n` on output.
pub fn keep_newlines(terminal: BorrowedFd<'_>) -> Result<(), Error> {
    let mut modes = tcgetattr(terminal).called("tcgetattr", String::new)?;
    modes.output_modes.remove(OutputModes::ONLCR);
    tcsetattr(terminal, OptionalActions::Now, &modes).called("tcsetattr", || "(-ONLCR)".into())
}

/// Puts a terminal into raw mode and returns its former modes.
pub fn set_raw(terminal: BorrowedFd<'_>) -> Result<Termios, Error> {
    let before = tcgetattr(terminal).called("tcgetattr", String::new)?;
    let mut raw = before.clone();
    raw.make_raw();
    // The output modes stay: raw mode would turn off ONLCR, which the container's terminal has off.
    raw.output_modes = before.output_modes;
    tcsetattr(terminal, OptionalActions::Now, &raw).called("tcsetattr", || "(raw)".into())?;
    Ok(before)
}

/// Restores the modes that [`set_raw`] returned.
///
/// # Errors
/// `EIO` if the terminal has hung up.
pub fn restore(terminal: BorrowedFd<'_>, before: &Termios) -> Result<(), Error> {
    tcsetattr(terminal, OptionalActions::Now, before).called("tcsetattr", String::new)
}

/// Sets the window size.
pub fn set_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<(), Error> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).called("ioctl", || format!("{columns}x{rows} (TIOCSWINSZ)"))
}

/// The caller's terminal: the first of our standard streams that is one, else /dev/tty.
pub fn of_caller() -> Result<Option<OwnedFd>, Error> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        if is_tty(stream) {
            let own = rustix::io::fcntl_dupfd_cloexec(stream, 3);
            return own.map(Some).called("fcntl", || format!("{} (F_DUPFD_CLOEXEC)", stream.as_raw_fd()));
        }
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/tty", flags, Mode::empty()).ok())
}

/// Gives a container's new terminal the size of our caller's, unless a size is `configured`. It is called before the
/// process runs, because the process may ask for the size first. Later changes come as SIGWINCH.
pub fn begin_with_size(master: BorrowedFd<'_>, configured: Option<(u16, u16)>) {
    if configured.is_some_and(|size| size != (0, 0)) {
        return;
    }
    // If the caller's terminal has no size (a serial line, a test), the container's keeps its own.
    if let Ok(Some(caller)) = of_caller() {
        let _ = copy_size(caller.as_fd(), master);
    }
}

/// Gives `to` the window size of `from`.
pub fn copy_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Error> {
    let size = tcgetwinsize(from).called("ioctl", || "(TIOCGWINSZ)".into())?;
    tcsetwinsize(to, size).called("ioctl", || "(TIOCSWINSZ)".into())
}
