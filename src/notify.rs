//! NOTIFY_SOCKET (sd_notify(3)): passes the container's READY message on to the systemd that started orlop.
//!
//! The container's process gets a socket of its own in the container's directory, which is mounted at [`INSIDE`]. The
//! host's socket does not exist in the container, and systemd would not know the sender's process number. Only `READY=`
//! is passed on, with the number of the process that systemd is to follow.
//! Not for: the mount and the variable (`plan.rs`), and the time to listen (`launch.rs`, `start`).

use crate::log;
use crate::sys::{Called, fd};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// The name of the directory of the socket, in the container's directory.
pub const DIRECTORY: &str = "notify";
/// The mount point of that directory in the container.
pub const INSIDE: &str = "/run/notify";
/// The name of the socket in the directory.
pub const SOCKET: &str = "notify.sock";

/// How long systemd may take to read our messages, in seconds.
const BARRIER_PATIENCE: i64 = 30;

/// The container's socket, and our connection to the host's.
#[derive(Debug)]
pub struct Notify {
    ours: UnixDatagram,
    host: UnixDatagram,
    told: bool,
}

/// Connects to the host's socket, if the caller of orlop has set NOTIFY_SOCKET. A failure is only a warning: the
/// variable may name a socket that exists no more, and the container runs without it too.
pub fn asked_for() -> Option<UnixDatagram> {
    let path = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())?;
    match connect(&path) {
        Ok(host) => Some(host),
        Err(error) => {
            log::warn(format!("NOTIFY_SOCKET {path:?}: {error:#}, ignoring"));
            None
        }
    }
}

fn connect(path: &OsStr) -> Result<UnixDatagram> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if path.as_bytes().starts_with(b"/") => SocketAddr::from_pathname(Path::new(path)),
        None => bail!("neither an absolute path nor an abstract name"),
    };
    let Ok(address) = address else { bail!("longer than the name of a socket may be, 107 bytes") };
    let client = UnixDatagram::unbound().called("socket", String::new)?;
    match client.connect_addr(&address) {
        // The kernel gives this error for any file that is no socket, too.
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => match std::fs::metadata(path) {
            Ok(file) if !file.file_type().is_socket() => bail!("not a socket"),
            _ => bail!("connect: connection refused (nobody listens)"),
        },
        other => other.called("connect", String::new)?,
    }
    // If systemd does not read, a full queue must not stop us.
    let patience = std::time::Duration::from_secs(BARRIER_PATIENCE.unsigned_abs());
    client.set_write_timeout(Some(patience)).called("setsockopt", || "(SO_SNDTIMEO)".into())?;
    Ok(client)
}

impl Notify {
    /// Binds the container's socket in `directory`; its messages are passed on to `host`. The path goes through
    /// /proc/self/fd, because the name of a socket has at most 107 bytes.
    pub fn listen(directory: BorrowedFd<'_>, host: UnixDatagram) -> Result<Self> {
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let shown = || format!("{DIRECTORY}/{SOCKET}");
        // Remove a socket left by a runtime that died here. Usually there is none.
        let _ = std::fs::remove_file(&path);
        // Any user of the container may write to the socket. umask(2) sets its mode from the start: chmod(2) would look
        // up the name again, which may be another file by then. This process has no other threads.
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        let ours = UnixDatagram::bind(&path);
        rustix::process::umask(umask);
        let ours = ours.called("bind", shown).context("NOTIFY_SOCKET")?;
        ours.set_nonblocking(true).called("fcntl", shown)?;
        Ok(Self { ours, host, told: false })
    }

    /// The container's socket: readable when the container has sent a message.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// Reads the container's messages. The first READY is passed on, with `main` as the process to follow. Returns true
    /// from then on. Later messages are read too, so that the container never waits for a full queue.
    ///
    /// # Errors
    /// The host's socket is gone, or its queue is full for too long.
    pub fn relay(&mut self, main: i32) -> Result<bool> {
        let mut text = [0; 4096];
        // A limited number: a container that sends without end must not keep us from other work.
        for _ in 0..64 {
            let Ok(length) = self.ours.recv(&mut text) else { break };
            let said = text.get(..length).unwrap_or_default();
            let ready = said.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="));
            if let Some(ready) = ready.filter(|_| !self.told) {
                self.send(&[ready, b"\n"].concat())?;
                self.send(format!("MAINPID={main}\n").as_bytes())?;
                self.told = true;
            }
        }
        Ok(self.told)
    }

