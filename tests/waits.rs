//! Each wait has a second way out. If an engine, agent, hook or reader is stuck, the error says which. A stuck one
//! never keeps the runtime from deleting a container.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::support::{Bundle, eventually, terminal, under_runc};

/// A listening socket that accepts no connection, and the connections that fill its queue: a new connection waits.
fn nobody_accepts(path: &Path) -> (UnixListener, Vec<UnixStream>) {
    let listener = UnixListener::bind(path).expect("a socket");
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("a backlog"))
        .expect("listen");
    (listener, vec![UnixStream::connect(path).expect("the one who fits")])
}

fn fifo(bundle: &Bundle, name: &str) -> PathBuf {
    let path = bundle.dir.join(name);
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a fifo");
    path
}

#[test]
fn an_engine_that_accepts_nobody_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    let bundle = Bundle::new().set("/process/terminal", json!(true)).option("--console-socket console");
    let _full = nobody_accepts(&bundle.dir.join("console"));
    bundle.create().fails_with_all(&["--console-socket", "connection timed out"]);
    let bundle = Bundle::new().option("--pidfd-socket pidfd");
    let _full = nobody_accepts(&bundle.dir.join("pidfd"));
    bundle.create().fails_with_all(&["--pidfd-socket", "connection timed out"]);
}

fn with_agent(call: &str) -> (Bundle, PathBuf) {
    let bundle = Bundle::new();
    let path = bundle.dir.join("agent");
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "syscalls": [{"names": [call], "action": "SCMP_ACT_NOTIFY"}]
    });
    // Without no_new_privs, init makes more calls behind the filter: there it gives up the right that loading it
    // needed.
    let bundle = bundle.set("/linux/seccomp", profile).set("/process/noNewPrivileges", json!(false));
    (bundle.guest("pause"), path)
}

#[test]
fn an_agent_that_accepts_nobody_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    let (bundle, path) = with_agent("getpriority");
    let _full = nobody_accepts(&path);
    bundle.create().fails_with_all(&["linux.seccomp.listenerPath", "connection timed out"]);
}

#[test]
#[ignore = "takes a minute: make security"]
fn an_agent_that_never_answers_is_an_error() {
    let (bundle, path) = with_agent("capset");
    let agent = UnixListener::bind(&path).expect("a socket");
    bundle.write_config();
    let mut create = bundle.command(&["create", &bundle.id]);
    let mut running =
        create.stderr(File::create(bundle.dir.join("said")).expect("a file")).spawn().expect("create");
    let _taken = crate::support::accept_fd(&agent);
    let status = running.wait().expect("the end of create");
    let said = bundle.wait_for("said");
    assert!(!status.success() && said.contains("has kept the process waiting for 60 s"), "{said}");
    bundle.assert_clean();
}

#[test]
fn a_signal_ends_the_wait_for_an_agent() {
    crate::skip_unless!(!under_runc(), "runc waits on");
    let (bundle, path) = with_agent("capset");
    let agent = UnixListener::bind(&path).expect("a socket");
    let running = bundle.start("run");
    let _taken = crate::support::accept_fd(&agent);
    running.signal(rustix::process::Signal::TERM);
    running.finish().fails(1, &["ended by SIGTERM"]);
    bundle.assert_clean();
}

#[test]
fn a_log_that_nobody_reads_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    let bundle = Bundle::new().global("--log log");
    fifo(&bundle, "log");
    bundle.run().fails_with_all(&["--log", "no such device"]);
}

#[test]
fn a_config_that_nobody_writes_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    let bundle = Bundle::new();
    fifo(&bundle, "fifo.json");
    bundle.option("--config fifo.json").run().fails_with("fifo.json");
}

