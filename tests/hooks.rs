//! Hooks: the six kinds, their order, what they are given, and what happens after one fails.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, eventually, under_runc};

/// A hook that runs a shell script on the host. $1 is the bundle's directory.
fn script(bundle: &Bundle, text: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", text, "hook", bundle.dir], "env": ["PATH=/usr/bin:/bin"]})
}

/// Adds a hook that appends its kind to the file `order`.
fn noting(bundle: Bundle, kind: &str) -> Bundle {
    let hook = script(&bundle, &format!("cat >/dev/null; echo {kind} >> \"$1\"/order"));
    bundle.set(&format!("/hooks/{kind}"), json!([hook]))
}

fn order(container: &Container) -> String {
    fs::read_to_string(container.bundle.dir.join("order")).unwrap_or_default().trim().replace('\n', " ")
}

#[test]
fn hooks_run_in_the_order_of_the_lifecycle() {
    let mut bundle = Bundle::new().guest("pause");
    for kind in ["poststop", "poststart", "createRuntime", "prestart"] {
        bundle = noting(bundle, kind);
    }
    let container = bundle.container();
    let created = order(&container);
    assert!(created.starts_with("prestart createRuntime"), "{created}");
    container.start();
    assert_eq!(order(&container), "prestart createRuntime poststart");
    container.stop();
    container.verb("delete", "", "").ok();
    assert_eq!(order(&container), "prestart createRuntime poststart poststop");
}

#[test]
fn poststart_waits_for_start() {
    crate::skip_unless!(!under_runc(), "runc runs it at the end of create");
    let container = noting(Bundle::new().guest("pause"), "poststart").container();
    assert_eq!(order(&container), "");
    container.start();
    assert_eq!(order(&container), "poststart");
}

#[test]
fn several_hooks_of_a_kind_run_in_their_order() {
    let bundle = Bundle::new().guest("pause");
    let hooks: Vec<_> = [1, 2, 3].map(|n| script(&bundle, &format!("echo {n} >> \"$1\"/order"))).to_vec();
    assert_eq!(order(&bundle.set("/hooks/createRuntime", json!(hooks)).container()), "1 2 3");
}

#[test]
fn hooks_of_the_creation_begin_in_the_bundle_wherever_we_are() {
    for kind in ["prestart", "createRuntime"] {
        let bundle = Bundle::new().guest("pause");
        let hook = script(&bundle, "pwd > \"$1\"/cwd");
        let bundle = bundle.set(&format!("/hooks/{kind}"), json!([hook]));
        bundle.write_config();
        let dir = bundle.dir.display().to_string();
        let mut create = bundle.command(&["create", "--bundle", &dir, &bundle.id]);
        let ended = create.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(ended.expect("the runtime").success());
        assert_eq!(bundle.wait_for("cwd").trim(), dir, "{kind}");
        bundle.call(&["delete", "--force", &bundle.id]).ok();
    }
}

#[test]
fn create_container_runs_in_the_containers_namespaces_and_start_container_in_its_root() {
    let bundle = Bundle::new().directory("out").mount("/out", json!({"type": "tmpfs", "source": "tmpfs"}));
    let guest = json!([{"path": "/guest", "args": ["guest", "write", "/out/started", "inside"]}]);
    let host = script(&bundle, "hostname > \"$1\"/name; readlink /proc/self/ns/mnt > \"$1\"/mnt");
    let bundle = bundle.set("/hooks/createContainer", json!([host])).set("/hooks/startContainer", guest);
    let container = bundle.guest("multi read /out/started -- pause").container();
    let mnt = container.bundle.wait_for("mnt");
    let theirs = fs::read_link(format!("/proc/{}/ns/mnt", container.pid())).expect("the link");
    assert_eq!(mnt.trim(), theirs.display().to_string());
    container.start();
    assert_eq!(container.exec(&[], "read /out/started").ok().out.trim(), "inside");
}

