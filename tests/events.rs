//! `events`: statistics in runc's format, and the event that the kernel ran out of memory for the container.

use serde_json::{Value, json};

use crate::support::{Bundle, Running, View, begin, eventually};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Waits until the command has set up its watch. The command prints nothing about it, so this looks at its
/// descriptors: the pidfd is the last one that it opens.
#[track_caller]
fn watches(events: &Running) {
    let fds = format!("/proc/{}/fd", events.child.id());
    eventually("events watches", || {
        let links = std::fs::read_dir(&fds).into_iter().flatten().flatten();
        let mut links = links.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.any(|link| link.display().to_string().contains("pidfd"))
    });
}

#[test]
fn statistics_have_the_shape_that_engines_parse() {
    for view in View::ALL {
        if let Some(reason) = view.missing() {
            eprintln!("skipped {view:?}: {reason}");
            continue;
        }
        let mut bundle = Bundle::new().view(view);
        if view.has("pids") {
            bundle = bundle.set("/linux/resources/pids/limit", json!(20));
        }
        let container = bundle.started();
        let output = container.verb("events", "--stats", "").ok();
        let start = format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{\"cpu\":{{", container.id());
        assert!(output.out.starts_with(&start), "{view:?}: {output}");
        let [event] = &lines(&output.out)[..] else { panic!("one line: {output}") };
        let data = &event["data"];
        if view.has("pids") {
            assert_eq!(data["pids"], json!({"current": 1, "limit": 20}), "{view:?}");
        }
        if view.has("memory") {
            assert!(
                data["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0),
                "{view:?}: {data}"
            );
            assert!(data["memory"]["usage"]["failcnt"].is_u64(), "{view:?}: {data}");
        }
        assert!(data["cpu"]["usage"]["user"].is_u64(), "{view:?}: {data}");
        assert_eq!(data["network_interfaces"], Value::Null);
        assert!(data["hugetlb"].is_object() && data["intel_rdt"].is_object(), "{view:?}: {data}");
    }
}

#[test]
fn the_stream_ends_with_the_container() {
    let container = Bundle::new().started();
    let command = container.bundle.command(&["events", "--interval", "20ms", container.id()]);
    let events = begin(command, &container.bundle.dir);
    events.until("\n{\"type\":\"stats\"");
    container.stop();
    let output = events.finish().ok();
    assert!(lines(&output.out).iter().all(|event| event["type"] == "stats"), "{output}");
}

#[test]
fn a_process_that_is_killed_for_want_of_memory_is_an_event() {
    for view in View::ALL {
        if view.missing().is_some() || !view.has("memory") {
            eprintln!("skipped {view:?}: {}", view.missing().unwrap_or("no memory controller there"));
            continue;
        }
        // Another process dies; the container's first process lives on.
        let memory = json!({"limit": 32 << 20, "swap": 32 << 20});
        let container = Bundle::new().view(view).set("/linux/resources/memory", memory).started();
        let command = container.bundle.command(&["events", "--interval", "1h", container.id()]);
        let events = begin(command, &container.bundle.dir);
        watches(&events);
        container.exec(&[], "eat-memory 64").exits(137);
        events.until(&format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", container.id()));
        container.stop();
        events.finish().ok();
    }
}

#[test]
fn the_death_of_the_first_process_is_told_before_the_end() {
    for view in [View::Host, View::V2] {
        if view.missing().is_some() || !view.has("memory") {
            eprintln!("skipped {view:?}: {}", view.missing().unwrap_or("no memory controller there"));
            continue;
        }
        let memory = json!({"limit": 32 << 20, "swap": 32 << 20});
        let bundle = Bundle::new().view(view).set("/linux/resources/memory", memory).guest("eat-memory 64");
        let container = bundle.container();
        let events = begin(container.bundle.command(&["events", container.id()]), &container.bundle.dir);
        watches(&events);
        container.start();
        let output = events.finish().ok();
        assert_eq!(
            output.out.trim(),
            format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", container.id()),
            "{view:?}"
        );
    }
}

#[test]
fn bad_input_is_one_line() {
    let container = Bundle::new().started();
    for interval in ["0", "0s", "-5s"] {
        let output = container.verb("events", &format!("--interval={interval}"), "");
        output.fails(1, &["duration interval must be greater than 0"]);
    }
    let output = container.verb("events", "--interval=soon", "");
    assert!(output.code == 1 && output.err.contains("soon"), "{output}");
    container.stop();
    let id = container.id().to_owned();
    container.verb("events", "", "").fails(1, &[&format!("container with id {id} is not running")]);
    container.verb("events", "--stats", "").fails(1, &["is not running"]);
}
