//! The shape of the source tree, which no compiler checks: what may depend on what, and that no file is forgotten.

use std::fs;
use std::path::{Path, PathBuf};

/// What a module may name with `use crate::` or `crate::`, beside itself. A folder stands for all in it.
#[rustfmt::skip]
const MAY_USE: &[(&str, &[&str])] = &[
    ("lib",      &[]),
    ("main",     &["cli", "commands", "log", "sys"]),
    ("assets",   &["cli"]),
    ("commands", &["cli", "launch", "destroy", "foreground", "notify", "plan", "state", "oci_state", "spec", "criu", "bundle", "host", "cgroup", "parts", "log", "sys", "wire"]),
    ("cli",      &["log", "sys"]),
    ("launch",   &["init", "notify", "wire", "plan", "parts", "cgroup", "state", "oci_state", "destroy", "bundle", "host", "log", "timestamp", "sys"]),
    ("init",     &["wire", "plan", "parts", "oci_state", "log", "sys"]),     // never launch, cgroup, state, cli
    ("destroy",  &["state", "cgroup", "parts", "log", "sys"]),
    ("foreground", &["notify", "log", "sys"]),
    ("notify",   &["log", "sys"]),
    ("oci_state", &[]),
    ("spec",     &["parts", "cgroup"]),
    ("criu",     &["plan", "launch", "parts", "cgroup", "state", "host", "wire", "log", "sys"]),
    ("plan",     &["notify", "parts", "cgroup", "host", "bundle", "spec", "state", "log", "sys"]),
    ("parts",    &["host", "spec", "log", "sys"]),              // and not each other, see below
    ("cgroup",   &["host", "log", "sys"]),
    ("state",    &["cgroup", "parts", "oci_state", "wire", "log", "sys"]),
    ("bundle",   &["spec", "parts", "log", "sys"]),
    ("host",     &["sys"]),
    ("wire",     &["failure", "log", "sys"]),
    ("failure",  &["sys"]),
    ("log",      &["timestamp", "sys"]),
    ("timestamp", &[]),
    ("sys",      &[]),
];

fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).expect("the directory").flatten()
    {
        let path = entry.path();
        let name = format!("{dir}/{}", entry.file_name().display());
        if path.is_dir() {
            found.extend(rust_files(&name));
        } else if name.ends_with(".rs") {
            found.push(name.into());
        }
    }
    found.sort();
    found
}

fn source(file: &Path) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a source file")
}

/// The code of a file that is in the product: its tests may do as they like.
fn product(file: &Path) -> String {
    if file.file_stem().is_some_and(|stem| stem == "tests" || stem == "kernel_tests") {
        return String::new();
    }
    let text = source(file);
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
}

/// `parts` for src/parts/mounts.rs, `init` for src/init.rs.
fn module(file: &Path) -> String {
    let name = file.components().nth(1).expect("below src").as_os_str().to_string_lossy().into_owned();
    name.trim_end_matches(".rs").to_owned()
}

