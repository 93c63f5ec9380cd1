//! The shape of the source tree, which no compiler checks: which file may depend on which, how long a function may be,
//! and that no file is forgotten.

mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use tree::{Arrow, TREE, rust_files, source};

/// The modules that each module may name, beside itself. A folder stands for all files in it.
#[rustfmt::skip]
const MAY_USE: &[(&str, &[&str])] = &[
    ("lib",      &[]),
    ("main",     &["cli", "commands", "log", "sys"]),
    ("assets",   &["cli"]),
    ("commands", &["cli", "launch", "destroy", "foreground", "notify", "plan", "state", "oci_state", "spec", "bundle", "host", "cgroup", "parts", "log", "sys", "wire", "failure"]),
    ("cli",      &["log", "sys"]),
    ("launch",   &["init", "notify", "wire", "failure", "plan", "parts", "cgroup", "state", "oci_state", "destroy", "bundle", "host", "log", "timestamp", "sys"]),
    ("init",     &["wire", "failure", "plan", "parts", "oci_state", "log", "sys"]),     // never launch, cgroup, state, cli
    ("destroy",  &["state", "cgroup", "parts", "log", "sys"]),
    ("foreground", &["notify", "log", "sys"]),
    ("notify",   &["log", "sys"]),
    ("oci_state", &[]),
    ("plan",     &["notify", "parts", "cgroup", "host", "bundle", "spec", "state", "log", "sys"]),
    ("bundle",   &["spec", "parts", "log", "sys"]),
    ("spec",     &["parts", "cgroup"]),                         // the types of single fields stand with their part
    ("state",    &["cgroup", "parts", "oci_state", "wire", "log", "sys"]),
    ("parts",    &["host", "log", "sys"]),                      // and not each other, see below
    ("cgroup",   &["host", "log", "sys"]),
    ("host",     &["sys"]),
    ("wire",     &["failure", "log", "sys"]),
    ("failure",  &["sys"]),
    ("log",      &["timestamp", "sys"]),
    ("timestamp", &[]),
    ("sys",      &[]),
];

/// Arrows that point upwards, each with the reason why it is still there. A row that is no longer needed fails the
/// test. The other lists of known exceptions work alike.
#[rustfmt::skip]
const KNOWN_UPWARDS: &[(&str, &str, &str)] = &[
    // from                  to             reason
    ("src/parts/console.rs", "src/spec.rs", "console::plan takes spec::Process; it needs its terminal and consoleSize"),
    ("src/parts/process.rs", "src/spec.rs", "process::plan takes spec::Process; it needs its args, env and cwd"),
];

/// Arrows that close a circle of files: without them there is none.
#[rustfmt::skip]
const KNOWN_CIRCLES: &[(&str, &str, &str)] = &[
    // from                           to                         reason
    ("src/parts/mounts/bind.rs",      "src/parts/mounts/apply.rs", "bind.rs calls create_mountpoint and checks of apply.rs, and apply.rs calls bind.rs"),
    ("src/parts/mounts/by_string.rs", "src/parts/mounts/apply.rs", "by_string.rs calls make_directory, and apply.rs calls by_string::mount"),
];

/// Parts that call another part, which is not vocabulary.
const KNOWN_CALLS: &[(&str, &str, &str)] = &[(
    "src/parts/console.rs",
    "src/parts/devices.rs",
    "/dev/console is a device node that a descriptor is mounted on: devices::bind_fd_onto",
)];

/// Functions of more than `LONGEST` lines.
#[rustfmt::skip]
const KNOWN_LONG: &[(&str, &str, &str)] = &[
    // file        function  reason
    ("src/plan.rs", "create", "one line a field of the plan"),
];

/// The most lines of a function, from `fn` to its last brace: what fits on a screen.
const LONGEST: usize = 80;

/// The code of a file that is in the product: its tests may do as they like.
fn product(file: &Path) -> &'static str {
    TREE.files.get(file).map_or("", |file| &file.product)
}

/// `parts` for src/parts/mounts.rs, `init` for src/init.rs.
fn module(file: &Path) -> String {
    let name = file.components().nth(1).expect("below src").as_os_str().to_string_lossy().into_owned();
    name.trim_end_matches(".rs").to_owned()
}

/// `mounts` for src/parts/mounts.rs, and for src/parts/mounts/anything.rs too.
fn part(file: &Path) -> Option<String> {
    let below = file.strip_prefix("src/parts").ok()?.components().next()?;
    Some(below.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned())
}

