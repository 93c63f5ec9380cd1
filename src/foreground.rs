//! `run` and `exec` in the foreground: forward signals, copy the terminal, wait for the end.
//!
//! One loop polls the signalfd, the process's pidfd, our terminal, the container's terminal and the notify socket. It
//! ends when the process has ended, in whatever state the others are. Nothing else in the loop waits: a stopped
//! process, a full pipe or a lost terminal never delays a signal.
//!
//! As in runc and crun, each signal that we get is forwarded, with these exceptions:
//! - SIGCHLD is about our own children, and Go programs send SIGURG to themselves.
//! - SIGWINCH is about our terminal. It changes the size of the container's terminal, if there is one.
//! - SIGPIPE and SIGXFSZ if our own writing has caused them.
//! - SIGHUP if our caller ignores it, so that `nohup orlop run` outlives a terminal. The container's process itself
//!   starts with default actions. It is in a session of its own, so our terminal does not send it SIGHUP.
//!
//! A stopped process does not act on signals. So a SIGCONT follows each signal that asks it to end, as systemd does it.

use crate::log;
use crate::notify::Notify;
use crate::sys::signal::{self, Collected};
use crate::sys::{Called, fd::Stream, pidfd, pidfd::Ended, spawn::Child, tty};
use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::Termios;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// All signals are blocked and collected, from before the process is made until it has ended.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    hangup_is_ignored: bool,
}

impl Signals {
    /// Blocks all signals. From now on they can be read.
    pub fn collect() -> Result<Self> {
        signal::block(signal::Mask::ALL)?;
        signal::watch_for_end()?;
        Ok(Self {
            fd: signal::collect(signal::Mask::ALL)?,
            hangup_is_ignored: signal::is_ignored(libc::SIGHUP)?,
        })
    }

    /// The signalfd to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn next(&self) -> Option<Collected> {
        signal::next(self.fd.as_fd())
    }
}

/// The user's terminal. It is in raw mode while the container uses it.
#[derive(Debug)]
struct HostTerminal {
    fd: OwnedFd,
    before: Termios,
}

impl HostTerminal {
    fn find() -> Result<OwnedFd> {
        match tty::of_caller()? {
            Some(terminal) => Ok(terminal),
            None => bail!("unable to get console: none of the standard streams is a terminal"),
        }
    }

    fn raw() -> Result<Self> {
        let fd = Self::find()?;
        let before = tty::set_raw(fd.as_fd())?;
        Ok(Self { fd, before })
    }
}

/// Checks that the caller has a terminal. It is called before anything is made.
///
/// # Errors
/// No standard stream is a terminal and there is no /dev/tty.
pub fn check_terminal() -> Result<()> {
    HostTerminal::find().map(drop)
}

/// Waits for the end of `process`, forwards our signals to it, and copies between its terminal and ours if it has one.
pub fn wait(
    process: &Child,
    signals: &Signals,
    master: Option<OwnedFd>,
    notify: Option<Notify>,
) -> Result<Ended> {
    let Some(master) = master else {
        relay(process, signals, &mut None, notify)?;
        return Ok(pidfd::wait(process.pidfd.as_fd())?);
    };
    let host = HostTerminal::raw()?;
    let mut line = Some(Line::new(&host, master)?);
    let relayed = relay(process, signals, &mut line, notify);
    // Reaped before its last words are shown, for which nobody may have room: init cannot end before all processes of its
    // pid namespace are reaped.
    let ended = relayed.and_then(|()| Ok(pidfd::wait(process.pidfd.as_fd())?));
    if let Some(line) = line {
        drain(line, signals);
    }
    // The result is dropped: our terminal may have hung up, and the exit status still counts.
    let _ = tty::restore(host.fd.as_fd(), &host.before);
    ended
}

/// How many signals are read, and how many children reaped, before the loop looks at its descriptors again. A container
/// can make both faster than we take them.
const ROUND: usize = 64;
/// For poll(2).
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

fn relay(
    process: &Child,
    signals: &Signals,
    line: &mut Option<Line<'_>>,
    mut notify: Option<Notify>,
) -> Result<()> {
    // Children may have ended that are not reaped yet.
    let mut orphans = false;
    loop {
        let mut polled = vec![
            PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.fd.as_fd(), PollFlags::IN),
        ];
        if let Some(notify) = &notify {
            polled.push(PollFd::from_borrowed_fd(notify.fd(), PollFlags::IN));
        }
        if let Some(line) = line {
            line.poll(&mut polled);
        }
        match poll(&mut polled, orphans.then_some(&AT_ONCE)) {
            Err(Errno::INTR) => continue,
            other => other.called("poll", String::new)?,
        };
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let (ended, signalled) = (ready.next() == Some(true), ready.next() == Some(true));
        if signalled {
            orphans |= forward(process, signals, line.as_ref());
        }
        if orphans {
            orphans = reap_orphans(Some(process.pid));
        }
        if let Some(container) = &mut notify
            && ready.next() == Some(true)
            && let Err(error) = container.relay(own_pid())
        {
            // The container goes on, as it would without systemd.
            log::warn(format!("{error:#}, ignoring"));
            notify = None;
        }
        if let Some(copied) = line
            && !copied.step(ready)
        {
            // The output can go nowhere. Close the container's terminal: its processes get SIGHUP.
            *line = None;
        }
        if ended {
            return Ok(());
        }
    }
}

