//! create, start, run, state, kill, delete, list, ps, pause, resume: each verb in each state.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, bind, eventually, output};

// --- run ---

#[test]
fn run_gives_the_output_of_the_process() {
    Bundle::new().guest("pid").run().prints("1");
}

#[test]
fn run_exits_as_the_process_does() {
    for status in [0, 1, 2, 77, 126, 127, 128, 200, 255] {
        Bundle::new().guest(&format!("exit {status}")).run().exits(status);
    }
}

#[test]
fn run_exits_with_128_and_the_signal_that_killed_the_process() {
    // The kernel ignores signals that PID 1 of a pid namespace sends itself. Here the process is not PID 1.
    for signal in [1, 6, 9, 11, 15, 34] {
        Bundle::new()
            .without_namespace("pid")
            .guest(&format!("kill-self {signal}"))
            .run()
            .exits(128 + signal);
    }
}

#[test]
fn run_passes_signals_on() {
    let bundle = Bundle::new().guest("trap SIGTERM 7");
    let running = bundle.start("run");
    running.until("ready");
    running.signal(rustix::process::Signal::TERM);
    running.finish().exits(7);
    bundle.assert_clean();
}

#[test]
fn run_passes_its_stdin_on() {
    let bundle = Bundle::new().guest("stdin");
    fs::write(bundle.dir.join("in"), "some text").expect("a file");
    let stdin = fs::File::open(bundle.dir.join("in")).expect("the file");
    bundle.stdin(stdin).run().prints("some text");
}

#[test]
fn stdout_and_stderr_are_kept_apart() {
    let attempt = Bundle::new().guest("multi stderr aside -- pid").run();
    assert_eq!((attempt.output.out.as_str(), attempt.output.err.as_str()), ("ok\n1\n", "aside\n"));
    attempt.exits(0);
}

#[test]
fn run_detached_returns_while_the_process_lives() {
    let bundle = Bundle::new().guest("pause").option("--detach --pid-file pid");
    bundle.start("run").finish().ok();
    let state: Value = serde_json::from_str(&bundle.call(&["state", &bundle.id]).ok().out).expect("JSON");
    assert_eq!(state["status"], "running");
    assert_eq!(state["pid"].to_string(), bundle.wait_for("pid"));
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.assert_clean();
}

#[test]
fn run_with_keep_leaves_a_stopped_container() {
    let bundle = Bundle::new().option("--keep");
    bundle.start("run").finish().prints("1");
    let state: Value = serde_json::from_str(&bundle.call(&["state", &bundle.id]).ok().out).expect("JSON");
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    bundle.call(&["delete", &bundle.id]).ok();
    bundle.assert_clean();
}

// --- create, start, delete ---

#[test]
fn a_container_lives_from_create_to_delete() {
    let container = Bundle::new().guest("trap SIGTERM 0").container();
    assert_eq!(container.status(), "created");
    assert_eq!(container.printed(), "");
    container.start();
    container.prints_in_time("ready");
    assert_eq!(container.status(), "running");
    container.kill("TERM").ok();
    container.wait_until("stopped");
    container.delete();
}

#[test]
fn the_state_directory_is_empty_after_delete() {
    let container = Bundle::new().started();
    let entries = || fs::read_dir(container.bundle.dir.join("state")).expect("the root").count();
    assert_eq!(entries(), 1);
    container.stop();
    container.delete();
    assert_eq!(entries(), 0);
}

#[test]
fn the_pid_file_has_no_newline() {
    // go-runc gives the whole file to Go's Atoi.
    let container = Bundle::new().option("--pid-file pid").container();
    assert_eq!(container.bundle.wait_for("pid"), container.pid().to_string());
}

#[test]
fn an_id_in_use_is_refused_and_its_container_unharmed() {
    let container = Bundle::new().started();
    container.bundle.start("create").finish().fails(1, &["container with given ID already exists"]);
    container.bundle.start("run").finish().fails(1, &["container with given ID already exists"]);
    assert_eq!(container.status(), "running");
}

#[test]
fn starting_twice_is_an_error() {
    let container = Bundle::new().started();
    container.verb("start", "", "").fails(1, &["cannot start an already running container"]);
    assert_eq!(container.status(), "running");
}

#[test]
fn starting_a_stopped_container_is_an_error() {
    let container = Bundle::new().started();
    container.stop();
    container.verb("start", "", "").fails(1, &["cannot start a container that has stopped"]);
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    let container = Bundle::new().container();
    container.kill("KILL").ok();
    container.wait_until("stopped");
    container.delete();
}

