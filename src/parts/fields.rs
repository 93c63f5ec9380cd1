//! Two tables of the properties of config.json: the file that applies a property, or why no file does.
//!
//! `fields.txt` lists every property of runtime-spec 1.3 with an example value. `tools/schema-fields` writes it from
//! the published JSON schema. A test here checks that each listed property has a row. A test in `plan` checks that each
//! applied property is read and changes the plan.
//! Not for: reading the properties (`spec`).

/// Each row: the path of a property, and the file below src/ that applies it and everything below it. `*` stands for an
/// element or a key. If several rows fit a property, the longest path counts.
pub const APPLIED: &[(&str, &str)] = &[
    // The record holds them all. A few also change the plan: the file of the property that they change reads them.
    ("annotations", "launch/intent.rs"),
    ("domainname", "parts/hostname.rs"),
    ("hooks", "parts/hooks.rs"),
    ("hostname", "parts/hostname.rs"),
    ("linux.cgroupsPath", "cgroup/locate.rs"),
    ("linux.devices", "parts/devices.rs"),
    ("linux.gidMappings", "parts/idmap.rs"),
    ("linux.intelRdt", "parts/intel_rdt.rs"),
    ("linux.maskedPaths", "parts/paths.rs"),
    ("linux.memoryPolicy", "parts/memory_policy.rs"),
    ("linux.mountLabel", "parts/lsm.rs"),
    ("linux.namespaces", "parts/namespaces.rs"),
    ("linux.netDevices", "parts/netdevices.rs"),
    ("linux.personality.domain", "parts/personality.rs"),
    ("linux.readonlyPaths", "parts/paths.rs"),
    ("linux.resources", "cgroup/limits.rs"),
    ("linux.resources.devices", "cgroup/devices.rs"),
    ("linux.rootfsPropagation", "parts/rootfs.rs"),
    ("linux.seccomp", "parts/seccomp/mod.rs"),
    ("linux.sysctl", "parts/sysctl.rs"),
    ("linux.timeOffsets", "parts/namespaces.rs"),
    ("linux.uidMappings", "parts/idmap.rs"),
    ("mounts", "parts/mounts.rs"),
    ("ociVersion", "bundle.rs"),
    ("process.apparmorProfile", "parts/lsm.rs"),
    ("process.args", "parts/process.rs"),
    ("process.capabilities", "parts/capabilities.rs"),
    ("process.consoleSize", "parts/console.rs"),
    ("process.cwd", "parts/process.rs"),
    ("process.env", "parts/process.rs"),
    ("process.execCPUAffinity", "parts/scheduling.rs"),
    ("process.ioPriority", "parts/scheduling.rs"),
    ("process.noNewPrivileges", "init/identity.rs"),
    ("process.oomScoreAdj", "launch/conversation.rs"),
    ("process.rlimits", "parts/rlimits.rs"),
    ("process.scheduler", "parts/scheduling.rs"),
    ("process.selinuxLabel", "parts/lsm.rs"),
    ("process.terminal", "parts/console.rs"),
    ("process.user", "parts/user.rs"),
    ("root", "parts/rootfs.rs"),
];

/// What orlop does with a property that it does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Orlop refuses a configuration that has it.
    Refused,
    /// Orlop ignores it, as runc does.
    Ignored,
}

const OTHER_PLATFORM: &str = "another platform's";

/// The properties that orlop does not apply, and why.
pub const UNSUPPORTED: &[(&str, Fate, &str)] = &[
    ("freebsd", Fate::Ignored, OTHER_PLATFORM),
    ("linux.personality.flags", Fate::Refused, "the specification defines no flag"),
    ("linux.resources.memory.kernel", Fate::Ignored, "gone from Linux 5.4; with a warning"),
    ("linux.resources.memory.kernelTCP", Fate::Ignored, "gone with version 1; with a warning"),
    ("linux.resources.memory.useHierarchy", Fate::Ignored, "always so since Linux 5.11"),
    ("process.commandLine", Fate::Ignored, "for Windows"),
    ("process.user.username", Fate::Ignored, "for Windows"),
    ("solaris", Fate::Ignored, OTHER_PLATFORM),
    ("vm", Fate::Ignored, "for runtimes that start virtual machines"),
    ("windows", Fate::Ignored, OTHER_PLATFORM),
    ("zos", Fate::Ignored, OTHER_PLATFORM),
];

