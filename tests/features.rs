//! `features`: what it claims is true. The tests ask for each name that it lists, and get it.

use serde_json::{Value, json};

use crate::support::{Bundle, bind, is_root, output, tmpfs, under_runc};

fn features() -> Value {
    let output = output(&["features"]).ok();
    assert_eq!(output.err, "", "cri-o reads stderr too");
    serde_json::from_str(&output.out).expect("JSON")
}

fn names(list: &Value) -> Vec<String> {
    let names = list.as_array().expect("a list").iter();
    names.map(|name| name.as_str().expect("a name").to_owned()).collect()
}

#[test]
fn every_mount_option_that_is_listed_can_be_mounted_with() {
    crate::skip_unless!(is_root() && !under_runc(), "it needs root, and checks the list of orlop");
    let options = names(&features()["mountOptions"]);
    assert!(options.len() >= 60, "{options:?}");
    // One container with a mount for each option.
    let mut bundle = Bundle::new();
    let source = bundle.host_directory("source");
    for option in &options {
        let place = format!("/options/{option}");
        bundle = match option.as_str() {
            "bind" | "rbind" => {
                bundle.mount(&place, json!({"type": "none", "source": source, "options": [option]}))
            }
            "remount" => {
                let first = bundle.mount(&place, tmpfs(&[]));
                first.mount(&place, json!({"type": "tmpfs", "source": "tmpfs", "options": ["remount", "ro"]}))
            }
            // A flag of the file system itself, or of each mount.
            "async" | "sync" | "dirsync" | "lazytime" | "nolazytime" | "mand" | "nomand" | "iversion"
            | "noiversion" | "tmpcopyup" | "silent" | "loud" | "defaults" => {
                bundle.mount(&place, tmpfs(&[option]))
            }
            _ => bundle.mount(&place, bind(&source, &[option])),
        };
    }
    let listed = bundle.guest("ls /options").run().facts();
    assert_eq!(listed.split(' ').count(), options.len(), "{listed}");
}

#[test]
fn the_annotations_of_runc_are_there_and_claim_no_checkpoint() {
    crate::skip_unless!(!under_runc(), "runc has checkpoints");
    let annotations = features()["annotations"].clone();
    let version = output(&["--version"]).ok().out;
    let line = |start: &str| version.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned);
    assert_eq!(
        annotations["org.opencontainers.runc.version"].as_str().map(str::to_owned),
        line("runc version ")
    );
    assert_eq!(annotations["org.opencontainers.runc.commit"].as_str().map(str::to_owned), line("commit: "));
    assert_eq!(annotations["org.opencontainers.runc.checkpoint.enabled"], "false");
}

#[test]
fn every_namespace_that_is_listed_can_be_made() {
    crate::skip_unless!(is_root() && !under_runc(), "it needs root, and checks the list of orlop");
    let kinds = names(&features()["linux"]["namespaces"]);
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    let own = |file: &str| std::fs::read_link(format!("/proc/self/ns/{file}")).expect("a namespace");
    let mut bundle = Bundle::new().user_namespace();
    for kind in kinds.iter().filter(|kind| *kind != "user") {
        bundle = bundle.namespace(kind, None);
    }
    let files: Vec<&str> = kinds
        .iter()
        .map(|kind| match kind.as_str() {
            "mount" => "mnt",
            "network" => "net",
            other => other,
        })
        .collect();
    let words = files.iter().map(|file| format!("ns {file}")).collect::<Vec<_>>().join(" -- ");
    let facts = bundle.guest(&format!("multi {words}")).run().facts();
    for (line, file) in facts.lines().zip(files) {
        assert!(line.starts_with(&format!("{file}:[")) && line != own(file).display().to_string(), "{line}");
    }
}

#[test]
fn every_seccomp_name_that_is_listed_is_taken() {
    crate::skip_unless!(!under_runc(), "it checks the list of orlop");
    let seccomp = features()["linux"]["seccomp"].clone();
    let operators = names(&seccomp["operators"]);
    let args = |op: &String| json!({"index": 0, "value": 77, "valueTwo": 77, "op": op});
    let rules: Vec<_> = operators
        .iter()
        .map(|op| json!({"names": ["getpriority"], "action": "SCMP_ACT_LOG", "args": [args(op)]}))
        .collect();
    // A flag that is listed as known may be unknown to this kernel; a flag that is listed as supported must work.
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "architectures": seccomp["archs"],
        "flags": names(&seccomp["supportedFlags"]).into_iter().filter(|flag| !flag.ends_with("KILLABLE_RECV")).collect::<Vec<_>>()
    });
    Bundle::new().set("/linux/seccomp", profile).guest("status Seccomp").run().prints("2");
    for action in names(&seccomp["actions"]).iter().filter(|action| *action != "SCMP_ACT_NOTIFY") {
        let rule = json!([{"names": ["getpriority"], "action": action}]);
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule});
        Bundle::new().set("/linux/seccomp", profile).run().prints("1");
    }
}

#[test]
fn every_memory_policy_that_is_listed_is_taken_if_the_kernel_has_it() {
    crate::skip_unless!(!under_runc(), "it checks the list of orlop");
    let policy = features()["linux"]["memoryPolicy"].clone();
    let mut taken = 0;
    for mode in names(&policy["modes"]) {
        let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode.as_str()) { "" } else { "0" };
        let bundle = Bundle::new().set("/linux/memoryPolicy", json!({"mode": mode, "nodes": nodes}));
        let attempt = bundle.run();
        // Older kernels lack the newest ones, and some kernels have none.
        let unknown = ["invalid argument", "function not implemented"];
        if attempt.output.code != 0 && unknown.iter().any(|why| attempt.output.err.contains(why)) {
            eprintln!("skipped {mode}: this kernel does not know it");
            continue;
        }
        attempt.prints("1");
        taken += 1;
    }
    eprintln!("{taken} modes");
    assert!(names(&policy["flags"]).len() == 3);
}

#[test]
fn every_capability_that_is_listed_is_known() {
    crate::skip_unless!(is_root() && !under_runc(), "it needs root, and checks the list of orlop");
    let listed = names(&features()["linux"]["capabilities"]);
    // Only the capabilities that this process has itself: it cannot give a container more.
    let status = std::fs::read_to_string("/proc/self/status").expect("our status");
    let own = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("the line");
    let own = u64::from_str_radix(own.trim(), 16).expect("a mask");
    let all: Vec<_> = listed
        .iter()
        .enumerate()
        .filter(|(number, _)| own & 1 << number != 0)
        .map(|(_, name)| name)
        .collect();
    let sets =
        json!({"bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all});
    let facts = Bundle::new().set("/process/capabilities", sets).guest("caps").run().facts();
    for line in facts.lines() {
        assert_eq!(line.split(',').count(), all.len(), "{line}");
    }
}
