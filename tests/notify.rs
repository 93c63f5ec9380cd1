//! NOTIFY_SOCKET: what the container tells systemd reaches it, with the pid that the host knows.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::Bundle;

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
    // Of the runtime or of the container: both are what systemd may follow, and nothing else is.
    let main = said.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("MAINPID="));
    let known = [running.child.id().to_string(), bundle.wait_for("pid")];
    assert!(main.is_some_and(|pid| known.iter().any(|known| known == pid)), "{said:?} {known:?}");
    drop(running.finish());
}

#[test]
fn without_the_variable_the_container_has_no_socket() {
    Bundle::new().guest("multi env NOTIFY_SOCKET -- stat /run/notify").run().prints("unset\nENOENT");
}

/// A socket as systemd has it, which answers a barrier by letting go of what came with it.
fn systemd(path: &std::path::Path) -> std::thread::JoinHandle<Vec<String>> {
    let socket = UnixDatagram::bind(path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    std::thread::spawn(move || {
        let mut said = Vec::new();
        loop {
            let mut text = [0; 256];
            // A descriptor that nobody takes is closed by the kernel.
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
fn a_socket_of_the_host_that_is_not_there_is_an_error() {
    let bundle = Bundle::new().variable("NOTIFY_SOCKET", "/does/not/exist");
    bundle.run().fails_with_all(&["NOTIFY_SOCKET", "/does/not/exist"]);
}

#[test]
fn the_container_cannot_put_files_beside_its_socket() {
    let bundle = Bundle::new();
    let path = bundle.dir.join("systemd");
    let _socket = UnixDatagram::bind(&path).expect("a socket");
    let bundle = bundle.variable("NOTIFY_SOCKET", &path.display().to_string());
    bundle.guest("multi mkdir /run/notify/x -- ls /run/notify").run().prints("EROFS\nnotify.sock");
}
