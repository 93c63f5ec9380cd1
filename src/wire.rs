//! What parent and init say to each other, over one SOCK_SEQPACKET pair: one message a packet, JSON, at most
//! one descriptor with it. No length prefixes; EOF means that the other side is dead.
//!
//! ```text
//!   parent (launch)                         hop (only if one is needed)   init
//!        │                                       │                          │
//!        │◀─ JoinCgroup ─────────────────────────┤ or init, without a hop: systemd makes the cgroup
//!        ├─ Joined{cgroup} ─────────────────────▶│                          │
//!        │◀─ Console + fd ───────────────────────┤ exec on a terminal that the parent serves
//!        ├─ Proceed ────────────────────────────▶│                          │
//!        │◀─ Born{pid} ──────────────────────────┤ and the hop ends         │
//!        │◀─ MapIds ────────────────────────────────────────────────────────┤ a new user namespace
//!        ├─ Proceed ───────────────────────────────────────────────────────▶│
//!        ├─ the network namespace, on a channel of its own ────────────────▶│ if the parent makes it
//!        │◀─ MapMount + fd ─────────────────────────────────────────────────┤ an id-mapped mount whose source is in
//!        ├─ Proceed ───────────────────────────────────────────────────────▶│   the root
//!        │◀─ RunHooks ──────────────────────────────────────────────────────┤ prestart and createRuntime hooks, network
//!        ├─ Proceed ───────────────────────────────────────────────────────▶│   devices to be moved
//!        │◀─ Console + fd ──────────────────────────────────────────────────┤ create, run: as above
//!        ├─ Proceed ───────────────────────────────────────────────────────▶│
//!        │◀─ SetLimits ─────────────────────────────────────────────────────┤ init may not raise a limit itself
//!        ├─ Proceed ───────────────────────────────────────────────────────▶│
//!        │◀─ SeccompFd ─────────────────────────────────────────────────────┤ a filter with an agent
//!        ├─ Proceed ───────────────────────────────────────────────────────▶│
//!        │◀─ Ready ─────────────────────────────────────────────────────────┤
//!        │   verifies init from outside, records it                         │
//!        ├─ Proceed ───────────────────────────────────────────────────────▶│ create: init waits for `start`
//!        │                                                                  │ run, exec: hooks, execve
//!        │◀─ EOF ───────────────────────────────────────────────────────────┤ execve closed the wire
//! ```
//! `Failed` may stand in place of any message, and `Log` before any. Which of these the parent listens to, and from whom, follows from the
//! plan (`launch/script.rs`); the sender of each message is named by the kernel (SO_PASSCRED).

pub use crate::failure::Failure;

use crate::log::Level;
use crate::sys::{self, Called, fd};
use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// The fifo in the container's directory at which init waits for `start`.
pub const FIFO: &str = "exec.fifo";

/// The fifo beside it, by which init answers `start`: [`RELEASED`], [`COMPLETE`], and then a [`Failure`], or nothing more
/// when execve has closed it.
pub const RESULT: &str = "exec.result";

/// Init has taken the byte.
pub const RELEASED: u8 = b'0';

/// Nothing but execve is left to do.
pub const COMPLETE: u8 = b'1';

/// Init's ends of both, opened by the parent: init needs no path of the host, no right over the files, and no free
/// descriptor below RLIMIT_NOFILE to wait, and behind its seccomp filter nothing but read(2) and write(2).
#[derive(Debug)]
pub struct Gate {
    /// [`FIFO`], open for reading and writing, so that a read never finds its end.
    pub go: OwnedFd,
    /// [`RESULT`], open in the same way.
    pub result: OwnedFd,
}

impl Gate {
    /// Waits for the byte that `start` writes, and returns where it reads.
    pub fn wait(self) -> Result<OwnedFd> {
        let mut byte = [0];
        let read = fd::again(|| rustix::io::read(&self.go, &mut byte));
        // A filter may answer in place of the kernel: nothing was read then, and nobody has said `start`.
        ensure!(read.called("read", || FIFO.into())? == 1, "read {FIFO}: nothing, though it does not end");
        rustix::io::write(&self.result, &[RELEASED]).called("write", || RESULT.into())?;
        Ok(self.result)
    }
}

