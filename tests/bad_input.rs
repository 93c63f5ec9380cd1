//! Wrong input: each case ends with one clear line and leaves no process, mount, cgroup or state behind.

use serde_json::{Value, json};

use crate::support::{Bundle, bind, under_runc};

/// `create` and `run` refuse this bundle, and both errors contain these parts.
#[track_caller]
fn refused(bundle: impl Fn() -> Bundle, parts: &[&str]) {
    bundle().create().fails_with_all(parts);
    bundle().run().fails_with_all(parts);
}

/// The runtime refuses the base config with one value changed.
#[track_caller]
fn refused_with(pointer: &str, value: Value, parts: &[&str]) {
    refused(|| Bundle::new().set(pointer, value.clone()), parts);
}

// --- config.json as a file ---

#[test]
fn a_missing_config() {
    let bundle = Bundle::new();
    bundle.call(&["create", &bundle.id]).fails(1, &["JSON specification file config.json not found"]);
    bundle.assert_clean();
}

#[test]
fn a_bundle_that_does_not_exist() {
    let bundle = Bundle::new();
    bundle.call(&["create", "--bundle", "/does/not/exist", &bundle.id]).fails(1, &["/does/not/exist"]);
    bundle.assert_clean();
}

#[test]
fn a_config_that_is_not_json() {
    for text in ["", "{", "[]", "null", "\"text\"", "{\"ociVersion\":", "\0\0\0"] {
        refused(|| Bundle::new().raw(text), &[]);
    }
}

#[test]
fn a_config_that_is_not_utf8() {
    refused(|| Bundle::new().raw(b"{\"ociVersion\": \"\xff\xfe\"}".to_vec()), &[]);
}

#[test]
fn a_config_nested_without_end() {
    refused(|| Bundle::new().raw("[".repeat(1 << 20)), &[]);
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    refused_with("/process/args", json!("/guest"), &["process.args"]);
    refused_with("/process/user/uid", json!(-1), &["process.user.uid"]);
    refused_with("/process/user/uid", json!(1.5), &["process.user.uid"]);
    refused_with("/linux/namespaces", json!({}), &["linux.namespaces"]);
    refused_with("/mounts/0/options", json!("ro"), &["mounts[0].options"]);
}

#[test]
fn an_unknown_property_is_ignored() {
    // The specification says that unknown fields are ignored.
    Bundle::new().set("/newer", json!({"than": "us"})).set("/linux/newer", json!(1)).run().prints("1");
}

#[test]
fn an_unknown_major_version() {
    for version in ["2.0.0", "0.9.0", "one", "2", "1.0.0.0"] {
        refused_with("/ociVersion", json!(version), &["ociVersion"]);
    }
}

#[test]
fn what_only_runcs_reader_takes_is_taken_where_it_can_mean_one_thing() {
    for (pointer, value) in [
        ("/ociVersion", json!("1.0")),
        ("/ociVersion", json!("")),
        ("/process/user", json!(null)),
        ("/process/user", json!({"uid": null, "gid": null})),
        ("/linux/resources/devices", json!([{"allow": null, "type": "", "major": null, "access": "rwm"}])),
    ] {
        Bundle::new().set(pointer, value).run().prints("1");
    }
    let bundle = Bundle::new();
    bundle.write_config();
    let text = std::fs::read_to_string(bundle.dir.join("config.json")).expect("the config");
    Bundle::new().raw(format!("{text}\n}} and more")).run().prints("1");
    let twice = text.replacen("\"process\": {", "\"process\": {\"terminal\": false, \"terminal\": false,", 1);
    assert_ne!(text, twice);
    Bundle::new().raw(twice).run().prints("1");
}

#[test]
fn what_could_mean_two_things_is_refused_and_told_how_to_be_written() {
    refused_with("/annotations", json!({"a": null}), &["annotations.a", "write an empty value"]);
    let once = json!({"pids": {"limit": 5}, "Pids": {"limit": 5}});
    let wanted = ["linux.resources.Pids", "linux.resources.pids is given as well; write it once"];
    refused_with("/linux/resources", once, &wanted);
    let twice = r#"{"ociVersion": "1.2.0", "linux": {"sysctl": {"net.a": "1", "net.a": "2"}}}"#;
    refused(|| Bundle::new().raw(twice), &["linux.sysctl.net.a: given twice", "write it once"]);
}

