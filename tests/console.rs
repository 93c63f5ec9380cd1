//! Terminals: in the foreground on a terminal that the test opens, and through a console socket.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::support::{Bundle, Container, accept_fd, terminal, under_runc};

fn with_terminal() -> Bundle {
    Bundle::new().set("/process/terminal", json!(true))
}

/// Reads until this text has come. Line ends become "\n": the tests do not care which side adds the carriage return.
#[track_caller]
fn expect(master: &mut File, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(master, PollFlags::IN)], Some(&limit)).expect("poll");
        assert_eq!(ready, 1, "{text:?} did not come, only {seen:?}");
        let mut part = [0; 4096];
        match master.read(&mut part) {
            Ok(length) if length > 0 => {
                seen.push_str(&String::from_utf8_lossy(&part[..length]).replace('\r', ""))
            }
            // EIO: the other end is closed.
            ended => panic!("{text:?} did not come, only {seen:?}, then {ended:?}"),
        }
    }
    seen
}

/// The console of a container that was made with `--console-socket`.
fn over_a_socket(bundle: Bundle, verb: &str) -> (Container, File) {
    let path = bundle.dir.join("console");
    let listener = UnixListener::bind(&path).expect("a socket");
    let waiting = std::thread::spawn(move || accept_fd(&listener));
    let bundle = bundle.option(&format!("--console-socket {}", path.display()));
    let (output, file) = bundle.start(verb).finish_but_keep();
    let container = Container::new(bundle, (output, file));
    let (name, mut fds) = waiting.join().expect("the console came");
    assert_eq!(fds.len(), 1, "go-runc takes exactly one");
    assert!(!name.is_empty() && name.len() < 4096);
    (container, fds.remove(0).into())
}

#[test]
fn the_terminal_of_the_caller_stays_the_callers() {
    // A root shell runs a container of another user that has no terminal of its own.
    use std::os::unix::fs::MetadataExt;
    let (_master, slave) = terminal(24, 80);
    let callers = slave.try_clone().expect("a second descriptor");
    let owner = callers.metadata().expect("stat").uid();
    let bundle = Bundle::new().set("/process/user", json!({"uid": 1000, "gid": 1000})).stdin(slave);
    bundle.guest("ids").run().says("uid=1000 ");
    assert_eq!(callers.metadata().expect("stat").uid(), owner);
}

#[test]
fn in_the_foreground_the_process_has_a_terminal_of_its_own() {
    let (mut master, slave) = terminal(30, 120);
    let bundle =
        with_terminal().guest("multi tty -- onlcr -- session").through("exec setsid --ctty \"$@\" >&0 2>&0");
    let bundle = bundle.stdin(slave);
    let running = bundle.start("run");
    let seen = expect(&mut master, "leader");
    // runc clears ONLCR: the caller's own terminal adds the carriage return.
    assert!(seen.contains("/dev/pts/0\noff\nleader foreground"), "{seen:?}");
    running.finish().ok();
    bundle.assert_clean();
}

#[test]
fn what_is_typed_reaches_the_process_and_the_signals_too() {
    let (mut master, slave) = terminal(24, 80);
    let bundle =
        with_terminal().guest("trap SIGINT 9").through("exec setsid --ctty \"$@\" >&0 2>&0").stdin(slave);
    let running = bundle.start("run");
    expect(&mut master, "ready");
    master.write_all(b"\x03").expect("ctrl-c");
    running.finish().exits(9);
    bundle.assert_clean();
}

#[test]
fn the_size_is_that_of_the_callers_terminal() {
    let (mut master, slave) = terminal(30, 120);
    let bundle =
        with_terminal().guest("trap SIGWINCH 3").through("exec setsid --ctty \"$@\" >&0 2>&0").stdin(slave);
    let running = bundle.start("run");
    expect(&mut master, "ready");
    let size = rustix::termios::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).expect("a new size");
    running.finish().exits(3);
}

#[test]
fn the_process_finds_the_size_from_its_first_moment_on() {
    // Tried several times: a process that started before the size was set saw another one in half of the starts. runc
    // has this race, too.
    crate::skip_unless!(!under_runc(), "runc sets it while the process runs");
    let seen = |bundle: &Bundle, words: &[&str]| {
        let (mut master, slave) = terminal(33, 111);
        let mut command = bundle.command(words);
        let out = slave.try_clone().expect("a second descriptor");
        let child = command.stdin(slave).stdout(out).spawn().expect("the runtime");
        drop(command);
        let seen = expect(&mut master, " x ");
        let ended = { child }.wait().expect("its end");
        assert!(ended.success(), "{seen}");
        seen
    };
    let container = Bundle::new().started();
    for _ in 0..6 {
        let bundle = with_terminal().guest("winsize");
        bundle.write_config();
        assert!(seen(&bundle, &["run", &bundle.id]).contains("33 x 111"));
        let words = ["exec", "--tty", container.id(), "/guest", "winsize"];
        assert!(seen(&container.bundle, &words).contains("33 x 111"));
    }
    let bundle = with_terminal().set("/process/consoleSize", json!({"height": 11, "width": 77}));
    let bundle = bundle.guest("winsize");
    bundle.write_config();
    assert!(seen(&bundle, &["run", &bundle.id]).contains("11 x 77"));
}