#[test]
fn a_hook_is_given_the_state_on_its_stdin() {
    let bundle = Bundle::new().set("/annotations", json!({"a": "b"})).guest("pause");
    let mut all = bundle;
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let hook = script(&all, &format!("cat > \"$1\"/{kind}"));
        all = all.set(&format!("/hooks/{kind}"), json!([hook]));
    }
    let container = all.started();
    let pid = container.pid();
    container.stop();
    container.verb("delete", "", "").ok();
    for (kind, status, pid) in [
        ("prestart", "created", pid),
        ("createRuntime", "created", pid),
        // This hook gets the pid in the container's pid namespace.
        ("createContainer", "created", 1),
        ("poststart", "running", pid),
        ("poststop", "stopped", 0),
    ] {
        let state: Value = serde_json::from_str(&container.bundle.wait_for(kind)).expect("JSON");
        assert_eq!(
            (&state["id"], &state["bundle"]),
            (&json!(container.id()), &json!(container.bundle.dir)),
            "{kind}"
        );
        assert_eq!(state["annotations"], json!({"a": "b"}), "{kind}");
        if !under_runc() {
            assert_eq!(
                (&state["status"], state["pid"].as_i64().unwrap_or(0)),
                (&json!(status), pid),
                "{kind}"
            );
        }
    }
}

#[test]
fn a_hook_has_the_environment_and_args_of_the_config_only() {
    let bundle = Bundle::new().variable("SECRET", "of the caller").guest("pause");
    let out = bundle.dir.join("env").display().to_string();
    let hook = json!({"path": "/bin/sh", "args": ["renamed", "-c", format!("echo $0 $1 > {out}; env >> {out}"), "a b", "c"], "env": ["ONLY=this"]});
    let container = bundle.set("/hooks/createRuntime", json!([hook])).container();
    let env = container.bundle.wait_for("env");
    assert!(env.starts_with("a b c\n") && env.contains("ONLY=this") && !env.contains("SECRET"), "{env}");
}

#[test]
fn a_hook_that_fails_undoes_the_container() {
    for (kind, index) in [("prestart", 0), ("createRuntime", 0), ("createContainer", 0)] {
        let bundle = Bundle::new();
        let hook = script(&bundle, "echo some words >&2; exit 3");
        let bundle = bundle.set(&format!("/hooks/{kind}"), json!([hook]));
        bundle.create().fails_with_all(&[kind, &format!("#{index}"), "exit status 3", "some words"]);
    }
}

#[test]
fn of_several_hooks_the_failing_one_is_named() {
    let bundle = Bundle::new();
    let hooks = json!([script(&bundle, "exit 0"), script(&bundle, "exit 9")]);
    bundle
        .set("/hooks/createRuntime", hooks)
        .run()
        .fails_with_all(&["createRuntime hook #1", "exit status 9"]);
}

#[test]
fn a_start_container_hook_that_fails_ends_the_container() {
    crate::skip_unless!(!under_runc(), "runc leaves it stopped");
    let hook = json!([{"path": "/guest", "args": ["guest", "exit", "4"]}]);
    let bundle = noting(Bundle::new(), "poststop").set("/hooks/startContainer", hook);
    let container = bundle.guest("pause").container();
    container.verb("start", "", "").fails(1, &["startContainer", "exit status 4"]);
    // runtime.md, "Lifecycle": the container is destroyed, and poststop hooks run.
    container.bundle.assert_clean();
    assert_eq!(order(&container), "poststop");
    container.verb("delete", "", "").fails(1, &["container does not exist"]);
}

#[test]
fn a_poststart_hook_that_fails_ends_the_container() {
    crate::skip_unless!(!under_runc(), "runc runs it in create");
    let bundle = Bundle::new();
    let hook = script(&bundle, "exit 5");
    let bundle = noting(bundle, "poststop").set("/hooks/poststart", json!([hook]));
    let container = bundle.guest("pause").container();
    container.verb("start", "", "").fails(1, &["poststart", "exit status 5"]);
    container.bundle.assert_clean();
    assert_eq!(order(&container), "poststop");
}

