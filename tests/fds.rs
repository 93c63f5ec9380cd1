//! File descriptors: none leaks, those asked for are passed.

use crate::support::Bundle;

#[test]
fn the_process_has_the_three_standard_streams_only() {
    Bundle::new().guest("fds").run().prints("0 1 2");
}

#[test]
fn fds_of_the_caller_do_not_leak() {
    // CVE-2024-21626.
    let script = "exec 3</ 4</etc/passwd 9</tmp; exec \"$@\"";
    Bundle::new().through(script).guest("fds").run().prints("0 1 2");
}

#[test]
fn exec_has_the_three_standard_streams_only() {
    Bundle::new().through("exec 3</ 9</tmp; exec \"$@\"").started().exec(&[], "fds").prints("0 1 2");
}

#[test]
fn preserved_fds_are_passed() {
    let script = "exec 3</dev/null 4</dev/null 5</; exec \"$@\"";
    Bundle::new().through(script).option("--preserve-fds 2").guest("fds").run().prints("0 1 2 3 4");
}

#[test]
fn exec_passes_preserved_fds() {
    let container = Bundle::new().through("exec 3</dev/null 4</dev/null; exec \"$@\"").started();
    container.exec(&["--preserve-fds", "1"], "fds").prints("0 1 2 3");
}

#[test]
fn a_preserved_fd_that_is_not_open_is_an_error() {
    Bundle::new().option("--preserve-fds 3").run().fails_with("unable to stat preserved-fd");
}

#[test]
fn listen_fds_are_passed_to_the_process_they_are_meant_for() {
    let script = "exec 3</dev/null 4</dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"";
    let bundle = Bundle::new().through(script).guest("multi fds -- env LISTEN_FDS -- env LISTEN_PID");
    bundle.run().prints("0 1 2 3 4\n2\n1");
}

#[test]
fn listen_fds_for_another_process_are_not_passed() {
    let script = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=1; exec \"$@\"";
    Bundle::new().through(script).guest("multi fds -- env LISTEN_FDS").run().prints("0 1 2\nunset");
}

#[test]
fn a_caller_with_closed_standard_streams_gives_no_foreign_file() {
    let bundle =
        Bundle::new().through("exec <&-; exec \"$@\"").guest("multi fds -- readlink /proc/self/fd/0");
    let facts = bundle.run().facts();
    assert!(facts == "0 1 2\n/dev/null" || facts == "1 2\nENOENT", "{facts}");
}

#[test]
fn a_working_directory_behind_an_fd_is_refused() {
    // CVE-2024-21626: the runtime's own fds, while init sets itself up.
    for number in 3..16 {
        let bundle = Bundle::new().set("/process/cwd", format!("/proc/self/fd/{number}").into());
        bundle.guest("cwd").run().fails_with("cwd");
    }
}