#[test]
fn a_property_in_another_case_works_and_is_warned_of() {
    crate::skip_unless!(!under_runc(), "runc says nothing");
    let bundle = Bundle::new().set("/Hostname", json!("of-another-case")).remove("/hostname");
    let output = bundle.guest("hostname").start("run").finish().prints("of-another-case");
    let warning = "Hostname: read as hostname (the case of letters counts)";
    assert!(output.err.contains(warning) && output.err.lines().count() == 1, "{output}");
}

#[test]
fn a_deadline_that_no_kernel_takes_is_named_by_its_rule() {
    crate::skip_unless!(!under_runc(), "runc has the kernel's answer only");
    let scheduler =
        json!({"policy": "SCHED_DEADLINE", "runtime": 30_000, "deadline": 20_000, "period": 40_000});
    let wanted =
        ["process.scheduler.runtime: 30000 is more than the deadline", "runtime <= deadline <= period"];
    refused_with("/process/scheduler", scheduler, &wanted);
}

#[test]
fn a_newer_minor_version_is_tolerated() {
    Bundle::new().set("/ociVersion", json!("1.99.0")).run().prints("1");
}

// --- root ---

#[test]
fn a_rootfs_that_does_not_exist() {
    refused_with("/root/path", json!("missing"), &["missing", "no such file or directory"]);
}

#[test]
fn a_rootfs_that_is_a_file() {
    refused_with("/root/path", json!("config.json"), &["root", "not a directory"]);
}

#[test]
fn a_rootfs_that_is_the_root_of_the_host() {
    refused_with("/root/path", json!("/"), &["root"]);
}

#[test]
fn no_root_at_all() {
    refused(|| Bundle::new().remove("/root"), &["root"]);
}

// --- process ---

#[test]
fn no_process_at_all() {
    refused(|| Bundle::new().remove("/process"), &["process property must not be empty"]);
}

#[test]
fn no_args() {
    refused_with("/process/args", json!([]), &["args must not be empty"]);
    refused(|| Bundle::new().remove("/process/args"), &["args must not be empty"]);
}