    fn send(&self, text: &[u8]) -> Result<()> {
        self.host.send(text).called("send", || "the host's socket".into()).context("NOTIFY_SOCKET")?;
        Ok(())
    }

    /// Waits until the container is ready or has ended. A detached runtime calls it before it exits. If the host's
    /// socket is gone or not read, this is only a warning, because the container runs.
    pub fn wait(&mut self, pid: i32, pidfd: BorrowedFd<'_>) {
        if let Err(error) = self.until_ready(pid, pidfd) {
            log::warn(format!("{error:#}, ignoring"));
        }
    }

    fn until_ready(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut polled = [
                PollFd::from_borrowed_fd(self.fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            ];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.called("poll", String::new)?,
            };
            let ended = polled.get(1).is_some_and(|fd| !fd.revents().is_empty());
            if self.relay(pid)? {
                return self.barrier();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Waits until systemd has read all messages: it closes the pipe then. If we ended earlier, systemd could no longer
    /// find out which unit sent them.
    fn barrier(&self) -> Result<()> {
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).called("pipe2", String::new)?;
        fd::send(self.host.as_fd(), b"BARRIER=1", Some(writer.as_fd())).context("NOTIFY_SOCKET")?;
        drop::<OwnedFd>(writer);
        let patience = Timespec { tv_sec: BARRIER_PATIENCE, tv_nsec: 0 };
        let mut polled = [PollFd::new(&reader, PollFlags::IN)];
        match rustix::io::retry_on_intr(|| poll(&mut polled, Some(&patience))) {
            Ok(0) => bail!("NOTIFY_SOCKET: systemd has not read it for {BARRIER_PATIENCE} s"),
            other => drop(other.called("poll", String::new)?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn readiness_is_told_once_with_the_pid_whatever_stands_before_it() {
        let temporary = tempfile::tempdir().unwrap();
        let host = UnixDatagram::bind(temporary.path().join("host")).unwrap();
        host.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let directory = std::fs::File::open(temporary.path()).unwrap();
        let client = connect(temporary.path().join("host").as_os_str()).unwrap();
        let mut notify = Notify::listen(directory.as_fd(), client).unwrap();
        let inside = UnixDatagram::unbound().unwrap();
        let say = |text: &str| inside.send_to(text.as_bytes(), temporary.path().join(SOCKET)).unwrap();
        let heard = || {
            let mut text = [0; 64];
            host.recv(&mut text).map(|length| String::from_utf8_lossy(&text[..length]).into_owned()).ok()
        };
        say("STATUS=soon");
        assert!(!notify.relay(7).unwrap());
        say("STATUS=now\nREADY=1");
        assert!(notify.relay(7).unwrap());
        say("READY=1");
        assert!(notify.relay(7).unwrap());
        assert_eq!((heard(), heard(), heard()), (Some("READY=1\n".into()), Some("MAINPID=7\n".into()), None));
    }

    #[test]
    fn a_socket_that_cannot_be_had_is_named_with_the_true_reason() {
        let temporary = tempfile::tempdir().unwrap();
        let stale = temporary.path().join("stale");
        drop(UnixDatagram::bind(&stale).unwrap());
        let missing = temporary.path().join("missing");
        let long = format!("/{}", "x".repeat(200));
        for (path, reason) in [
            (stale.to_str().unwrap(), "connect: connection refused (nobody listens)"),
            (missing.to_str().unwrap(), "connect: no such file or directory"),
            ("/dev/null", "not a socket"),
            (&long, "longer than the name of a socket may be, 107 bytes"),
            (&long.replace('/', "@"), "longer than the name of a socket may be, 107 bytes"),
            ("@orlop-test-nobody", "connect: connection refused (nobody listens)"),
            ("vsock:2:9999", "neither an absolute path nor an abstract name"),
        ] {
            assert_eq!(format!("{:#}", connect(path.as_ref()).unwrap_err()), reason, "{path}");
        }
    }
}
