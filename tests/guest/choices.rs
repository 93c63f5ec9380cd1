//! What a container's process can choose about itself: its name, and which of its threads live on.

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::{Fact, word};

fn call_itself(name: &[u8]) {
    let mut text = name.to_vec();
    text.push(0);
    // SAFETY: PR_SET_NAME reads up to 16 bytes, to the zero byte that ends the text.
    unsafe { libc::prctl(libc::PR_SET_NAME, text.as_ptr()) };
}

pub fn named(args: &[String]) -> Fact {
    let hex = word(args, 0)?.as_bytes();
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    call_itself(&hex.chunks(2).map(byte).collect::<Option<Vec<_>>>().ok_or("no hexadecimal digits")?);
    println!("ready");
    loop {
        nix::unistd::pause();
    }
}

pub fn next_names(_: &[String]) -> Fact {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR1);
    signals.thread_block().map_err(|e| e.to_string())?;
    println!("ready");
    for byte in 0..=u8::MAX {
        signals.wait().map_err(|e| e.to_string())?;
        call_itself(&[byte]);
        println!("name {byte}.");
    }
    loop {
        nix::unistd::pause();
    }
}

/// Ends only this thread. pthread_exit(3) is not used: it would unwind through Rust's frames.
fn end_this_thread() -> ! {
    loop {
        // SAFETY: no other thread uses this thread's stack.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

pub fn leaderless(_: &[String]) -> Fact {
    std::thread::spawn(|| {
        let ended = || fs::read_to_string("/proc/self/stat").is_ok_and(|stat| stat.contains(") Z "));
        while !ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("ready");
        loop {
            nix::unistd::pause();
        }
    });
    end_this_thread()
}

pub fn exec_by_thread(_: &[String]) -> Fact {
    std::thread::spawn(|| std::process::Command::new("/guest").arg("exec-by-thread").exec());
    end_this_thread()
}