/// Fails if an arrow in `wrong` is not in `known`, or if a row of `known` is not in `wrong`.
fn expect_only(known: &[(&str, &str, &str)], wrong: &[&Arrow]) {
    let is = |arrow: &Arrow, row: &(&str, &str, &str)| {
        arrow.from == Path::new(row.0) && arrow.to == Path::new(row.1)
    };
    let mut told: Vec<String> = Vec::new();
    for arrow in wrong.iter().filter(|arrow| !known.iter().any(|row| is(arrow, row))) {
        let (from, to) = (arrow.from.display(), arrow.to.display());
        told.push(format!("{from}:{} uses {} of {to}", arrow.line, arrow.path));
    }
    for row in known.iter().filter(|row| !wrong.iter().any(|arrow| is(arrow, row))) {
        told.push(format!("{} to {}: the row is not needed", row.0, row.1));
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
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
        assert!(TREE.files.contains_key(&file), "{} is in no `mod` line", file.display());
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
    let arrows = TREE.arrows();
    // A reader that sees too little must not pass.
    assert!(arrows.len() > 2000, "only {} arrows are seen", arrows.len());
    let may = |from: &str, to: &str| {
        let row = MAY_USE.iter().find(|(name, _)| *name == from);
        row.unwrap_or_else(|| panic!("{from} is not in the table of this test")).1.contains(&to)
    };
    let wrong: Vec<_> = arrows
        .iter()
        .filter(|arrow| {
            let (from, to) = (module(&arrow.from), module(&arrow.to));
            from != to && !may(&from, &to)
        })
        .collect();
    expect_only(KNOWN_UPWARDS, &wrong);
}

#[test]
fn the_table_of_modules_is_that_of_the_tree_and_has_no_circle() {
    let files: BTreeSet<String> = rust_files("src").iter().map(|file| module(file)).collect();
    let rows: BTreeSet<String> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(rows, files);
    for (from, to) in MAY_USE {
        let unknown = to.iter().find(|name| !rows.contains(**name));
        assert_eq!(unknown, None, "in the row of {from}");
    }
    let table = MAY_USE.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    assert_eq!(circle(&table), None);
}

#[test]
fn files_depend_on_each_other_in_no_circle() {
    let arrows = TREE.arrows();
    let name = |path: &Path| path.to_string_lossy().into_owned();
    let pairs: BTreeSet<(String, String)> = arrows
        .iter()
        .filter(|arrow| !declares(&arrow.to, &arrow.from))
        .map(|arrow| (name(&arrow.from), name(&arrow.to)))
        .collect();
    let known =
        |pair: &(String, String)| KNOWN_CIRCLES.iter().any(|row| (row.0, row.1) == (&pair.0, &pair.1));
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in pairs.iter().filter(|pair| !known(pair)) {
        graph.entry(from).or_default().insert(to);
    }
    assert_eq!(circle(&graph), None);
    let needed = |from: &str, to: &str| {
        pairs.contains(&(from.to_owned(), to.to_owned())) && way(&graph, to, from).is_some()
    };
    let others = KNOWN_CIRCLES.iter().filter(|(from, to, _)| !needed(from, to));
    let others: Vec<_> =
        others.map(|(from, to, _)| format!("{from} to {to}: the row is not needed")).collect();
    assert!(others.is_empty(), "{}", others.join("\n"));
}

/// True if `above` is src/x.rs or src/x/mod.rs, and `below` stands in src/x. Such files are one module: the upper file
/// calls the lower one, which may use the types of the upper one.
fn declares(above: &Path, below: &Path) -> bool {
    let folder = if above.ends_with("mod.rs") { above.parent() } else { None };
    below.starts_with(folder.map_or_else(|| above.with_extension(""), PathBuf::from))
}

/// The shortest way from one place to another along the arrows.
fn way<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut queue = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::from([from]);
    while let Some(path) = queue.pop_front() {
        let last = *path.last()?;
        if last == to {
            return Some(path);
        }
        for next in graph.get(last).into_iter().flatten().filter(|next| seen.insert(**next)) {
            queue.push_back([path.as_slice(), &[*next]].concat());
        }
    }
    None
}

/// The shortest circle. The file that it begins with stands again at its end.
fn circle(graph: &BTreeMap<&str, BTreeSet<&str>>) -> Option<String> {
    let arrows = graph.iter().flat_map(|(from, all)| all.iter().map(move |to| (*from, *to)));
    let circles = arrows.filter_map(|(from, to)| Some([&[from], way(graph, to, from)?.as_slice()].concat()));
    circles.min_by_key(Vec::len).map(|circle| circle.join(" -> "))
}

#[test]
fn parts_do_not_call_each_other() {
    // Values that one part needs of another are handed over by the plan. Shared vocabulary is free for all.
    const VOCABULARY: [&str; 4] = ["namespaces", "idmap", "mount_options", "bits"];
    let arrows = TREE.arrows();
    let wrong: Vec<_> = arrows
        .iter()
        .filter(|arrow| {
            let (Some(from), Some(to)) = (part(&arrow.from), part(&arrow.to)) else { return false };
            // parts/mod.rs hands on the table of fields.
            from != to && from != "mod" && to != "mod" && !VOCABULARY.contains(&to.as_str())
        })
        .collect();
    expect_only(KNOWN_CALLS, &wrong);
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
fn functions_fit_on_a_screen() {
    let mut long = BTreeSet::new();
    let tests = rust_files("tests").into_iter().map(|path| (path.clone(), tree::file(&path)));
    let tests: BTreeMap<_, _> = tests.collect();
    for (path, file) in TREE.files.iter().chain(&tests) {
        for function in &file.functions {
            let lines = function.last + 1 - function.first;
            if lines > LONGEST {
                long.insert((path.display().to_string(), function.name.as_str(), lines));
            }
        }
    }
    let known = |file: &str, name: &str| KNOWN_LONG.iter().any(|row| (row.0, row.1) == (file, name));
    let wrong: Vec<_> = long.iter().filter(|(file, name, _)| !known(file, name)).collect();
    assert!(wrong.is_empty(), "longer than {LONGEST} lines: {wrong:?}");
    for (file, name, _) in KNOWN_LONG {
        let needed = long.iter().any(|(long, function, _)| (long.as_str(), *function) == (*file, *name));
        assert!(needed, "{file} {name}: the row is not needed");
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
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in files {
        let name = file.display().to_string();
        for (number, line) in product(&file).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let Some(call) = by_name(code) else { continue };
            let function = TREE.files[&file].function(number + 1);
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
