//! `--systemd-cgroup` on hosts where the runtime cannot reach systemd: the error is one line, comes in bounded time,
//! and leaves nothing. integration/vm has the tests with a systemd.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use crate::support::{Bundle, View, is_root};

/// A host with the version 2 tree alone. If the test puts a socket at `bus` in the bundle, it is the system bus.
fn on_v2() -> Option<Bundle> {
    if let Some(reason) = View::V2.missing() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let bundle = Bundle::new();
    let bus = bundle.dir.join("bus");
    let script = format!(
        "mount -t tmpfs tmpfs /run && mkdir /run/dbus && if [ -S '{bus}' ]; then touch /run/dbus/system_bus_socket; \
         mount --bind '{bus}' /run/dbus/system_bus_socket; fi && exec \"$@\"",
        bus = bus.display()
    );
    // The script runs in the mount namespace that the view makes.
    Some(bundle.view(View::V2).through(&script).global("--systemd-cgroup"))
}

fn listen(bundle: &Bundle) -> UnixListener {
    UnixListener::bind(bundle.dir.join("bus")).expect("a socket")
}

#[test]
fn a_host_that_has_more_than_the_version_2_tree_is_refused() {
    crate::skip_unless!(is_root(), "cgroups need root");
    for view in [View::Host, View::V1] {
        if view.unified() || view.missing().is_some() {
            eprintln!("skipped {view:?}: {}", view.missing().unwrap_or("it is the version 2 tree alone"));
            continue;
        }
        let refused = "--systemd-cgroup: needs a host whose cgroups are of version 2 alone";
        Bundle::new().view(view).global("--systemd-cgroup").create().fails_with(refused);
    }
}

#[test]
fn nobody_at_the_bus_is_said_by_its_address() {
    let Some(bundle) = on_v2() else { return };
    let said = "linux.cgroupsPath: systemd: orlop-orlop-test-";
    bundle.create().fails_with_all(&[said, "nobody listens at unix:path=/run/dbus/system_bus_socket"]);
    // A socket that is left of a dead daemon.
    let Some(bundle) = on_v2() else { return };
    drop(listen(&bundle));
    bundle.run().fails_with("nobody listens at unix:path=/run/dbus/system_bus_socket");
}

#[test]
fn a_bus_that_hangs_is_waited_for_ten_seconds() {
    let Some(bundle) = on_v2() else { return };
    // The kernel accepts the connection; no process ever reads from it.
    let _bus = listen(&bundle);
    let begin = std::time::Instant::now();
    bundle.create().fails_with("does not answer (10s)");
    assert!(begin.elapsed().as_secs() >= 10, "it has not even waited: {:?}", begin.elapsed());
}

#[test]
fn a_bus_that_hangs_up_or_talks_nonsense_is_an_error() {
    for answer in [&b""[..], b"REJECTED\r\n", b"220 mail.example ESMTP\r\n"] {
        let Some(bundle) = on_v2() else { return };
        let bus = listen(&bundle);
        let server = std::thread::spawn(move || {
            let (mut peer, _) = bus.accept().expect("a connection");
            let mut request = [0; 64];
            let _ = peer.read(&mut request).expect("a greeting");
            peer.write_all(answer).expect("an answer");
        });
        bundle.create().fails_with("D-Bus at unix:path=/run/dbus/system_bus_socket");
        server.join().expect("the server");
    }
}

#[test]
fn a_verb_that_needs_no_systemd_asks_for_none() {
    let Some(bundle) = on_v2() else { return };
    bundle.call(&["list", "-q"]).prints("");
    bundle.call(&["state", "no-such-container"]).fails(1, &["does not exist"]);
}
