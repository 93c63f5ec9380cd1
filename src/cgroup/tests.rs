//! Tests with the real kernel, as root, in private mount namespaces that show the three kinds of hosts.
//!
//! Each test runs in a forked child with a mount namespace of its own, so the host's mounts stay as they are. Each
//! cgroup has a unique name and is gone afterwards.

use super::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::cell::RefCell;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq)]
enum View {
    AsItIs,
    V1Only,
    V2Only,
}

/// Runs `test` in each view that this host can show.
fn in_each_view(name: &str, test: fn(View, &Host, &str)) {
    for view in [View::AsItIs, View::V1Only, View::V2Only] {
        in_view(name, view, test);
    }
}

fn in_view(name: &str, view: View, test: fn(View, &Host, &str)) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped {name} {view:?}: not root");
        return;
    }
    let id = format!("orlop-test-{name}-{view:?}-{}", std::process::id());
    let status = forked(|| {
        match show(view) {
            Err(reason) => {
                eprintln!("skipped {name} {view:?}: {reason}");
                return;
            }
            Ok(host) => test(view, &host, &id),
        }
        assert_eq!(leftovers(&id), [] as [PathBuf; 0]);
    });
    if status != WaitStatus::Exited(status.pid().unwrap(), 0) {
        // Removes what the test left behind.
        forked(|| clean_up(view, &id));
        panic!("{name} {view:?}: {status:?}");
    }
}

#[allow(unsafe_code)]
fn forked(f: impl FnOnce()) -> WaitStatus {
    // SAFETY: the child runs `f` and ends by _exit; glibc makes malloc usable in a forked copy.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            // SAFETY: ends the child without running the test harness's exit handlers.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

fn show(view: View) -> Result<Host, String> {
    let failed = |what: &'static str| move |errno: nix::Error| format!("{what}: {errno}");
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("private"))?;
    let host = Host::probe().unwrap();
    match (view, host.cgroup_mode) {
        (View::AsItIs, _) => {}
        (View::V1Only, CgroupMode::Hybrid) => {
            umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).map_err(failed("umount"))?;
        }
        (View::V2Only, CgroupMode::Hybrid | CgroupMode::Legacy) => {
            umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).map_err(failed("umount"))?;
            mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none)
                .map_err(failed("mount"))?;
        }
        (View::V1Only | View::V2Only, mode) => return Err(format!("the host is {mode:?}")),
    }
    Ok(Host::probe().unwrap())
}

/// Directories with this name anywhere in the trees.
fn leftovers(id: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    for root in roots.chain(["/sys/fs/cgroup".into()]) {
        let Ok(entries) = std::fs::read_dir(root) else { continue };
        found.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(id))
                .map(|entry| entry.path()),
        );
    }
    found
}

fn clean_up(view: View, id: &str) {
    let Ok(host) = show(view) else { return };
    for hierarchy in locate::hierarchies(&Place::Absolute(id.into()), host.cgroup_mode).unwrap() {
        for pid in hierarchy.pids(Instant::now() + WALK_PATIENCE).unwrap_or_default() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = hierarchy.remove(Instant::now() + Duration::from_secs(1));
    }
}

fn plan_of(host: &Host, id: &str, resources: &str) -> Plan {
    let resources = serde_json::from_str(resources).unwrap();
    plan(Some(&format!("/{id}")), Some(&resources), "unused", host, false, None).unwrap()
}

fn made(host: &Host, id: &str, resources: &str) -> Cgroup {
    let plan = plan_of(host, id, resources);
    let mut cgroup = Cgroup::locate(&plan, host).unwrap();
    cgroup.create(&plan).unwrap();
    cgroup.set(&plan).unwrap();
    cgroup
}

/// A process that enters as a container's init does, and then runs `life` until it is killed.
#[allow(unsafe_code)]
fn inhabitant(cgroup: &Cgroup, life: fn()) -> Pid {
    let tasks = cgroup.tasks().unwrap();
    let (ready, report) = nix::unistd::pipe().unwrap();
    let (joined, entered) = nix::unistd::pipe().unwrap();
    // SAFETY: as in `forked`.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let done = std::panic::catch_unwind(|| {
                crate::sys::spawn::join_cgroups(&tasks).unwrap();
                nix::unistd::write(&entered, b"x").unwrap();
                nix::unistd::read(&ready, &mut [0]).unwrap();
                life();
            });
            // SAFETY: as in `forked`.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        ForkResult::Parent { child } => child,
    };
    drop(entered);
    assert_eq!(nix::unistd::read(&joined, &mut [0]).unwrap(), 1, "the child did not enter");
    // The test moves it into the version 2 tree from outside; `launch` uses CLONE_INTO_CGROUP.
    if let Some(unified) = cgroup.unified() {
        unified.write("cgroup.procs", &child.to_string()).unwrap();
    }
    nix::unistd::write(&report, b"x").unwrap();
    child
}