#[test]
fn a_created_container_can_be_deleted() {
    Bundle::new().container().delete();
}

#[test]
fn a_running_container_is_not_deleted_without_force() {
    let container = Bundle::new().started();
    container.verb("delete", "", "").fails(1, &["cannot delete container", "that is not stopped: running"]);
    assert_eq!(container.status(), "running");
}

#[test]
fn delete_by_force_takes_a_container_of_any_state() {
    let gone = |container: crate::support::Container| {
        container.verb("delete", "--force", "").ok();
        container.bundle.assert_clean();
    };
    gone(Bundle::new().container());
    gone(Bundle::new().started());
    let stopped = Bundle::new().started();
    stopped.stop();
    gone(stopped);
    let paused = Bundle::new().started();
    paused.verb("pause", "", "").ok();
    gone(paused);
}

#[test]
fn delete_by_force_takes_the_children_of_the_process_too() {
    let container = Bundle::new().without_namespace("pid").guest("spawn 5").started();
    container.prints_in_time("ready");
    container.verb("delete", "--force", "").ok();
    container.bundle.assert_clean();
}

#[test]
fn delete_works_when_the_bundle_is_gone() {
    let container = Bundle::new().started();
    container.stop();
    fs::remove_file(container.bundle.dir.join("config.json")).expect("config.json");
    fs::remove_dir_all(container.bundle.dir.join("rootfs")).expect("the rootfs");
    container.delete();
}

#[test]
fn a_container_that_does_not_exist_is_said_not_to() {
    for verb in ["state", "start", "delete", "pause", "resume"] {
        Bundle::new().call(&[verb, "nobody"]).fails(1, &["container does not exist"]);
    }
    Bundle::new().call(&["kill", "nobody", "KILL"]).fails(1, &["container does not exist"]);
    Bundle::new().call(&["exec", "nobody", "/guest"]).exits(255);
}

#[test]
fn delete_by_force_of_nothing_succeeds() {
    Bundle::new().call(&["delete", "--force", "nobody"]).ok();
}

// --- kill ---

#[test]
fn signals_have_names_numbers_and_any_case() {
    for signal in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
        let container = Bundle::new().guest("trap SIGTERM 0").started();
        container.prints_in_time("ready");
        container.kill(signal).ok();
        container.wait_until("stopped");
    }
}

#[test]
fn every_signal_arrives_by_name_and_by_number() {
    let container = Bundle::new().guest("signals").started();
    container.prints_in_time("ready");
    let status = format!("/proc/{}/stat", container.pid());
    let state = || {
        fs::read_to_string(&status).expect("the process").rsplit(") ").next().map(|rest| rest[..1].to_owned())
    };
    let names = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG \
                 XCPU XFSZ VTALRM PROF WINCH IO PWR SYS";
    let named = names.split_whitespace().zip(1..).map(|(name, number)| (name.to_owned(), number));
    // The C library uses 32 and 33 itself.
    let real_time = (34..=64).map(|number| (format!("RTMIN+{}", number - 34), number));
    for (name, number) in named.chain(real_time) {
        match name.as_str() {
            "KILL" => {}
            "STOP" => {
                container.kill("STOP").ok();
                eventually("it is stopped", || state().is_some_and(|state| state == "T"));
                container.kill("CONT").ok();
                eventually("it is continued", || state().is_some_and(|state| state != "T"));
            }
            _ => {
                let before = container.printed().matches(&format!("got {number}.")).count();
                for (sent, how) in [name, number.to_string()].iter().enumerate() {
                    container.kill(how).ok();
                    eventually(&format!("{how} has arrived"), || {
                        container.printed().matches(&format!("got {number}.")).count() == before + sent + 1
                    });
                }
            }
        }
    }
    container.kill("KILL").ok();
    container.wait_until("stopped");
}

#[test]
fn the_default_signal_is_term() {
    let container = Bundle::new().guest("trap SIGTERM 0").started();
    container.prints_in_time("ready");
    container.kill("").ok();
    container.wait_until("stopped");
}

#[test]
fn an_unknown_signal_is_refused() {
    let container = Bundle::new().started();
    for signal in ["NOSUCH", "0x9", "-1", "200"] {
        let output = container.bundle.call(&["kill", container.id(), signal]);
        assert_ne!(output.code, 0, "{output}");
    }
    assert_eq!(container.status(), "running");
}

#[test]
fn killing_a_stopped_container_is_an_error_that_engines_know() {
    let container = Bundle::new().started();
    container.stop();
    container.kill("TERM").fails(1, &["container not running"]);
}

