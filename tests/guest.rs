//! The guest: the one program that the black-box tests run inside their containers.
//!
//! It is static. Of the rootfs it needs only /proc, for some facts. Each sub-command prints one fact in a
//! form that is easy to compare. A sub-command that tries something prints `ok` or the name of the errno and exits
//! 0: for a test, "this is refused with EPERM" is a fact and not a failure.
//!
//! It has no Rust `main`: std's start-up code ignores SIGPIPE and reopens closed standard streams. The tests must
//! see both as the runtime left them.

#![no_main]
#![allow(unsafe_code)]

#[path = "guest/attacks.rs"]
mod attacks;
#[path = "guest/calls.rs"]
mod calls;
#[path = "guest/choices.rs"]
mod choices;
#[path = "guest/keys.rs"]
mod keys;
#[path = "guest/watch.rs"]
mod watch;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::exit;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid};

/// What a sub-command prints, or why it could not find the fact.
type Fact = Result<String, String>;
type Command = fn(&[String]) -> Fact;

#[rustfmt::skip]
const COMMANDS: &[(&str, &str, Command)] = &[
    // name            arguments             prints
    ("multi",          "A… -- B… -- …",      multi),          // each one's output, in order
    ("pid",            "",                   pid),
    ("ids",            "",                   ids),            // uid=0 gid=0 groups=1,2 umask=0022
    ("caps",           "",                   caps),           // five lines: set=CAP_A,CAP_B
    ("status",         "FIELD",              status),         // a field of /proc/self/status
    ("hostname",       "",                   hostname),
    ("domainname",     "",                   domainname),
    ("cwd",            "",                   cwd),
    ("env",            "[NAME]",             env),
    ("args",           "…",                  |args| Ok(args.join("|"))),
    ("rlimit",         "RLIMIT_X",           rlimit),         // soft:hard
    ("mountinfo",      "[POINT]",            mountinfo),      // point type options propagation super-options
    ("stat",           "PATH",               stat),           // type [major:minor] mode uid gid
    ("read",           "PATH",               read),
    ("readlink",       "PATH",               |args| Ok(link(word(args, 0)?))),
    ("ls",             "PATH",               ls),
    ("write",          "PATH TEXT",          write),
    ("mkdir",          "PATH",               |args| Ok(tried(fs::create_dir(word(args, 0)?)))),
    ("open",           "PATH r|w",           open),
    ("mknod",          "PATH c|b MAJOR MINOR", mknod),
    ("mount",          "SOURCE TARGET TYPE", mount),
    ("cover",          "",                   attacks::cover), // mounts something on each mount point
    ("remount-rw",     "PATH",               attacks::remount_writable),
    ("chmod",          "PATH MODE",          attacks::chmod),  // in octal
    ("umount",         "TARGET",             |args| Ok(tried(rustix::mount::unmount(word(args, 0)?.as_str(), rustix::mount::UnmountFlags::empty()).map_err(Into::into)))),
    ("sethostname",    "NAME",               |args| Ok(tried(rustix::system::sethostname(word(args, 0)?.as_bytes()).map_err(Into::into)))),
    ("chown",          "PATH UID GID",       |args| Ok(tried(std::os::unix::fs::chown(word(args, 0)?, Some(number(args, 1)?), Some(number(args, 2)?))))),
    ("fds",            "",                   fds),            // 0 1 2
    ("ns",             "TYPE",               |args| Ok(link(&format!("/proc/self/ns/{}", word(args, 0)?)))),
    ("cgroup",         "",                   |_| Ok(told(fs::read_to_string("/proc/self/cgroup")))),
    ("sysctl",         "NAME",               |args| Ok(told(fs::read_to_string(format!("/proc/sys/{}", word(args, 0)?.replace('.', "/")))))),
    ("tty",            "",                   tty),
    ("winsize",        "",                   winsize),        // rows x columns
    ("onlcr",          "",                   onlcr),
    ("raw",            "",                   raw),            // puts its terminal into raw mode
    ("session",        "",                   session),        // leader|member foreground|background
    ("keyring",        "",                   keys::keyring),  // name of the session keyring
    ("with-key",       "NAME PROGRAM ARG…",  keys::with_key),   // executes the program with a session keyring that holds the key
    ("find-key",       "NAME",               keys::find_key),
    ("grab-exe",       "SECONDS NAME",          attacks::grab_exe), // opens another program's executable, writes to it when that program has ended
    ("seize",          "SECONDS",            attacks::seize),    // traces each process that enters
    ("siblings",       "SECONDS",            attacks::siblings), // makes children for its parent
    ("hold",           "SECONDS",            attacks::hold),     // traces each process that enters, and never waits for it
    ("refreeze",       "SECONDS",            attacks::refreeze), // freezes a child again and again (cgroup version 1)
    ("watch",          "SECONDS HOST-PATH",  watch::watch),      // what it sees of processes that enter
    ("catch",          "SECONDS HOST-PATH",  watch::catch),      // what such a process holds when it is traced
    ("stop",           "SECONDS",            watch::stop),       // sends each such process SIGSTOP
    ("without-keys",   "PROGRAM ARG…",       keys::without_keys), // executes the program while the user's quota of keys is full
    ("sched",          "",                   sched),          // policy priority nice
    ("ioprio",         "",                   ioprio),         // class level
    ("personality",    "",                   personality),
    ("machine",        "",                   |_| Ok(rustix::system::uname().machine().to_string_lossy().into_owned())),
    ("clock",          "monotonic|boottime", clock),          // whole seconds
    ("syscall",        "NR [ARG…]",          syscall),        // = RESULT, or the errno
    ("syscall32",      "NR [A [B [C]]]",     calls::syscall32), // the same, as 32-bit x86 (int 0x80)
    ("connect",        "PATH",               |args| Ok(tried(UnixStream::connect(word(args, 0)?).map(|_| ())))),
    ("notify",         "TEXT",               notify),
    ("notify-flood",   "TEXT",               |args| { println!("ready"); loop { notify(args)?; } }), // sends TEXT for ever
    ("stdin",          "",                   stdin),          // everything that can be read
    ("stderr",         "TEXT",               stderr),
    ("flood",          "",                   |_| loop { println!("{}", "x".repeat(79)) }), // prints for ever
    ("exit",           "STATUS",             |args| exit(number(args, 0)?)),
    ("kill-self",      "SIGNAL",             kill_self),
    ("sleep",          "SECONDS",            |args| { std::thread::sleep(Duration::from_secs_f64(number(args, 0)?)); Ok(String::new()) }),
    ("pause",          "",                   |_| loop { nix::unistd::pause() }),
    ("touch-and-pause", "PATH",              |args| { fs::write(word(args, 0)?, "").map_err(|e| e.to_string())?; loop { nix::unistd::pause(); } }),
    ("trap",           "SIGNAL STATUS",      trap),           // waits for the signal, exits with the status
    ("signals",        "",                   signals),        // got NUMBER, for each
    ("spawn",          "COUNT",              spawn),          // pausing children, then pauses
    ("named",          "HEX",                choices::named),          // sets its name, and pauses
    ("next-names",     "",                   choices::next_names),     // after each SIGUSR1 its name is the next byte
    ("leaderless",     "",                   choices::leaderless),     // only its second thread lives on
    ("exec-by-thread", "",                   choices::exec_by_thread), // executes itself for ever, each time by another thread
    ("fork-bomb",      "COUNT",              fork_bomb),      // forked K[, then EAGAIN]
    ("eat-memory",     "MIB",                eat_memory),
    ("burn-cpu",       "SECONDS",            burn_cpu),
    ("fuse-busy",      "PATH",               attacks::fuse_busy), // mounts there; EBUSY for the first process that enters
    ("hunt",           "HOST-PATH SECONDS",  attacks::hunt),  // looks for a host file behind every fd, cwd and root
];

