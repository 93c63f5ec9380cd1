//! Mount options → plan. Each line is an option; the first three lines are destination, type and source.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Mount;
use orlop::parts::mount_options::{self, Effect, Options, TABLE};
use orlop::parts::mounts::{self, BindSource, Facts, UserNamespace, What};
use orlop::sys::mount::{ATIME_MASK, NOATIME, NODIRATIME, RELATIME, STRICTATIME};
use orlop_fuzz::memory;
use std::path::{Component, Path};

/// The state of one attribute, as mount(8) reads the options: the last one about it counts.
fn last_word(options: &[String], bit: u64) -> Option<bool> {
    options.iter().rev().find_map(|option| {
        match TABLE.iter().find(|(name, _)| name == option).map(|(_, effect)| *effect)? {
            Effect::Set(set) | Effect::Atime(set) if set == bit => Some(true),
            Effect::Clear(clear) | Effect::AtimeNot(clear) if clear == bit => Some(false),
            _ => None,
        }
    })
}

fn check_options(options: &[String], parsed: &Options) {
    assert_eq!(parsed.set & parsed.clear, 0, "to be set and not to be set: {parsed:?}");
    assert_eq!(parsed.tree_set & parsed.tree_clear & !ATIME_MASK, 0, "{parsed:?}");
    for bit in (0..64).map(|bit| 1u64 << bit).filter(|bit| bit & ATIME_MASK == 0) {
        let (word, set) = (last_word(options, bit), parsed.set & bit != 0);
        assert_eq!(set, word.unwrap_or(false), "{bit:#x} in {options:?}");
        assert_eq!(
            parsed.clear & bit != 0,
            word == Some(false) && bit != NODIRATIME,
            "{bit:#x} in {options:?}"
        );
    }
    let atime = options.iter().fold(RELATIME, |now, option| match (option.as_str(), now) {
        ("noatime", _) => NOATIME,
        ("strictatime", _) => STRICTATIME,
        ("relatime", _) | ("atime", NOATIME) | ("nostrictatime", STRICTATIME) => RELATIME,
        _ => now,
    });
    assert_eq!(parsed.set & ATIME_MASK, atime, "{options:?}");
    // The same options twice change nothing except the lists.
    let twice = mount_options::parse(&[options, options].concat());
    assert_eq!((twice.set, twice.clear, twice.bind), (parsed.set, parsed.clear, parsed.bind));
    assert_eq!(
        (twice.tree_set, twice.tree_clear, twice.remount),
        (parsed.tree_set, parsed.tree_clear, parsed.remount)
    );
    assert_eq!(twice.data.len(), 2 * parsed.data.len());
    let unknown =
        options.iter().filter(|option| !option.is_empty() && !TABLE.iter().any(|(name, _)| name == *option));
    assert!(parsed.data.iter().eq(unknown), "{parsed:?}");
}

fuzz_target!(|text: &[u8]| {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split('\n').map(str::to_owned);
    let (destination, fstype, source) = (words.next().unwrap_or_default(), words.next(), words.next());
    let options: Vec<String> = words.collect();
    check_options(&options, &mount_options::parse(&options));
    let mut mount = Mount::default();
    mount.set_destination(destination.clone().into()).set_typ(fstype.filter(|word| !word.is_empty()));
    mount.set_source(source.map(Into::into)).set_options(Some(options));
    let facts = Facts {
        bundle: Path::new("/bundle"),
        rootfs: Path::new("/bundle/rootfs"),
        own_mount_namespace: true,
        user_namespace: UserNamespace::Host,
        new_network_namespace: text.len() % 5 != 0,
        new_ipc_namespace: text.len() % 7 != 0,
        rootless: text.len() % 2 == 1,
        unified_cgroups: text.len() % 3 == 1,
        label: None,
        rootfs_propagation: None,
    };
    let json = serde_json::to_vec(&mount).expect("a mount can be printed");
    let Ok(planned) = memory::bounded(&json, || mounts::plan(std::slice::from_ref(&mount), &facts)) else {
        return;
    };
    let [planned] = planned.list.as_slice() else { panic!("one mount, {} plans", planned.list.len()) };
    let below = planned.destination.strip_prefix("/").expect("an absolute destination");
    assert!(
        !below.as_os_str().is_empty() && below.components().all(|one| matches!(one, Component::Normal(_)))
    );
    if let What::Bind(bind) = &planned.what {
        match &bind.source {
            BindSource::Host(path) => assert!(path.to_bytes().starts_with(b"/"), "{bind:?}"),
            BindSource::Root(path) => assert!(!path.as_os_str().is_empty(), "{bind:?}"),
        }
    }
    // Only these files may be mounted on below /proc, however the destination is written.
    let is_remount = matches!(planned.what, What::Remount(_));
    if let (Ok(below), false) = (planned.destination.strip_prefix("/proc"), is_remount) {
        let files = ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"];
        let sys = ["sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"];
        assert!(
            [""].iter().chain(&files).chain(&sys).any(|allowed| below == Path::new(allowed)),
            "{below:?}"
        );
    }
});