#[test]
fn kill_all_of_a_stopped_container_succeeds() {
    // containerd and podman pass the obsolete flag and expect that it works.
    let container = Bundle::new().started();
    container.stop();
    container.verb("kill", "--all", "KILL").ok();
}

#[test]
fn kill_ends_everything_in_a_shared_pid_namespace() {
    let container = Bundle::new().without_namespace("pid").guest("spawn 5").started();
    container.prints_in_time("ready");
    container.verb("kill", "--all", "KILL").ok();
    container.wait_until("stopped");
    container.delete();
}

// --- state, list, ps ---

#[test]
fn state_has_what_engines_read() {
    let container = Bundle::new().set("/annotations", json!({"a.b": "c"})).started();
    let state = container.state();
    let dir = container.bundle.dir.display().to_string();
    assert_eq!(state["id"], json!(container.id()));
    assert_eq!(state["bundle"], json!(dir));
    assert_eq!(state["rootfs"], json!(format!("{dir}/rootfs")));
    assert_eq!(state["annotations"], json!({"a.b": "c"}));
    assert_eq!(state["owner"], json!(""));
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
    assert!(
        state["created"].as_str().is_some_and(|time| time.ends_with('Z') && time.contains('T')),
        "{state}"
    );
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
}

#[test]
fn the_pid_of_the_state_is_the_process() {
    let container = Bundle::new().started();
    let path = format!("/proc/{}/cmdline", container.pid());
    // `start` may return before the execve.
    eventually("the process is ours", || {
        fs::read_to_string(&path).is_ok_and(|line| line == "/guest\0pause\0")
    });
}

#[test]
fn list_shows_a_table_json_and_ids() {
    let container = Bundle::new().started();
    let bundle = &container.bundle;
    let table = bundle.call(&["list"]).ok().out;
    let header: Vec<_> = table.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<_> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..3], [container.id(), &container.pid().to_string(), "running"]);
    bundle.call(&["list", "--quiet"]).prints(container.id());
    let json: Value =
        serde_json::from_str(&bundle.call(&["list", "--format", "json"]).ok().out).expect("JSON");
    assert_eq!((&json[0]["id"], &json[0]["owner"]), (&json!(container.id()), &json!("root")));
}

#[test]
fn an_empty_list_is_null_in_json() {
    Bundle::new().call(&["list", "--format", "json"]).prints("null");
}

#[test]
fn listing_a_root_that_does_not_exist_is_an_error() {
    let output = output(&["--root", "/tmp/orlop-test-no-such-root", "list"]);
    let made = fs::remove_dir("/tmp/orlop-test-no-such-root").is_ok();
    assert!(!made && output.code == 1, "{output}");
}

#[test]
fn list_does_not_stumble_over_a_broken_neighbour() {
    let container = Bundle::new().started();
    let broken = container.bundle.dir.join("state/broken");
    fs::create_dir(&broken).expect("a directory");
    fs::write(broken.join("state.json"), "{").expect("a file");
    container.bundle.call(&["list", "--quiet"]).ok().says(container.id());
    let table = container.bundle.call(&["list"]).ok();
    let row = |id: &str| table.out.lines().find(|line| line.starts_with(id)).unwrap_or_default().to_owned();
    assert!(row(container.id()).contains("running"), "{table}");
    if !crate::support::under_runc() {
        // The id is in use. `delete --force broken` frees it.
        assert!(row("broken").contains("unknown"), "{table}");
        assert!(table.err.contains("load container broken: "), "{table}");
    }
    let json = container.bundle.call(&["list", "--format=json"]).ok();
    serde_json::from_str::<Value>(&json.out).expect("JSON");
    fs::remove_dir_all(broken).expect("the directory");
}

#[test]
fn ps_lists_the_processes_of_the_container() {
    let container = Bundle::new().guest("spawn 2").started();
    container.prints_in_time("ready");
    let pids: Vec<i64> =
        serde_json::from_str(&container.verb("ps", "--format json", "").ok().out).expect("JSON");
    assert_eq!(pids.len(), 3);
    assert!(pids.contains(&container.pid()));
    let table = container.verb("ps", "", "").ok().out;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.lines().next().is_some_and(|header| header.contains("PID")), "{table}");
}

#[test]
fn ps_passes_options_to_the_hosts_ps() {
    let container = Bundle::new().started();
    container.exec(&[], "pid").ok(); // Then the process is the guest and no longer the runtime.
    let output = container.verb("ps", "--format table", "-o pid,comm").ok();
    let row = format!("{} guest", container.pid());
    let rows: Vec<_> =
        output.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows, ["PID COMMAND", &row]);
}