#[test]
fn a_program_that_cannot_be_executed_leaves_a_stopped_container() {
    let container = Bundle::new().file("/text", "no program").args(["/text"]).container();
    let started = container.verb("start", "", "");
    assert_ne!(started.code, 0, "{started}");
    container.wait_until("stopped");
    container.delete();
}

#[test]
fn a_poststop_hook_that_fails_does_not_hinder_the_delete() {
    let bundle = Bundle::new();
    let hooks = json!([script(&bundle, "exit 6"), script(&bundle, "echo second > \"$1\"/order")]);
    let container = bundle.set("/hooks/poststop", hooks).started();
    container.stop();
    container.verb("delete", "", "").ok();
    container.bundle.assert_clean();
    assert_eq!(order(&container), "second");
}

#[test]
fn a_hook_past_its_timeout_is_killed() {
    let bundle = Bundle::new();
    let mut hook = script(&bundle, "exec sleep 60");
    hook["timeout"] = json!(1);
    let before = std::time::Instant::now();
    bundle
        .set("/hooks/createRuntime", json!([hook]))
        .create()
        .fails_with_all(&["createRuntime", "timeout of 1"]);
    assert!(before.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn a_hook_that_does_not_exist_is_an_error() {
    let bundle = Bundle::new().set("/hooks/createRuntime", json!([{"path": "/does/not/exist"}]));
    bundle.create().fails_with_all(&["/does/not/exist", "no such file or directory"]);
}

#[test]
fn a_hook_with_a_relative_path_is_refused() {
    let bundle = Bundle::new().set("/hooks/createRuntime", json!([{"path": "bin/sh"}]));
    bundle.create().fails_with("hook");
}

#[test]
fn a_hook_that_never_reads_its_stdin_does_not_hang_create() {
    // The state is larger than a pipe can hold.
    let bundle = Bundle::new().set("/annotations", json!({"large": "x".repeat(200_000)}));
    let hook = script(&bundle, "exit 0");
    bundle.set("/hooks/createRuntime", json!([hook])).container();
}

#[test]
fn a_hook_is_not_in_the_cgroup_of_the_container() {
    let bundle = Bundle::new();
    let hook = script(&bundle, "cat /proc/self/cgroup > \"$1\"/cgroup");
    let container = bundle.set("/hooks/createRuntime", json!([hook])).container();
    assert!(!container.bundle.wait_for("cgroup").contains(container.id()));
}

#[test]
fn create_container_hooks_start_in_the_root_of_the_container() {
    let bundle = Bundle::new();
    let hook = script(&bundle, "pwd > \"$1\"/pwd");
    let container = bundle.set("/hooks/createContainer", json!([hook])).guest("pause").container();
    assert_eq!(
        container.bundle.wait_for("pwd").trim(),
        container.bundle.rootfs("").to_string_lossy().trim_end_matches('/')
    );
}

#[test]
fn start_container_hooks_are_under_the_filter() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOTNAM}]
    });
    for nnp in [true, false] {
        let hook = json!({"path": "/guest", "args": ["guest", "mkdir", "/made"]});
        let bundle = Bundle::new().directory("out").set("/linux/seccomp", profile.clone());
        let bundle = bundle.set("/process/noNewPrivileges", json!(nnp)).set("/root/readonly", json!(false));
        bundle.set("/hooks/startContainer", json!([hook])).guest("stat /made").run().prints("ENOENT");
    }
}

/// Gives the runtime's caller other settings than processes usually have.
const CALLER: &str = "echo 123 > /proc/self/oom_score_adj; ulimit -Sn 500; umask 027; export MARK=callers; \
    cd /; exec 5</etc/passwd nice -n 3 env --ignore-signal --block-signal \"$@\"";

