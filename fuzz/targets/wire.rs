//! What init and the hop may send to the parent: any bytes, with any number of descriptors. Also the orders and the
//! errors that are read from such bytes.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use orlop::failure::Failure;
use orlop::wire::{self, Event, Next, Order, Watch};
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
    JoinCgroup,
    MapIds,
    MapMount(usize),
    RunHooks,
    Console,
    SetLimits,
    Failed(Vec<String>, Option<i32>, bool),
    SeccompFd(i32),
    Ready,
}

impl Text {
    fn bytes(&self) -> Vec<u8> {
        let event = match self {
            Text::Raw(bytes) => return bytes.clone(),
            Text::Born(pid) => Event::Born { pid: *pid },
            Text::JoinCgroup => Event::JoinCgroup,
            Text::MapIds => Event::MapIds,
            Text::MapMount(mount) => Event::MapMount { mount: *mount },
            Text::RunHooks => Event::RunHooks,
            Text::Console => Event::Console,
            Text::SetLimits => Event::SetLimits,
            Text::Failed(chain, errno, cgroup_refused) => Event::Failed(Failure {
                chain: chain.clone(),
                errno: *errno,
                cgroup_refused: *cgroup_refused,
            }),
            Text::SeccompFd(fd) => Event::SeccompFd { fd: *fd },
            Text::Ready => Event::Ready,
        };
        serde_json::to_vec(&event).expect("an event can be written")
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// Sends the messages. The parent must read each of them once, as an event or as an error that ends the conversation. No
/// descriptor may stay open.
fn converse(messages: &[Message]) {
    let (parent, init) = wire::pair().expect("a pair");
    // This pipe stands for init's pidfd. It never becomes readable, as if init never ended.
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
            break; // an empty message means the end
        }
        sent += 1;
    }
    drop(init);
    let watch = Watch { child: alive.as_fd(), signals: None, patience: Some(Duration::from_secs(1)) };
    let mut events = 0;
    for _ in 0..=sent {
        match parent.next(watch) {
            Ok(Next::Said(heard)) => {
                events += 1;
                assert_eq!(
                    u32::try_from(heard.sender),
                    Ok(std::process::id()),
                    "the kernel names the sender"
                );
                if let Event::Failed(failure) = heard.event {
                    let _ = format!("{:#}", failure.into_error());
                }
            }
            Ok(Next::Ended) => return,
            Ok(Next::Signal) => panic!("no signal was sent"),
            // A message that the parent cannot read ends the conversation.
            Err(error) => return assert!(!format!("{error:#}").is_empty()),
        }
    }
    panic!("{events} events of {sent} messages");
}

fuzz_target!(|messages: Vec<Message>| {
    if let Some(Message { text: Text::Raw(bytes), .. }) = messages.first() {
        if let Ok(order) = serde_json::from_slice::<Order>(bytes) {
            let again = serde_json::to_vec(&order).expect("an order can be written");
            assert_eq!(serde_json::from_slice::<Order>(&again).expect("what we write we can read"), order);
        }
        if let Ok(failure) = serde_json::from_slice::<Failure>(bytes) {
            let error = failure.into_error();
            // An error that is passed on must fit into a message again.
            let bytes = serde_json::to_vec(&Event::Failed(Failure::of(&error))).expect("an event");
            assert!(bytes.len() <= 64 * 1024, "{}", bytes.len());
        }
    }
    let before = open_descriptors();
    converse(&messages);
    assert_eq!(open_descriptors(), before, "a descriptor is left open");
});
