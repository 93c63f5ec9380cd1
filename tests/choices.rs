//! What a container can choose about itself: its name, which of its threads live, whether it is stopped. `state`,
//! `kill`, `exec` and `delete` work nevertheless, and soon.

use std::time::{Duration, Instant};

use crate::support::{Bundle, Container, eventually, under_runc, window};

/// Calls every verb that engines need on a running container; each must end within two seconds.
#[track_caller]
fn all_verbs_work(container: Container, what: &str, status: &str, exec: &[&str]) {
    let soon = |verb: &str, act: &dyn Fn()| {
        let before = Instant::now();
        act();
        assert!(before.elapsed() < Duration::from_secs(window(2)), "{what}: {verb}: {:?}", before.elapsed());
    };
    soon("state", &|| assert_eq!(container.status(), status, "{what}"));
    soon("kill", &|| drop(container.kill("0").ok()));
    soon("delete", &|| {
        container.verb("delete", "", "").fails(1, &["cannot delete container"]);
    });
    soon("exec", &|| drop(container.exec(exec, "pid").ok()));
    soon("delete --force", &|| drop(container.verb("delete", "--force", "").ok()));
    container.bundle.assert_clean();
}

#[test]
fn a_name_of_any_bytes_hides_no_process() {
    for name in ["ff", "29205a2030", "29", "612920282062", "0a", "ff29205a0a", "c328"] {
        let container = Bundle::new().guest(&format!("named {name}")).started();
        container.prints_in_time("ready");
        container.verb("pause", "", "").ok();
        container.verb("resume", "", "").ok();
        container.verb("update", "--pids-limit 50", "").ok();
        container.verb("ps", "", "").ok().says("\n");
        all_verbs_work(container, name, "running", &[]);
    }
}

#[test]
#[ignore = "takes a while: make security"]
fn a_name_of_each_byte_hides_no_process() {
    let container = Bundle::new().guest("next-names").started();
    container.prints_in_time("ready");
    for byte in 0..=u8::MAX {
        container.kill("USR1").ok();
        container.prints_in_time(&format!("name {byte}."));
        assert_eq!(container.status(), "running", "{byte}");
        container.exec(&[], "pid").ok();
    }
    container.stop();
    container.delete();
}

#[test]
fn a_process_whose_first_thread_has_ended_is_running() {
    crate::skip_unless!(!under_runc(), "runc cannot enter it");
    let leaderless = || {
        let container = Bundle::new().guest("leaderless").started();
        container.prints_in_time("ready");
        container
    };
    all_verbs_work(leaderless(), "leaderless", "running", &[]);
    let container = leaderless();
    container.verb("ps", "", "").ok();
    container.stop();
    container.delete();
}

#[test]
fn delete_by_force_ends_a_process_without_its_first_thread_and_without_a_cgroup() {
    crate::skip_unless!(!under_runc(), "runc makes a cgroup");
    let bundle = Bundle::new().global("--cgroup-manager disabled").remove("/linux/resources");
    let container = bundle.guest("leaderless").started();
    container.prints_in_time("ready");
    assert_eq!(container.status(), "running");
    let pid = container.pid();
    container.verb("delete", "--force", "").ok();
    let threads = format!("/proc/{pid}/task");
    let left = std::fs::read_dir(threads).into_iter().flatten().flatten().count();
    assert!(left < 2, "{left} threads are left");
    container.bundle.assert_clean();
}

#[test]
#[ignore = "a race: make security"]
fn a_process_that_is_replaced_by_its_threads_is_running_all_the_time() {
    let container = Bundle::new().guest("exec-by-thread").started();
    for _ in 0..300 {
        assert_eq!(container.status(), "running");
        container.verb("delete", "", "").fails(1, &["that is not stopped: running"]);
    }
    container.stop();
    container.delete();
}

#[test]
fn a_stopped_a_frozen_and_a_crowded_container_are_in_reach() {
    let stopped = Bundle::new().started();
    stopped.kill("STOP").ok();
    all_verbs_work(stopped, "stopped by SIGSTOP", "running", &[]);
    let crowded = Bundle::new().guest("spawn 300").started();
    crowded.prints_in_time("ready");
    all_verbs_work(crowded, "300 children", "running", &[]);
    let frozen = Bundle::new().started();
    frozen.verb("pause", "", "").ok();
    frozen.kill("0").ok();
    frozen.verb("exec", "", "/guest pid").exits(255);
    frozen.verb("delete", "", "").fails(1, &["that is not stopped: paused"]);
    let before = Instant::now();
    frozen.verb("delete", "--force", "").ok();
    assert!(before.elapsed() < Duration::from_secs(window(2)), "{:?}", before.elapsed());
    frozen.bundle.assert_clean();
}

#[test]
fn a_delete_that_follows_kill_at_once_succeeds() {
    // Engines call delete right after kill. The processes take a moment to die.
    let container = Bundle::new().guest("spawn 40").started();
    container.prints_in_time("ready");
    container.kill("KILL").ok();
    container.delete();
    for _ in 0..6 {
        let container = Bundle::new().started();
        container.kill("KILL").ok();
        container.delete();
    }
    // delete does not wait for a container that was not killed.
    let container = Bundle::new().started();
    container.verb("delete", "", "").fails(1, &["that is not stopped: running"]);
    eventually("it lives", || container.status() == "running");
}
