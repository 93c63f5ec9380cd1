//! The process itself: args, cwd, environment, ids, privileges, limits, scheduling.

use serde_json::json;

use crate::support::{Bundle, under_runc};

// --- args, cwd, env ---

#[test]
fn args_are_passed_as_they_are() {
    Bundle::new().args(["/guest", "args", "a b", "", "*", "$HOME", "é"]).run().prints("a b||*|$HOME|é");
}

#[test]
fn the_program_is_looked_for_in_the_path_of_the_container() {
    let bundle = Bundle::new().directory("opt/bin").set("/process/env/0", json!("PATH=/nowhere:/opt/bin"));
    std::fs::rename(bundle.rootfs("guest"), bundle.rootfs("opt/bin/tool")).expect("rename");
    bundle.args(["tool", "pid"]).run().prints("1");
}

#[test]
fn without_a_path_a_program_is_not_found_by_its_name() {
    let bundle = Bundle::new().directory("bin").set("/process/env", json!(["A=1"]));
    std::fs::rename(bundle.rootfs("guest"), bundle.rootfs("bin/tool")).expect("rename");
    bundle.args(["tool", "pid"]).run().fails_with(r#"exec: "tool": executable file not found in $PATH"#);
}

#[test]
fn a_relative_program_is_looked_for_in_the_working_directory() {
    let bundle = Bundle::new().directory("work").set("/process/cwd", json!("/work"));
    std::fs::rename(bundle.rootfs("guest"), bundle.rootfs("work/tool")).expect("rename");
    bundle.args(["./tool", "cwd"]).run().prints("/work");
}

#[test]
fn a_missing_working_directory_is_made() {
    Bundle::new().set("/process/cwd", json!("/made/for/it")).guest("cwd").run().prints("/made/for/it");
}

#[test]
fn a_missing_working_directory_is_made_in_a_readonly_root() {
    Bundle::new()
        .set("/process/cwd", json!("/made/for/it"))
        .set("/root/readonly", json!(true))
        .guest("cwd")
        .run()
        .prints("/made/for/it");
}

#[test]
fn the_environment_is_that_of_the_config_and_home() {
    Bundle::new()
        .variable("SECRET", "of the caller")
        .set("/process/env", json!(["A=1", "B=x=y"]))
        .guest("env")
        .run()
        .prints("A=1\nB=x=y\nHOME=/");
}

#[test]
fn home_comes_from_the_passwd_of_the_rootfs() {
    let bundle = Bundle::new().file("etc/passwd", "root:x:0:0::/root:\nada:x:1000:1000::/home/ada:\n");
    bundle.set("/process/user/uid", json!(1000)).guest("env HOME").run().prints("/home/ada");
}

#[test]
fn a_passwd_that_leads_nowhere_is_no_home() {
    for target in ["/proc/self/fd/0", "/etc/passwd", "/none"] {
        let bundle = Bundle::new().directory("etc").symlink("etc/passwd", target);
        let container = bundle.guest("multi env HOME -- pause").started();
        container.exec(&[], "env HOME").prints("/");
        container.stop();
    }
}

#[test]
fn home_of_the_config_wins() {
    Bundle::new().set("/process/env/-", json!("HOME=/mine")).guest("env HOME").run().prints("/mine");
}

#[test]
fn an_empty_home_is_none() {
    let bundle = Bundle::new().file("etc/passwd", "root:x:0:0::/of/root:\n");
    bundle.set("/process/env/-", json!("HOME=")).guest("env HOME").run().prints("/of/root");
}

#[test]
fn of_two_values_of_a_variable_the_last_wins() {
    Bundle::new().set("/process/env", json!(["A=1", "B=2", "A=3"])).guest("env A").run().prints("3");
}

// --- user ---

#[test]
fn ids_groups_and_umask_are_those_of_the_config() {
    Bundle::new()
        .set("/process/user", json!({"uid": 1000, "gid": 100, "additionalGids": [5, 6], "umask": 0o27}))
        .guest("ids")
        .run()
        .prints("uid=1000 gid=100 groups=5,6 umask=0027");
}

#[test]
fn umask_defaults_to_0022() {
    Bundle::new().guest("ids").run().prints("uid=0 gid=0 groups= umask=0022");
}

#[test]
fn root_of_a_user_namespace_is_mapped() {
    let facts = Bundle::new().user_namespace().guest("multi ids -- read /proc/self/uid_map").run().facts();
    let map: Vec<_> = facts.lines().nth(1).expect("a map").split_whitespace().collect();
    assert_eq!(map, ["0", "100000", "65536"]);
    assert!(facts.starts_with("uid=0 gid=0 "), "{facts}");
}

#[test]
fn a_user_outside_the_map_is_refused() {
    Bundle::new()
        .user_namespace()
        .set("/process/user/uid", json!(70_000))
        .run()
        .fails_with("process.user.uid");
}

// --- privileges ---

#[test]
fn the_five_capability_sets_are_those_of_the_config() {
    let set = |names: &[&str]| json!(names);
    Bundle::new()
        .set("/process/capabilities", json!({
            "bounding": set(&["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]),
            "permitted": set(&["CAP_CHOWN", "CAP_KILL"]),
            "effective": set(&["CAP_KILL"]),
            "inheritable": set(&["CAP_CHOWN"]),
            "ambient": set(&["CAP_CHOWN"]),
        }))
        .set("/process/user/uid", json!(1000))
        .guest("caps")
        .run()
        // A user other than root keeps the ambient set over execve.
        .prints("bounding=CAP_CHOWN,CAP_KILL,CAP_NET_RAW\neffective=CAP_CHOWN\ninheritable=CAP_CHOWN\npermitted=CAP_CHOWN\nambient=CAP_CHOWN");
}

#[test]
fn no_capabilities_means_none() {
    let none = "bounding=\neffective=\ninheritable=\npermitted=\nambient=";
    Bundle::new().remove("/process/capabilities").guest("caps").run().prints(none);
    Bundle::new().set("/process/capabilities", json!({})).guest("caps").run().prints(none);
}

#[test]
fn a_user_other_than_root_has_no_effective_capabilities() {
    // CVE-2016-8867: engines made them ambient by default.
    let facts = Bundle::new().set("/process/user/uid", json!(1000)).guest("caps").run().facts();
    let of = |set: &str| facts.lines().find_map(|line| line.strip_prefix(set)).expect("the set").to_owned();
    assert_eq!((of("effective="), of("permitted="), of("ambient=")), Default::default(), "{facts}");
    assert_eq!(of("bounding="), "CAP_AUDIT_WRITE,CAP_KILL,CAP_NET_BIND_SERVICE");
}

#[test]
fn an_unknown_capability_is_ignored() {
    let bundle = Bundle::new().set("/process/capabilities/bounding/-", json!("CAP_OF_THE_FUTURE"));
    assert!(bundle.guest("pid").run().output.ok().out.starts_with('1'));
}

#[test]
fn no_new_privileges_is_as_the_config_says() {
    for (value, wanted) in [(true, "1"), (false, "0")] {
        let bundle = Bundle::new().set("/process/noNewPrivileges", json!(value));
        bundle.guest("status NoNewPrivs").run().prints(wanted);
    }
    Bundle::new().remove("/process/noNewPrivileges").guest("status NoNewPrivs").run().prints("0");
}

// --- limits and scheduling ---

#[test]
fn rlimits_are_those_of_the_config() {
    Bundle::new()
        .set(
            "/process/rlimits",
            json!([
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_STACK", "soft": 1_048_576, "hard": 2_097_152}
            ]),
        )
        .guest("multi rlimit RLIMIT_NOFILE -- rlimit RLIMIT_CORE -- rlimit RLIMIT_STACK")
        .run()
        .prints("100:200\n0:0\n1048576:2097152");
}

#[test]
fn an_rlimit_of_one_does_not_hinder_the_runtime() {
    Bundle::new()
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3}]))
        .guest("rlimit RLIMIT_NOFILE")
        .run()
        .prints("3:3");
}

