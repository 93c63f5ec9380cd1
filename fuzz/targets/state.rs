//! state.json and seccomp.bpf with any contents. Reading them works, or is an error that harms only this container: the
//! others are still listed, and the id can be used again.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use orlop::cgroup::Cgroup;
use orlop::host::{CgroupMode, Host};
use orlop::parts::seccomp::Filter;
use orlop::state::{Container, Error, Record, Root};
use orlop_fuzz::{json, memory};

const ID: &str = "fuzz";
const HOST: Host = Host { cgroup_mode: CgroupMode::Unified, euid: 0, egid: 0, initial_user_namespace: true };

thread_local! {
    static WORLD: (tempfile::TempDir, Root) = {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Root::create(directory.path()).expect("a root");
        (directory, root)
    };
}

/// Does what the verbs do with a readable record.
fn check_record(container: &Container) {
    assert_eq!(container.record.id, ID, "a record of another container");
    let _ = container.status();
    let again = serde_json::to_vec(&container.record).expect("a record can be written");
    let read: Record = serde_json::from_slice(&again).expect("what we write we can read");
    assert_eq!(serde_json::to_vec(&read).expect("a record"), again);
}

fuzz_target!(|text: &[u8]| {
    if let Ok(filter) = Filter::decode(text) {
        let bytes = filter.encode().expect("a filter can be written");
        assert_eq!(
            Filter::decode(&bytes).and_then(|again| again.encode()).expect("what we write we can read"),
            bytes
        );
    }
    WORLD.with(|(directory, root)| {
        std::fs::create_dir(directory.path().join(ID)).expect("a container");
        std::fs::write(directory.path().join(ID).join("state.json"), text).expect("a record");
        match memory::bounded(text, || Container::load(directory.path(), ID)) {
            Ok(container) => check_record(&container),
            Err(error) => {
                assert_ne!(error.downcast_ref(), Some(&Error::NotFound), "there is one");
                Cgroup::by_default(ID, &HOST).expect("delete --force knows where to look");
            }
        }
        assert_eq!(root.ids().expect("the others can be listed"), [ID]);
        root.remove(ID).expect("the id is free again");
        assert!(root.ids().expect("the others can be listed").is_empty());
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    json::mutate(data, size, most, seed)
});