/// The names after `crate::` in the code of a file, without comments, strings in tests included.
fn uses(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            let names = match rest.strip_prefix('{') {
                Some(list) => list.trim_end_matches(['}', ';']).split(',').map(str::trim).collect(),
                None => vec![rest],
            };
            for name in names {
                let mut path =
                    name.split(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':'));
                let path = path.next().unwrap_or_default();
                let mut words = path.split("::");
                let first = words.next().unwrap_or_default().to_owned();
                found.push((first, words.next().unwrap_or_default().to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_test_file_is_part_of_the_tests() {
    let main = source(Path::new("tests/main.rs"));
    for file in rust_files("tests") {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let part_of_another = file.components().count() > 2 || name == "main" || name == "guest";
        assert!(part_of_another || main.contains(&format!("mod {name};")), "{} is forgotten", file.display());
    }
}

#[test]
fn every_source_file_is_part_of_the_crate() {
    for file in rust_files("src") {
        let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
        if file.parent() == Some(Path::new("src")) && ["lib", "main", "assets"].contains(&stem.as_str()) {
            continue;
        }
        let (parent, name) = match stem.as_str() {
            "mod" => (file.parent().and_then(Path::parent), file.parent().and_then(Path::file_name)),
            _ => (file.parent(), file.file_stem()),
        };
        let (parent, name) = (parent.expect("a parent"), name.expect("a name").to_string_lossy());
        let candidates = [parent.join("mod.rs"), parent.join("lib.rs"), parent.with_extension("rs")];
        let declared =
            candidates.iter().filter(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists());
        let declared = declared.map(|path| source(path)).any(|text| text.contains(&format!("mod {name};")));
        assert!(declared, "{} is in no `mod` line", file.display());
    }
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for file in rust_files("src").into_iter().chain(rust_files("tests")) {
        assert!(source(&file).starts_with("//!"), "{} does not open with //!", file.display());
    }
}

#[test]
fn arrows_point_down_only() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let own = module(&file);
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == own) else {
            panic!("{} is not in the table of this test", file.display());
        };
        for (name, _) in uses(&product(&file)) {
            let is_module = MAY_USE.iter().any(|(known, _)| *known == name);
            if is_module && name != own && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} uses crate::{name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn parts_do_not_call_each_other() {
    // Values that one part needs of another are handed over by the plan. Shared vocabulary is free for all.
    const VOCABULARY: [&str; 4] = ["namespaces", "idmap", "mount_options", "bits"];
    let mut wrong = Vec::new();
    for file in rust_files("src/parts") {
        for (first, second) in uses(&product(&file)) {
            // src/parts/seccomp.rs, and src/parts/seccomp/anything.rs too.
            let part = file.components().nth(2).expect("below src/parts").as_os_str().to_string_lossy();
            let own = part.trim_end_matches(".rs") == second;
            if first == "parts" && !own && !VOCABULARY.contains(&second.as_str()) {
                wrong.push(format!("{} uses crate::parts::{second}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_bind_mounts_and_the_root_stay_tied_to_the_host() {
    // Everything else is cloned as private. What nobody can mount on may be cloned in another way.
    for (call, may) in [
        (
            "clone_tied(",
            &[
                "src/sys/mount.rs",
                "src/sys/nodes.rs",
                "src/parts/mounts/bind.rs",
                "src/parts/rootfs.rs",
                "src/parts/paths.rs",
            ][..],
        ),
        ("open_tree(", &["src/sys/mount.rs", "src/sys/selfexe.rs"]),
    ] {
        let found = rust_files("src").into_iter().filter(|file| product(file).contains(call));
        let found: Vec<_> = found.map(|file| file.display().to_string()).collect();
        let other = found.iter().find(|file| !may.contains(&file.as_str()));
        assert_eq!(other, None, "{call}");
    }
}

#[test]
fn unsafe_code_is_in_sys_only() {
    for file in rust_files("src").iter().filter(|file| module(file) != "sys") {
        for (number, line) in product(file).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            assert!(
                !code.contains("unsafe {") && !code.contains("unsafe fn"),
                "{}:{}",
                file.display(),
                number + 1
            );
        }
    }
}

#[test]
fn files_stay_short_enough_to_be_read() {
    for file in rust_files("src").into_iter().chain(rust_files("tests")) {
        let lines = source(&file).lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}

#[test]
fn every_row_of_the_security_table_has_its_test() {
    let table = source(Path::new("integration/security/README.md"));
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() > 40, "only {} rows", rows.len());
    let mut missing = Vec::new();
    for row in &rows {
        for name in row.split('`').skip(1).step_by(2) {
            let Some((file, test)) = name.split_once("::") else { continue };
            let file = match file.ends_with(".rs") {
                true => format!("src/{file}"),
                false => format!("tests/{file}.rs"),
            };
            let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).exists();
            if !there || !source(Path::new(&file)).contains(&format!("fn {test}()")) {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    for file in rust_files("src").into_iter().chain(rust_files("tests")) {
        for rest in source(&file).split("CVE-").skip(1) {
            let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
            let known = number.len() < 9 || table.contains(&format!("CVE-{}", number.trim_end_matches('-')));
            assert!(known, "{}: CVE-{number} is not in the table", file.display());
        }
    }
}

/// Functions of init and parts that take a path by its name, each with the reason why no image can be meant. A row that
/// is no longer needed fails the test.
#[rustfmt::skip]
const BY_NAME: &[(&str, &str, &str)] = &[
    // file                          function            reason
    ("src/parts/devices.rs",         "bind_host",        "the host's device, before the root changes"),
    ("src/parts/devices.rs",         "links",            "the host's /proc, before the root changes"),
    ("src/parts/hooks/output.rs",    "*",                "the host, before init: files that annotations name"),
    ("src/parts/hooks.rs",           "spawn",            "hooks of the host; those of the container when nothing of the host is open"),
    ("src/parts/idmap.rs",           "write_by_helper",  "the host's newuidmap and newgidmap, by the parent"),
    ("src/parts/intel_rdt.rs",       "*",                "the host's resctrl tree, by the parent"),
    ("src/parts/intel_rdt/stats.rs", "*",                "the host's resctrl tree, by the parent"),
    ("src/parts/lsm.rs",             "*",                "the host's /sys, before init"),
    ("src/parts/mounts/apply.rs",    "cgroup_directory", "the host's cgroup tree, before the root changes"),
    ("src/parts/mounts/apply.rs",    "hold_instead",     "the host's /sys and /dev/mqueue, by the parent"),
    ("src/parts/mounts/apply.rs",    "host_instead",     "the host's /sys and /dev/mqueue, before the root changes"),
    ("src/parts/mounts/bind.rs",     "clone_source",     "sources of bind mounts, before the root changes"),
    ("src/parts/mounts/bind.rs",     "link_target",      "the host, by the parent: the source of copy-symlink"),
    ("src/parts/mounts/bind.rs",     "set_idmap",        "the host's /proc, before the root changes"),
    ("src/parts/mounts/copy_up.rs",  "copy_file",        "/proc/self/fd of the host's /proc, before the root changes"),
    ("src/parts/namespaces.rs",      "*",                "the host's namespace files, by the parent"),
    ("src/parts/paths.rs",           "host_null",        "the host's null device, before the root changes"),
    ("src/parts/process.rs",         "executable",       "relative to the working directory, without links of /proc that jump, and with the container's rights"),
    ("src/parts/process.rs",         "execve",           "a script's interpreter wants its name; nothing of the host is open, and no right beyond the container's is left"),
    ("src/parts/rootfs.rs",          "hide_host_pseudo_file_systems", "the host's /proc, before the root changes"),
];

/// Functions of a module `fs` that take a path, or a directory and a path.
#[rustfmt::skip]
const OF_FS: &[&str] = &[
    "access", "canonicalize", "chmod", "copy", "create_dir", "create_dir_all", "exists", "getxattr", "hard_link", "link",
    "lstat", "metadata", "mkdir", "open", "read", "read_dir", "read_link", "read_to_string", "readlink", "remove_dir",
    "remove_dir_all", "remove_file", "rename", "rmdir", "set_permissions", "stat", "statfs", "statvfs", "symlink",
    "symlink_metadata", "truncate", "unlink", "write",
];

/// The same, of other modules and types.
#[rustfmt::skip]
const BY_PATH: &[&str] = &[
    "process::chdir(", "process::chroot(", "unistd::chdir(", "unistd::chroot(", "unistd::access(", "set_current_dir(",
    "Command::new(", "spawn::execve(", "unistd::execv", "OpenOptions", "File::open(", "File::create(", "fs::CWD", "(CWD,",
    "AT_FDCWD", ".try_exists()", ".exists()", ".canonicalize()", ".read_dir()", ".symlink_metadata()",
];

/// What of this line takes a path by name.
fn by_name(code: &str) -> Option<String> {
    let of_fs = code.split("fs::").skip(1).find_map(|rest| {
        let name: String =
            rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        (OF_FS.contains(&name.as_str()) && rest[name.len()..].starts_with('(')).then(|| format!("fs::{name}"))
    });
    // Of a path: a file or a file type is a thing that was opened.
    let of_path = [".is_dir()", ".is_file()", ".metadata()"].into_iter().find(|call| {
        code.contains(call) && (code.contains("path") || code.contains("dir.")) && !code.contains("FileType")
    });
    let other = BY_PATH.iter().copied().find(|call| code.contains(call));
    of_fs.or_else(|| of_path.or(other).map(str::to_owned))
}

#[test]
fn init_and_parts_take_no_path_by_name() {
    // A name is looked up again at each call, in whatever root, and through whatever link an image has put there.
    // `sys::path` opens what is below a descriptor, without links that lead out.
    assert_eq!(by_name("if rustix::fs::stat(&self.cwd).is_ok() {").as_deref(), Some("fs::stat"));
    assert_eq!(by_name("let file = openat2(CWD, \"x\")").as_deref(), Some("(CWD,"));
    assert_eq!(by_name("rustix::fs::fstat(fd)"), None);
    let files =
        rust_files("src").into_iter().filter(|file| ["init", "parts"].contains(&module(file).as_str()));
    let mut used = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let mut function = String::new();
        for (number, line) in product(&file).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some((_, rest)) = code.split_once("fn ") {
                function =
                    rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            }
            let Some(call) = by_name(code) else { continue };
            let row = BY_NAME
                .iter()
                .position(|(file, known, _)| *file == name && (*known == function || *known == "*"));
            match row {
                Some(row) => drop(used.insert(row)),
                None => wrong.push(format!("{name}:{} in {function}: {call}", number + 1)),
            }
        }
    }
    let unused = BY_NAME.iter().enumerate().filter(|(row, _)| !used.contains(row));
    wrong.extend(unused.map(|(_, (file, function, _))| format!("{file} {function}: the row is not needed")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
