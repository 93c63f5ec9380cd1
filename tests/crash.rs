//! Kills the runtime at any moment. `delete --force` then cleans the host, and the id is free again.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Bundle, under_runc};

/// How long the verb takes here if nothing disturbs it.
fn duration_of(verb: &dyn Fn(&Bundle)) -> Duration {
    let bundle = Bundle::new().guest("pause");
    let before = Instant::now();
    verb(&bundle);
    let taken = before.elapsed();
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    taken
}

#[test]
fn create_may_be_killed_at_any_moment() {
    crate::skip_unless!(!under_runc(), "runc forgets its cgroup in some of these");
    let whole = duration_of(&|bundle| drop(bundle.start("create").finish().ok()));
    for step in 0..60 {
        let bundle = Bundle::new().guest("pause");
        let running = bundle.start("create");
        std::thread::sleep(whole * step / 50);
        running.signal(Signal::KILL);
        running.finish();
        bundle.call(&["delete", "--force", &bundle.id]).ok();
        bundle.assert_clean();
        // The id can be used again.
        let again = bundle.guest("pid");
        again.start("run").finish().prints("1");
        again.assert_clean();
    }
}

#[test]
fn a_foreground_run_may_be_killed_at_any_moment() {
    crate::skip_unless!(!under_runc(), "runc forgets its cgroup in some of these");
    let whole = duration_of(&|bundle| drop(bundle.start("create").finish().ok()));
    for step in 0..40 {
        let bundle = Bundle::new().guest("pause");
        let running = bundle.start("run");
        std::thread::sleep(whole * step / 30);
        running.signal(Signal::KILL);
        running.finish();
        bundle.call(&["delete", "--force", &bundle.id]).ok();
        bundle.assert_clean();
    }
}

#[test]
fn delete_may_be_killed_at_any_moment() {
    crate::skip_unless!(!under_runc(), "runc forgets its cgroup in some of these");
    for step in 0..30 {
        let container = Bundle::new().started();
        let delete = container.bundle.command(&["delete", "--force", container.id()]);
        let running = crate::support::begin(delete, &container.bundle.dir);
        std::thread::sleep(Duration::from_micros(500) * step);
        running.signal(Signal::KILL);
        running.finish();
        container.verb("delete", "--force", "").ok();
        container.bundle.assert_clean();
    }
}

#[test]
fn an_exec_that_is_killed_leaves_the_container_as_it_was() {
    let container = Bundle::new().started();
    for step in 0..20 {
        let running = container.start_exec(&[], "sleep 0.2");
        std::thread::sleep(Duration::from_millis(2) * step);
        running.signal(Signal::KILL);
        running.finish();
        assert_eq!(container.status(), "running");
    }
    container.exec(&[], "hostname").prints("orlop-test");
}

#[test]
fn an_empty_or_broken_state_file_does_not_keep_the_id() {
    crate::skip_unless!(!under_runc(), "runc keeps it");
    for text in ["", "{", "null", "{\"id\": 1}"] {
        let container = Bundle::new().started();
        let path = container.bundle.dir.join("state").join(container.id()).join("state.json");
        std::fs::write(path, text).expect("the state file");
        container.verb("delete", "--force", "").ok();
        container.bundle.assert_clean();
    }
}
