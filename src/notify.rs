//! NOTIFY_SOCKET (sd_notify(3)): what the container says of its readiness reaches the systemd that started us.
//!
//! The container's process gets a socket of its own in the container's directory, bound at [`INSIDE`]: the host's
//! would not be there, and systemd knows the container by another pid. Only `READY=` is passed on, with the pid to
//! follow. Not for: making the mount and the variable (`plan.rs`), and when to listen (`launch.rs`, `start`).

use crate::sys::{Called, fd};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// The directory in the container's, and where it is bound in the container.
pub const DIRECTORY: &str = "notify";
/// Where the container sees the directory.
pub const INSIDE: &str = "/run/notify";
/// The socket in it.
pub const SOCKET: &str = "notify.sock";

/// How long systemd may take to have read our messages, in seconds.
const BARRIER_PATIENCE: i64 = 30;

/// The container's socket, and the host's.
#[derive(Debug)]
pub struct Notify {
    ours: UnixDatagram,
    host: UnixDatagram,
    told: bool,
}

/// The host's socket, if the caller of orlop wants to be told.
pub fn asked_for() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}

impl Notify {
    /// Binds the container's socket in `directory` (a path of the host's that may be longer than a socket's may
    /// be), and connects to the host's, which the variable `host` names.
    ///
    /// # Errors
    /// Those of bind(2), chmod(2) and connect(2).
    pub fn listen(directory: BorrowedFd<'_>, host: &OsString) -> Result<Self> {
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        // Left by a runtime that died here.
        let _ = std::fs::remove_file(&path);
        let ours = UnixDatagram::bind(&path).called("bind", || format!("{DIRECTORY}/{SOCKET}"));
        let ours = ours.context("NOTIFY_SOCKET")?;
        // Whoever the container's process is, it may write.
        let open = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777));
        open.called("chmod", || format!("{DIRECTORY}/{SOCKET}")).context("NOTIFY_SOCKET")?;
        let address = match host.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(Path::new(host)),
        };
        let shown = || format!("{host:?}");
        let client = UnixDatagram::unbound().called("socket", String::new)?;
        let connected = address.and_then(|address| client.connect_addr(&address));
        connected.called("connect", shown).context("NOTIFY_SOCKET")?;
        ours.set_nonblocking(true).called("fcntl", shown)?;
        // A queue that nobody empties must not stop us.
        let patience = std::time::Duration::from_secs(BARRIER_PATIENCE.unsigned_abs());
        client.set_write_timeout(Some(patience)).called("setsockopt", shown)?;
        Ok(Self { ours, host: client, told: false })
    }

    /// Readable when the container says something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// Reads what the container says; readiness is passed on, with `main` as the process to follow. `true` from
    /// then on. What it says later is read all the same: nobody must wait for a full queue.
    ///
    /// # Errors
    /// The host's socket is gone.
    pub fn relay(&mut self, main: i32) -> Result<bool> {
        let mut text = [0; 4096];
        while let Ok(length) = self.ours.recv(&mut text) {
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

    /// Until the container is ready, or has ended: for who is not there afterwards.
    ///
    /// # Errors
    /// The host's socket is gone, or nobody reads it.
    pub fn wait(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
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

    /// systemd closes the pipe when it has handled all that was sent before: a message of a process that has ended
    /// meanwhile would be nobody's.
    fn barrier(&self) -> Result<()> {
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).called("pipe2", String::new)?;
        fd::send(self.host.as_fd(), b"BARRIER=1", Some(writer.as_fd())).context("NOTIFY_SOCKET")?;
        drop::<OwnedFd>(writer);
        let patience = Timespec { tv_sec: BARRIER_PATIENCE, tv_nsec: 0 };
        let mut polled = [PollFd::new(&reader, PollFlags::IN)];
        match rustix::io::retry_on_intr(|| poll(&mut polled, Some(&patience))) {
            Ok(0) => bail!("NOTIFY_SOCKET: nobody has read it for {BARRIER_PATIENCE} s"),
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
        let name = temporary.path().join("host").into_os_string();
        let mut notify = Notify::listen(directory.as_fd(), &name).unwrap();
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
}
