//! File descriptors: close-on-exec, messages over sockets, the standard streams, locks.

use super::{Called, Error, check};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Marks every descriptor from `first` on close-on-exec (close_range(2) with CLOSE_RANGE_CLOEXEC). It allocates nothing,
/// also when it fails.
///
/// There is no second way: RLIMIT_NOFILE may have been lowered below descriptors that are open. A walk through the
/// numbers up to that limit would leave those descriptors to the container.
pub(super) fn cloexec_from(first: RawFd) -> Result<(), rustix::io::Errno> {
    // SAFETY: the call only sets a flag on descriptors of this process.
    let result = check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    });
    result
        .map(drop)
        .map_err(|error| rustix::io::Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Ranges of descriptors to close, each from its first to its last.
#[derive(Debug, PartialEq, Eq)]
pub struct Ranges(Vec<(libc::c_uint, libc::c_uint)>);

impl Ranges {
    /// Every descriptor from `first` on, except those in `keep`.
    pub fn all_but(first: RawFd, keep: &[BorrowedFd<'_>]) -> Self {
        let mut keep: Vec<_> = keep.iter().map(|fd| fd.as_raw_fd() as libc::c_uint).collect();
        keep.sort_unstable();
        let (mut ranges, mut next) = (Vec::new(), first as libc::c_uint);
        for kept in keep {
            if kept > next {
                ranges.push((next, kept - 1));
            }
            next = next.max(kept.saturating_add(1));
        }
        ranges.push((next, libc::c_uint::MAX));
        Self(ranges)
    }

    /// Closes the descriptors (close_range(2)), and allocates nothing. For a forked copy that ends with execve(2) or
    /// exit(2). Its memory still has owners of the descriptors that are closed here; they must never be dropped.
    pub fn close(&self) -> Result<(), Error> {
        for (first, last) in &self.0 {
            // SAFETY: the caller promises that nothing uses or drops these descriptors afterwards.
            check(unsafe { libc::syscall(libc::SYS_close_range, *first, *last, 0) })
                .called("close_range", || format!("{first} {last}"))?;
        }
        Ok(())
    }
}

/// Whether `fd` is an open descriptor of this process.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only reads a flag.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// The descriptors from 3 up to, not including, `end` that our caller has passed, in their order. Those that the
/// runtime opened itself close on exec; those that came through an exec do not.
///
/// # Errors
/// /proc/self/fd cannot be read.
pub fn given(end: RawFd) -> Result<Vec<RawFd>, Error> {
    let shown = || "\"/proc/self/fd\"".to_owned();
    let mut given = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").called("open", shown)? {
        let name = entry.called("getdents", shown)?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<RawFd>().ok());
        // SAFETY: F_GETFD only reads a flag.
        let is_given = |fd: &RawFd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } == 0;
        given.extend(number.filter(|fd| (3..end).contains(fd)).filter(is_given));
    }
    given.sort_unstable();
    Ok(given)
}

/// Occupies the free numbers from 3 up to, not including, `end` until the next exec. So no other descriptor of ours
/// gets one of them. Each becomes an eventfd, which leads nowhere.
pub fn occupy_up_to(end: RawFd) -> Result<(), Error> {
    for _ in (3..end).filter(|number| !is_open(*number)) {
        // The kernel takes the lowest free number, which is this one.
        let nowhere = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
        // It is never closed.
        let _ = nowhere.called("eventfd2", String::new)?.into_raw_fd();
    }
    Ok(())
}

/// Opens /dev/null on each of 0, 1 and 2 that the caller left closed.
///
/// Otherwise the first file that the runtime opens would become the container's standard input (security trap 12).
pub fn fill_standard_streams() -> Result<(), Error> {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: poll(2) reads and writes the three entries of the array that it is given.
    unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    for stream in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
        // SAFETY: a plain open(2) of a constant path; the lowest free number is the closed stream's.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        check(fd.into()).called("open", || format!("\"/dev/null\" for fd {}", stream.fd))?;
    }
    Ok(())
}

/// The content of a small file of /proc, in as few calls as possible. std would ask for the size first, which is 0
/// there, and then begin with 32 bytes.
///
/// The content is bytes, not text: a process chooses its own name, and a container may choose names of cgroups.
pub fn read_proc(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::with_capacity(2048);
    open_file(path.as_ref(), OFlags::empty())?.take(1 << 20).read_to_end(&mut content)?;
    Ok(content)
}

