//! Signals. The container does not inherit what the runtime's caller ignores or blocks. `run` passes some signals on.
//! A signal ends each wait.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Bundle, eventually, under_runc};

/// The runtime's caller ignores and blocks these signals, or all signals if none is named.
fn caller(ignores: &str) -> String {
    let names = if ignores.is_empty() { String::new() } else { format!("={ignores}") };
    format!("exec env --ignore-signal{names} --block-signal{names} \"$@\"")
}

const NOTHING: &str = "0000000000000000\n0000000000000000";

#[test]
fn a_process_begins_with_default_actions_and_no_signal_blocked() {
    let facts = "multi status SigBlk -- status SigIgn";
    let bundle = || Bundle::new().through(&caller(""));
    bundle().guest(facts).run().prints(NOTHING);
    let words = facts.split(' ').chain(["--", "pause"]).collect::<Vec<_>>().join(" ");
    let container = bundle().guest(&words).started();
    container.prints_in_time(NOTHING);
    container.exec(&[], facts).prints(NOTHING);
}

#[test]
fn a_caller_that_ignores_sigchld_is_told_how_the_process_ended() {
    let bundle = || Bundle::new().through(&caller("CHLD"));
    bundle().guest("exit 9").run().exits(9);
    bundle().started().exec(&[], "exit 7").exits(7);
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]);
    bundle().set("/hooks/createRuntime", hook).create().fails_with("exit status 3");
    bundle().user_namespace().guest("pid").run().prints("1");
}

/// Sends a signal by its number: rustix's table has no real-time signals.
fn send(to: &std::process::Child, signal: i32) {
    let sent = std::process::Command::new("kill").args([format!("-{signal}"), to.id().to_string()]).status();
    assert!(sent.expect("kill").success(), "{signal}");
}

#[test]
fn run_passes_on_what_is_meant_for_the_process_only() {
    // Whoever runs the tests by nohup(1) ignores SIGHUP, which is not passed on then.
    let bundle = Bundle::new().through("exec env --default-signal=HUP \"$@\"").guest("signals");
    let running = bundle.start("run");
    running.until("ready");
    // These are not for the process: the size of the terminal (there is none), the runtime's children, Go's own
    // signal.
    for signal in [libc::SIGWINCH, libc::SIGCHLD, libc::SIGURG] {
        send(&running.child, signal);
    }
    let passed = [1, 2, 3, 10, 12, 13, 14, 15, 18, 20, 21, 22, 26, 27, 29, 30, 31, 34, 35, 64];
    for signal in passed {
        send(&running.child, signal);
        running.until(&format!("got {signal}."));
    }
    let got: Vec<_> = running.out().lines().skip(1).map(str::to_owned).collect();
    assert_eq!(got, passed.map(|signal| format!("got {signal}.")));
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    running.finish().exits(128 + 9);
    bundle.assert_clean();
}

#[test]
fn a_hangup_that_the_caller_ignores_is_not_passed_on() {
    crate::skip_unless!(!under_runc(), "runc passes it on");
    let bundle = Bundle::new().through("exec env --ignore-signal=HUP \"$@\"").guest("signals");
    let running = bundle.start("run");
    running.until("ready");
    running.signal(Signal::HUP);
    running.signal(Signal::USR1);
    running.until("got 10.");
    assert!(!running.out().contains("got 1."), "{}", running.out());
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    running.finish().exits(128 + 9);
}

#[test]
fn a_stopped_process_is_continued_to_end() {
    crate::skip_unless!(!under_runc(), "runc waits for somebody to continue it");
    let bundle = Bundle::new().guest("trap SIGTERM 7");
    let running = bundle.start("run");
    running.until("ready");
    bundle.call(&["kill", &bundle.id, "STOP"]).ok();
    running.signal(Signal::TERM);
    running.finish().exits(7);
    bundle.assert_clean();
}

#[test]
fn a_signal_ends_a_run_whose_hook_is_stuck_and_nothing_is_left() {
    crate::skip_unless!(!under_runc(), "runc waits for the hook");
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let bundle = Bundle::new();
        let hook = match kind {
            "startContainer" => json!({"path": "/guest", "args": ["guest", "touch-and-pause", "/out/stuck"]}),
            _ => {
                json!({"path": "/bin/sh", "args": ["sh", "-c", format!("touch {}/stuck; exec sleep 60", bundle.dir.display())],
                "env": ["PATH=/usr/bin:/bin"]})
            }
        };
        let words = if kind == "poststop" { "pid" } else { "pause" };
        let out = json!({"type": "bind", "source": bundle.dir, "options": ["bind"]});
        let bundle = bundle.directory("out").mount("/out", out).guest(words);
        let bundle = bundle.set(&format!("/hooks/{kind}"), json!([hook]));
        let running = bundle.start("run");
        eventually(&format!("the {kind} hook runs"), || bundle.dir.join("stuck").exists());
        running.signal(Signal::TERM);
        let output = running.finish();
        if kind == "poststop" {
            output.ok();
        } else {
            output.fails(1, &["SIGTERM"]);
        }
        bundle.assert_clean();
    }
}