/// abort(3) must not signal the parent. The process is a copy of its parent, and without a pid namespace it can reach
/// it.
#[test]
fn a_first_process_without_memory_ends_itself_and_not_the_runtime() {
    crate::skip_unless!(!under_runc(), "this is about the runtime's own program");
    let path = format!("PATH=/{}", "a".repeat(300_000));
    // init copies the environment for the hook after the limit is set.
    let container = Bundle::new()
        .without_namespace("pid")
        .set("/process/rlimits", json!([{"type": "RLIMIT_AS", "soft": 4096, "hard": 4096}]))
        .set("/process/env", json!([path]))
        .set("/hooks", json!({"startContainer": [{"path": "/guest"}]}))
        .guest("pid")
        .container();
    let output = container.verb("start", "", "");
    assert!(output.err.contains("ended before its program was executed"), "{output}");
}

#[test]
fn oom_score_adj_is_set() {
    Bundle::new()
        .set("/process/oomScoreAdj", json!(500))
        .guest("read /proc/self/oom_score_adj")
        .run()
        .prints("500");
}

#[test]
fn oom_score_adj_is_kept_if_not_given() {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("our own");
    Bundle::new().guest("read /proc/self/oom_score_adj").run().prints(own.trim());
}

#[test]
fn the_scheduler_is_set() {
    let bundle = Bundle::new().set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5}));
    bundle.guest("sched").run().prints("SCHED_BATCH priority=0 nice=5");
}