/// A hook's script that prints on one line what the hook has inherited.
const INHERITED: &str = "echo $1 $(awk '/^(SigBlk|SigIgn):/ {print $2}' /proc/self/status) nofile=$(ulimit -Sn) \
    umask=$(umask) oom=$(cat /proc/self/oom_score_adj) nice=$(cut -d' ' -f19 /proc/self/stat) \
    cpus=$(awk '/^Cpus_allowed_list:/ {print $2}' /proc/self/status) mark=$MARK fds=$(ls -m /proc/self/fd) cwd=$(pwd)";

#[test]
fn a_hook_inherits_what_the_caller_has_and_no_signals() {
    crate::skip_unless!(!under_runc(), "runc runs poststart hooks in create");
    for verb in ["run", "create"] {
        let mut bundle = Bundle::new().through(CALLER).guest("pid");
        let own = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
        for kind in own {
            let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", INHERITED, "hook", kind]});
            bundle = bundle.set(&format!("/hooks/{kind}"), json!([hook]));
        }
        let (bundle, log) = crate::annotations::with_output(bundle);
        let printed = log.join("printed");
        let bundle = bundle
            .set("/annotations", json!({"run.oci.hooks.stdout": crate::annotations::named(&log, "printed")}))
            .set("/process/oomScoreAdj", json!(500))
            .set("/process/user/umask", json!(0o77))
            .set("/process/env/-", json!("MARK=containers"));
        let dir = bundle.dir.display().to_string();
        bundle.write_config();
        bundle.call(&[verb, "--bundle", &dir, &bundle.id]).ok();
        if verb == "create" {
            bundle.call(&["start", &bundle.id]).ok();
            eventually("it has ended", || bundle.call(&["state", &bundle.id]).out.contains("stopped"));
            bundle.call(&["delete", &bundle.id]).ok();
        }
        let cpus = fs::read_to_string("/proc/self/status").expect("status");
        let cpus =
            cpus.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("CPUs").trim();
        let none = "0000000000000000";
        let wanted = own.map(|kind| {
            let (oom, mark) = if kind == "createContainer" { (500, "containers") } else { (123, "callers") };
            let cwd = match (kind, verb) {
                ("createContainer", _) => format!("{dir}/rootfs"),
                ("poststart" | "poststop", "create") => "/".to_owned(),
                _ => dir.clone(),
            };
            let limits = "nofile=500 umask=0027";
            format!("{kind} {none} {none} {limits} oom={oom} nice=3 cpus={cpus} mark={mark} fds=0, 1, 2, 3 cwd={cwd}")
        });
        let printed = fs::read_to_string(printed).expect("what hooks print");
        assert_eq!(printed.lines().collect::<Vec<_>>(), wanted, "{verb}");
        bundle.assert_clean();
    }
}

#[test]
fn a_start_container_hook_inherits_what_the_process_has() {
    let words = "guest multi status SigBlk -- status SigIgn -- rlimit RLIMIT_NOFILE -- ids -- read \
        /proc/self/oom_score_adj -- status NoNewPrivs -- env MARK -- fds -- cwd -- exit 3";
    let args: Vec<_> = words.split_whitespace().collect();
    let bundle = || {
        Bundle::new()
            .through(CALLER)
            .set("/hooks/startContainer", json!([{"path": "/guest", "args": args}]))
            .set("/process/oomScoreAdj", json!(500))
            .set("/process/user", json!({"uid": 7, "gid": 8, "umask": 0o77}))
            .set("/process/env/-", json!("MARK=containers"))
            .set("/process/cwd", json!("/dev"))
    };
    let none = "0000000000000000";
    let wanted = format!(
        "stdout: {none}; {none}; 1024:1024; uid=7 gid=8 groups= umask=0077; 500; 1; containers; 0 1 2; /dev; , stderr"
    );
    let dir = |bundle: &Bundle| bundle.dir.display().to_string();
    for verb in ["run", "create"] {
        let bundle = bundle().guest("pid");
        bundle.write_config();
        let said = bundle.call(&[verb, "--bundle", &dir(&bundle), &bundle.id]);
        let said = if verb == "create" { bundle.call(&["start", &bundle.id]) } else { said };
        said.fails(1, &[&wanted]);
    }
}