/// The C library calls this; the module's header says why it is not a Rust `main`.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(fact) => {
            // A container may run with a closed stdout. Then nobody can read an error.
            let _ = writeln!(std::io::stdout(), "{}", fact.trim_end_matches('\n'));
            let _ = std::io::stdout().flush();
            0
        }
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "guest: {}: {reason}", args.join(" "));
            125
        }
    }
}

fn run(args: &[String]) -> Fact {
    let name = word(args, 0)?;
    match COMMANDS.iter().find(|(known, ..)| known == name) {
        Some((_, _, command)) => command(&args[1..]),
        None => Err(format!(
            "no such sub-command; there are:\n{}",
            COMMANDS.iter().map(|(name, args, _)| format!("  {name} {args}\n")).collect::<String>()
        )),
    }
}

fn multi(args: &[String]) -> Fact {
    let mut commands: Vec<_> = args.split(|arg| arg == "--").collect();
    let last = commands.pop().unwrap_or_default();
    for one in commands {
        // Printed at once: a later sub-command may never return.
        println!("{}", run(one)?.trim_end_matches('\n'));
    }
    run(last)
}

// --- words in, words out ---

fn word(args: &[String], index: usize) -> Result<&String, String> {
    args.get(index).ok_or_else(|| format!("argument {} is missing", index + 1))
}