/// Opens a file for reading. Not through std: with musl, std adds an fcntl(2) to each open(2).
pub fn open_file(path: &Path, flags: OFlags) -> std::io::Result<File> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty())?.into())
}

/// A stream that is written to without waiting for room.
///
/// A stream that other processes share is opened again: O_NONBLOCK on the given descriptor would affect them all.
/// A socket never waits, by a flag of send(2). A stream that cannot be opened again is written to in small parts.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    /// How many bytes poll(2) promises room for, if write(2) waits for room.
    promised: Option<usize>,
}

impl Stream {
    /// A stream that nobody else has, made non-blocking.
    pub fn own(fd: OwnedFd) -> Result<Self, Error> {
        let flags = rustix::fs::fcntl_getfl(&fd).called("fcntl", || "(F_GETFL)".into())?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
            .called("fcntl", || "(F_SETFL, O_NONBLOCK)".into())?;
        Ok(Self { fd, promised: None })
    }

    /// A stream that other processes have, too. We open it again if we may.
    pub fn shared(fd: BorrowedFd<'_>, access: OFlags) -> Result<Self, Error> {
        use rustix::fs::FileType;
        let number = fd.as_raw_fd();
        let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let promised = match kind {
            // A terminal is ready for output when it has room for one byte.
            Ok(FileType::CharacterDevice) => Some(1),
            // A pipe, when it has room for PIPE_BUF.
            Ok(FileType::Fifo) => Some(4096),
            _ => None,
        };
        if promised.is_some() {
            let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            if let Ok(fd) = rustix::fs::open(format!("/proc/self/fd/{number}"), flags, Mode::empty()) {
                return Ok(Self { fd, promised: None });
            }
        }
        // The terminal of another user, for example.
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 3)
            .called("fcntl", || format!("{number} (F_DUPFD_CLOEXEC)"))?;
        Ok(Self { fd, promised })
    }

    /// Whether [`write`](Self::write) must come after a poll(2) that has found room.
    pub fn may_wait(&self) -> bool {
        self.promised.is_some()
    }

    /// write(2) of as much as there is room for.
    ///
    /// # Errors
    /// `AGAIN` if nothing can be written now; else write(2)'s.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, rustix::io::Errno> {
        use rustix::net::{SendFlags, send};
        let most = self.promised.unwrap_or(bytes.len()).min(bytes.len());
        let bytes = bytes.get(..most).unwrap_or_default();
        match send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::NOTSOCK) => rustix::io::write(&self.fd, bytes),
            other => other,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes 0, 1 and 2 refer to `fd`.
pub fn dup_to_stdio(fd: BorrowedFd<'_>) -> Result<(), Error> {
    for target in 0..3 {
        // SAFETY: dup2(2) replaces a standard stream of this process, as the caller asks.
        check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into())
            .called("dup2", || format!("{} {target}", fd.as_raw_fd()))?;
    }
    Ok(())
}

/// Makes `call` again where a signal has interrupted it (EINTR), but not for ever: a container's seccomp filter may answer
/// with EINTR in place of the kernel, whatever happens.
///
/// # Errors
/// The call's; EINTR after a thousand times.
pub fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    const TIMES: usize = 1000;
    for _ in 1..TIMES {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
    call()
}

/// Sends `payload` as one message, with at most one descriptor (SCM_RIGHTS).
///
/// # Errors
/// `EPIPE` and `ECONNRESET` mean that the other side is gone.
pub fn send(socket: BorrowedFd<'_>, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let fds = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    let iov = [IoSlice::new(payload)];
    let message = rights.as_slice();
    let sent = sendmsg::<()>(socket.as_raw_fd(), &iov, message, MsgFlags::MSG_NOSIGNAL, None);
    sent.map(drop).called("sendmsg", || format!("{} bytes", payload.len()))
}

/// How many seconds an engine or an agent may take to accept a connection, and then to take each message.
const PATIENCE: i64 = 10;