#[test]
fn a_hook_that_prints_to_a_fifo_that_nobody_reads_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc has no such annotation");
    let bundle = Bundle::new().set("/hooks/createRuntime", json!([{"path": "/bin/true"}]));
    let (bundle, dir) = crate::annotations::with_output(bundle);
    mknodat(CWD, dir.join("printed"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a fifo");
    let path = crate::annotations::named(&dir, "printed");
    bundle
        .set("/annotations", json!({"run.oci.hooks.stdout": path}))
        .create()
        .fails_with_all(&["run.oci.hooks.stdout", "no such device"]);
}

#[test]
fn a_start_whose_hook_is_stuck_does_not_keep_delete_waiting() {
    crate::skip_unless!(!under_runc(), "runc waits for the hook");
    let hook = json!([{"path": "/guest", "args": ["guest", "pause"]}]);
    let container = Bundle::new().set("/hooks/startContainer", hook).guest("pause").container();
    let start = container.bundle.command(&["start", container.id()]);
    let start = crate::support::begin(start, &container.bundle.dir);
    // `start` itself works on the container, too. The test looks for the hook's own program.
    let is_hook = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"guest\0pause"))
    };
    eventually("the hook runs", || crate::support::processes(&container.bundle).iter().any(is_hook));
    let before = Instant::now();
    container.verb("delete", "--force", "").ok();
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    start.finish().fails(1, &["ended before its program was executed"]);
    container.bundle.assert_clean();
}

#[test]
fn a_start_whose_process_is_killed_says_so_however_far_it_had_got() {
    crate::skip_unless!(!under_runc(), "runc words it in its own way");
    let container = Bundle::new().guest("pause").container();
    let init = rustix::process::Pid::from_raw(container.pid() as i32).expect("an id");
    // init is stopped, so it cannot read the order to go on.
    rustix::process::kill_process(init, rustix::process::Signal::STOP).expect("it waits");
    let start = container.bundle.command(&["start", container.id()]);
    let start = crate::support::begin(start, &container.bundle.dir);
    let gate = container.bundle.dir.join("state").join(container.id()).join("exec.fifo");
    eventually("start has let it go on", || !gate.exists());
    rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("it is there");
    start.finish().fails(1, &["container process ended before its program was executed"]);
    container.delete();
}

#[test]
fn a_terminal_that_nobody_reads_hides_neither_the_end_nor_a_signal() {
    crate::skip_unless!(!under_runc(), "runc drains it whatever comes");
    let (_master, slave) = terminal(24, 80);
    let bundle = Bundle::new().set("/process/terminal", json!(true)).guest("flood").stdin(slave);
    let unread = File::options().read(true).write(true).open(fifo(&bundle, "unread")).expect("a fifo");
    bundle.write_config();
    let mut run = bundle.command(&["run", &bundle.id]);
    let mut run = run.stdout(unread.try_clone().expect("dup")).spawn().expect("run");
    eventually("nothing more fits", is_full(&unread));
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    let ended = || bundle.call(&["state", &bundle.id]).out.contains("stopped");
    eventually("the container has ended", ended);
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it waits for a reader");
    eventually("run has ended", || run.try_wait().expect("wait").is_some());
    bundle.assert_clean();
}

/// Waits until nothing more fits into the pipe.
fn is_full(unread: &File) -> impl FnMut() -> bool {
    let mut before = 0;
    move || {
        let now = rustix::io::ioctl_fionread(unread).expect("the length");
        std::thread::sleep(Duration::from_millis(200));
        let still = now > 0 && now == before;
        before = now;
        still
    }
}

#[test]
fn output_that_nobody_reads_does_not_keep_a_container_from_being_deleted() {
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    let (_master, slave) = terminal(24, 80);
    let container = Bundle::new().started();
    let fifo = fifo(&container.bundle, "unread");
    let unread = File::options().read(true).write(true).open(fifo).expect("a fifo");
    let mut exec = container.bundle.command(&["exec", "--tty", container.id(), "/guest", "flood"]);
    let exec = exec.stdin(slave).stdout(unread.try_clone().expect("dup")).spawn();
    let mut exec = exec.expect("exec");
    eventually("nothing more fits", is_full(&unread));
    let before = Instant::now();
    container.verb("delete", "--force", "").ok();
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    term(&exec);
    assert_eq!(end_of(&mut exec), Some(128 + 9));
    container.bundle.assert_clean();
}

#[test]
fn a_zombie_that_another_process_traces_is_not_waited_for() {
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    let container = Bundle::new().guest("hold 100").started();
    container.prints_in_time("ready");
    let output = container.exec(&[], "sleep 1");
    assert!(container.printed().contains("seized"), "{}", container.printed());
    output.fails(255, &["a process that traces it keeps its exit status"]);
}