fn number<T: std::str::FromStr>(args: &[String], index: usize) -> Result<T, String> {
    let text = word(args, index)?;
    text.parse().map_err(|_| format!("{text:?} is not a number here"))
}

/// The fact about an attempt that returns no value.
fn tried(result: std::io::Result<()>) -> String {
    told(result.map(|()| "ok".to_owned()))
}

/// The value, or the errno in its place.
fn told(result: std::io::Result<String>) -> String {
    result.unwrap_or_else(|error| match error.raw_os_error() {
        Some(errno) => format!("{:?}", Errno::from_raw(errno)),
        None => error.to_string(),
    })
}

fn link(path: &str) -> String {
    told(fs::read_link(path).map(|target| target.display().to_string()))
}

/// As `told`, for a raw system call.
fn returned(result: i64) -> String {
    if result < 0 { format!("{:?}", Errno::last()) } else { format!("= {result}") }
}

// --- who am I ---

fn pid(_: &[String]) -> Fact {
    Ok(std::process::id().to_string())
}

fn ids(_: &[String]) -> Fact {
    let groups = rustix::process::getgroups().map_err(|e| e.to_string())?;
    let groups: Vec<_> = groups.iter().map(|gid| gid.as_raw().to_string()).collect();
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Ok(format!("uid={uid} gid={gid} groups={} umask={:04o}", groups.join(","), umask.as_raw_mode()))
}

fn caps(_: &[String]) -> Fact {
    use caps::CapSet::{Ambient, Bounding, Effective, Inheritable, Permitted};
    let sets = [
        ("bounding", Bounding),
        ("effective", Effective),
        ("inheritable", Inheritable),
        ("permitted", Permitted),
        ("ambient", Ambient),
    ];
    let mut lines = Vec::new();
    for (name, set) in sets {
        let held = caps::read(None, set).map_err(|e| e.to_string())?;
        let mut held: Vec<_> = held.iter().map(ToString::to_string).collect();
        held.sort();
        lines.push(format!("{name}={}", held.join(",")));
    }
    Ok(lines.join("\n"))
}

fn status(args: &[String]) -> Fact {
    let (field, text) = (word(args, 0)?, told(fs::read_to_string("/proc/self/status")));
    let line = text.lines().find_map(|line| line.strip_prefix(field.as_str())?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned()).ok_or_else(|| format!("no field {field}"))
}

