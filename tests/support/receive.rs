//! The other end of the sockets to which a runtime sends descriptors, and of the terminal on which a test starts
//! it.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Accepts one connection and takes one message with its descriptors; panics if nobody connects within 20 s.
#[track_caller]
pub fn accept_fd(listener: &UnixListener) -> (Vec<u8>, Vec<OwnedFd>) {
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit)).expect("poll");
    assert_eq!(ready, 1, "nobody connected to the socket");
    let (stream, _) = listener.accept().expect("a connection");

    let mut text = vec![0; 65536];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC);
    text.truncate(received.expect("a message").bytes);
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    (text, fds.flatten().collect())
}

/// A new terminal: the test's end, and the end for the command under test.
pub fn terminal(rows: u16, columns: u16) -> (File, File) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).expect("a pseudo terminal");
    (pty.master.into(), pty.slave.into())
}
