//! The log: the one JSON object that engines read, and the text on stderr.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, under_runc};

fn failing() -> Bundle {
    Bundle::new().args(["no-such"])
}

#[test]
fn a_json_log_holds_exactly_one_object_with_the_error() {
    // podman parses the whole file; containerd takes the last entry of level "error" and wants an RFC 3339 time.
    let attempt = failing().global("--log log.json --log-format json").create();
    let text = fs::read_to_string(attempt.bundle.dir.join("log.json")).expect("the log");
    let entry: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(entry["level"], "error");
    let message = entry["msg"].as_str().expect("a message");
    assert!(message.contains(r#"exec: "no-such": executable file not found in $PATH"#), "{message}");
    assert!(!message.contains('\n'), "podman's patterns are line based: {message}");
    let time = entry["time"].as_str().expect("a time");
    assert!(
        time.len() >= 20 && time.as_bytes()[10] == b'T' && (time.ends_with('Z') || time.contains('+')),
        "{time}"
    );
}

#[test]
fn with_a_log_file_the_message_is_on_stderr_too() {
    let attempt = failing().global("--log log.json --log-format json").create();
    attempt.fails_with(r#"exec: "no-such": executable file not found in $PATH"#);
}

#[test]
fn the_error_says_which_verb_failed() {
    failing().create().fails_with("create");
    failing().run().fails_with("run");
}

#[test]
fn the_text_format_is_that_of_runc() {
    let attempt = failing().global("--log log.txt --log-format text").create();
    let text = fs::read_to_string(attempt.bundle.dir.join("log.txt")).expect("the log");
    assert!(text.starts_with("time=\"") && text.contains("level=error") && text.contains("msg=\""), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn the_log_is_appended_to() {
    let bundle = failing().global("--log log.json --log-format json");
    fs::write(bundle.dir.join("log.json"), "earlier\n").expect("a log");
    let attempt = bundle.create();
    assert!(
        fs::read_to_string(attempt.bundle.dir.join("log.json")).expect("the log").starts_with("earlier\n{")
    );
}

#[test]
fn without_debug_a_success_logs_nothing() {
    let attempt = Bundle::new().global("--log log.json --log-format json").run();
    assert_eq!(fs::read_to_string(attempt.bundle.dir.join("log.json")).unwrap_or_default(), "");
    attempt.prints("1");
}

#[test]
fn the_debug_log_has_no_value_of_the_environment() {
    let bundle = Bundle::new()
        .set("/process/env/-", json!("TOKEN=do-not-log"))
        .global("--debug --log log.json --log-format json");
    let attempt = bundle.run();
    let text = fs::read_to_string(attempt.bundle.dir.join("log.json")).expect("the log");
    assert!(!text.is_empty() && !text.contains("do-not-log"), "{text}");
    for line in text.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn the_debug_log_names_the_stages_as_runc_does() {
    let bundle = Bundle::new().global("--debug --log log.txt");
    let container = bundle.guest("pause").started();
    let log = || fs::read_to_string(container.bundle.dir.join("log.txt")).expect("the log");
    for stage in
        ["nsexec container setup", "child process in init()", "init: closing the pipe to signal completion"]
    {
        assert!(log().contains(stage), "{stage}: {}", log());
    }
    let words = ["--debug", "--log", "log.txt", "exec", container.id(), "/guest", "pid"];
    container.bundle.call(&words).ok();
    assert!(log().contains("setns_init: about to exec"), "{}", log());
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error() {
    Bundle::new().global("--log /does/not/exist").run().fails_with("/does/not/exist");
}

#[test]
fn the_error_crosses_from_init_with_its_whole_chain() {
    crate::skip_unless!(!under_runc(), "runc has its own words");
    let bundle = Bundle::new().mount("/data", json!({"type": "nosuchfs", "source": "none"}));
    let output = bundle.create().output;
    // Place, call and reason, and the system's message only once.
    let (place, reason) =
        (output.err.find("mounts[7] /data"), output.err.to_lowercase().find("no such device"));
    assert!(place.is_some() && place < reason, "{output}");
    assert_eq!(output.err.to_lowercase().matches("no such device").count(), 1, "{output}");
}

#[test]
fn what_an_image_or_a_hook_chooses_does_not_reach_the_terminal_as_a_command() {
    let hostile = "/x\u{1b}]0;owned\u{7}\u{9b}2J\rorlop: all is well";
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "printf '\\033[2J\\r' >&2; exit 1"]}]);
    let bundles = || {
        [
            Bundle::new().args([hostile]),
            Bundle::new().set("/process/cwd", json!(hostile)).file(&hostile[1..], ""),
            Bundle::new().mount(hostile, json!({"type": "no", "source": hostile})),
            Bundle::new().set("/process/env", json!([hostile])),
            Bundle::new().set("/hooks/createRuntime", hook.clone()),
            Bundle::new().set("/hooks/poststart", json!([{"path": hostile}])),
        ]
    };
    let obeyed = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
    for log in ["", "--log log --log-format json", "--log log", "--debug"] {
        for bundle in bundles() {
            let attempt = bundle.global(log).run();
            let written = fs::read_to_string(attempt.bundle.dir.join("log")).unwrap_or_default();
            let said = &attempt.output.err;
            assert!(attempt.output.code != 0 && !said.is_empty(), "{}", attempt.output);
            assert!(!obeyed(said) && !obeyed(&written), "{log}: {said:?} {written:?}");
        }
    }
}
