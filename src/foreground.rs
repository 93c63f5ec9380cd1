//! `run` and `exec` in the foreground: forward signals, copy the terminal, wait for the end.
//!
//! One loop over four descriptors (signalfd, the process's pidfd, our terminal, the container's terminal); it
//! ends when the process has ended, whatever the others say.

use crate::log;
use crate::notify::Notify;
use crate::sys::{Called, pidfd, pidfd::Ended, signal, spawn::Child, tty};
use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::termios::Termios;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Signals held back and collected, from before the process is made until it has ended.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: signal::Mask,
}

impl Signals {
    /// Blocks all signals; from now on they can be read.
    ///
    /// # Errors
    /// Those of rt_sigprocmask(2) and signalfd(2).
    pub fn collect() -> Result<Self> {
        let before = signal::block(signal::Mask::ALL)?;
        Ok(Self { fd: signal::collect(signal::Mask::ALL)?, before })
    }

    /// Where they are read.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The mask that the caller of orlop had; init restores it.
    pub fn before(&self) -> signal::Mask {
        self.before
    }

    fn next(&self) -> Option<i32> {
        signal::next(self.fd.as_fd())
    }
}

/// The user's terminal, in raw mode while the container uses it.
#[derive(Debug)]
struct HostTerminal {
    fd: OwnedFd,
    before: Termios,
}

impl HostTerminal {
    /// The first of our standard streams that is a terminal, or else /dev/tty.
    fn find() -> Result<OwnedFd> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
            if tty::is_tty(stream) {
                return Ok(rustix::io::fcntl_dupfd_cloexec(stream, 3).called("fcntl", || "(F_DUPFD)".into())?);
            }
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open("/dev/tty", flags, Mode::empty()) {
            Ok(terminal) => Ok(terminal),
            Err(_) => bail!("unable to get console: none of the standard streams is a terminal"),
        }
    }

    fn raw() -> Result<Self> {
        let fd = Self::find()?;
        let before = tty::set_raw(fd.as_fd())?;
        Ok(Self { fd, before })
    }
}

/// Whether a foreground terminal is possible here; asked before anything is made.
///
/// # Errors
/// No standard stream is a terminal and there is no /dev/tty.
pub fn check_terminal() -> Result<()> {
    HostTerminal::find().map(drop)
}

/// Waits for the process behind `pidfd`, forwarding to it each signal that we get, and copying between its
/// terminal and ours if it has one.
///
/// # Errors
/// Those of poll(2) and waitid(2).
pub fn wait(
    process: &Child,
    signals: &Signals,
    master: Option<OwnedFd>,
    notify: Option<Notify>,
) -> Result<Ended> {
    let Some(master) = master else {
        relay(process, signals, None, notify)?;
        return Ok(pidfd::wait(process.pidfd.as_fd())?);
    };
    let host = HostTerminal::raw()?;
    let relayed = relay(process, signals, Some((&host.fd, &master)), notify);
    drain(master.as_fd(), signals);
    // Our terminal may have hung up; what the container did counts all the same.
    let _ = tty::restore(host.fd.as_fd(), &host.before);
    relayed?;
    Ok(pidfd::wait(process.pidfd.as_fd())?)
}

fn relay(
    process: &Child,
    signals: &Signals,
    terminal: Option<(&OwnedFd, &OwnedFd)>,
    mut notify: Option<Notify>,
) -> Result<()> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut typed = terminal.map(|(_, master)| Copy::new(stdin.as_fd(), master.as_fd()));
    let mut shown = terminal.map(|(_, master)| Copy::new(master.as_fd(), stdout.as_fd()));
    loop {
        let mut polled = vec![
            PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.fd.as_fd(), PollFlags::IN),
        ];
        polled.extend([&typed, &shown].into_iter().flatten().map(Copy::polled));
        if let Some(notify) = &notify {
            polled.push(PollFd::from_borrowed_fd(notify.fd(), PollFlags::IN));
        }
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.called("poll", String::new)?,
        };
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let (ended, signalled) = (ready.next() == Some(true), ready.next() == Some(true));
        if signalled {
            forward(process, signals, terminal);
        }
        for copy in [&mut typed, &mut shown] {
            if copy.is_some() && ready.next() == Some(true) {
                *copy = copy.take().and_then(Copy::step);
            }
        }
        if ready.next() == Some(true)
            && let Some(container) = &mut notify
            && let Err(error) = container.relay(own_pid())
        {
            // The container runs on, as it would without systemd.
            log::warn(format!("{error:#}, ignoring"));
            notify = None;
        }
        if ended {
            return Ok(());
        }
    }
}

