//! What a hostile process tries from inside a container.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::{Fact, number, told, word};

pub fn hunt(args: &[String]) -> Fact {
    let wanted = word(args, 0)?;
    let until = Instant::now() + Duration::from_secs_f64(number(args, 1)?);
    while Instant::now() < until {
        for process in fs::read_dir("/proc").map_err(|e| e.to_string())?.flatten() {
            let links =
                ["root".to_owned(), "cwd".to_owned()].into_iter().chain((0..32).map(|n| format!("fd/{n}")));
            for link in links.map(|link| process.path().join(link)) {
                if fs::metadata(format!("{}{wanted}", link.display())).is_ok() {
                    return Ok(format!("escaped by {}", link.display()));
                }
            }
        }
    }
    Ok("contained".to_owned())
}

/// The visible processes, without this one.
fn others() -> Vec<i32> {
    let own = std::process::id() as i32;
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| *pid != own).collect()
}

/// CVE-2019-5736. Opens the executable of a process that runs another program and whose name begins with NAME.
/// Writes to the file when that process has ended, because a running file is busy.
pub fn grab_exe(args: &[String]) -> Fact {
    let wanted = word(args, 1)?;
    let until = Instant::now() + Duration::from_secs_f64(number(args, 0)?);
    let own = fs::metadata("/proc/self/exe").map_err(|error| error.to_string())?;
    let mut held = None;
    while Instant::now() < until {
        use std::os::unix::fs::MetadataExt;
        for pid in others() {
            if held.is_some() {
                break;
            }
            let path = format!("/proc/{pid}/exe");
            if !fs::read_link(&path).is_ok_and(|link| link.display().to_string().starts_with(wanted)) {
                continue;
            }
            let Ok(exe) = fs::File::open(path) else { continue };
            let found = exe.metadata().map(|found| (found.dev(), found.ino()));
            if found.is_ok_and(|found| found != (own.dev(), own.ino())) {
                held = Some(exe);
            }
        }
    }
    let Some(held) = held else { return Ok("never seen".to_owned()) };
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    // Without truncation: where the attack works, the file must keep its contents.
    Ok(told(fs::OpenOptions::new().write(true).open(path).map(|_| "written".to_owned())))
}

/// CVE-2016-9962. Attaches to each process that enters the container, before that process runs the container's
/// program.
pub fn seize(args: &[String]) -> Fact {
    let until = Instant::now() + Duration::from_secs_f64(number(args, 0)?);
    let own = fs::read_link("/proc/self/exe").map_err(|error| error.to_string())?;
    let mut seized = BTreeSet::new();
    while Instant::now() < until {
        for pid in others() {
            if seized.contains(&pid) || ptrace::seize(Pid::from_raw(pid), ptrace::Options::empty()).is_err() {
                continue;
            }
            seized.insert(pid);
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            // Detaching from a process needs it to be stopped first.
            let stopped = ptrace::interrupt(Pid::from_raw(pid));
            if stopped.is_ok() {
                let _ =
                    nix::sys::wait::waitpid(Pid::from_raw(pid), Some(nix::sys::wait::WaitPidFlag::__WALL));
                let _ = ptrace::detach(Pid::from_raw(pid), None); // It may have ended.
            }
            if exe.as_ref().is_ok_and(|exe| *exe != own) {
                return Ok(format!("escaped: seized {exe:?}"));
            }
        }
    }
    Ok(if seized.is_empty() { "seized nobody" } else { "seized our own" }.to_owned())
}

/// Needs CAP_SYS_ADMIN. Mounts the guest over each file of the mount table, and a tmpfs over each directory.
/// Prints how many mounts it made, and which were refused.
pub fn cover(_: &[String]) -> Fact {
    use rustix::mount::{MountFlags, mount};
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let mut points: Vec<_> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.reverse(); // Mounts below another mount come later in the table.
    let (mut covered, mut refused) = (0, Vec::new());
    for point in points {
        let done = match fs::metadata(point).map(|found| found.is_dir()) {
            Ok(true) => mount("covered", point, "tmpfs", MountFlags::empty(), None),
            _ => mount("/guest", point, "", MountFlags::BIND, None),
        };
        match done {
            Ok(()) => covered += 1,
            Err(errno) => refused.push(format!("{point} {:?}", Errno::from_raw(errno.raw_os_error()))),
        }
    }
    Ok(format!("covered {covered}, refused {refused:?}"))
}

pub fn remount_writable(args: &[String]) -> Fact {
    use rustix::mount::{MountFlags, mount_remount};
    let path = word(args, 0)?;
    Ok(told(
        mount_remount(path.as_str(), MountFlags::BIND, c"").map(|()| "ok".to_owned()).map_err(Into::into),
    ))
}

pub fn chmod(args: &[String]) -> Fact {
    use std::os::unix::fs::PermissionsExt;
    let mode = u32::from_str_radix(word(args, 1)?, 8).map_err(|error| error.to_string())?;
    let done = fs::set_permissions(word(args, 0)?, fs::Permissions::from_mode(mode));
    Ok(told(done.map(|()| "ok".to_owned())))
}