#[test]
fn what_a_start_container_hook_prints_is_no_error_after_create() {
    let (bundle, log) = crate::annotations::with_output(Bundle::new().guest("pause"));
    let hook = json!([{"path": "/guest", "args": ["guest", "pid"]}]);
    bundle
        .set("/hooks/startContainer", hook)
        .set("/annotations", json!({"run.oci.hooks.stdout": crate::annotations::named(&log, "printed")}))
        .started();
}

#[test]
fn a_hook_of_a_foreground_run_can_end_what_it_runs() {
    for kind in ["createRuntime", "poststart", "poststop"] {
        let hook = json!({"path": "/usr/bin/timeout", "args": ["timeout", "0.2", "sleep", "30"]});
        let before = std::time::Instant::now();
        let bundle = Bundle::new().set(&format!("/hooks/{kind}"), json!([hook]));
        drop(bundle.run());
        assert!(before.elapsed() < std::time::Duration::from_secs(20), "{kind}");
    }
}

#[test]
fn a_hook_without_an_environment_has_that_of_the_caller_and_an_empty_one_is_empty() {
    for (env, wanted) in [(None, "of the caller"), (Some(json!([])), "")] {
        let bundle = Bundle::new().variable("MARK", "of the caller").guest("pause");
        let text = format!("echo \"$MARK\" > {}/mark", bundle.dir.display());
        let mut hook = json!({"path": "/bin/sh", "args": ["sh", "-c", text]});
        if let Some(env) = env {
            hook["env"] = env;
        }
        let container = bundle.set("/hooks/createRuntime", json!([hook])).container();
        assert_eq!(container.bundle.wait_for("mark").trim(), wanted);
    }
}

#[test]
fn a_hook_that_fails_in_run_destroys_the_container_and_poststop_hooks_run() {
    // runtime.md, "Lifecycle": if a step from 2 to 9 fails, the runtime goes on with step 12.
    crate::skip_unless!(!under_runc(), "runc runs no poststop hooks where the container was not created");
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        for option in ["", "--detach", "--keep"] {
            let bundle = Bundle::new().option(option).guest("pause");
            let hook = match kind {
                "startContainer" => json!({"path": "/guest", "args": ["guest", "exit", "3"]}),
                _ => script(&bundle, "exit 3"),
            };
            let poststop = script(&bundle, "echo poststop >> \"$1\"/order");
            let bundle = bundle.set(&format!("/hooks/{kind}"), json!([hook]));
            let attempt = bundle.set("/hooks/poststop", json!([poststop])).run();
            let order = fs::read_to_string(attempt.bundle.dir.join("order")).unwrap_or_default();
            assert_eq!(order, "poststop\n", "{kind} {option}: {}", attempt.output);
            attempt.fails_with_all(&[&format!("error running {kind} hook #0"), "exit status 3"]);
        }
    }
}

#[test]
fn a_hook_does_not_outlive_a_runtime_that_is_killed() {
    crate::skip_unless!(!under_runc(), "with runc it does");
    for kind in ["createRuntime", "createContainer"] {
        let bundle = Bundle::new().without_namespace("pid");
        let hook = script(&bundle, "echo $$ > \"$1\"/new; mv \"$1\"/new \"$1\"/hook; exec sleep 60");
        let bundle = bundle.set(&format!("/hooks/{kind}"), json!([hook]));
        let running = bundle.start("create");
        let pid = bundle.wait_for("hook");
        running.signal(rustix::process::Signal::KILL);
        running.finish().exits(128 + 9);
        let there = || std::path::Path::new("/proc").join(pid.trim()).join("exe").exists();
        eventually(&format!("the {kind} hook has ended"), || !there());
        bundle.call(&["delete", "--force", &bundle.id]).ok();
        bundle.assert_clean();
    }
}