#[test]
fn children_without_end_do_not_keep_exec_from_a_signal() {
    crate::skip_unless!(!under_runc(), "runc reaps none");
    let container = Bundle::new().set("/linux/resources/pids", json!({"limit": 200})).started();
    let exec = container.start_exec(&[], "siblings 100");
    exec.until("ready");
    std::thread::sleep(Duration::from_millis(200));
    exec.signal(rustix::process::Signal::TERM);
    exec.finish().exits(128 + 15);
}

#[test]
fn a_terminal_of_another_user_does_not_keep_run_from_a_signal() {
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    crate::skip_unless!(crate::support::is_root(), "becoming another user needs root");
    // The user may not open root's terminal, and so has no descriptor that never waits.
    let (_master, slave) = terminal(24, 80);
    let bundle = crate::rootless::rootless().set("/process/terminal", json!(true)).guest("flood");
    let mut run = on_a_terminal(&bundle, &slave, slave.try_clone().expect("dup"));
    let is = |status: &str| bundle.call(&["state", &bundle.id]).out.contains(status);
    eventually("the container runs", || is("running"));
    std::thread::sleep(Duration::from_millis(500));
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    eventually("the container has ended", || is("stopped"));
    term(&run);
    assert_eq!(end_of(&mut run), Some(128 + 9));
    bundle.assert_clean();
}

/// `run` in the foreground on a terminal, with this file as its standard output.
fn on_a_terminal(
    bundle: &Bundle,
    slave: &File,
    stdout: impl Into<std::process::Stdio>,
) -> std::process::Child {
    bundle.write_config();
    let mut run = bundle.command(&["run", &bundle.id]);
    run.stdin(slave.try_clone().expect("dup")).stdout(stdout).spawn().expect("run")
}

fn end_of(run: &mut std::process::Child) -> Option<i32> {
    let mut status = None;
    eventually("run has ended", || {
        status = run.try_wait().expect("wait");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

fn term(run: &std::process::Child) {
    let pid = rustix::process::Pid::from_child(run);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
}

#[test]
fn a_terminal_that_nobody_reads_does_not_keep_run_from_a_signal() {
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    // write(2) to a terminal may block although poll(2) has reported room.
    let (_master, slave) = terminal(24, 80);
    let bundle = Bundle::new().set("/process/terminal", json!(true)).guest("multi flood");
    let bundle = bundle.without_namespace("pid");
    let mut run = on_a_terminal(&bundle, &slave, slave.try_clone().expect("dup"));
    let running = || bundle.call(&["state", &bundle.id]).out.contains("running");
    eventually("the container runs", running);
    std::thread::sleep(Duration::from_millis(300));
    // The first signal is for the container. The second one ends a runtime that waits until its last output is read.
    term(&run);
    std::thread::sleep(Duration::from_millis(300));
    term(&run);
    assert_eq!(end_of(&mut run), Some(128 + 15));
    bundle.assert_clean();
}

#[test]
fn a_process_that_does_not_read_what_is_typed_does_not_keep_run_from_a_signal() {
    use std::io::Write;
    crate::skip_unless!(!under_runc(), "runc waits for ever");
    let (mut master, slave) = terminal(24, 80);
    let bundle = Bundle::new().set("/process/terminal", json!(true)).guest("multi raw -- trap SIGTERM 7");
    let printed = File::create(bundle.dir.join("printed")).expect("a file");
    let mut run = on_a_terminal(&bundle, &slave, printed);
    eventually("it is ready", || {
        std::fs::read_to_string(bundle.dir.join("printed")).expect("a file").contains("ready")
    });
    nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).expect("fcntl");
    for _ in 0..100 {
        // More bytes than both terminals can hold.
        let _ = master.write(&[b'x'; 1024]);
        std::thread::sleep(Duration::from_millis(2));
    }
    term(&run);
    assert_eq!(end_of(&mut run), Some(7));
    bundle.assert_clean();
}

#[test]
fn a_process_whose_output_nobody_will_read_is_hung_up() {
    crate::skip_unless!(!under_runc(), "runc passes its own SIGPIPE on");
    let (_master, slave) = terminal(24, 80);
    let bundle = Bundle::new().set("/process/terminal", json!(true)).guest("multi flood");
    let bundle = bundle.without_namespace("pid");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut run = on_a_terminal(&bundle, &slave, writer);
    assert_eq!(end_of(&mut run), Some(128 + 1));
    bundle.assert_clean();
}