#[test]
fn the_console_comes_over_the_socket() {
    let (container, mut console) =
        over_a_socket(with_terminal().guest("multi tty -- session -- pause"), "create");
    container.start();
    let seen = expect(&mut console, "leader foreground");
    assert!(seen.contains("/dev/pts/0\n"), "{seen:?}");
}

#[test]
fn the_console_comes_over_the_socket_of_run_detached() {
    let (container, mut console) =
        over_a_socket(with_terminal().guest("multi tty -- pause").option("--detach"), "run");
    expect(&mut console, "/dev/pts/0");
    assert_eq!(container.status(), "running");
}

#[test]
fn the_size_of_the_config_is_set() {
    let bundle = with_terminal().set("/process/consoleSize", json!({"height": 11, "width": 77}));
    let (container, mut console) = over_a_socket(bundle.guest("multi winsize -- pause"), "create");
    container.start();
    expect(&mut console, "11 x 77");
}

#[test]
fn the_terminal_belongs_to_the_user_and_is_dev_console() {
    let bundle = with_terminal().set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (container, mut console) =
        over_a_socket(bundle.guest("multi stat /dev/pts/0 -- stat /dev/console -- pause"), "create");
    container.start();
    let seen = expect(&mut console, "136:0 0620 1000 5\nchar 136:0");
    assert!(seen.starts_with("char 136:0"), "{seen:?}");
}

#[test]
fn a_symlink_at_dev_console_does_not_leave_the_rootfs() {
    // CVE-2025-52565, CVE-2026-88264.
    let outer = Bundle::new();
    let victim = outer.host_directory("outside") + "/file";
    let bundle = with_terminal().symlink("dev/console", &victim);
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}]);
    let (_master, slave) = terminal(24, 80);
    let bundle = bundle.set("/mounts", mounts).through("exec setsid --ctty \"$@\" >&0 2>&0").stdin(slave);
    drop(bundle.guest("pid").start("run").finish());
    assert_eq!(std::fs::read_to_string(&victim).expect("the file"), "from the host");
}

#[test]
fn exec_has_a_terminal_when_asked_for() {
    let container = Bundle::new().started();
    let path = container.bundle.dir.join("console");
    let listener = UnixListener::bind(&path).expect("a socket");
    let waiting = std::thread::spawn(move || accept_fd(&listener));
    let socket = path.display().to_string();
    container.exec(&["--tty", "--detach", "--console-socket", &socket], "multi tty -- session -- pause").ok();
    let (_, mut fds) = waiting.join().expect("the console came");
    let seen = expect(&mut fds.remove(0).into(), "leader");
    assert!(seen.contains("/dev/pts/0\nleader foreground"), "{seen:?}");
}

#[test]
fn a_detached_terminal_without_a_socket_is_refused() {
    let wanted = "cannot allocate tty if runc will detach without setting console socket";
    with_terminal().create().fails_with(wanted);
    with_terminal().option("--detach").run().fails_with(wanted);
}

#[test]
fn a_socket_without_a_terminal_is_refused() {
    let wanted = "cannot use console socket if runc will not detach or allocate tty";
    Bundle::new().option("--console-socket /tmp/none").create().fails_with(wanted);
    with_terminal().option("--console-socket /tmp/none").run().fails_with(wanted);
}

#[test]
fn a_socket_that_is_not_there_is_an_error() {
    with_terminal().option("--console-socket /does/not/exist").create().fails_with("/does/not/exist");
}

#[test]
fn the_pidfd_comes_over_its_socket() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no pidfd socket");
    let bundle = Bundle::new().guest("pause");
    let path = bundle.dir.join("pidfd");
    let listener = UnixListener::bind(&path).expect("a socket");
    let waiting = std::thread::spawn(move || accept_fd(&listener));
    let container = bundle.option(&format!("--pidfd-socket {}", path.display())).container();
    let (text, fds) = waiting.join().expect("the pidfd came");
    assert_eq!(text, b"standard");
    rustix::process::pidfd_send_signal(&fds[0], rustix::process::Signal::KILL).expect("it is a pidfd");
    container.wait_until("stopped");
}
