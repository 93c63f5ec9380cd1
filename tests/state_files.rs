//! The files of `--root`: which of them are containers, whose files the runtime trusts, and what a verb does when it
//! cannot read or write them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::support::{Bundle, Container, begin, is_root, under_runc};

fn directory(container: &Container) -> PathBuf {
    container.bundle.dir.join("state").join(container.id())
}

fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

// --- what is a container ---

#[test]
fn what_stands_in_the_root_beside_containers_is_not_listed_and_not_removed() {
    crate::skip_unless!(!under_runc(), "runc removes directories");
    let container = Bundle::new().started();
    let root = container.bundle.dir.join("state");
    fs::write(root.join("file"), "text").expect("a file");
    symlink("/etc", root.join("link")).expect("a link");
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a fifo");
    fs::create_dir(root.join("empty")).expect("a directory");
    fs::create_dir(root.join("foreign")).expect("a directory");
    fs::write(root.join("foreign/file"), "text").expect("a file");
    container.bundle.call(&["list", "--quiet"]).prints(container.id());
    let list = container.bundle.call(&["list", "--format", "json"]).ok();
    assert!(list.err.is_empty() && list.out.matches("\"id\"").count() == 1, "{list}");
    let strays = ["file", "link", "fifo", "empty", "foreign"];
    for stray in strays {
        container.bundle.call(&["state", stray]).fails(1, &["container does not exist"]);
        container.bundle.call(&["delete", stray]).fails(1, &["container does not exist"]);
        container.bundle.call(&["delete", "--force", stray]).ok();
        assert!(fs::symlink_metadata(root.join(stray)).is_ok(), "{stray} is gone");
    }
    assert!(root.join("foreign/file").exists());
    for stray in strays {
        let path = root.join(stray);
        fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).expect("it is there");
    }
}

// --- whose files the runtime trusts ---

const VERBS: [&[&str]; 11] = [
    &["state"],
    &["kill"],
    &["start"],
    &["exec"],
    &["ps"],
    &["pause"],
    &["resume"],
    &["update"],
    &["events", "--stats"],
    &["delete"],
    &["delete", "--force"],
];

/// Each verb refuses to act on the container, and its error says why.
#[track_caller]
fn all_verbs_refuse(bundle: &Bundle, why: &str) {
    for words in VERBS {
        let mut words = words.to_vec();
        words.push(&bundle.id);
        if words[0] == "exec" {
            words.extend(["/guest", "pid"]);
        }
        let output = bundle.call(&words);
        let said = output.err.replace("\\\"", "\"");
        assert!(output.code != 0 && said.contains(why) && said.lines().count() == 1, "{output}");
    }
}

#[test]
fn state_that_another_user_could_have_written_is_refused() {
    crate::skip_unless!(is_root() && !under_runc(), "another owner needs root, and runc believes it");
    let bundle = Bundle::new();
    let ran = bundle.dir.join("ran");
    let hook = json!([{"path": "/usr/bin/touch", "args": ["touch", ran]}]);
    let container = bundle.set("/hooks/poststop", hook).started();
    let (root, dir) = (container.bundle.dir.join("state"), directory(&container));
    let record = dir.join("state.json");
    let filter = |path: &std::path::Path| path.display().to_string();
    for path in [&root, &dir] {
        chown(path, Some(1234), None).expect("chown");
        all_verbs_refuse(&container.bundle, "owned by user 1234");
        chown(path, Some(0), None).expect("chown");
        for mode in [0o770, 0o707] {
            chmod(path, mode);
            all_verbs_refuse(&container.bundle, "lets other users write to it (chmod go-w)");
        }
        chmod(path, 0o700);
    }
    chmod(&root, 0o770);
    container.bundle.call(&["list"]).fails(1, &["--root", &filter(&root), "chmod go-w"]);
    container.bundle.start("create").finish().fails(1, &["--root", &filter(&root), "chmod go-w"]);
    // As in /tmp: all users may write here, and only the owner may rename a directory.
    chmod(&root, 0o1777);
    assert_eq!(container.status(), "running");
    chown(&dir, Some(1234), None).expect("chown");
    all_verbs_refuse(&container.bundle, "owned by user 1234");
    let list = container.bundle.call(&["list", "--quiet"]).ok();
    assert!(list.out.is_empty() && list.err.contains("owned by user 1234"), "{list}");
    chown(&dir, Some(0), None).expect("chown");
    chmod(&root, 0o700);
    chown(&record, Some(1234), None).expect("chown");
    container.verb("state", "", "").fails(1, &[&filter(&record), "owned by user 1234"]);
    container.verb("delete", "--force", "").fails(1, &[&filter(&record), "owned by user 1234"]);
    chown(&record, Some(0), None).expect("chown");
    assert!(!ran.exists(), "a hook has run");
    assert_eq!(container.status(), "running");
    container.verb("delete", "--force", "").ok();
    assert!(ran.exists(), "the hook has not run");
}

