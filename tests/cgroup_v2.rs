//! What is particular to version 2: files by name, controllers that must be passed down, cgroups that take no
//! processes.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, View};

/// A bundle on a host that has only the version 2 tree, and a cgroup of the test's own in that tree.
struct Tree {
    path: String,
    dir: PathBuf,
}

impl Tree {
    fn new() -> Option<(Bundle, Self)> {
        if let Some(reason) = View::V2.missing() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let bundle = Bundle::new().view(View::V2);
        // Its name is not the container's id: the runtime must not remove this cgroup.
        let path = format!("/{}", bundle.id.replace("test", "tree"));
        let dir = root().join(&path[1..]);
        fs::create_dir(&dir).expect("a cgroup");
        Some((bundle, Self { path, dir }))
    }

    /// A controller that the tree has and that this cgroup may pass down. Hybrid hosts have few.
    fn controller(&self) -> Option<String> {
        let all = fs::read_to_string(self.dir.join("cgroup.controllers")).expect("the controllers");
        // Controllers that a threaded cgroup cannot have.
        let domain = ["memory", "hugetlb", "io"];
        domain.into_iter().find(|name| all.split_whitespace().any(|has| has == *name)).map(str::to_owned)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.join(file), text).unwrap_or_else(|error| panic!("{file} {text}: {error}"));
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for below in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(below.path()); // Its entries that are files cannot be removed.
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

fn root() -> PathBuf {
    let beside = PathBuf::from("/sys/fs/cgroup/unified");
    if beside.exists() { beside } else { PathBuf::from("/sys/fs/cgroup") }
}

/// A limit of this controller that the kernel offers.
fn limit(controller: &str) -> Value {
    match controller {
        "memory" => json!({"memory.max": "67108864"}),
        "io" => json!({"io.weight": "default 50"}),
        _ => json!({"hugetlb.2MB.max": "2097152"}),
    }
}

fn cgroup(container: &Container) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroups");
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a v2 cgroup");
    root().join(path)
}

/// A process that stays in a cgroup until the test is over.
struct Sitter(std::process::Child);

impl Sitter {
    fn new(tree: &Tree) -> Self {
        let child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        tree.write("cgroup.procs", &child.id().to_string());
        Self(child)
    }
}

impl Drop for Sitter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_are_written_by_their_names_and_after_the_other_limits() {
    let Some((bundle, tree)) = Tree::new() else { return };
    let Some(controller) = tree.controller() else { return eprintln!("skipped: no controller") };
    let files = limit(&controller);
    let path = format!("{}/container", tree.path);
    let container = bundle
        .set("/linux/cgroupsPath", json!(path))
        .set("/linux/resources/unified", files.clone())
        .started();
    for (file, value) in files.as_object().expect("an object") {
        let found = fs::read_to_string(cgroup(&container).join(file)).expect("the file");
        assert!(found.contains(value.as_str().expect("a text")), "{file}: {found}");
    }
}

#[test]
fn a_file_that_cannot_be_set_is_an_error_that_says_why() {
    let Some((bundle, _tree)) = Tree::new() else { return };
    for (file, value, said) in [
        ("nothing.max", "1", "controller \"nothing\" not available in /sys/fs/cgroup"),
        ("cgroup.nothing", "1", "unified resource \"cgroup.nothing\" can't be set"),
        (
            "cgroup.procs",
            "999999999", // no process of this machine has this id: if the runtime does not refuse it, it must do no harm
            "of the cgroup.* files only cgroup.max.depth and cgroup.max.descendants are limits",
        ),
        ("cgroup.threads", "999999999", "can't be set"),
        ("cgroup.freeze", "1", "can't be set"),
        ("cgroup.kill", "1", "can't be set"),
        ("cgroup.type", "threaded", "can't be set"),
        ("cgroup.subtree_control", "+pids", "can't be set"),
        ("../cgroup.procs", "0", "must be a file name (no slashes)"),
        ("memory.max/../cgroup.procs", "0", "must be a file name (no slashes)"),
        ("procs", "0", "must be in the form CONTROLLER.PARAMETER"),
        ("..", "0", "must be in the form CONTROLLER.PARAMETER"),
        ("memory.", "0", "must be in the form CONTROLLER.PARAMETER"),
        ("memory.max ", "0", "must be in the form CONTROLLER.PARAMETER"),
    ] {
        let bundle = Bundle::new().view(View::V2).set("/linux/resources/unified", json!({ file: value }));
        bundle.create().fails_with_all(&[&format!("linux.resources.unified.{file}"), said]);
    }
    drop(bundle);
}

#[test]
fn update_moves_no_process_and_freezes_nothing() {
    let Some((bundle, tree)) = Tree::new() else { return };
    let path = format!("{}/container", tree.path);
    let container = bundle.set("/linux/cgroupsPath", json!(path)).started();
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
    for (file, value) in [("cgroup.procs", other.id().to_string()), ("cgroup.freeze", "1".to_owned())] {
        let resources = json!({"unified": {file: value}}).to_string();
        fs::write(container.bundle.dir.join("resources.json"), resources).expect("the file");
        let said = format!("linux.resources.unified.{file}");
        container.verb("update", "--resources resources.json", "").fails(1, &[&said, "can't be set"]);
    }
    assert_eq!(container.status(), "running");
    container.verb("delete", "--force", "").ok();
    assert!(other.try_wait().expect("its status").is_none(), "the other process lives");
    let _ = other.kill();
    let _ = other.wait();
}