/// The process that systemd is to follow: systemd has started us, and we end when the container does.
fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Forwards signals that have come; true if children have ended.
fn forward(process: &Child, signals: &Signals, line: Option<&Line<'_>>) -> bool {
    let mut orphans = false;
    for Collected { number, sender } in std::iter::from_fn(|| signals.next()).take(ROUND) {
        match number {
            libc::SIGCHLD => orphans = true,
            libc::SIGWINCH => {
                if let Some(line) = line {
                    let _ = tty::copy_size(line.host.fd.as_fd(), line.master.as_fd());
                }
            }
            libc::SIGURG => {}
            libc::SIGHUP if signals.hangup_is_ignored => {}
            libc::SIGPIPE | libc::SIGXFSZ if sender == own_pid().unsigned_abs() => {}
            _ => {
                // The error is dropped: the process may just have ended.
                let _ = pidfd::send_signal(process.pidfd.as_fd(), number);
                if signal::ENDING.contains(&number) && pidfd::is_stopped(process.pidfd.as_fd()) {
                    let _ = pidfd::send_signal(process.pidfd.as_fd(), libc::SIGCONT);
                }
            }
        }
    }
    orphans
}

/// Reaps the orphans that we get as a subreaper, at most [`ROUND`]. `process` itself is not reaped: the loop polls its
/// pidfd, and [`wait`] reads its exit status. Returns true if more children may have ended.
fn reap_orphans(process: Option<i32>) -> bool {
    for _ in 0..ROUND {
        match pidfd::ended_child() {
            Some(pid) if Some(pid) != process => pidfd::reap(pid),
            _ => return false,
        }
    }
    true
}

/// The container's terminal and ours, with the bytes on their way between them.
struct Line<'a> {
    host: &'a HostTerminal,
    master: Stream,
    stdin: Stream,
    stdout: Stream,
    typed: Copy,
    shown: Copy,
}

impl<'a> Line<'a> {
    fn new(host: &'a HostTerminal, master: OwnedFd) -> Result<Self> {
        // Non-blocking: the container may not read its input, and our write(2) must not wait. The open file is only ours.
        let master = Stream::own(master)?;
        let stdin = Stream::shared(std::io::stdin().as_fd(), OFlags::RDONLY)?;
        let stdout = Stream::shared(std::io::stdout().as_fd(), OFlags::WRONLY)?;
        Ok(Self { host, master, stdin, stdout, typed: Copy::new(), shown: Copy::new() })
    }

    fn poll<'b>(&'b self, polled: &mut Vec<PollFd<'b>>) {
        polled.extend(self.typed.polled(self.stdin.as_fd(), self.master.as_fd()));
        polled.extend(self.shown.polled(self.master.as_fd(), self.stdout.as_fd()));
    }

    /// Copies where `ready` says so; `ready` has the order of [`poll`](Self::poll). Returns false if the output of the
    /// container cannot be written.
    fn step(&mut self, mut ready: impl Iterator<Item = bool>) -> bool {
        let Self { master, stdin, stdout, typed, shown, .. } = self;
        if !typed.is_over() && ready.next() == Some(true) {
            let _ = typed.step(stdin.as_fd(), master);
        }
        if !shown.is_over() && ready.next() == Some(true) {
            return shown.step(master.as_fd(), stdout).is_ok();
        }
        true
    }
}

/// One direction of the copying. It never waits in read(2) or write(2): there, neither a signal nor the end of the
/// container would be seen.
struct Copy {
    /// Bytes that were read and are not written yet.
    left: Vec<u8>,
    over: bool,
}

impl Copy {
    fn new() -> Self {
        Self { left: Vec::new(), over: false }
    }

    fn is_over(&self) -> bool {
        self.over
    }

    fn polled<'a>(&self, from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Option<PollFd<'a>> {
        let next = match self.left.is_empty() {
            true => PollFd::from_borrowed_fd(from, PollFlags::IN),
            false => PollFd::from_borrowed_fd(to, PollFlags::OUT),
        };
        (!self.over).then_some(next)
    }

