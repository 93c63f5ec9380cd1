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