#[test]
fn a_fifo_or_a_link_in_the_place_of_the_record_is_not_waited_for_or_followed() {
    crate::skip_unless!(!under_runc(), "runc waits");
    let container = Bundle::new().started();
    let record = directory(&container).join("state.json");
    let kept = directory(&container).join("kept");
    fs::rename(&record, &kept).expect("rename");
    mknodat(CWD, &record, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a fifo");
    container.verb("state", "", "").fails(1, &["state.json", "no regular file"]);
    fs::remove_file(&record).expect("unlink");
    symlink(&kept, &record).expect("a link");
    container.verb("state", "", "").fails(1, &["state.json", "symbolic link"]);
    fs::rename(&kept, &record).expect("rename");
    assert_eq!(container.status(), "running");
}

// --- what cannot be read ---

/// A container in a cgroup that cannot be found by the id alone.
fn in_a_named_cgroup() -> (Container, i64) {
    let bundle = Bundle::new();
    let path = format!("/{}-named", bundle.id);
    let container = bundle.set("/linux/cgroupsPath", json!(path)).without_namespace("pid").started();
    let pid = container.pid();
    (container, pid)
}

fn lives(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_damaged_record_keeps_neither_kill_nor_delete_from_acting() {
    crate::skip_unless!(!under_runc(), "runc keeps the container");
    for text in ["", "{", "null", "\u{0}"] {
        let (container, pid) = in_a_named_cgroup();
        fs::write(directory(&container).join("state.json"), text).expect("the record");
        container.kill("0").ok();
        container.verb("delete", "", "").exits(1);
        assert!(lives(pid));
        container.verb("delete", "--force", "").ok();
        assert!(!lives(pid), "the container runs on");
        container.bundle.assert_clean();
    }
    let (container, pid) = in_a_named_cgroup();
    fs::remove_file(directory(&container).join("state.json")).expect("the record");
    container.kill("KILL").ok();
    container.verb("delete", "--force", "").ok();
    assert!(!lives(pid), "the container runs on");
    container.bundle.assert_clean();
    let (container, _) = in_a_named_cgroup();
    fs::write(directory(&container).join("essentials.json"), "{").expect("the file");
    container.kill("0").ok();
    container.verb("delete", "--force", "").ok();
    container.bundle.assert_clean();
}

#[test]
fn a_delete_that_could_not_act_fails_and_says_so() {
    crate::skip_unless!(!under_runc(), "runc keeps the container");
    let (container, pid) = in_a_named_cgroup();
    for file in ["state.json", "essentials.json"] {
        fs::write(directory(&container).join(file), "{").expect("the file");
    }
    container
        .verb("delete", "--force", "")
        .fails(1, &["state.json", "nothing in it said which processes are the container's"]);
    assert!(lives(pid));
    assert!(!directory(&container).exists(), "the id is in use for ever");
    let process = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it lives");
    crate::support::eventually("it has ended", || !lives(pid));
    for cgroup in crate::support::cgroups(&container.bundle).iter().rev() {
        crate::support::eventually("its cgroup is gone", || {
            fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
        });
    }
}

#[test]
fn a_configuration_that_makes_a_record_too_long_is_refused_before_anything_is_made() {
    crate::skip_unless!(!under_runc(), "runc has no such limit");
    let value = "x".repeat(9 << 20);
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo > hook-ran"]}]);
    let bundle = Bundle::new().set("/annotations", json!({"a": value})).set("/hooks/createRuntime", hook);
    let output = bundle.start("create").finish();
    output.fails(1, &["annotations: with 18", "the limit is"]);
    assert!(!bundle.dir.join("hook-ran").exists());
    bundle.assert_clean();
    // All verbs can read the longest record that create accepts.
    let bundle = Bundle::new().set("/annotations", json!({"a": "x".repeat(7 << 20)}));
    let container = bundle.started();
    assert_eq!(container.status(), "running");
    container.stop();
    container.delete();
}

// --- what cannot be written ---

#[test]
fn an_update_that_cannot_be_written_down_changes_nothing() {
    crate::skip_unless!(is_root() && !under_runc(), "a mount needs root, and runc changes the limit");
    let container = Bundle::new().started();
    container.verb("update", "--pids-limit 50", "").ok();
    let limit = || {
        let files = crate::support::cgroups(&container.bundle).into_iter().map(|path| path.join("pids.max"));
        files.filter_map(|file| fs::read_to_string(file).ok()).collect::<String>()
    };
    let before = limit();
    let read_only = "mount --bind state state && mount -o remount,bind,ro state && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", read_only, "_"]);
    let update = container.bundle.command(&["update", "--pids-limit", "60", container.id()]);
    command.arg(update.get_program()).args(update.get_args()).current_dir(&container.bundle.dir);
    begin(command, &container.bundle.dir).finish().fails(1, &["state.json", "read-only file system"]);
    assert_eq!(limit(), before);
}

// --- the processes that numbers mean ---

