//! What the other side of the wire may send: any bytes, with any number of descriptors. Also the byte streams that
//! `start` and NOTIFY_SOCKET read.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use orlop::wire::{self, Event, Failure, Order};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

#[derive(Arbitrary, Debug)]
struct Message {
    text: Text,
    descriptors: u8,
}

#[derive(Arbitrary, Debug)]
enum Text {
    Raw(Vec<u8>),
    Born(i32),
    MapIds,
    MapMount(usize),
    Failed(Vec<String>, Option<i32>),
    SeccompFd(i32),
    Ready,
}

impl Text {
    fn bytes(&self) -> Vec<u8> {
        let event = match self {
            Text::Raw(bytes) => return bytes.clone(),
            Text::Born(pid) => Event::Born { pid: *pid },
            Text::MapIds => Event::MapIds,
            Text::MapMount(mount) => Event::MapMount { mount: *mount },
            Text::Failed(chain, errno) => Event::Failed(Failure { chain: chain.clone(), errno: *errno }),
            Text::SeccompFd(fd) => Event::SeccompFd { fd: *fd },
            Text::Ready => Event::Ready,
        };
        serde_json::to_vec(&event).expect("an event can be written")
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// Every message that was sent is an event or an error; none is lost, none comes twice, no descriptor is left.
fn converse(messages: &[Message], hop: bool) {
    let (parent, init) = wire::pair().expect("a pair");
    // In the place of init's pidfd: it does not end.
    let (alive, _writer) = std::io::pipe().expect("a pipe");
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    let mut sent = 0;
    for message in messages.iter().take(8) {
        let bytes = message.text.bytes();
        let fds = vec![file.as_raw_fd(); usize::from(message.descriptors % 4)];
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let done = sendmsg::<()>(init.as_fd().as_raw_fd(), &[IoSlice::new(&bytes)], rights, flags, None);
        if bytes.is_empty() || done.is_err() {
            break; // an empty one is the end
        }
        sent += 1;
    }
    drop(init);
    let (mut inbox, mut events) = (parent.inbox(hop), 0);
    for _ in 0..=sent {
        match inbox.event(alive.as_fd(), Some(Duration::from_secs(1))) {
            Ok(Some((event, _))) => {
                events += 1;
                if let Event::Failed(failure) = event {
                    let _ = format!("{:#}", failure.into_error());
                }
            }
            Ok(None) => return,
            // A message that is none of ours ends the conversation.
            Err(error) => return assert!(!format!("{error:#}").is_empty()),
        }
    }
    panic!("{events} events of {sent} messages");
}

fuzz_target!(|input: (Vec<Message>, bool)| {
    let (messages, hop) = input;
    if let Some(Message { text: Text::Raw(bytes), .. }) = messages.first() {
        if let Ok(order) = serde_json::from_slice::<Order>(bytes) {
            let again = serde_json::to_vec(&order).expect("an order can be written");
            assert_eq!(serde_json::from_slice::<Order>(&again).expect("what we write we can read"), order);
        }
        if let Ok(failure) = serde_json::from_slice::<Failure>(bytes) {
            let error = failure.into_error();
            // It goes on to the caller as it came, within the limits of a message.
            let bytes = serde_json::to_vec(&Event::Failed(Failure::of(&error))).expect("an event");
            assert!(bytes.len() <= 64 * 1024, "{}", bytes.len());
        }
    }
    let before = open_descriptors();
    converse(&messages, hop);
    assert_eq!(open_descriptors(), before, "a descriptor is left open");
});
