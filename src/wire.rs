//! What parent and init say to each other, over one SOCK_SEQPACKET pair: one message a packet, JSON, at most
//! one descriptor with it. No length prefixes; EOF means that the other side is dead.
//!
//! ```text
//!   parent (launch.rs)                      init (init.rs)                  hop (only if there is one)
//!        │                                       │                             │
//!        │◀───────────────────────────────────── Born{pid} ────────────────────┤ then exits
//!        │◀─ JoinCgroup ─────────────────────────┤ only if systemd is to make the cgroup; if there is a hop,
//!        ├─ Joined{cgroup} ─────────────────────▶│   it is the hop that asks, and init is born there
//!        │◀─ MapIds ─────────────────────────────┤ only with a new user namespace
//!        ├─ Proceed ────────────────────────────▶│
//!        ├─ Network + fd ───────────────────────▶│ only if the parent makes the network namespace: not asked for, and
//!        │                                       │   before any other order
//!        │                                       │ mounts, devices …
//!        │◀─ MapMount + fd ──────────────────────┤ only for id-mapped mounts whose source is in the root
//!        ├─ Proceed ────────────────────────────▶│
//!        │◀─ RunHooks ───────────────────────────┤ only if there are prestart or createRuntime hooks,
//!        ├─ Proceed ────────────────────────────▶│   network devices to be moved
//!        │                                       │ createContainer hooks, pivot_root …
//!        │◀─ Console + fd ───────────────────────┤ only for a foreground terminal
//!        │◀─ SetLimits ──────────────────────────┤ only if init may not raise a limit itself
//!        ├─ Proceed ────────────────────────────▶│
//!        │◀─ SeccompFd + fd ─────────────────────┤ only with a notify listener
//!        ├─ Proceed ────────────────────────────▶│
//!        │◀─ Ready ──────────────────────────────┤
//!        ├─ Proceed ────────────────────────────▶│ create: init closes the wire and waits on the fifo
//!        │                                       │ run, exec: startContainer hooks, execve
//!        │◀─ EOF ────────────────────────────────┤ execve closed the wire: the container runs
//! ```
//! `Failed` may stand in place of any message of init.

use crate::sys::{self, Called, fd};
use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The fifo that holds init back until `start`, in the container's directory.
pub const FIFO: &str = "exec.fifo";

/// The fifo beside it by which `start` learns what came of it: [`RELEASED`], [`COMPLETE`], and then a [`Failure`], or
/// nothing more once execve has closed it.
pub const RESULT: &str = "exec.result";

/// Init has taken the byte.
pub const RELEASED: u8 = b'0';

/// Nothing but execve is left to do.
pub const COMPLETE: u8 = b'1';

/// Init's ends of both, opened by the parent: init needs no path of the host, no right over the files, and no free
/// descriptor below RLIMIT_NOFILE to wait, and behind its seccomp filter nothing but read(2) and write(2).
#[derive(Debug)]
pub struct Gate {
    /// Of [`FIFO`], for reading and writing, so that it is never at its end.
    pub go: OwnedFd,
    /// Of [`RESULT`]; the same.
    pub result: OwnedFd,
}

impl Gate {
    /// Waits for the byte that `start` writes, and returns where it reads.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn wait(self) -> Result<OwnedFd> {
        let mut byte = [0];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.go, &mut byte)).called("read", || FIFO.into())?;
        rustix::io::write(&self.result, &[RELEASED]).called("write", || RESULT.into())?;
        Ok(self.result)
    }
}

/// The largest message: an error chain with the output of a hook.
const LIMIT: usize = 64 * 1024;

// A chain within these always fits: a character is at most 6 bytes of JSON.
const CHAIN_LIMIT: usize = 10;
const TEXT_LIMIT: usize = 1000;

/// Init (or the hop) to parent.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Event {
    /// The hop has made init; its id in the hop's pid namespace, which is ours.
    Born {
        /// Init's process id.
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
    /// Everything is done but the last steps of `start`; for `run` and `exec`, all that others can see.
    Ready,
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
    /// Here is the network namespace that I have made for you.
    Network,
}

/// An error chain on its way over the wire.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Failure {
    /// The chain's texts, outermost first.
    pub chain: Vec<String>,
    /// The errno at its root, if a system call is the cause.
    pub errno: Option<i32>,
}

impl Failure {
    /// Takes an error apart.
    pub fn of(error: &anyhow::Error) -> Self {
        let texts = error.chain().take(CHAIN_LIMIT).map(ToString::to_string);
        let chain = texts.map(|text| text.chars().take(TEXT_LIMIT).collect()).collect();
        Self { chain, errno: sys::errno_of(error) }
    }

    /// Puts the error together again.
    pub fn into_error(self) -> anyhow::Error {
        let mut texts = self.chain.into_iter().rev();
        let root = texts.next().unwrap_or_else(|| "no reason given".into());
        let root = match self.errno {
            Some(errno) => sys::Error::told(root, errno).into(),
            None => anyhow!(root),
        };
        texts.fold(root, |error, text| error.context(text))
    }
}