#[test]
fn an_executable_that_is_not_there() {
    refused_with(
        "/process/args",
        json!(["no-such"]),
        &[r#"exec: "no-such": executable file not found in $PATH"#],
    );
    refused_with(
        "/process/args",
        json!(["/no/such"]),
        &[r#"exec: "/no/such": stat /no/such: no such file or directory"#],
    );
}

#[test]
fn an_executable_that_may_not_be_executed() {
    use std::os::unix::fs::PermissionsExt;
    let bundle = || {
        let bundle = Bundle::new().file("plain", "text").args(["/plain"]);
        std::fs::set_permissions(bundle.rootfs("plain"), std::fs::Permissions::from_mode(0o644))
            .expect("chmod");
        bundle
    };
    refused(bundle, &[r#"exec: "/plain": permission denied"#]);
}

#[test]
fn an_executable_that_is_a_directory() {
    refused(|| Bundle::new().directory("dir").args(["/dir"]), &[r#"exec: "/dir": is a directory"#]);
}

#[test]
fn a_relative_working_directory() {
    refused_with("/process/cwd", json!("relative"), &["Cwd must be an absolute path"]);
}

#[test]
fn no_working_directory() {
    refused_with("/process/cwd", json!(""), &["Cwd property must not be empty"]);
}

#[test]
fn a_working_directory_that_is_a_file() {
    refused(
        || Bundle::new().file("file", "").set("/process/cwd", json!("/file")),
        &["cwd", "not a directory"],
    );
}

#[test]
fn an_environment_entry_without_a_value() {
    refused_with("/process/env/-", json!("NO_EQUALS_SIGN"), &["process.env"]);
    refused_with("/process/env/-", json!("=value"), &["process.env"]);
}

#[test]
fn a_user_id_that_means_unchanged() {
    // setuid(-1) changes nothing: root stays root.
    refused_with("/process/user/uid", json!(4_294_967_295_u32), &["process.user.uid", "4294967295"]);
    refused_with("/process/user/gid", json!(4_294_967_295_u32), &["process.user.gid", "4294967295"]);
    refused_with(
        "/process/user/additionalGids",
        json!([4_294_967_295_u32]),
        &["additionalGids", "4294967295"],
    );
}

#[test]
fn a_nul_byte_in_a_string() {
    refused_with("/process/args", json!(["/guest", "p\0id"]), &["process.args"]);
    refused_with("/process/env/-", json!("A=\0"), &["process.env"]);
    refused_with("/process/cwd", json!("/\0"), &["process.cwd"]);
    refused_with("/hostname", json!("a\0b"), &["hostname"]);
    refused_with("/mounts/0/source", json!("pr\0c"), &["mounts[0]"]);
    refused_with("/root/path", json!("root\0fs"), &["root.path"]);
    refused_with("/linux/maskedPaths", json!(["/proc\0"]), &["linux.maskedPaths"]);
    refused_with("/linux/cgroupsPath", json!("/a\0b"), &["linux.cgroupsPath"]);
}

#[test]
fn an_unknown_rlimit() {
    refused_with("/process/rlimits/-", json!({"type": "RLIMIT_X", "soft": 1, "hard": 1}), &["RLIMIT_X"]);
}

#[test]
fn an_rlimit_given_twice() {
    let twice = json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1});
    refused_with("/process/rlimits/-", twice, &["process.rlimits", "RLIMIT_NOFILE"]);
}

#[test]
fn a_soft_limit_above_the_hard_one() {
    refused_with("/process/rlimits/0/soft", json!(2048), &["process.rlimits"]);
}

// --- mounts ---

#[test]
fn a_mount_source_that_does_not_exist() {
    refused(
        || Bundle::new().mount("/data", bind("/does/not/exist", &[])),
        &["mounts[7] /data", "/does/not/exist", "no such file or directory"],
    );
}

#[test]
fn a_file_system_type_that_does_not_exist() {
    refused(
        || Bundle::new().mount("/data", json!({"type": "nosuchfs", "source": "none"})),
        &["mounts[7] /data", "no such device"],
    );
}

#[test]
fn a_mount_option_that_the_file_system_does_not_know() {
    let mount = || json!({"type": "tmpfs", "source": "tmpfs", "options": ["no_such_option=1"]});
    refused(|| Bundle::new().mount("/data", mount()), &["mounts[7] /data"]);
}

#[test]
fn a_directory_on_a_file_and_the_other_way_round() {
    refused(
        || {
            let bundle = Bundle::new().file("file", "");
            let source = bundle.host_directory("host");
            bundle.mount("/file", bind(&source, &[]))
        },
        &["mounts[7] /file", "not a directory"],
    );
    refused(
        || {
            let bundle = Bundle::new().directory("dir");
            let source = bundle.host_directory("host");
            bundle.mount("/dir", bind(&format!("{source}/file"), &[]))
        },
        &["mounts[7] /dir", "not a directory"],
    );
}

#[test]
fn a_mount_below_proc() {
    refused(
        || Bundle::new().mount("/proc/self", json!({"type": "tmpfs", "source": "tmpfs"})),
        &["mounts[7] /proc/self"],
    );
}

// --- linux ---

#[test]
fn a_duplicate_namespace() {
    refused_with("/linux/namespaces/-", json!({"type": "network"}), &["linux.namespaces", "network"]);
    refused_with(
        "/linux/namespaces/-",
        json!({"type": "pid", "path": "/proc/1/ns/pid"}),
        &["linux.namespaces", "pid"],
    );
}

#[test]
fn a_namespace_path_that_does_not_exist() {
    refused(
        || Bundle::new().namespace("network", Some("/does/not/exist")),
        &["linux.namespaces", "/does/not/exist"],
    );
}

#[test]
fn a_namespace_path_that_is_no_namespace() {
    refused(|| Bundle::new().namespace("network", Some("/etc/passwd")), &["linux.namespaces", "/etc/passwd"]);
}

#[test]
fn a_namespace_path_of_another_type() {
    refused(|| Bundle::new().namespace("network", Some("/proc/1/ns/uts")), &["linux.namespaces"]);
}

#[test]
fn a_namespace_path_of_70000_bytes() {
    // CVE-2021-43784: it overflowed a 16-bit length.
    let path = format!("/{}", "a/".repeat(35_000));
    refused(|| Bundle::new().namespace("network", Some(&path)), &["linux.namespaces"]);
}

#[test]
fn a_user_namespace_without_maps() {
    refused(|| Bundle::new().namespace("user", None), &["linux.uidMappings"]);
}

#[test]
fn a_hostname_without_a_uts_namespace() {
    refused(|| Bundle::new().without_namespace("uts"), &["hostname"]);
}

#[test]
fn a_sysctl_outside_the_namespaces_of_the_container() {
    refused_with("/linux/sysctl", json!({"kernel.panic": "1"}), &["linux.sysctl", "kernel.panic"]);
    refused_with("/linux/sysctl", json!({"net/../kernel/panic": "1"}), &["linux.sysctl"]);
    refused(
        || {
            Bundle::new()
                .without_namespace("network")
                .set("/linux/sysctl", json!({"net.core.somaxconn": "1"}))
        },
        &["linux.sysctl", "net.core.somaxconn"],
    );
    refused(
        || Bundle::new().without_namespace("ipc").set("/linux/sysctl", json!({"kernel.msgmax": "1"})),
        &["linux.sysctl", "kernel.msgmax"],
    );
}

#[test]
fn a_sysctl_that_does_not_exist() {
    refused_with("/linux/sysctl", json!({"net.no.such": "1"}), &["linux.sysctl", "net.no.such"]);
}

#[test]
fn a_limit_that_the_cgroup_does_not_take() {
    refused_with("/linux/resources/pids", json!({"limit": 5_000_000}), &["linux.resources.pids.limit"]);
    refused_with("/linux/resources/cpu", json!({"cpus": "4000"}), &["linux.resources.cpu.cpus"]);
    refused_with("/linux/resources/cpu", json!({"quota": 1}), &["linux.resources.cpu"]);
    refused_with("/linux/resources/cpu", json!({"cpus": "zero"}), &["linux.resources.cpu.cpus"]);
}

#[test]
fn a_device_of_unknown_type() {
    refused_with(
        "/linux/devices",
        json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 1}]),
        &["linux.devices"],
    );
}

#[test]
fn a_device_where_something_else_is() {
    refused(
        || {
            Bundle::new()
                .set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]))
                .file("dev/mine", "text")
                .set("/linux/devices", json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3}]))
        },
        &["linux.devices[0]", "/dev/mine"],
    );
}

#[test]
fn an_unknown_seccomp_action() {
    refused_with("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTHING"}), &["seccomp"]);
}

#[test]
fn an_unknown_propagation() {
    refused_with("/linux/rootfsPropagation", json!("sideways"), &["linux.rootfsPropagation"]);
}

#[test]
fn personality_flags() {
    refused_with("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]}), &["linux.personality"]);
}

// --- ids ---

#[test]
fn ids_that_are_no_names() {
    for id in ["a/b", "../up", ".", "..", "a b", "a\nb", "ä"] {
        let bundle = Bundle::new();
        bundle.write_config();
        bundle.call(&["create", id]).fails(1, &["invalid container ID format"]);
        bundle.assert_clean();
        // The other verbs may say that there is no such container. They may not leave the state root.
        assert_ne!(bundle.call(&["delete", id]).code, 0);
    }
}

#[test]
fn an_id_that_is_too_long_for_a_file_name() {
    let bundle = Bundle::new();
    bundle.write_config();
    bundle.call(&["create", &"a".repeat(2000)]).fails(1, &[]);
    bundle.assert_clean();
}
