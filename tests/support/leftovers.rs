//! What a container may leave behind, looked for from outside: processes, cgroups, mounts, state.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// All that is left of a container with this id and bundle; empty when the runtime cleaned up.
pub fn leftovers(id: &str, dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    left.extend(processes(id, dir).iter().map(|(pid, why)| format!("process {pid} ({why})")));
    left.extend(cgroups(id).iter().map(|path| format!("cgroup {}", path.display())));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = dir.display().to_string();
    left.extend(mounts.lines().filter(|line| line.contains(&name)).map(|line| format!("mount {line}")));
    left.extend(state(dir).iter().map(|name| format!("state {name}")));
    left
}

/// Ends and removes what a failed test left, so that one failure does not spoil the machine for the next run. Only
/// what carries this test's own id or bundle is touched.
pub fn sweep(id: &str, dir: &Path) {
    for (pid, _) in processes(id, dir) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL); // It may be gone.
        }
    }
    for _ in 0..50 {
        let left = cgroups(id);
        if left.is_empty() {
            return;
        }
        for path in left.iter().rev() {
            let _ = fs::remove_dir(path); // Busy until the processes are gone: the next round.
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn processes(id: &str, dir: &Path) -> Vec<(i32, &'static str)> {
    let rootfs = fs::metadata(dir.join("rootfs")).map(|meta| (meta.dev(), meta.ino())).ok();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let path = entry.path();
        let read = |file: &str| fs::read(path.join(file)).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        // Dead and waiting to be reaped by whoever is PID 1 here: not the runtime's business.
        let dead = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        if dead || pid == std::process::id() as i32 {
            continue;
        }
        let has = |bytes: Vec<u8>, part: &str| String::from_utf8_lossy(&bytes).contains(part);
        let root = fs::metadata(path.join("root")).map(|meta| (meta.dev(), meta.ino())).ok();
        if rootfs.is_some() && root == rootfs {
            found.push((pid, "the rootfs is its root"));
        } else if has(read("cgroup"), id) {
            found.push((pid, "it is in the container's cgroup"));
        } else if has(read("cmdline"), id) || has(read("cmdline"), &dir.display().to_string()) {
            found.push((pid, "the container is on its command line"));
        }
    }
    found
}

/// Parents before their children.
fn cgroups(id: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((point, fstype)) = line.split_once(" - ") else { continue };
        if fstype.starts_with("cgroup") {
            below(Path::new(point.split(' ').nth(4).unwrap_or("/")), id, &mut found);
        }
    }
    found
}

fn below(dir: &Path, id: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.path().display().to_string().contains(id) {
                found.push(entry.path());
            }
            below(&entry.path(), id, found);
        }
    }
}

fn state(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("state")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().display().to_string()).collect()
}