/// The parent's end.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd);

/// Init's end.
#[derive(Debug)]
pub struct InitEnd {
    socket: OwnedFd,
    /// An answer of the parent's that we have not waited for (atomic only because a panic hook must be `Sync`).
    owed: AtomicBool,
}

/// A new pair of ends.
///
/// # Errors
/// socketpair(2)'s.
pub fn pair() -> Result<(ParentEnd, InitEnd)> {
    let (parent, init) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .called("socketpair", || "(AF_UNIX, SOCK_SEQPACKET)".into())?;
    Ok((ParentEnd(parent), InitEnd { socket: init, owed: AtomicBool::new(false) }))
}

impl ParentEnd {
    /// The events, where a `hop` has yet to say which process init is. It and init write to the same wire, and init
    /// may be the quicker: what it says has to wait, for it is about a process that we do not know.
    pub fn inbox(&self, hop: bool) -> Inbox<'_> {
        Inbox { wire: self, hop, early: VecDeque::new() }
    }

    /// The next event and the descriptor that came with it; `None` is EOF, or that `init` has ended: whoever else may
    /// have the other end of the wire, we do not wait for them.
    ///
    /// # Errors
    /// The socket's, a message that is none of ours, or `ETIMEDOUT` after `patience`.
    pub fn event(
        &self,
        init: BorrowedFd<'_>,
        patience: Option<Duration>,
    ) -> Result<Option<(Event, Option<OwnedFd>)>> {
        if !self.speaks(init, patience)? {
            return Ok(None);
        }
        let (text, fd) = match fd::receive(self.0.as_fd(), LIMIT) {
            // Init died with an order of ours unread. The kernel says that first, and once: behind it is what init said.
            Err(error) if error.errno() == libc::ECONNRESET => fd::receive(self.0.as_fd(), LIMIT)?,
            other => other?,
        };
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some((parse(&text).context("message from init")?, fd)))
    }

    /// Waits for a message or EOF; `false` if there will be none, for init has ended.
    fn speaks(&self, init: BorrowedFd<'_>, patience: Option<Duration>) -> Result<bool, sys::Error> {
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut polled = [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(init, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut polled, timeout.as_ref()));
        match ready.called("poll", || "wire".into())? {
            0 => Err(sys::Error::new("poll", "wire", libc::ETIMEDOUT)),
            _ => Ok(polled.first().is_some_and(|wire| !wire.revents().is_empty())),
        }
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
        self.send(order, None)
    }

    /// Gives init its network namespace. To be called before anything that it says is answered.
    ///
    /// # Errors
    /// The socket's.
    pub fn network(&self, namespace: BorrowedFd<'_>) -> Result<()> {
        self.send(&Order::Network, Some(namespace))
    }

    fn send(&self, order: &Order, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        match fd::send(self.0.as_fd(), &serde_json::to_vec(order)?, fd) {
            Err(error) if matches!(error.errno(), libc::EPIPE | libc::ECONNRESET) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What is to be answered, in an order that makes sense.
#[derive(Debug)]
pub struct Inbox<'a> {
    wire: &'a ParentEnd,
    hop: bool,
    early: VecDeque<(Event, Option<OwnedFd>)>,
}

impl Inbox<'_> {
    /// As [`ParentEnd::event`].
    ///
    /// # Errors
    /// The same.
    pub fn event(
        &mut self,
        init: BorrowedFd<'_>,
        patience: Option<Duration>,
    ) -> Result<Option<(Event, Option<OwnedFd>)>> {
        loop {
            if !self.hop
                && let Some(early) = self.early.pop_front()
            {
                return Ok(Some(early));
            }
            let Some((event, fd)) = self.wire.event(init, patience)? else { return Ok(None) };
            match event {
                Event::Born { .. } => self.hop = false,
                // What the hop may say itself.
                Event::Failed(_) | Event::JoinCgroup => {}
                _ if self.hop => {
                    self.early.push_back((event, fd));
                    continue;
                }
                _ => {}
            }
            return Ok(Some((event, fd)));
        }
    }
}