fn hostname(_: &[String]) -> Fact {
    Ok(rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn domainname(_: &[String]) -> Fact {
    Ok(rustix::system::uname().domainname().to_string_lossy().into_owned())
}

fn cwd(_: &[String]) -> Fact {
    Ok(told(std::env::current_dir().map(|path| path.display().to_string())))
}

fn env(args: &[String]) -> Fact {
    if let Ok(name) = word(args, 0) {
        return Ok(std::env::var(name).unwrap_or_else(|_| "unset".to_owned()));
    }
    Ok(std::env::vars().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n"))
}

fn rlimit(args: &[String]) -> Fact {
    use rustix::process::Resource;
    let resource = match word(args, 0)?.as_str() {
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_STACK" => Resource::Stack,
        "RLIMIT_AS" => Resource::As,
        other => return Err(format!("unknown resource {other}")),
    };
    let limit = rustix::process::getrlimit(resource);
    let shown = |value: Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
    Ok(format!("{}:{}", shown(limit.current), shown(limit.maximum)))
}

// --- what do I see ---

fn mountinfo(args: &[String]) -> Fact {
    let text = told(fs::read_to_string("/proc/self/mountinfo"));
    let mut lines = Vec::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let dash = fields.iter().position(|f| *f == "-").ok_or("a mountinfo line without a dash")?;
        if args.first().is_some_and(|point| point != fields[4]) {
            continue;
        }
        // Tags like "shared:7 master:3". The numbers differ from run to run, so they are cut off.
        let tags: Vec<_> = fields[6..dash].iter().map(|tag| tag.split(':').next().unwrap_or(tag)).collect();
        let propagation = if tags.is_empty() { "private".to_owned() } else { tags.join("+") };
        let (fstype, superblock) = (fields[dash + 1], fields[dash + 3]);
        lines.push(format!("{} {fstype} {} {propagation} {superblock}", fields[4], fields[5]));
    }
    if lines.is_empty() {
        lines.push("not a mount point".to_owned());
    }
    Ok(lines.join("\n"))
}

fn stat(args: &[String]) -> Fact {
    let meta = match fs::symlink_metadata(word(args, 0)?) {
        Ok(meta) => meta,
        Err(error) => return Ok(told(Err(error))),
    };
    let kind = meta.file_type();
    let device = || format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let what = match () {
        () if kind.is_char_device() => format!("char {}", device()),
        () if kind.is_block_device() => format!("block {}", device()),
        () if kind.is_dir() => "dir".to_owned(),
        () if kind.is_symlink() => "symlink".to_owned(),
        () if kind.is_fifo() => "fifo".to_owned(),
        () if kind.is_socket() => "socket".to_owned(),
        () => "file".to_owned(),
    };
    Ok(format!("{what} {:04o} {} {}", meta.mode() & 0o7777, meta.uid(), meta.gid()))
}

fn read(args: &[String]) -> Fact {
    Ok(told(fs::read(word(args, 0)?).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())))
}

fn ls(args: &[String]) -> Fact {
    let entries = match fs::read_dir(word(args, 0)?) {
        Ok(entries) => entries,
        Err(error) => return Ok(told(Err(error))),
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().display().to_string()).collect();
    names.sort();
    Ok(names.join(" "))
}

fn write(args: &[String]) -> Fact {
    Ok(tried(fs::write(word(args, 0)?, word(args, 1)?)))
}

fn open(args: &[String]) -> Fact {
    let mut options = fs::OpenOptions::new();
    match word(args, 1)?.as_str() {
        "r" => options.read(true),
        "w" => options.write(true),
        other => return Err(format!("unknown way to open: {other}")),
    };
    Ok(tried(options.open(word(args, 0)?).map(|_| ())))
}

fn mknod(args: &[String]) -> Fact {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let kind = if word(args, 1)? == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
    let device = makedev(number(args, 2)?, number(args, 3)?);
    Ok(tried(
        mknodat(CWD, word(args, 0)?.as_str(), kind, Mode::from_raw_mode(0o666), device).map_err(Into::into),
    ))
}

fn mount(args: &[String]) -> Fact {
    let (source, target, fstype) = (word(args, 0)?, word(args, 1)?, word(args, 2)?);
    let mounted = rustix::mount::mount(
        source.as_str(),
        target.as_str(),
        fstype.as_str(),
        rustix::mount::MountFlags::empty(),
        None,
    );
    Ok(tried(mounted.map_err(Into::into)))
}

fn fds(_: &[String]) -> Fact {
    // By fcntl(2): listing /proc/self/fd would open one more descriptor.
    // SAFETY: F_GETFD only reads a flag of the descriptor, or fails with EBADF.
    let open: Vec<_> = (0..1024).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0).collect();
    Ok(open.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

// --- terminal and session ---

fn tty(_: &[String]) -> Fact {
    Ok(told(
        rustix::termios::ttyname(std::io::stdin(), Vec::new())
            .map(|name| name.to_string_lossy().into_owned())
            .map_err(Into::into),
    ))
}

fn winsize(_: &[String]) -> Fact {
    Ok(told(
        rustix::termios::tcgetwinsize(std::io::stdin())
            .map(|size| format!("{} x {}", size.ws_row, size.ws_col))
            .map_err(Into::into),
    ))
}

fn onlcr(_: &[String]) -> Fact {
    let modes = rustix::termios::tcgetattr(std::io::stdin()).map_err(|e| e.to_string())?.output_modes;
    Ok(if modes.contains(rustix::termios::OutputModes::ONLCR) { "on" } else { "off" }.to_owned())
}

fn raw(_: &[String]) -> Fact {
    let mut modes = rustix::termios::tcgetattr(std::io::stdin()).map_err(|e| e.to_string())?;
    modes.make_raw();
    let set = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &modes);
    Ok(tried(set.map_err(Into::into)))
}

fn session(_: &[String]) -> Fact {
    let me = nix::unistd::getpid();
    let leader = nix::unistd::getsid(None).map_err(|e| e.to_string())? == me;
    let front = nix::unistd::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp());
    let (leader, front) =
        (if leader { "leader" } else { "member" }, if front { "foreground" } else { "background" });
    Ok(format!("{leader} {front}"))
}