#[test]
fn the_io_priority_is_set() {
    let bundle = Bundle::new().set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    bundle.guest("ioprio").run().prints("best-effort 6");
}

#[test]
fn the_personality_is_set() {
    let bundle = Bundle::new().set("/linux/personality", json!({"domain": "LINUX32"}));
    bundle.guest("personality").run().prints("0x8");
}

// --- what the process starts with ---

#[test]
fn no_signal_is_blocked_and_sigpipe_is_not_ignored() {
    // Rust's start-up code ignores SIGPIPE. A container must not inherit that.
    let facts = Bundle::new().guest("multi status SigBlk -- status SigIgn").run().facts();
    let masks: Vec<_> = facts.lines().map(|mask| u64::from_str_radix(mask, 16).expect("a mask")).collect();
    assert_eq!((masks[0], masks[1] & 1 << (libc::SIGPIPE - 1)), (0, 0), "{facts}");
}

#[test]
fn the_process_leads_a_session_of_its_own() {
    Bundle::new().guest("session").run().prints("leader background");
}

#[test]
fn the_session_keyring_is_new_unless_told() {
    let bundle = Bundle::new();
    let named = format!("_ses.{}", bundle.id);
    let name = bundle.guest("keyring").run().facts();
    assert!(name.starts_with(&named), "{name}");
    let kept = Bundle::new().option("--no-new-keyring").guest("keyring").run().facts();
    assert!(!kept.contains("orlop-test"), "{kept}");
}

#[test]
fn the_name_of_the_session_keyring_cannot_be_foreseen() {
    // If a user could make a keyring of this name first, the container would join it.
    let name = || {
        let container = Bundle::new().guest("multi keyring -- pause").started();
        container.prints_in_time("_ses.");
        container.exec(&[], "keyring").prints(&container.printed());
        container.printed().rsplit('.').next().unwrap_or_default().to_owned()
    };
    let (one, other) = (name(), name());
    assert!(one.len() == 16 && one != other, "{one} {other}");
}

#[test]
fn the_process_dies_with_nobody() {
    // The process does not depend on the life of the command that created it.
    let container = Bundle::new().started();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(container.status(), "running");
    assert!(under_runc() || container.exec(&[], "status PPid").ok().out.trim() == "0");
}

#[test]
fn the_memory_policy_is_set() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no memoryPolicy");
    crate::skip_unless!(std::path::Path::new("/proc/self/numa_maps").exists(), "the kernel has no NUMA");
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0"});
    Bundle::new()
        .set("/linux/memoryPolicy", policy.clone())
        .guest("read /proc/self/numa_maps")
        .run()
        .says(" bind:0 ");
    let container = Bundle::new().set("/linux/memoryPolicy", policy).started();
    container.exec(&[], "read /proc/self/numa_maps").says(" bind:0 ");
}
