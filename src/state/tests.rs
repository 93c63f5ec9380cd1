//! Ids, reservations, and records that are damaged.

use super::dir::RECORD;
use super::ids::{NEW, own_name};
use super::*;

#[test]
fn an_id_has_no_slash_and_is_no_directory_entry() {
    for id in ["a", "A-b_c+d.e", "...", "0"] {
        assert_eq!(check_id(id), Ok(()), "{id}");
    }
    for id in ["", ".", "..", "a/b", "../x", "a b", "é", "~gone-x", "a\0"] {
        assert_eq!(check_id(id), Err(Error::InvalidId), "{id}");
    }
}

pub fn record(id: &str) -> Record {
    let text = serde_json::json!({
        "id": id, "init_process_pid": 0, "init_process_start": 0, "created": "", "rootless": false,
        "config": {"rootfs": "/r", "readonlyfs": false, "mounts": [], "namespaces": [], "labels": [], "rootless_euid": false},
        "external_descriptors": [],
        "orlop": {"phase": "creating", "owner": {"pid": 0, "start": 0}, "boot_id": "", "bundle": "/b",
            "cgroup": crate::cgroup::Cgroup::none(), "annotations": {}, "hooks_ran": false, "has_filter": false,
            "hooks": crate::parts::hooks::Hooks::default()},
    });
    serde_json::from_value(text).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_id_is_reserved_once_with_its_record_and_free_again_after_removal() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("a/b");
    let root = Root::create(&path).unwrap();
    let dir = root.reserve(&record("c1")).unwrap();
    assert_eq!(dir.load().unwrap().id, "c1");
    dir.make_gate().unwrap();
    let again = root.reserve(&record("c1")).unwrap_err();
    assert_eq!(again.downcast_ref(), Some(&Error::Exists));
    assert_eq!(root.taken("c1").unwrap().downcast_ref(), Some(&Error::Exists));
    assert_eq!(names(&path), ["c1"], "what was made for the second");
    root.remove("c1").unwrap();
    assert!(names(&path).is_empty());
    assert!(root.taken("c1").is_none());
    root.reserve(&record("c1")).unwrap();
}

#[test]
fn the_longest_id_is_reserved_and_removed() {
    let temporary = tempfile::tempdir().unwrap();
    let root = Root::create(temporary.path()).unwrap();
    let id = "a".repeat(255);
    root.reserve(&record(&id)).unwrap();
    root.remove(&id).unwrap();
    assert!(names(temporary.path()).is_empty());
}

#[test]
fn a_record_of_another_container_is_a_damaged_one() {
    let temporary = tempfile::tempdir().unwrap();
    let root = Root::create(temporary.path()).unwrap();
    let dir = root.reserve(&record("c1")).unwrap();
    Container::load(temporary.path(), "c1").unwrap();
    dir.commit(&record("c2")).unwrap();
    let error = Container::load(temporary.path(), "c1").unwrap_err();
    assert_eq!(error.downcast_ref::<Error>(), None, "delete --force takes it for damaged");
    assert!(error.to_string().ends_with("is of container \"c2\""), "{error}");
}

#[test]
fn a_record_that_is_cut_off_anywhere_is_damaged_and_its_id_can_be_had_again() {
    let temporary = tempfile::tempdir().unwrap();
    let root = Root::create(temporary.path()).unwrap();
    let whole = serde_json::to_vec(&record("c1")).unwrap();
    for length in 0..whole.len() {
        root.reserve(&record("c1")).unwrap();
        std::fs::write(temporary.path().join("c1").join(RECORD), &whole[..length]).unwrap();
        let error = Container::load(temporary.path(), "c1").unwrap_err();
        assert_eq!(error.downcast_ref::<Error>(), None, "{length}");
        assert_eq!(root.ids().unwrap(), ["c1"]);
        root.remove("c1").unwrap();
    }
}

#[test]
fn what_died_halfway_is_swept_by_the_next_look_and_what_lives_is_not() {
    let temporary = tempfile::tempdir().unwrap();
    let root = Root::create(temporary.path()).unwrap();
    let lives = own_name(NEW);
    // A caller that was killed with it, or is slow, has not waited for it.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let exited = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(pid), exited).unwrap();
    let zombie = format!("{NEW}{pid}");
    // No process has a number above the kernel's highest limit, 2^22.
    for name in ["~gone-x", "~gone-1", "~new-4194305", &zombie, &lives] {
        std::fs::create_dir(temporary.path().join(name)).unwrap();
        std::fs::write(temporary.path().join(name).join(RECORD), "").unwrap();
    }
    assert!(root.ids().unwrap().is_empty());
    assert_eq!(names(temporary.path()), [lives]);
    child.wait().unwrap();
    // Our own number cannot be at work on another one.
    root.reserve(&record("c1")).unwrap();
    assert_eq!(names(temporary.path()), ["c1"]);
}

#[test]
fn a_tree_of_any_depth_is_removed_and_no_link_in_it_is_followed() {
    let temporary = tempfile::tempdir().unwrap();
    let outside = temporary.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "").unwrap();
    let path = temporary.path().join("root");
    let root = Root::create(&path).unwrap();
    let dir = root.reserve(&record("c")).unwrap();
    let mut inner = dir.make_directory("notify").unwrap();
    // The names are those that a directory has when it was moved up.
    let mode = rustix::fs::Mode::RWXU;
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
    for _ in 0..200 {
        for name in ["1", "2"] {
            rustix::fs::mkdirat(&inner, name, mode).unwrap();
        }
        rustix::fs::symlinkat(&outside, &inner, "link").unwrap();
        inner = rustix::fs::openat(&inner, "1", flags, mode).unwrap();
    }
    drop(inner);
    root.remove("c").unwrap();
    assert!(names(&path).is_empty(), "{:?}", names(&path));
    assert!(outside.join("file").exists());
}