/// We are what systemd has started, and we end when the container does: it may follow us.
fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn forward(process: &Child, signals: &Signals, terminal: Option<(&OwnedFd, &OwnedFd)>) {
    while let Some(signal) = signals.next() {
        match Signal::try_from(signal) {
            Ok(Signal::SIGCHLD) => reap_orphans(process.pid),
            // Go's runtime uses it for itself, and engines know that it does not arrive.
            Ok(Signal::SIGURG) => {}
            Ok(Signal::SIGWINCH) if terminal.is_some() => {
                if let Some((host, master)) = terminal {
                    let _ = tty::copy_size(host.as_fd(), master.as_fd());
                }
            }
            // The process may just have ended: then there is nobody to tell.
            _ => drop(pidfd::send_signal(process.pidfd.as_fd(), signal)),
        }
    }
}

/// As a subreaper we inherit what the container's processes leave behind. `process` itself is left alone: its
/// pidfd is what the loop waits for.
fn reap_orphans(process: i32) {
    // Each round reaps one child, so this ends.
    while let Some(pid) = pidfd::ended_child().filter(|pid| *pid != process) {
        pidfd::reap(pid);
    }
}

/// One direction of a terminal's traffic. It waits for something to read, and then for room to write it: never inside
/// of write(2), where neither a signal nor the end of the container would be seen.
#[derive(Clone, Copy)]
struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    has_something: bool,
}

impl<'a> Copy<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Self {
        Self { from, to, has_something: false }
    }

    fn polled(&self) -> PollFd<'a> {
        match self.has_something {
            false => PollFd::from_borrowed_fd(self.from, PollFlags::IN),
            true => PollFd::from_borrowed_fd(self.to, PollFlags::OUT),
        }
    }

    /// What was waited for is there; `None` at the end of this direction.
    fn step(self) -> Option<Self> {
        let goes_on = !self.has_something || copy(self.from, self.to);
        goes_on.then_some(Self { has_something: !self.has_something, ..self })
    }
}

/// Copies what is there; `false` when this direction is at its end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 4096];
    match rustix::io::read(from, &mut buffer) {
        Ok(0) => false,
        Ok(length) => write_all(to, buffer.get(..length).unwrap_or_default()),
        // EIO: the last slave side is closed.
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
        Err(_) => false,
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut polled = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                let _ = poll(&mut polled, None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// What the container wrote before it ended; until somebody who does not want to wait for it sends a signal.
fn drain(master: BorrowedFd<'_>, signals: &Signals) {
    let stdout = std::io::stdout();
    let stdout = stdout.as_fd();
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut polled = [PollFd::from_borrowed_fd(master, PollFlags::IN)];
        if poll(&mut polled, Some(&none)).unwrap_or(0) == 0 {
            return;
        }
        let mut polled = [
            PollFd::from_borrowed_fd(stdout, PollFlags::OUT),
            PollFd::from_borrowed_fd(signals.fd.as_fd(), PollFlags::IN),
        ];
        let _ = poll(&mut polled, None);
        let writable = polled.first().is_some_and(|stdout| !stdout.revents().is_empty());
        if writable && !copy(master, stdout) {
            return;
        }
        if !writable && signals.next().is_some_and(|signal| signal != libc::SIGCHLD) {
            return;
        }
    }
}

/// Adopts what the container leaves behind (PR_SET_CHILD_SUBREAPER), so that it is reaped.
///
/// # Errors
/// prctl(2)'s.
pub fn become_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).called("prctl", || "(PR_SET_CHILD_SUBREAPER)".into())?;
    Ok(())
}