impl InitEnd {
    /// Another descriptor of the same end, for the panic hook.
    ///
    /// # Errors
    /// fcntl(2)'s.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        let socket = rustix::io::fcntl_dupfd_cloexec(&self.socket, 3)?;
        Ok(Self { socket, owed: AtomicBool::new(false) })
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
        loop {
            match rustix::io::write(&self.socket, &text) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other.map(drop).called("write", || "wire".into())?),
            }
        }
    }

    /// Tells the parent `event` and waits for its order.
    ///
    /// # Errors
    /// The parent is gone: then nobody records us, and we must end.
    pub fn ask(&self, event: &Event, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.settle()?;
        self.announce(event, fd)?;
        self.settle()
    }

    /// Tells the parent `event`, and goes on: its order is waited for by [`settle`](Self::settle), or before
    /// the next thing that is asked.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn announce(&self, event: &Event, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.tell(event, fd)?;
        self.owed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for the order to go on, if there is one to come.
    ///
    /// # Errors
    /// The parent is gone: then nobody records us, and we must end.
    pub fn settle(&self) -> Result<()> {
        match self.owed.swap(false, Ordering::Relaxed).then(|| self.order()).transpose()? {
            None | Some(Order::Proceed) => Ok(()),
            Some(Order::Joined { .. } | Order::Network) => {
                Err(anyhow!("bug in orlop: an order that was not asked for"))
            }
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
            Order::Proceed | Order::Network => Err(anyhow!("bug in orlop: no cgroup")),
        }
    }

    /// Waits for the network namespace that the parent makes. To be called before anything is asked.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn network(&self) -> Result<OwnedFd> {
        match fd::receive(self.as_fd(), LIMIT)? {
            (text, Some(namespace)) if parse::<Order>(&text)? == Order::Network => Ok(namespace),
            (text, _) if text.is_empty() => Err(anyhow!("the runtime is gone")),
            _ => Err(anyhow!("bug in orlop: no network namespace")),
        }
    }

    fn order(&self) -> Result<Order> {
        // read(2) for the same reason as write(2) above. A path of the longest kind fits.
        let mut text = [0; 5000];
        let length = loop {
            match rustix::io::read(&self.socket, &mut text) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.called("read", || "wire".into())?,
            }
        };
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

    #[test]
    fn nobody_waits_for_an_init_that_is_dead_or_for_a_silent_one_longer_than_told() {
        crate::sys::prctl::testing::in_child(|| {
            // The other end stays open, as if somebody had taken it out of init.
            let (parent, init) = pair()?;
            let silent = parent.event(own().as_fd(), Some(Duration::from_millis(20))).unwrap_err();
            anyhow::ensure!(sys::errno_of(&silent) == Some(libc::ETIMEDOUT), "{silent:#}");
            let child = spawn::spawn(sys::ns::Flags::NONE, spawn::Parentage::Child, None, || {
                i32::from(init.tell(&Event::MapIds, None).is_err())
            })?;
            // What it said before its death counts.
            let said = parent.event(child.pidfd.as_fd(), None)?.map(|(event, _)| event);
            anyhow::ensure!(said == Some(Event::MapIds), "{said:?}");
            anyhow::ensure!(parent.event(child.pidfd.as_fd(), None)?.is_none());
            pidfd::wait(child.pidfd.as_fd())?;
            Ok(())
        });
    }

    #[test]
    fn an_error_chain_crosses_the_fork_whole() {
        let (parent, init) = pair().unwrap();
        let error = anyhow::Error::from(sys::Error::new("open_tree", "\"/x\"", libc::ENOENT))
            .context("mounts[0] /mnt");
        init.tell(&Event::Failed(Failure::of(&error)), None).unwrap();
        let Some((Event::Failed(failure), None)) = parent.event(own().as_fd(), None).unwrap() else {
            panic!("no failure")
        };
        let error = failure.into_error();
        assert_eq!(sys::errno_of(&error), Some(libc::ENOENT), "callers branch on it on this side too");
        assert_eq!(format!("{error:#}"), "mounts[0] /mnt: open_tree \"/x\": no such file or directory");
    }

    #[test]
    fn a_reason_is_heard_though_init_has_not_read_our_last_order() {
        let (parent, init) = pair().unwrap();
        init.announce(&Event::MapIds, None).unwrap();
        assert_eq!(parent.event(own().as_fd(), None).unwrap().unwrap().0, Event::MapIds);
        parent.proceed().unwrap();
        let failure = || Event::Failed(Failure::of(&anyhow!("process.cwd")));
        init.tell(&failure(), None).unwrap();
        drop(init);
        assert_eq!(parent.event(own().as_fd(), None).unwrap().unwrap().0, failure());
        assert!(parent.event(own().as_fd(), None).unwrap().is_none());
    }

    #[test]
    fn what_init_says_waits_until_the_hop_has_named_it() {
        let (parent, init) = pair().unwrap();
        let mut inbox = parent.inbox(true);
        // This one the hop asks, which goes no further before it has its answer.
        init.tell(&Event::JoinCgroup, None).unwrap();
        assert_eq!(inbox.event(own().as_fd(), None).unwrap().unwrap().0, Event::JoinCgroup);
        for event in [Event::MapIds, Event::Console, Event::Born { pid: 7 }, Event::Ready] {
            init.tell(&event, None).unwrap();
        }
        drop(init);
        let mut events = Vec::new();
        while let Some((event, _)) = inbox.event(own().as_fd(), None).unwrap() {
            events.push(event);
        }
        assert_eq!(events, [Event::Born { pid: 7 }, Event::MapIds, Event::Console, Event::Ready]);
    }

    #[test]
    fn a_dead_parent_is_an_error_and_a_dead_init_is_eof() {
        let (parent, init) = pair().unwrap();
        drop(init);
        assert!(parent.event(own().as_fd(), None).unwrap().is_none());
        parent.proceed().unwrap();
        let (parent, init) = pair().unwrap();
        drop(parent);
        init.ask(&Event::Ready, None).unwrap_err();
    }
}