#[test]
fn below_a_cgroup_with_processes_there_are_no_limits_and_the_error_says_why() {
    let Some((bundle, tree)) = Tree::new() else { return };
    let Some(controller) = tree.controller() else { return eprintln!("skipped: no controller") };
    let _sitter = Sitter::new(&tree);
    let bundle = bundle.set("/linux/cgroupsPath", json!(format!("{}/deep/container", tree.path)));
    let bundle = bundle.set("/linux/resources/unified", limit(&controller));
    let why = format!("{} has processes, so cgroups below it get no controllers", tree.path);
    bundle.create().fails_with_all(&[&format!("controller \"{controller}\" not available"), &why]);
    // The runtime made it on the way, and no container owns it.
    let _ = fs::remove_dir(tree.dir.join("deep"));
}

#[test]
fn below_a_cgroup_with_processes_a_container_without_limits_runs() {
    // As in a container whose own processes include the runtime: the visible tree begins at that container's cgroup.
    let Some((bundle, tree)) = Tree::new() else { return };
    let _sitter = Sitter::new(&tree);
    let container = bundle.set("/linux/cgroupsPath", json!(format!("{}/container", tree.path))).started();
    let kind = fs::read_to_string(tree.dir.join("cgroup.type")).expect("its type");
    assert_eq!(kind.trim(), "domain", "controllers for threads are not for containers");
    container.exec(&[], "hostname").prints("orlop-test");
}

#[test]
fn a_cgroup_that_gives_controllers_away_takes_no_container() {
    let Some((bundle, tree)) = Tree::new() else { return };
    let Some(controller) = tree.controller() else { return eprintln!("skipped: no controller") };
    tree.write("cgroup.subtree_control", &format!("+{controller}"));
    let why = format!("{} gives controllers to cgroups below it, so it takes no processes itself", tree.path);
    bundle.set("/linux/cgroupsPath", json!(tree.path)).create().fails_with_all(&["linux.cgroupsPath", &why]);
}

#[test]
fn a_threaded_subtree_takes_no_container() {
    let Some((bundle, tree)) = Tree::new() else { return };
    fs::create_dir(tree.dir.join("threads")).expect("a cgroup");
    tree.write("threads/cgroup.type", "threaded");
    let path = format!("{}/container", tree.path);
    let why = format!("{path} is in a threaded subtree (domain invalid), which takes no further processes");
    bundle.set("/linux/cgroupsPath", json!(path)).create().fails_with_all(&["linux.cgroupsPath", &why]);
}

#[test]
fn exec_follows_a_container_that_has_moved_to_a_cgroup_of_its_own_below() {
    let Some((bundle, tree)) = Tree::new() else { return };
    let Some(controller) = tree.controller() else { return eprintln!("skipped: no controller") };
    let bundle = bundle.namespace("cgroup", None).set("/mounts/6/options", json!(["rw"]));
    let container = bundle.set("/linux/cgroupsPath", json!(format!("{}/container", tree.path))).started();
    let steps = [
        "mkdir /sys/fs/cgroup/init".to_owned(),
        "write /sys/fs/cgroup/init/cgroup.procs 1".to_owned(),
        "write /sys/fs/cgroup/init/cgroup.procs 0".to_owned(),
        format!("write /sys/fs/cgroup/cgroup.subtree_control +{controller}"),
    ];
    container.exec(&[], &format!("multi {}", steps.join(" -- "))).prints("ok\nok\nok\nok");
    container.exec(&[], "read /proc/self/cgroup").ok().says("0::/init");
    container.verb("pause", "", "").ok();
    container.verb("resume", "", "").ok();
    let pids = container.verb("ps", "--format json", "").ok().out;
    assert_eq!(pids.trim(), format!("[{}]", container.pid()));
    container.stop();
    container.delete();
}

#[test]
fn pressure_is_among_the_statistics_where_the_kernel_measures_it() {
    let Some((bundle, tree)) = Tree::new() else { return };
    let measured = fs::read_to_string(tree.dir.join("cpu.pressure"));
    crate::skip_unless!(measured.is_ok(), "the kernel does not measure pressure");
    let container = bundle.started();
    let line = container.verb("events", "--stats", "").ok().out;
    let event: Value = serde_json::from_str(line.trim()).expect("one JSON object");
    for part in ["cpu", "memory", "blkio"] {
        // Pressure of memory and io needs the controller; pressure of the CPU is always there.
        let psi = &event["data"][part]["psi"];
        let has = cgroup(&container).join(format!("{}.pressure", part.replace("blk", ""))).exists();
        assert_eq!(psi["some"]["total"].is_u64(), has, "{part}: {event}");
    }
    drop(tree);
}