/// Mounts a FUSE directory. Its server answers EBUSY to the first two who enter it, and lets later ones in: `exec` enters
/// it as root, and then as the user.
pub fn fuse_busy(args: &[String]) -> Fact {
    const GETATTR: u32 = 3;
    const INIT: u32 = 26;
    const ACCESS: u32 = 34;
    const SILENT: [u32; 3] = [2, 36, 42]; // FORGET, INTERRUPT, BATCH_FORGET
    let path = word(args, 0)?;
    let device =
        fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|e| e.to_string())?;
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let data = std::ffi::CString::new(data).map_err(|e| e.to_string())?;
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("fuse", path.as_str(), "fuse", flags, data.as_c_str()).map_err(|e| e.to_string())?;
    println!("ready");
    let mut refused = 0;
    let mut request = vec![0u8; 1 << 17];
    loop {
        let length = rustix::io::read(&device, &mut request[..]).map_err(|e| e.to_string())?;
        // struct fuse_in_header
        let number = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| request[at + byte]));
        let opcode = number(4);
        let unique = &request[8..16];
        let (error, body) = match opcode {
            opcode if length < 40 || SILENT.contains(&opcode) => continue,
            INIT => (0, words(16, &[(0, 7), (1, 31), (5, 4096)])), // version, max_write
            GETATTR => (0, words(26, &[(4, 1), (19, 0o40_755), (20, 2)])), // inode, mode, links
            ACCESS if refused < 2 => {
                refused += 1;
                (libc::EBUSY, vec![])
            }
            ACCESS => (0, vec![]),
            _ => (libc::ENOSYS, vec![]),
        };
        // struct fuse_out_header
        let mut answer = (16 + body.len() as u32).to_ne_bytes().to_vec();
        answer.extend((-error).to_ne_bytes());
        answer.extend(unique);
        answer.extend(body);
        let _ = rustix::io::write(&device, &answer); // The process that asked may be gone.
    }
}

/// This many words of 32 bits: the given ones, and zero elsewhere.
fn words(count: usize, set: &[(usize, u32)]) -> Vec<u8> {
    let mut all = vec![0u32; count];
    for (index, value) in set {
        all[*index] = *value;
    }
    all.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Attaches to whoever comes, says so, and never waits for one: a process that ends so stays a zombie.
pub fn hold(args: &[String]) -> Fact {
    let until = Instant::now() + Duration::from_secs_f64(number(args, 0)?);
    let mut held = BTreeSet::new();
    println!("ready");
    while Instant::now() < until {
        for pid in others() {
            if !held.contains(&pid) && ptrace::seize(Pid::from_raw(pid), ptrace::Options::empty()).is_ok() {
                held.insert(pid);
                println!("seized");
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok("done".to_owned())
}

/// Children of our own parent (CLONE_PARENT), faster than it can reap them one by one.
pub fn siblings(args: &[String]) -> Fact {
    extern "C" fn end(_: *mut libc::c_void) -> i32 {
        0
    }
    let until = Instant::now() + Duration::from_secs_f64(number(args, 0)?);
    // The limit of processes must not keep a thread from being made.
    let all = std::sync::Arc::new(std::sync::Barrier::new(31));
    let makers: Vec<_> = (0..30)
        .map(|_| {
            let all = all.clone();
            std::thread::spawn(move || {
                all.wait();
                const STACK: usize = 4096;
                // Several, for a child may still run when the next one is made.
                let mut stacks = vec![0u8; STACK * 64];
                let flags = libc::CLONE_VM | libc::CLONE_PARENT | libc::SIGCHLD;
                for number in (1..=64).cycle() {
                    // SAFETY: the end of a part of the memory, which lives as long as the thread.
                    let top = unsafe { stacks.as_mut_ptr().add(number * STACK - 64) };
                    // SAFETY: the child has a stack of its own, and returns from `end` at once.
                    unsafe { libc::clone(end, top.cast(), flags, std::ptr::null_mut()) };
                    if number == 64 && Instant::now() > until {
                        return;
                    }
                }
            })
        })
        .collect();
    println!("ready");
    all.wait();
    for maker in makers {
        maker.join().map_err(|_| "a thread has panicked")?;
    }
    Ok("done".to_owned())
}

/// A child in a freezer cgroup of its own, frozen again as often as somebody lets it go.
pub fn refreeze(args: &[String]) -> Fact {
    use nix::unistd::{ForkResult, fork};
    let seconds: f64 = number(args, 0)?;
    let dir = std::path::Path::new("/sys/fs/cgroup/freezer/below");
    let put = |file: &str, text: &str| fs::write(dir.join(file), text).map_err(|e| format!("{file}: {e}"));
    fs::create_dir(dir).map_err(|error| error.to_string())?;
    // SAFETY: the guest has one thread.
    match unsafe { fork() }.map_err(|errno| errno.to_string())? {
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
        ForkResult::Parent { child } => put("cgroup.procs", &child.to_string())?,
    }
    put("freezer.state", "FROZEN")?;
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    for _ in 0..2 {
        // SAFETY: as above.
        if let ForkResult::Child = unsafe { fork() }.map_err(|errno| errno.to_string())? {
            let file = fs::OpenOptions::new().write(true).open(dir.join("freezer.state"));
            let file = file.map_err(|error| error.to_string())?;
            while Instant::now() < until {
                for _ in 0..1000 {
                    let _ = rustix::io::pwrite(&file, b"FROZEN", 0);
                }
            }
            std::process::exit(0);
        }
    }
    println!("ready");
    std::thread::sleep(Duration::from_secs_f64(seconds));
    Ok("done".to_owned())
}