const LIST: &str = include_str!("fields.txt");

/// Every property that has a value of its own, with an example value as JSON.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    LIST.lines().filter_map(|line| line.split_once(' '))
}

/// Returns the known property that is nearest to the unknown one at `path`: a similar name in the same object, or the
/// same name in another object. `path` has dots between names, and numbers for elements.
pub fn nearest_known(path: &str) -> Option<&'static str> {
    let (place, name) = path.rsplit_once('.').unwrap_or(("", path));
    let known = |candidate: &'static str| {
        let (its_place, its_name) = candidate.rsplit_once('.').unwrap_or(("", candidate));
        let away = distance(name, its_name);
        let here = same_place(place, its_place);
        let near = if here { away <= 1 + name.len() / 4 } else { away == 0 };
        (near && its_name != "*").then_some((!here, away, candidate))
    };
    names().filter_map(known).min().map(|(_, _, candidate)| candidate)
}

/// Every property and every object that holds properties: `linux`, `linux.resources`, `linux.resources.pids` …
fn names() -> impl Iterator<Item = &'static str> {
    let levels = |path: &'static str| {
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        ends.filter_map(move |end| path.get(..end)).collect::<Vec<_>>()
    };
    all().flat_map(move |(path, _)| levels(path))
}

fn same_place(path: &str, known: &str) -> bool {
    let (mut path, mut known) = (path.split('.'), known.split('.'));
    loop {
        match (path.next(), known.next()) {
            (None, None) => return true,
            (Some(_), Some("*")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// The number of letters to insert, delete or replace to turn one word into the other, ignoring case (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut left = line + 1;
        let mut corner = line;
        let mut next = vec![left];
        for (above, its_letter) in row.iter().skip(1).zip(other.chars()) {
            left = (corner + usize::from(letter != its_letter)).min(left + 1).min(above + 1);
            corner = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(row: &str, path: &str) -> bool {
        path.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    fn rows() -> impl Iterator<Item = &'static str> {
        APPLIED.iter().map(|row| row.0).chain(UNSUPPORTED.iter().map(|row| row.0))
    }

    #[test]
    fn every_property_of_the_published_schema_has_a_row_and_every_row_a_property() {
        assert!(all().count() > 150, "the list is not read");
        for (path, _) in all() {
            assert!(rows().any(|row| covers(row, path)), "{path}: neither applied nor unsupported");
        }
        for row in rows() {
            assert!(all().any(|(path, _)| covers(row, path)), "{row}: not a property");
            assert_eq!(rows().filter(|other| *other == row).count(), 1, "{row} is there twice");
        }
    }

    #[test]
    fn the_files_are_there() {
        for (path, file) in APPLIED {
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
            assert!(file.is_file(), "{path}: {} is not there", file.display());
        }
    }

    #[test]
    fn slips_are_found_in_their_place_and_strays_by_their_name() {
        for (slip, meant) in [
            ("mounts.3.optoins", Some("mounts.*.options")),
            ("process.arg", Some("process.args")),
            ("linux.resources.pid", Some("linux.resources.pids")),
            ("linux.resources.memory.Limit", Some("linux.resources.memory.limit")),
            ("linux.capabilities", Some("process.capabilities")),
            ("rlimits", Some("process.rlimits")),
            ("hooks.prestart.0.pth", Some("hooks.prestart.*.path")),
            ("lunix", Some("linux")),
            ("x-vendor", None),
            ("process.zzz", None),
        ] {
            assert_eq!(nearest_known(slip), meant, "{slip}");
        }
    }

    #[test]
    fn the_distance_is_that_of_levenshtein() {
        for (one, other, away) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("args", "ARGS", 0), ("flaw", "lawn", 2)]
        {
            assert_eq!(distance(one, other), away, "{one} {other}");
            assert_eq!(distance(other, one), away, "{other} {one}");
        }
    }
}