/// A stream connected to `address`. Connecting and each later send time out after 10 seconds: a listener that does
/// nothing must not stop us for ever.
///
/// # Errors
/// `ETIMEDOUT`: the listener's queue stayed full.
pub fn connect(address: &nix::sys::socket::UnixAddr, shown: impl Fn() -> String) -> Result<OwnedFd, Error> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, setsockopt, socket, sockopt};
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .called("socket", || "(AF_UNIX)".into())?;
    let patience = nix::sys::time::TimeVal::new(PATIENCE, 0);
    setsockopt(&socket, sockopt::SendTimeout, &patience).called("setsockopt", || "(SO_SNDTIMEO)".into())?;
    match connect(socket.as_raw_fd(), address) {
        Err(nix::errno::Errno::EAGAIN) => Err(Error::new("connect", shown(), libc::ETIMEDOUT)),
        other => other.map(|()| socket).called("connect", shown),
    }
}

/// One message of a socket.
#[derive(Debug)]
pub struct Message {
    /// Its bytes; empty at the end of the conversation (EOF).
    pub text: Vec<u8>,
    /// The descriptor that came with it.
    pub fd: Option<OwnedFd>,
    /// The sender's process id in our pid namespace, by the kernel's word. Only if the socket has SO_PASSCRED.
    pub sender: Option<i32>,
}

/// Receives one message of up to `limit` bytes.
///
/// # Errors
/// `EMSGSIZE` for a message above `limit`; else the socket's.
pub fn receive(socket: BorrowedFd<'_>, limit: usize) -> Result<Message, Error> {
    // Asks for the message's length first: that costs less than clearing a buffer of the largest size.
    let mut buffer = vec![0; length_of_next(socket)?.min(limit)];
    // Room for as many descriptors as the kernel puts into one message (SCM_MAX_FD). Of a list that is cut short nix
    // shows none, so those that did arrive would stay open.
    let mut control = nix::cmsg_space!([RawFd; 253], nix::sys::socket::UnixCredentials);
    let mut iov = [IoSliceMut::new(&mut buffer)];
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.called("recvmsg", String::new)?,
        }
    };
    let (mut fd, mut sender) = (None, None);
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::ScmRights(fds) => {
                for raw in fds {
                    // SAFETY: the kernel has just made this descriptor for this process; it has no other owner.
                    let next = unsafe { OwnedFd::from_raw_fd(raw) };
                    // A second descriptor, which no sender should send, is closed here.
                    fd = fd.or(Some(next));
                }
            }
            ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials.pid()),
            _ => {}
        }
    }
    let (length, truncated) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
    if truncated {
        return Err(Error::new("recvmsg", format!("over {limit} bytes"), libc::EMSGSIZE));
    }
    buffer.truncate(length);
    Ok(Message { text: buffer, fd, sender })
}

/// Waits for a message and returns its length.
fn length_of_next(socket: BorrowedFd<'_>) -> Result<usize, Error> {
    use rustix::net::{RecvFlags, recv};
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    rustix::io::retry_on_intr(|| recv(socket, &mut [0; 0], flags).map(|(_, length)| length))
        .called("recv", || "(MSG_PEEK)".into())
}

/// Locks the open file behind `fd` (flock(2)). `false` if another process holds the lock.
pub fn try_lock_exclusive(fd: BorrowedFd<'_>) -> Result<bool, Error> {
    use rustix::fs::{FlockOperation, flock};
    match rustix::io::retry_on_intr(|| flock(fd, FlockOperation::NonBlockingLockExclusive)) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        other => other.map(|()| true).called("flock", String::new),
    }
}

