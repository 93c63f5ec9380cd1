//! What a container may leave behind on the host: processes, cgroups, mounts, state. The crash sweep
//! (`integration/crash`) uses this file too.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Everything that is left of a container with this id and bundle; empty if the runtime cleaned up.
pub fn leftovers(id: &str, dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    left.extend(
        processes(id, dir).iter().map(|(pid, why)| format!("process {pid} {} ({why})", name_of(*pid))),
    );
    left.extend(cgroups(id).iter().map(|path| format!("cgroup {}", path.display())));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = dir.display().to_string();
    let ours = mounts.lines().filter(|line| line.contains(&name) || line.contains(id));
    left.extend(ours.map(|line| format!("mount {line}")));
    left.extend(names(&dir.join("state")).iter().map(|name| format!("state {name}")));
    left
}

/// As [`leftovers`], after giving the kernel time to end the killed processes.
pub fn leftovers_after(id: &str, dir: &Path, patience: Duration) -> Vec<String> {
    let deadline = Instant::now() + patience;
    loop {
        let left = leftovers(id, dir);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Removes from the host what the runtime could not remove, so that one fault does not spoil the next tests. It
/// touches only what carries this id or bundle.
pub fn sweep(id: &str, dir: &Path) {
    for path in cgroups(id) {
        let _ = fs::write(path.join("cgroup.freeze"), "0"); // Only version 2 has this file,
        let _ = fs::write(path.join("freezer.state"), "THAWED"); // and only version 1 has this one.
    }
    for _ in 0..200 {
        for pid in processes(id, dir).iter().filter_map(|(pid, _)| Pid::from_raw(*pid)) {
            let _ = kill_process(pid, Signal::KILL); // It may be gone.
        }
        for path in cgroups(id).iter().rev() {
            let _ = fs::remove_dir(path); // A cgroup with processes is busy; the next round removes it.
        }
        for name in names(&dir.join("state")) {
            let _ = fs::remove_dir_all(dir.join("state").join(name)); // It may be gone.
        }
        if leftovers(id, dir).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Living processes of the container, and of the runtime at work on it, each with the mark by which it was found.
pub fn processes(id: &str, dir: &Path) -> Vec<(i32, &'static str)> {
    let rootfs = fs::metadata(dir.join("rootfs")).map(|meta| (meta.dev(), meta.ino())).ok();
    let bundle = dir.display().to_string();
    let mut found = Vec::new();
    for name in names(Path::new("/proc")) {
        let Ok(pid) = name.parse::<i32>() else { continue };
        // A zombie waits for PID 1 of this machine to reap it. That is not the runtime's business.
        if pid == std::process::id() as i32 || !alive(pid) {
            continue;
        }
        let read = |file: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let line = read("cmdline");
        let root = fs::metadata(format!("/proc/{pid}/root")).map(|meta| (meta.dev(), meta.ino())).ok();
        if rootfs.is_some() && root == rootfs {
            found.push((pid, "the rootfs is its root"));
        } else if read("cgroup").contains(id) {
            found.push((pid, "it is in the container's cgroup"));
        } else if line.contains(id) || line.contains(&bundle) {
            found.push((pid, "the container is on its command line"));
        }
    }
    found
}

/// The cgroups in every mounted hierarchy whose path has the id; parents before their children.
pub fn cgroups(id: &str) -> Vec<PathBuf> {
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

/// Looks below a directory. It does not recurse: other tests nest cgroups as deep as the kernel allows.
fn below(dir: &Path, id: &str, found: &mut Vec<PathBuf>) {
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        // A directory has two links, and one more for each directory in it. Most have none, but dozens of files.
        if fs::metadata(&dir).is_ok_and(|meta| meta.nlink() == 2) {
            continue;
        }
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.path().display().to_string().contains(id) {
                    found.push(entry.path());
                }
                left.push(entry.path());
            }
        }
    }
}

/// The command line, or an empty text if the process is gone.
pub fn name_of(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

/// True if the process has neither ended nor become a zombie.
pub fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The names in a directory; none if it is no directory.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