    /// Reads or writes once, after poll(2) has reported the descriptor. An error comes from writing to `to`. The end of
    /// `from` is no error, and ends this direction.
    fn step(&mut self, from: BorrowedFd<'_>, to: &Stream) -> Result<(), Errno> {
        if self.left.is_empty() {
            let mut buffer = [0; 4096];
            match rustix::io::read(from, &mut buffer) {
                Ok(length) if length > 0 => {
                    self.left.extend_from_slice(buffer.get(..length).unwrap_or_default());
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                // EIO: the last slave side is closed.
                Ok(_) | Err(_) => self.over = true,
            }
            if to.may_wait() {
                return Ok(());
            }
        }
        if self.left.is_empty() {
            return Ok(());
        }
        match to.write(&self.left) {
            Ok(length) => drop(self.left.drain(..length.min(self.left.len()))),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => {
                self.over = true;
                return Err(errno);
            }
        }
        Ok(())
    }
}

/// Copies the output that the container wrote before it ended. A signal that asks us to end ends this, if our terminal is
/// too slow.
fn drain(mut line: Line<'_>, signals: &Signals) {
    // More than a terminal holds. Other processes of the container may go on writing to it for ever.
    const MOST_READS: usize = 256;
    let mut reads = 0;
    let mut hurried = false;
    // The loop stops reaping when `process` is the first child that has ended. Others may have ended after it.
    let mut orphans = true;
    while reads <= MOST_READS {
        let Some(next) = line.shown.polled(line.master.as_fd(), line.stdout.as_fd()) else { return };
        let mut polled = [next, PollFd::from_borrowed_fd(signals.fd.as_fd(), PollFlags::IN)];
        // What was written before the end can be read by now.
        let complete = line.shown.left.is_empty() || hurried;
        match poll(&mut polled, (complete || orphans).then_some(&AT_ONCE)) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let [ready, signalled] = polled.map(|fd| !fd.revents().is_empty());
        if signalled {
            for Collected { number, .. } in std::iter::from_fn(|| signals.next()).take(ROUND) {
                orphans |= number == libc::SIGCHLD;
                hurried |= signal::asks_to_end(number);
            }
        }
        if orphans {
            orphans = reap_orphans(None);
        }
        if !ready && (complete || hurried) {
            return;
        }
        reads += usize::from(line.shown.left.is_empty() || hurried);
        if ready && line.shown.step(line.master.as_fd(), &line.stdout).is_err() {
            return;
        }
    }
}

/// Makes us the parent of the container's orphans (PR_SET_CHILD_SUBREAPER), so that we can reap them.
pub fn become_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).called("prctl", || "(PR_SET_CHILD_SUBREAPER)".into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{ns::Flags, spawn};

    #[test]
    fn children_without_end_are_reaped_in_rounds() {
        crate::sys::prctl::testing::in_child(|| {
            for _ in 0..ROUND + 2 {
                let child = spawn::spawn(Flags::NONE, spawn::Parentage::Child, None, || 0)?;
                anyhow::ensure!(pidfd::poll_ended(child.pidfd.as_fd(), 10_000)?);
            }
            anyhow::ensure!(reap_orphans(None), "all have been reaped at once");
            anyhow::ensure!(pidfd::ended_child().is_some(), "none is left");
            anyhow::ensure!(!reap_orphans(None) && pidfd::ended_child().is_none(), "one is left");
            Ok(())
        });
    }

    #[test]
    fn output_without_end_hides_neither_the_end_nor_a_signal() {
        crate::sys::prctl::testing::in_child(|| {
            let (read, write) = rustix::pipe::pipe()?;
            rustix::pipe::fcntl_setpipe_size(&write, 1 << 20)?;
            let writer = spawn::spawn(Flags::NONE, spawn::Parentage::Child, None, || {
                while rustix::io::write(&write, &[b'x'; 4096]).is_ok() {}
                0
            })?;
            let signals = Signals::collect()?;
            let pty = nix::pty::openpty(None, None)?;
            let host = HostTerminal { before: tty::set_raw(pty.slave.as_fd())?, fd: pty.slave };
            let nowhere = std::fs::File::options().write(true).open("/dev/null")?;
            let line = Line {
                host: &host,
                master: Stream::own(read)?,
                stdin: Stream::shared(nowhere.as_fd(), OFlags::WRONLY)?,
                stdout: Stream::shared(nowhere.as_fd(), OFlags::WRONLY)?,
                typed: Copy::new(),
                shown: Copy::new(),
            };
            drain(line, &signals);
            pidfd::end(writer.pidfd.as_fd(), 10_000)?;
            Ok(())
        });
    }
}
