//! NOTIFY_SOCKET: what the container tells systemd arrives there, with the pid that the host knows.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::{Bundle, under_runc};

#[test]
fn readiness_is_passed_on_with_the_pid_of_the_container() {
    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    let receive = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a message in time");
        String::from_utf8_lossy(&text[..length]).trim_end().to_owned()
    };
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    let bundle =
        bundle.guest("multi env NOTIFY_SOCKET -- notify READY=1 -- sleep 0.5").option("--pid-file pid");
    let running = bundle.start("run");
    let mut said = vec![receive()];
    while !said.iter().any(|line| line.contains("MAINPID=")) {
        said.push(receive());
    }
    assert!(said.iter().any(|line| line.contains("READY=1")), "{said:?}");
    // systemd may follow the runtime's pid or the container's. No other pid is right.
    let main = said.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("MAINPID="));
    let known = [running.child.id().to_string(), bundle.wait_for("pid")];
    assert!(main.is_some_and(|pid| known.iter().any(|known| known == pid)), "{said:?} {known:?}");
    drop(running.finish());
}

#[test]
fn the_root_of_a_user_namespace_tells_it_too() {
    let bundle = Bundle::new().user_namespace();
    let path = bundle.dir.join("systemd");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    bundle.guest("notify READY=1").run().prints("ok");
    let mut text = [0; 64];
    let length = socket.recv(&mut text).expect("a message");
    assert_eq!(&text[..length], b"READY=1\n");
}

#[test]
fn without_the_variable_the_container_has_no_socket() {
    Bundle::new().guest("multi env NOTIFY_SOCKET -- stat /run/notify").run().prints("unset\nENOENT");
}

/// A socket like systemd's. It answers a barrier by closing the descriptor that came with it.
fn systemd(path: &std::path::Path) -> std::thread::JoinHandle<Vec<String>> {
    let socket = UnixDatagram::bind(path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    std::thread::spawn(move || {
        let mut said = Vec::new();
        loop {
            let mut text = [0; 256];
            // The kernel closes a descriptor that the receiver does not take.
            let length = socket.recv(&mut text).expect("a message in time");
            let text = String::from_utf8_lossy(&text[..length]).trim_end().to_owned();
            if text == "BARRIER=1" {
                return said;
            }
            said.push(text);
        }
    })
}

#[test]
fn start_waits_until_the_container_is_ready() {
    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let systemd = systemd(&path);
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    let container = bundle.guest("multi notify STATUS=soon -- notify READY=1 -- pause").started();
    let said = systemd.join().expect("the messages");
    assert_eq!(said, ["READY=1".to_owned(), format!("MAINPID={}", container.pid())]);
    container.stop();
    container.delete();
}

#[test]
fn a_detached_run_waits_too_and_start_ends_with_a_container_that_never_was_ready() {
    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let systemd = systemd(&path);
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    let bundle = bundle.guest("multi notify READY=1 -- pause").option("--detach --pid-file pid");
    bundle.start("run").finish().ok();
    let pid = bundle.wait_for("pid");
    assert_eq!(systemd.join().expect("the messages"), ["READY=1".to_owned(), format!("MAINPID={pid}")]);
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.assert_clean();

    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let _socket = UnixDatagram::bind(&path).expect("a socket");
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    let container = bundle.guest("sleep 0.1").container();
    container.start();
    container.wait_until("stopped");
}

#[test]
fn a_socket_of_the_host_that_cannot_be_had_is_only_a_warning() {
    crate::skip_unless!(!under_runc(), "runc ends with an error");
    let long = format!("/{}", "x".repeat(200));
    for (path, reason) in [
        ("/does/not/exist", "no such file or directory"),
        ("stale", "nobody listens"),
        ("/dev/null", "not a socket"),
        (&long, "longer than the name of a socket may be"),
    ] {
        let bundle = Bundle::new();
        let stale = bundle.dir.join("stale").display().to_string();
        let path = if path == "stale" { &stale } else { path };
        drop(UnixDatagram::bind(&stale).expect("a socket"));
        let bundle = bundle.variable("NOTIFY_SOCKET", path);
        // The container then has no socket: nothing would answer there.
        let attempt = bundle.guest("multi env NOTIFY_SOCKET -- stat /run/notify").run();
        let (out, err) = (&attempt.output.out, &attempt.output.err);
        assert_eq!(out.as_str(), "unset\nENOENT\n", "{}", attempt.output);
        assert!(err.contains("NOTIFY_SOCKET") && err.contains(reason) && err.lines().count() == 1, "{err}");
        attempt.exits(0);

        let bundle = Bundle::new();
        drop(UnixDatagram::bind(bundle.dir.join("stale")).expect("a socket"));
        bundle.variable("NOTIFY_SOCKET", path).started().stop();
    }
}

#[test]
fn a_socket_that_is_gone_when_the_container_is_started_is_only_a_warning() {
    crate::skip_unless!(!under_runc(), "runc ends with an error");
    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let container = bundle.variable("NOTIFY_SOCKET", &path.display().to_string()).guest("pause").container();
    drop(socket);
    container.verb("start", "", "").ok();
    assert_eq!(container.status(), "running");
}

#[test]
fn a_container_that_never_stops_talking_does_not_keep_run_from_a_signal() {
    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let _socket = UnixDatagram::bind(&path).expect("a socket");
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    let bundle = bundle.without_namespace("pid").guest("notify-flood STATUS=on");
    let running = bundle.start("run");
    running.until("ready");
    running.signal(rustix::process::Signal::TERM);
    running.finish().exits(128 + 15);
    bundle.assert_clean();
}

#[test]
fn the_socket_of_the_container_is_everybodys_from_its_first_moment_on() {
    let bundle = Bundle::new().through("umask 077; exec \"$@\"").directory("run/notify");
    let path = bundle.dir.join("systemd");
    let _socket = UnixDatagram::bind(&path).expect("a socket");
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    let bundle = bundle.set("/process/user", serde_json::json!({"uid": 1000, "gid": 1000}));
    bundle.guest("multi stat /run/notify/notify.sock -- notify READY=1").run().prints("socket 0777 0 0\nok");
}

#[test]
fn the_container_cannot_put_files_beside_its_socket() {
    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let _socket = UnixDatagram::bind(&path).expect("a socket");
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    bundle.guest("multi mkdir /run/notify/x -- ls /run/notify").run().prints("EROFS\nnotify.sock");
}

#[test]
fn directories_that_a_container_makes_beside_its_socket_are_removed_with_it() {
    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let _socket = UnixDatagram::bind(&path).expect("a socket");
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    let container = bundle.guest("pause").container();
    // What a container makes that may make the mount writable.
    let inside = container.bundle.dir.join("state").join(container.id()).join("notify");
    std::fs::create_dir_all(inside.join("a/b/c/d")).expect("directories");
    std::fs::create_dir_all(inside.join("1/1/1")).expect("directories");
    std::fs::write(inside.join("a/b/file"), "").expect("a file");
    container.verb("delete", "--force", "").ok();
    container.bundle.assert_clean();
    let left = std::fs::read_dir(container.bundle.dir.join("state")).expect("the root").count();
    assert_eq!(left, 0);
}