#[test]
fn a_proc_of_another_pid_namespace_is_refused_before_anything_runs() {
    crate::skip_unless!(is_root() && !under_runc(), "a pid namespace needs root, and runc loses the status");
    let inside = "exec unshare --pid --fork \"$@\"";
    for verb in ["create", "run"] {
        let bundle = Bundle::new().through(inside).set("/hooks/prestart", json!([{"path": "/bin/false"}]));
        let output = bundle.start(verb).finish();
        output.fails(1, &["/proc is that of another pid namespace", "unshare --mount-proc"]);
        bundle.assert_clean();
    }
    let container = Bundle::new().started();
    let other = |words: &[&str]| {
        let asked = container.bundle.command(words);
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork"]).arg(asked.get_program()).args(asked.get_args());
        begin(command, &container.bundle.dir).finish()
    };
    for words in [&["state"][..], &["kill"], &["delete"], &["delete", "--force"]] {
        other(&[words, &[container.id()]].concat()).fails(1, &["/proc is that of another pid namespace"]);
    }
    assert_eq!(container.status(), "running");
    let proc = "exec unshare --pid --fork --mount-proc \"$@\"";
    Bundle::new().through(proc).guest("pid").run().prints("1");
}

// --- the way to the root ---

#[test]
fn a_root_that_another_user_can_exchange_is_refused() {
    crate::skip_unless!(is_root() && !under_runc(), "another owner needs root, and runc believes it");
    let container = Bundle::new().started();
    let parent = container.bundle.dir.clone();
    for (owner, mode, why) in [
        (1234, 0o755, "owned by user 1234"),
        (0, 0o775, "mode 0775 lets other users exchange what is in it (chmod go-w)"),
        (0, 0o777, "mode 0777 lets other users exchange what is in it (chmod go-w)"),
    ] {
        chown(&parent, Some(owner), None).expect("chown");
        chmod(&parent, mode);
        all_verbs_refuse(&container.bundle, why);
        container.bundle.call(&["list"]).fails(1, &["--root", "the way leads through", why]);
        container.bundle.start("create").finish().fails(1, &["--root", "the way leads through", why]);
        chown(&parent, Some(0), None).expect("chown");
        chmod(&parent, 0o755);
    }
    assert_eq!(container.status(), "running");
}

#[test]
fn a_link_on_the_way_to_the_root_is_followed_if_it_is_ours_only() {
    crate::skip_unless!(is_root() && !under_runc(), "another owner needs root, and runc believes it");
    let container = Bundle::new().started();
    let place = container.bundle.dir.join("sticky");
    fs::create_dir(&place).expect("a directory");
    chmod(&place, 0o1777);
    fs::create_dir(container.bundle.dir.join("empty")).expect("a directory");
    let link = |name: &str, target: &str| symlink(target, place.join(name)).expect("a link");
    link("ours", "../state");
    link("circle", "circle");
    link("theirs", "../state");
    link("theirs-empty", "../empty");
    let theirs = ["theirs", "theirs-empty"];
    for name in theirs {
        std::os::unix::fs::lchown(place.join(name), Some(1234), None).expect("lchown");
    }
    let call = |root: &str, words: &[&str]| {
        let root = place.join(root).display().to_string();
        let mut command = Command::new(crate::support::runtime());
        command.args(["--root", &root]).args(words);
        begin(command, &container.bundle.dir).finish()
    };
    let id = container.id();
    call("ours", &["state", id]).ok();
    call("./ours/../ours", &["state", id]).ok();
    call("circle", &["state", id]).fails(1, &["--root", "symbolic link"]);
    for words in [&["state", id][..], &["delete", "--force", id], &["kill", id], &["list"]] {
        call("theirs", words).fails(1, &["--root", "a symbolic link of user 1234", "not followed"]);
    }
    let bundle = container.bundle.dir.display().to_string();
    for root in ["theirs-empty", "theirs-empty/deeper"] {
        call(root, &["create", "-b", &bundle, "other"]).fails(1, &["a symbolic link of user 1234"]);
    }
    let made = fs::read_dir(container.bundle.dir.join("empty")).expect("a directory").count();
    assert_eq!(made, 0, "something was made where the link leads");
    assert_eq!(container.status(), "running");
}

#[test]
fn a_list_that_cannot_write_its_warnings_lists_the_others() {
    crate::skip_unless!(!under_runc(), "runc lists no damaged container");
    let container = Bundle::new().started();
    let root = container.bundle.dir.join("state");
    fs::create_dir(root.join("damaged")).expect("a directory");
    fs::write(root.join("damaged/state.json"), "{").expect("a file");
    chmod(&root.join("damaged/state.json"), 0o600);
    let mut command = container.bundle.command(&["list", "--quiet"]);
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = command.stderr(full).output().expect("list");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && out.contains(container.id()), "{output:?}");
    fs::remove_dir_all(root.join("damaged")).expect("it is there");
}