/// The largest message: an error chain with the output of a hook.
const LIMIT: usize = 64 * 1024;

/// Init (or the hop) to parent.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Event {
    /// The hop has made init.
    Born {
        /// Init's process id in the hop's pid namespace, which is the parent's.
        pid: i32,
    },
    /// Have me put into the container's cgroup.
    JoinCgroup,
    /// Write my id maps.
    MapIds,
    /// Here is a mount: give it the id maps of that place in `mounts`.
    MapMount {
        /// The place.
        mount: usize,
    },
    /// Run the hooks that belong into the runtime's namespaces.
    RunHooks,
    /// Here is the terminal's master side.
    Console,
    /// Set my resource limits: I lack the right to raise them.
    SetLimits,
    /// The seccomp listener is this descriptor of mine: fetch it (pidfd_getfd(2)). Not sent along, since the
    /// filter may already forbid sendmsg(2), or hold it up for the very agent that is to get the listener.
    SeccompFd {
        /// Its number in init.
        fd: i32,
    },
    /// Who I am is settled: look at me. Nothing is left but the last steps of `start`.
    Ready,
    /// Write this into the log: I have none.
    Log {
        /// What the line is about.
        level: Level,
        /// The line.
        message: String,
    },
    /// I am ending, for this reason.
    Failed(Failure),
}

/// Parent to init.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Proceed,
    /// You are in the container's cgroup; this is what a mount of type `cgroup` shows.
    Joined {
        /// Its directory.
        cgroup: PathBuf,
    },
}

/// The parent's end.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd);

/// Init's end.
#[derive(Debug)]
pub struct InitEnd(OwnedFd);

/// A new pair of ends.
pub fn pair() -> Result<(ParentEnd, InitEnd)> {
    let (parent, init) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .called("socketpair", || "(AF_UNIX, SOCK_SEQPACKET)".into())?;
    setsockopt(&parent, sockopt::PassCred, &true).called("setsockopt", || "(SO_PASSCRED)".into())?;
    Ok((ParentEnd(parent), InitEnd(init)))
}

/// An event, and the process that the kernel says has sent it.
#[derive(Debug)]
pub struct Heard {
    /// What was said.
    pub event: Event,
    /// The descriptor that came with it.
    pub fd: Option<OwnedFd>,
    /// Who said it.
    pub sender: i32,
}

/// What ends the parent's wait for a message, beside the message.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    /// Our child: its end is the end of the conversation, whoever else may have the other end of the wire.
    pub child: BorrowedFd<'a>,
    /// A signalfd, where the signals of the caller are collected: a child that a container has stopped must not keep
    /// us from being ended.
    pub signals: Option<BorrowedFd<'a>>,
    /// How long init may be silent.
    pub patience: Option<Duration>,
}

/// How a wait ended.
#[derive(Debug)]
pub enum Next {
    /// There is a message.
    Said(Heard),
    /// There will be none: EOF, or our child has ended.
    Ended,
    /// There is a signal to be read.
    Signal,
}