// --- what the kernel keeps for me ---

fn sched(_: &[String]) -> Fact {
    // SAFETY: the attribute is plain integers, for which all zeroes is a value, and outlives the call.
    let (result, attr) = unsafe {
        let mut attr: libc::sched_attr = std::mem::zeroed();
        let size = size_of::<libc::sched_attr>();
        (libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0), attr)
    };
    if result < 0 {
        return Ok(returned(result));
    }
    let names = ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "-", "SCHED_IDLE", "SCHED_DEADLINE"];
    let policy = names.get(attr.sched_policy as usize).unwrap_or(&"-");
    Ok(format!("{policy} priority={} nice={}", attr.sched_priority, attr.sched_nice))
}

fn ioprio(_: &[String]) -> Fact {
    // SAFETY: ioprio_get takes integers only.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
    let class = ["none", "realtime", "best-effort", "idle"].get((value >> 13) as usize).unwrap_or(&"-");
    Ok(if value < 0 { returned(value) } else { format!("{class} {}", value & 0x1fff) })
}

fn personality(_: &[String]) -> Fact {
    // SAFETY: with 0xffffffff, personality(2) changes nothing and returns the current value.
    Ok(format!("{:#x}", unsafe { libc::personality(0xffff_ffff) }))
}

fn clock(args: &[String]) -> Fact {
    let id = if word(args, 0)? == "boottime" { libc::CLOCK_BOOTTIME } else { libc::CLOCK_MONOTONIC };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` outlives the call.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    Ok(now.tv_sec.to_string())
}

fn syscall(args: &[String]) -> Fact {
    let mut words = [0_i64; 6];
    for (index, value) in words.iter_mut().enumerate().take(args.len().saturating_sub(1)) {
        *value = number(args, index + 1)?;
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: the tests give integers only. Where the kernel wants a pointer they give 0, and it answers EFAULT.
    Ok(returned(unsafe { libc::syscall(number(args, 0)?, a, b, c, d, e, f) }))
}

// --- talking ---

fn notify(args: &[String]) -> Fact {
    let path = std::env::var("NOTIFY_SOCKET").map_err(|e| e.to_string())?;
    let socket = UnixDatagram::unbound().map_err(|e| e.to_string())?;
    Ok(tried(socket.send_to(word(args, 0)?.as_bytes(), path).map(|_| ())))
}

fn stdin(_: &[String]) -> Fact {
    let mut text = String::new();
    Ok(told(std::io::stdin().read_to_string(&mut text).map(|_| text)))
}

fn stderr(args: &[String]) -> Fact {
    Ok(tried(writeln!(std::io::stderr(), "{}", word(args, 0)?)))
}

// --- living, dying, consuming ---

fn signal(args: &[String]) -> Result<Signal, String> {
    let name = word(args, 0)?;
    name.parse().map_err(|_| format!("unknown signal {name}"))
}

fn kill_self(args: &[String]) -> Fact {
    // By number: nix's table of signals has no real-time signals.
    let signal: i32 = number(args, 0)?;
    // SAFETY: signal(2) takes two integers here, and no handler of this program is set. The caller of the tests
    // may ignore the signal, as nohup(1) does, so the default is restored.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::kill(libc::getpid(), signal)
    };
    std::thread::sleep(Duration::from_secs(5));
    Ok("survived".to_owned())
}

fn trap(args: &[String]) -> Fact {
    let mut set = SigSet::empty();
    set.add(signal(args)?);
    // The signals are blocked and waited for: the kernel drops signals without a handler for PID 1, but keeps
    // blocked ones.
    set.thread_block().map_err(|e| e.to_string())?;
    println!("ready");
    set.wait().map_err(|e| e.to_string())?;
    exit(number(args, 1)?)
}

fn signals(_: &[String]) -> Fact {
    // With libc: nix's table of signals has no real-time signals.
    // SAFETY: the set is filled before it is read, and both pointers are to values in this frame.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        println!("ready");
        loop {
            let mut got = 0;
            if libc::sigwait(&raw const all, &raw mut got) == 0 {
                println!("got {got}.");
            }
        }
    }
}

fn child() -> Result<Pid, Errno> {
    // SAFETY: this program has one thread, so the child may do everything that the parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
    }
}

fn spawn(args: &[String]) -> Fact {
    for _ in 0..number(args, 0)? {
        child().map_err(|e| e.to_string())?;
    }
    println!("ready");
    loop {
        nix::unistd::pause();
    }
}

fn fork_bomb(args: &[String]) -> Fact {
    let wanted: usize = number(args, 0)?;
    let mut children = Vec::new();
    let mut end = String::new();
    while children.len() < wanted {
        match child() {
            Ok(pid) => children.push(pid),
            Err(errno) => {
                end = format!(", then {errno:?}");
                break;
            }
        }
    }
    for pid in &children {
        let _ = nix::sys::signal::kill(*pid, Signal::SIGKILL); // Nothing to do if it is gone already.
        let _ = nix::sys::wait::waitpid(*pid, None);
    }
    Ok(format!("forked {}{end}", children.len()))
}

fn eat_memory(args: &[String]) -> Fact {
    let mib: usize = number(args, 0)?;
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mib {
        eaten.push(vec![1; 1 << 20]); // Written with ones, so that the kernel must give each page.
    }
    Ok(format!("ate {} MiB", eaten.iter().filter(|block| std::hint::black_box(block)[0] == 1).count()))
}

fn burn_cpu(args: &[String]) -> Fact {
    let until = Instant::now() + Duration::from_secs_f64(number(args, 0)?);
    while Instant::now() < until {
        std::hint::black_box(0);
    }
    Ok("burnt".to_owned())
}