// --- pause, resume ---

#[test]
fn a_paused_container_is_resumed() {
    let container = Bundle::new().started();
    container.verb("pause", "", "").ok();
    assert_eq!(container.status(), "paused");
    container.verb("resume", "", "").ok();
    assert_eq!(container.status(), "running");
    container.exec(&[], "hostname").prints("orlop-test");
}

#[test]
fn only_a_running_container_is_paused() {
    let container = Bundle::new().started();
    container.verb("resume", "", "").fails(1, &["container not paused"]);
    container.stop();
    container.verb("pause", "", "").fails(1, &["container not running"]);
}

#[test]
fn a_paused_container_can_be_killed() {
    let container = Bundle::new().started();
    container.verb("pause", "", "").ok();
    container.kill("KILL").ok();
    container.wait_until("stopped");
}

// --- robustness ---

#[test]
fn killing_the_foreground_runtime_leaves_nothing_that_delete_cannot_take() {
    let bundle = Bundle::new().guest("pause");
    let running = bundle.start("run");
    eventually("it runs", || bundle.call(&["state", &bundle.id]).out.contains("running"));
    running.signal(rustix::process::Signal::KILL);
    running.finish().exits(128 + 9);
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.assert_clean();
}

#[test]
fn the_signals_that_end_a_process_end_a_created_container() {
    // The kernel drops signals without a handler for the first process of a pid namespace. init must have handlers.
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        let container = Bundle::new().guest("pause").container();
        container.kill(signal).ok();
        container.wait_until("stopped");
        container.delete();
    }
}

#[test]
fn the_record_has_the_names_that_other_programs_read_in_runcs() {
    let bundle = Bundle::new().user_namespace().namespace("network", Some("/proc/self/ns/net"));
    let bundle = bundle.set("/annotations", json!({"key": "value"}));
    let host = bundle.host_directory("data");
    let container = bundle.mount("/data", bind(&host, &[])).started();
    let path = container.bundle.dir.join("state").join(container.id()).join("state.json");
    let state: Value = serde_json::from_slice(&fs::read(path).expect("state.json")).expect("JSON");
    assert_eq!((&state["id"], &state["init_process_pid"]), (&json!(container.id()), &json!(container.pid())));
    // Field 22 of proc_pid_stat(5), counted from the end of the name.
    let stat = fs::read_to_string(format!("/proc/{}/stat", container.pid())).expect("the stat");
    let started = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)).expect("a field");
    assert_eq!(state["init_process_start"].to_string(), started);
    let config = &state["config"];
    assert_eq!(config["rootfs"], json!(container.bundle.dir.join("rootfs")));
    let mounts = config["mounts"].as_array().expect("a list");
    assert_eq!(mounts[0], json!({"source": "proc", "destination": "/proc", "device": "proc"}), "{config}");
    assert_eq!(mounts[7], json!({"source": host, "destination": "/data", "device": "bind"}), "{config}");
    let map = json!([{"container_id": 0, "host_id": 100_000, "size": 65536}]);
    assert_eq!((&config["uid_mappings"], &config["gid_mappings"]), (&map, &map));
    let labels = config["labels"].as_array().expect("a list");
    assert!(labels.contains(&json!("key=value")), "{config}");
    assert!(labels.contains(&json!(format!("bundle={}", container.bundle.dir.display()))), "{config}");
    let namespaces = config["namespaces"].as_array().expect("a list");
    assert!(namespaces.contains(&json!({"type": "NEWNET", "path": "/proc/self/ns/net"})), "{config}");
    assert!(namespaces.contains(&json!({"type": "NEWPID", "path": ""})), "{config}");
    assert_eq!((&config["version"], &config["readonlyfs"]), (&json!("1.0.2"), &json!(false)));
    assert_eq!((&config["rootless_euid"], &state["rootless"]), (&json!(false), &json!(false)));
    assert_eq!(state["namespace_paths"]["NEWNS"], format!("/proc/{}/ns/mnt", container.pid()));
    assert_eq!(state["external_descriptors"].as_array().map(Vec::len), Some(3));
    let cgroups = state["cgroup_paths"].as_object().expect("an object");
    assert!(
        cgroups.values().all(|path| path.as_str().is_some_and(|path| path.starts_with("/sys/fs/cgroup")))
    );
    assert!(!cgroups.is_empty(), "{state}");
}