impl ParentEnd {
    /// Waits for the next event.
    ///
    /// # Errors
    /// The socket's, a message that is none of ours, or `ETIMEDOUT` when the time is over.
    pub fn next(&self, watch: Watch<'_>) -> Result<Next> {
        let timeout = watch.patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut polled =
            vec![PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(watch.child, PollFlags::IN)];
        polled.extend(watch.signals.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let ready = rustix::io::retry_on_intr(|| poll(&mut polled, timeout.as_ref()));
        if ready.called("poll", || "wire".into())? == 0 {
            return Err(sys::Error::new("poll", "wire", libc::ETIMEDOUT).into());
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        match (ready.next(), ready.next(), ready.next()) {
            (Some(true), ..) => self.receive(),
            (_, _, Some(true)) => Ok(Next::Signal),
            _ => Ok(Next::Ended),
        }
    }

    fn receive(&self) -> Result<Next> {
        let message = match fd::receive(self.0.as_fd(), LIMIT) {
            // Init died with an order of ours unread. The kernel says that first, and once: behind it is what init said.
            Err(error) if error.errno() == libc::ECONNRESET => fd::receive(self.0.as_fd(), LIMIT)?,
            other => other?,
        };
        if message.text.is_empty() {
            return Ok(Next::Ended);
        }
        let event = parse(&message.text).context("message from init")?;
        let sender = message.sender.context("message from init: the kernel names no sender")?;
        Ok(Next::Said(Heard { event, fd: message.fd, sender }))
    }

    /// Lets init go on. That init is gone is not an error here: the next `event` says it.
    pub fn proceed(&self) -> Result<()> {
        self.order(&Order::Proceed)
    }

    /// Gives init an order, as [`proceed`](Self::proceed).
    ///
    /// # Errors
    /// The socket's.
    pub fn order(&self, order: &Order) -> Result<()> {
        self.send(order)
    }

    fn send(&self, order: &Order) -> Result<()> {
        match fd::send(self.0.as_fd(), &serde_json::to_vec(order)?, None) {
            Err(error) if matches!(error.errno(), libc::EPIPE | libc::ECONNRESET) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// Where the parent sends the network namespace that it makes while init mounts. A channel of its own: the parent sends it
/// when it is made, whatever init asks meanwhile.
#[derive(Debug)]
pub struct NetworkSource(OwnedFd);

/// Where init waits for the network namespace.
#[derive(Debug)]
pub struct NetworkTarget(OwnedFd);

/// A new channel for the network namespace.
///
/// # Errors
/// EMFILE: there is no descriptor left.
pub fn network() -> Result<(NetworkSource, NetworkTarget)> {
    let (source, target) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .called("socketpair", || "(AF_UNIX, SOCK_SEQPACKET)".into())?;
    Ok((NetworkSource(source), NetworkTarget(target)))
}

impl NetworkSource {
    /// Sends the namespace. That init is gone is not an error here: the wire says it.
    ///
    /// # Errors
    /// ENOMEM, or another error of the socket itself.
    pub fn send(&self, namespace: BorrowedFd<'_>) -> Result<()> {
        match fd::send(self.0.as_fd(), b"n", Some(namespace)) {
            Err(error) if matches!(error.errno(), libc::EPIPE | libc::ECONNRESET) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl NetworkTarget {
    /// Waits for the namespace.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn receive(self) -> Result<OwnedFd> {
        fd::receive(self.0.as_fd(), 1)?.fd.context("the runtime is gone")
    }
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl InitEnd {
    /// Another descriptor of the same end, for the panic hook.
    ///
    /// # Errors
    /// fcntl(2)'s.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self(rustix::io::fcntl_dupfd_cloexec(&self.0, 3)?))
    }

    /// Tells the parent `event`.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn tell(&self, event: &Event, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let text = serde_json::to_vec(event)?;
        if fd.is_some() {
            return Ok(fd::send(self.as_fd(), &text, fd)?);
        }
        // write(2), not sendmsg(2): the container's filter may already be loaded, and need only allow what
        // every program needs. A dead parent may end us by SIGPIPE here, which is what we would do anyway.
        match fd::again(|| rustix::io::write(&self.0, &text)) {
            // A filter may answer in place of the kernel: then nothing was said, and no answer will come.
            Ok(length) if length != text.len() => Err(anyhow!("write to the runtime: {length} bytes")),
            other => Ok(other.map(drop).called("write", || "wire".into())?),
        }
    }

    /// Tells the parent `event` and waits for its order.
    ///
    /// # Errors
    /// The parent is gone: then nobody records us, and we must end.
    pub fn ask(&self, event: &Event, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.tell(event, fd)?;
        match self.order()? {
            Order::Proceed => Ok(()),
            Order::Joined { .. } => Err(anyhow!("internal error: an order that was not asked for")),
        }
    }

    /// Asks for the container's cgroup, and gives its directory.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub fn ask_for_cgroup(&self) -> Result<PathBuf> {
        self.tell(&Event::JoinCgroup, None)?;
        match self.order()? {
            Order::Joined { cgroup } => Ok(cgroup),
            Order::Proceed => Err(anyhow!("internal error: no cgroup")),
        }
    }

    fn order(&self) -> Result<Order> {
        // read(2) for the same reason as write(2) above. A path of the longest kind fits.
        let mut text = [0; 5000];
        let read = fd::again(|| rustix::io::read(&self.0, &mut text));
        let length = read.called("read", || "wire".into())?;
        parse(text.get(..length).unwrap_or_default()).map_err(|_| anyhow!("the runtime is gone"))
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T> {
    Ok(serde_json::from_str(std::str::from_utf8(text)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{pidfd, spawn};

    /// A process that lives for as long as the test does.
    fn own() -> OwnedFd {
        pidfd::open(rustix::process::getpid().as_raw_nonzero().get()).unwrap()
    }

    fn watch(child: &OwnedFd) -> Watch<'_> {
        Watch { child: child.as_fd(), signals: None, patience: None }
    }

    /// The next event; `None` at the end.
    fn said(parent: &ParentEnd) -> Option<Event> {
        match parent.next(watch(&own())).unwrap() {
            Next::Said(heard) => Some(heard.event),
            Next::Ended => None,
            Next::Signal => panic!("no signals are watched"),
        }
    }

    #[test]
    fn nobody_waits_for_an_init_that_is_dead_or_for_a_silent_one_longer_than_told() {
        crate::sys::prctl::testing::in_child(|| {
            // The other end stays open, as if somebody had taken it out of init.
            let (parent, init) = pair()?;
            let this = own();
            let soon = Watch { patience: Some(Duration::from_millis(20)), ..watch(&this) };
            let silent = parent.next(soon).unwrap_err();
            anyhow::ensure!(sys::errno_of(&silent) == Some(libc::ETIMEDOUT), "{silent:#}");
            let child = spawn::spawn(sys::ns::Flags::NONE, spawn::Parentage::Child, None, || {
                i32::from(init.tell(&Event::MapIds, None).is_err())
            })?;
            // What it said before its death counts.
            let Next::Said(heard) = parent.next(watch(&child.pidfd))? else { anyhow::bail!("silence") };
            anyhow::ensure!(heard.event == Event::MapIds, "{heard:?}");
            anyhow::ensure!(heard.sender == child.pid, "{heard:?}, and not {}", child.pid);
            anyhow::ensure!(matches!(parent.next(watch(&child.pidfd))?, Next::Ended));
            pidfd::wait(child.pidfd.as_fd())?;
            Ok(())
        });
    }

    #[test]
    fn a_signal_ends_the_wait_for_a_silent_init() {
        crate::sys::prctl::testing::in_child(|| {
            let (parent, _init) = pair()?;
            sys::signal::block(sys::signal::Mask::ALL)?;
            let signals = sys::signal::collect(sys::signal::Mask::ALL)?;
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM)?;
            let this = own();
            let next = parent.next(Watch { signals: Some(signals.as_fd()), ..watch(&this) })?;
            anyhow::ensure!(matches!(next, Next::Signal), "{next:?}");
            Ok(())
        });
    }

    #[test]
    fn an_error_chain_crosses_the_fork_whole() {
        let (parent, init) = pair().unwrap();
        let error = anyhow::Error::from(sys::Error::new("open_tree", "\"/x\"", libc::ENOENT))
            .context("mounts[0] /mnt");
        init.tell(&Event::Failed(Failure::of(&error)), None).unwrap();
        let Some(Event::Failed(failure)) = said(&parent) else { panic!("no failure") };
        let error = failure.into_error();
        assert_eq!(sys::errno_of(&error), Some(libc::ENOENT), "callers branch on it on this side too");
        assert_eq!(format!("{error:#}"), "mounts[0] /mnt: open_tree \"/x\": no such file or directory");
    }

    #[test]
    fn a_reason_is_heard_though_init_has_not_read_our_last_order() {
        let (parent, init) = pair().unwrap();
        init.tell(&Event::MapIds, None).unwrap();
        assert_eq!(said(&parent), Some(Event::MapIds));
        parent.proceed().unwrap();
        let failure = || Event::Failed(Failure::of(&anyhow!("process.cwd")));
        init.tell(&failure(), None).unwrap();
        drop(init);
        assert_eq!(said(&parent), Some(failure()));
        assert_eq!(said(&parent), None);
    }

    #[test]
    fn a_dead_parent_is_an_error_and_a_dead_init_is_eof() {
        let (parent, init) = pair().unwrap();
        drop(init);
        assert_eq!(said(&parent), None);
        parent.proceed().unwrap();
        let (parent, init) = pair().unwrap();
        drop(parent);
        init.ask(&Event::Ready, None).unwrap_err();
    }
}