fn sleep_for_ever() {
    loop {
        nix::unistd::pause();
    }
}

fn ends_by_sigkill(child: Pid) -> bool {
    for _ in 0..500 {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => std::thread::sleep(Duration::from_millis(10)),
            status => return matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        }
    }
    false
}

fn files(cgroup: &Cgroup, controller: &str, name: &str) -> String {
    cgroup.controller(controller).unwrap().read(name).unwrap().trim().to_owned()
}

/// Whether a process in the cgroup may open the device.
fn may_open(cgroup: &Cgroup, path: &'static str) -> bool {
    thread_local!(static PATH: RefCell<&'static str> = const { RefCell::new("") });
    PATH.set(path);
    #[allow(unsafe_code)]
    let child = inhabitant(cgroup, || {
        let opened = std::fs::File::open(PATH.with_borrow(|path| *path)).is_ok();
        // SAFETY: as in `forked`.
        unsafe { libc::_exit(if opened { 10 } else { 20 }) }
    });
    match waitpid(child, None).unwrap() {
        WaitStatus::Exited(_, 10) => true,
        WaitStatus::Exited(_, 20) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cgroup_lives_and_leaves_nothing_behind() {
    in_each_view("life", |view, host, id| {
        let cgroup = made(host, id, "{}");
        let json = serde_json::to_string(&cgroup).unwrap();
        let child = inhabitant(&cgroup, sleep_for_ever);
        // Every later verb has only the record.
        let cgroup: Cgroup = serde_json::from_str(&json).unwrap();
        assert_eq!(cgroup.pids().unwrap(), [child.as_raw()]);
        let own = std::fs::read_to_string(format!("/proc/{child}/cgroup")).unwrap();
        for (controllers, path) in locate::parse(own.as_bytes()) {
            if view == View::V1Only && controllers.is_empty()
                || view == View::V2Only && !controllers.is_empty()
            {
                continue;
            }
            assert_eq!(path, Path::new(id), "{controllers:?}");
        }
        assert!(!cgroup.frozen().unwrap());
        cgroup.freeze().unwrap();
        assert!(cgroup.frozen().unwrap());
        // `kill_all` needs no thaw before it, and thaws.
        cgroup.kill_all().unwrap();
        assert!(ends_by_sigkill(child));
        cgroup.remove().unwrap();
        cgroup.remove().unwrap();
        cgroup.kill_all().unwrap();
        assert_eq!(cgroup.pids().unwrap(), [] as [i32; 0]);
    });
}

#[test]
fn kill_all_reaches_forks_and_sub_cgroups_and_remove_waits() {
    in_each_view("forks", |_, host, id| {
        let cgroup = made(host, id, "{}");
        for hierarchy in cgroup.all() {
            let sub = hierarchy.at(hierarchy.path.join("a/b"));
            make_v1(&sub, &plan_of(host, id, "{}")).unwrap();
        }
        let sub = cgroup.sub(&["a/b".into()]).unwrap();
        let below = inhabitant(&sub, sleep_for_ever);
        #[allow(unsafe_code)]
        let forking = inhabitant(&cgroup, || {
            loop {
                // SAFETY: as in `forked`; the children do nothing but wait.
                if let Ok(ForkResult::Child) = unsafe { fork() } {
                    std::thread::sleep(Duration::from_millis(3));
                    // SAFETY: as above.
                    unsafe { libc::_exit(0) }
                }
                let _ = waitpid(None, Some(WaitPidFlag::WNOHANG));
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(cgroup.pids().unwrap().contains(&below.as_raw()));
        cgroup.kill_all().unwrap();
        // Zombies do not keep a cgroup: the test has reaped nothing yet.
        cgroup.remove().unwrap();
        assert!(ends_by_sigkill(below) && ends_by_sigkill(forking));
    });
}

#[test]
fn a_cgroup_with_processes_or_a_frozen_one_is_not_taken_over() {
    in_each_view("taken", |_, host, id| {
        let first = made(host, id, "{}");
        let child = inhabitant(&first, sleep_for_ever);
        let plan = plan_of(host, id, "{}");
        let error = Cgroup::locate(&plan, host).unwrap_err();
        assert_eq!(error.to_string(), "container's cgroup is not empty: 1 process(es) found");
        assert!(kill(child, None).is_ok(), "the other's process lives");
        first.kill_all().unwrap();
        assert!(ends_by_sigkill(child));
        // An empty cgroup that is not frozen may be taken over, with another policy.
        Cgroup::locate(&plan, host).unwrap();
        first.freeze().unwrap();
        let error = Cgroup::locate(&plan, host).unwrap_err();
        assert_eq!(error.to_string(), "container's cgroup unexpectedly frozen");
        first.thaw().unwrap();
        first.remove().unwrap();
    });
}

#[test]
fn devices_are_denied_but_for_the_usual_and_the_asked_for() {
    in_each_view("devices", |_, host, id| {
        let cgroup = made(host, id, "{}");
        assert!(may_open(&cgroup, "/dev/null") && may_open(&cgroup, "/dev/urandom"));
        assert!(!may_open(&cgroup, "/dev/kmsg"));
        // The same directory again, as after a crash: the new policy replaces the former one.
        let again =
            made(host, id, r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#);
        assert!(may_open(&again, "/dev/kmsg") && may_open(&again, "/dev/null"));
        let all = made(host, id, r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
        assert!(may_open(&all, "/dev/kmsg"));
        if let Tree::V2(unified) = &all.tree {
            assert_eq!(crate::sys::bpf::device_programs(unified.leaf().unwrap()).unwrap(), [] as [u32; 0]);
        }
        let but_one = made(
            host,
            id,
            r#"{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"r"}]}"#,
        );
        assert!(!may_open(&but_one, "/dev/kmsg") && may_open(&but_one, "/dev/null"));
        but_one.remove().unwrap();
    });
}

#[test]
fn limits_of_version_1_can_be_read_back_and_updated() {
    in_view("limits", View::AsItIs, |_, host, id| {
        if host.cgroup_mode == CgroupMode::Unified {
            return eprintln!("skipped limits: no version 1 here");
        }
        let mut cgroup = made(
            host,
            id,
            r#"{"memory":{"limit":33554432,"swap":67108864,"reservation":16777216},"pids":{"limit":20},
                "cpu":{"shares":512,"period":50000,"quota":25000,"cpus":"0"}}"#,
        );
        let expect = |cgroup: &Cgroup, table: &[(&str, &str, &str)]| {
            for (controller, file, value) in table {
                assert_eq!(files(cgroup, controller, file), *value, "{file}");
            }
        };
        expect(
            &cgroup,
            &[
                ("memory", "memory.limit_in_bytes", "33554432"),
                ("memory", "memory.memsw.limit_in_bytes", "67108864"),
                ("memory", "memory.soft_limit_in_bytes", "16777216"),
                ("pids", "pids.max", "20"),
                ("cpu", "cpu.shares", "512"),
                ("cpu", "cpu.cfs_period_us", "50000"),
                ("cpu", "cpu.cfs_quota_us", "25000"),
                ("cpuset", "cpuset.cpus", "0"),
            ],
        );
        assert!(!files(&cgroup, "cpuset", "cpuset.mems").is_empty());
        let update = |json: &str| serde_json::from_str::<Resources>(json).unwrap();
        // Both limits go up, then down: the kernel wants another order each time.
        cgroup
            .update(&update(r#"{"memory":{"limit":134217728,"swap":268435456},"cpu":{"quota":10000}}"#))
            .unwrap();
        expect(
            &cgroup,
            &[
                ("memory", "memory.limit_in_bytes", "134217728"),
                ("memory", "memory.memsw.limit_in_bytes", "268435456"),
                ("cpu", "cpu.cfs_quota_us", "10000"),
                ("cpu", "cpu.cfs_period_us", "50000"),
            ],
        );
        cgroup.update(&update(r#"{"memory":{"limit":16777216,"swap":16777216}}"#)).unwrap();
        expect(&cgroup, &[("memory", "memory.memsw.limit_in_bytes", "16777216")]);
        cgroup.update(&update(r#"{"memory":{"limit":-1}}"#)).unwrap();
        assert_eq!(
            files(&cgroup, "memory", "memory.limit_in_bytes"),
            files(&cgroup, "memory", "memory.memsw.limit_in_bytes")
        );
        // A value that the kernel refuses leaves the others as they were.
        let error = cgroup.update(&update(r#"{"cpu":{"shares":1000,"cpus":"77"}}"#)).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.starts_with("linux.resources.cpu.cpus: write \"/sys/fs/cgroup/cpuset/")
                && error.contains("\"77\": "),
            "{error}"
        );
        assert_eq!(cgroup.resources().cpu.shares, Some(512));
        expect(&cgroup, &[("cpu", "cpu.shares", "512")]);
        let stats = cgroup.stats().unwrap();
        assert_eq!(stats.pids.limit, 20);
        assert_eq!(stats.cpuset.cpus, [0]);
        assert!(stats.memory.raw.contains_key("cache") && stats.cpu.usage.percpu.len() > 1);
        cgroup.remove().unwrap();
    });
}

#[test]
fn a_limit_without_its_controller_is_an_error_that_names_both() {
    in_view("missing", View::V2Only, |_, host, id| {
        let plan = plan_of(host, id, r#"{"memory":{"limit":33554432}}"#);
        let mut cgroup = Cgroup::locate(&plan, host).unwrap();
        cgroup.create(&plan).unwrap();
        let error = format!("{:#}", cgroup.set(&plan).unwrap_err());
        assert_eq!(
            error,
            format!(
                "linux.resources.memory.limit: cannot write /sys/fs/cgroup/{id}/memory.max: \
                 controller \"memory\" not available in /sys/fs/cgroup"
            )
        );
        let plan = plan_of(host, id, r#"{"unified":{"memory.high":"1"}}"#);
        let error = format!("{:#}", cgroup.set(&plan).unwrap_err());
        assert!(
            error.contains(
                "unified resource \"memory.high\" can't be set: controller \"memory\" not available"
            ),
            "{error}"
        );
        cgroup.remove().unwrap();
    });
}

#[test]
fn controllers_are_passed_down_to_the_container() {
    in_view("controllers", View::V2Only, |_, host, id| {
        let sizes = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
        if !sizes.contains("hugetlb") {
            return eprintln!("skipped controllers: no hugetlb here");
        }
        let nested = format!("{id}/a/b");
        let cgroup = made(host, &nested, r#"{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}"#);
        assert_eq!(files(&cgroup, "hugetlb", "hugetlb.2MB.max"), "2097152");
        assert_eq!(files(&cgroup, "hugetlb", "hugetlb.2MB.rsvd.max"), "2097152");
        assert_eq!(cgroup.stats().unwrap().hugetlb["2MB"].usage, 0);
        cgroup.remove().unwrap();
        // The runtime leaves directories above the container's: they may be shared. This one is ours.
        locate::hierarchies(&Place::Absolute(id.into()), host.cgroup_mode).unwrap()[0]
            .remove(Instant::now())
            .unwrap();
    });
}

#[test]
fn version_1_tells_of_a_process_that_was_killed_for_want_of_memory() {
    in_view("oom", View::AsItIs, |_, host, id| {
        if host.cgroup_mode == CgroupMode::Unified {
            return eprintln!("skipped oom: no version 1 here");
        }
        let cgroup = made(host, id, r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
        let mut watch = cgroup.oom_watch().unwrap();
        assert_eq!(watch.read().unwrap(), OomNews::default());
        let child = inhabitant(&cgroup, || {
            let mut hoard = vec![];
            loop {
                hoard.push(vec![1u8; 1 << 20]);
            }
        });
        assert!(ends_by_sigkill(child));
        assert_eq!(watch.read().unwrap(), OomNews { killed: true, over: false });
        assert_eq!(cgroup.oom_kills(), 1);
        cgroup.remove().unwrap();
        let fd = watch.fd();
        rustix::event::poll(&mut [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)], None)
            .unwrap();
        assert_eq!(watch.read().unwrap(), OomNews { killed: false, over: true });
    });
}

#[test]
fn exec_finds_sub_cgroups_and_cannot_climb_out() {
    in_each_view("sub", |view, host, id| {
        let cgroup = made(host, id, "{}");
        let text = |spec: &[&str]| {
            let spec: Vec<String> = spec.iter().map(|&arg| arg.to_owned()).collect();
            match cgroup.sub(&spec) {
                Ok(sub) => format!("{:?}", sub.paths()),
                Err(error) => format!("{error:#}"),
            }
        };
        assert_eq!(text(&[".."]), "bad sub cgroup path: ..");
        assert_eq!(text(&["a/../../b"]), "bad sub cgroup path: a/../../b");
        assert_eq!(text(&["whaaat:/"]), "unknown controller whaaat in SubCgroupPaths");
        assert_eq!(text(&["a", "b"]), "invalid --cgroup argument: a (missing <controller>: prefix)");
        assert_eq!(text(&["/"]), format!("{:?}", cgroup.paths()));
        let missing = cgroup.sub(&["nonexistent".into()]).unwrap();
        let (dir, tasks) = (missing.dir(), missing.tasks());
        match view {
            View::V1Only => assert!(format!("{:#}", tasks.unwrap_err()).contains(" adding pid of ")),
            _ => assert!(format!("{:#}", dir.unwrap_err()).starts_with("can't open cgroup: openat2 ")),
        }
        if view != View::V2Only {
            let sub = cgroup.sub(&["memory:m".into(), "cpu,cpuacct:c".into()]).unwrap().paths();
            assert!(sub["memory"].ends_with(format!("{id}/m")) && sub["cpu"].ends_with(format!("{id}/c")));
            assert!(sub["pids"].ends_with(id));
        }
        let sources = cgroup.mount_sources(true, host.cgroup_mode).unwrap();
        assert_eq!(sources.len(), cgroup.all().len() - usize::from(view == View::AsItIs));
        cgroup.remove().unwrap();
    });
}

#[test]
fn without_permission_only_what_was_asked_for_is_missed() {
    in_each_view("rootless", |view, host, id| {
        nix::unistd::setresuid(65534.into(), 65534.into(), 65534.into()).unwrap();
        let host = &Host { euid: 65534, ..host.clone() };
        let asked = |path: &str, resources: &str| {
            plan(Some(path), Some(&serde_json::from_str(resources).unwrap()), id, host, true, None).unwrap()
        };
        let create_and_set = |plan: &Plan| -> Result<Cgroup> {
            let mut cgroup = Cgroup::locate(plan, host)?;
            cgroup.create(plan)?;
            cgroup.set(plan)?;
            Ok(cgroup)
        };
        let cgroup = create_and_set(&asked("", "{}")).unwrap();
        assert!(
            cgroup.paths().is_empty()
                && cgroup.dir().unwrap().is_none()
                && cgroup.tasks().unwrap().is_empty()
        );
        cgroup.kill_all().unwrap();
        cgroup.remove().unwrap();

        let error = format!("{:#}", create_and_set(&asked("", r#"{"pids":{"limit":5}}"#)).unwrap_err());
        let wanted = match view {
            View::V2Only => {
                "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
            }
            View::AsItIs | View::V1Only => "cannot set pids limit: container could not join or create cgroup",
        };
        assert!(error.contains(wanted), "{error}");

        let named = asked(&format!("/{id}"), "{}");
        let error = format!("{:#}", create_and_set(&named).unwrap_err());
        assert!(
            error.starts_with("unable to apply cgroup configuration: rootless needs no limits")
                && error.contains("mkdirat \"/sys/fs/cgroup/"),
            "{error}"
        );
        assert!(error.ends_with("ermission denied"), "{error}");
    });
}

#[test]
fn the_table_of_the_module_names_each_public_function_of_a_cgroup_with_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cgroup");
    let text = |file: &Path| std::fs::read_to_string(file).unwrap();
    let (mut found, mut named) = (vec![], vec![]);
    for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let Some(name) = file.file_stem().filter(|_| file.extension().is_some_and(|it| it == "rs")) else {
            continue;
        };
        let source = text(&file);
        for block in source.split("\nimpl Cgroup {\n").skip(1).filter_map(|rest| rest.split("\n}\n").next()) {
            let functions =
                block.lines().filter_map(|line| line.strip_prefix("    pub fn ")?.split('(').next());
            found
                .extend(functions.map(|function| (function.to_owned(), name.to_string_lossy().into_owned())));
        }
    }
    let source = text(&folder.join("mod.rs"));
    for row in source.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let functions = row.split("[`Cgroup::").skip(1).filter_map(|rest| rest.split('`').next());
        let file = |function: &&str| {
            let files = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
            let is_there =
                |file: &str| found.contains(&((*function).to_owned(), file.trim_matches('`').to_owned()));
            files.split(", ").find(|file| is_there(file)).map(|file| file.trim_matches('`').to_owned())
        };
        named.extend(functions.map(|function| (function.to_owned(), file(&function).unwrap_or_default())));
    }
    for list in [&mut found, &mut named] {
        list.sort();
        list.dedup();
    }
    assert_eq!(found, named);
}