/// [`try_lock_exclusive`] that waits at most `seconds`.
///
/// # Errors
/// `EINTR` if the time is over.
pub fn lock_exclusive(fd: BorrowedFd<'_>, seconds: u32) -> Result<(), Error> {
    use rustix::fs::{FlockOperation, flock};
    extern "C" fn interrupt(_: libc::c_int) {}
    // The caller of orlop may have blocked SIGALRM.
    let mut alarm = nix::sys::signal::SigSet::empty();
    alarm.add(nix::sys::signal::Signal::SIGALRM);
    alarm.thread_unblock().called("sigprocmask", String::new)?;
    // SAFETY: an all-zero sigaction is valid. The handler does nothing, so it is async-signal-safe. Because of it
    // SIGALRM interrupts the flock (no SA_RESTART) and does not end this process.
    let before = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = interrupt as extern "C" fn(libc::c_int) as libc::sighandler_t;
        let mut before: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGALRM, &raw const action, &raw mut before);
        libc::alarm(seconds);
        before
    };
    let locked = flock(fd, FlockOperation::LockExclusive);
    // SAFETY: this restores the action that the first sigaction call returned.
    unsafe {
        libc::alarm(0);
        libc::sigaction(libc::SIGALRM, &raw const before, std::ptr::null_mut());
    }
    locked.called("flock", String::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_travels_with_its_message() {
        let (here, there) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        send(here.as_fd(), b"with", Some(file.as_fd())).unwrap();
        send(here.as_fd(), b"without", None).unwrap();
        let with = receive(there.as_fd(), 64).unwrap();
        assert_eq!((with.text.as_slice(), with.fd.is_some()), (b"with".as_slice(), true));
        let without = receive(there.as_fd(), 64).unwrap();
        assert_eq!((without.text.as_slice(), without.fd.is_some()), (b"without".as_slice(), false));
        drop(here);
        assert!(receive(there.as_fd(), 64).unwrap().text.is_empty(), "EOF reads as an empty message");
    }

    #[test]
    fn of_several_descriptors_in_a_message_none_is_left_open_unseen() {
        crate::sys::prctl::testing::in_child(|| {
            let (here, there) =
                socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
            let open = || Ok::<_, std::io::Error>(std::fs::read_dir("/proc/self/fd")?.count());
            let before = open()?;
            for count in [2, 3, 253] {
                let fds = vec![here.as_raw_fd(); count];
                let rights = [ControlMessage::ScmRights(&fds)];
                sendmsg::<()>(here.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)?;
                let fd = receive(there.as_fd(), 64)?.fd;
                let (got, now) = (fd.is_some(), open()?);
                anyhow::ensure!(got && now == before + 1, "{count} sent: {got}, {now} open, {before} before");
            }
            Ok(())
        });
    }

    #[test]
    fn all_descriptors_but_the_kept_ones_are_closed() {
        crate::sys::prctl::testing::in_child(|| {
            // The numbers are above all that the other tests have open at the fork. In a gap between those, the pipe
            // to the parent would be among ours, and be closed with them.
            let null = std::fs::File::open("/dev/null")?;
            let open = |_| rustix::io::fcntl_dupfd_cloexec(&null, 300);
            let fds = (0..6).map(open).collect::<Result<Vec<_>, _>>()?;
            let keep: Vec<_> = [4, 1, 0].map(|place: usize| fds[place].as_fd()).to_vec();
            Ranges::all_but(fds[1].as_raw_fd(), &keep).close()?;
            let left: Vec<_> = fds.iter().map(|fd| is_open(fd.as_raw_fd())).collect();
            // Some of these are closed already.
            std::mem::forget(fds);
            anyhow::ensure!(left == [true, true, false, false, true, false], "{left:?}");
            Ok(())
        });
    }

    #[test]
    fn where_descriptors_cannot_be_marked_nothing_goes_on() {
        // As on a kernel without CLOSE_RANGE_CLOEXEC, with a limit below a descriptor that is open.
        crate::sys::prctl::testing::in_child(|| {
            use rustix::process::{Resource, Rlimit, setrlimit};
            let null = std::fs::File::open("/dev/null")?;
            let high = rustix::io::fcntl_dupfd_cloexec(&null, 300)?;
            rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty())?;
            setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum: Some(200) })?;
            crate::sys::seccomp::probe::refuse(libc::SYS_close_range, libc::EINVAL)?;
            let marked = cloexec_from(3).map_err(|error| error.to_string());
            anyhow::ensure!(marked.is_err(), "{marked:?}, and {} is open still", high.as_raw_fd());
            Ok(())
        });
    }

    #[test]
    fn a_message_above_the_limit_is_refused() {
        let (here, there) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        send(here.as_fd(), &[7; 100], None).unwrap();
        assert_eq!(receive(there.as_fd(), 64).unwrap_err().errno(), libc::EMSGSIZE);
    }
}
