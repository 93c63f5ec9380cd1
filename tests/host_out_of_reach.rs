//! An image that names the runtime's own descriptors: `/proc/self/fd/N/../..` leads to the host while the runtime has
//! a directory of the host open. In these tests nothing of the host is read, made, executed or written that way.
//!
//! `make test` tries the descriptors that init had when the attack was found. `make security` tries all from 3 to 64.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::attacks::{Make, everyone};
use crate::support::{Bundle, Container, begin, bind, copy_program, eventually, is_root, under_runc};

/// Enough to reach the root from any descriptor of these tests.
const UP: &str = "../../../../../../../../../../..";

/// The field or the file of the image that names a place of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `process.args[0]`
    Program,
    /// A directory of PATH is a symlink of the image.
    Path,
    /// The interpreter of a script of the image.
    Script,
    /// `process.cwd`, which exists, through a symlink of the image.
    Directory,
    /// `process.cwd`, which does not exist, so the runtime would make it.
    MissingDirectory,
    /// /etc/passwd of the image is a symlink.
    Passwd,
    /// The path of a startContainer hook.
    Hook,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::Program,
        Self::Path,
        Self::Script,
        Self::Directory,
        Self::MissingDirectory,
        Self::Passwd,
        Self::Hook,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    CreateAndStart,
    Run,
    RunDetached,
    Exec,
}

impl Verb {
    const ALL: [Self; 4] = [Self::CreateAndStart, Self::Run, Self::RunDetached, Self::Exec];
}

/// A directory of the host in which every user may write. It holds a program and a passwd file, and nothing else.
struct Host {
    _outer: Bundle,
    dir: String,
    before: Vec<String>,
}

impl Host {
    fn new() -> Self {
        let outer = Bundle::new();
        let dir = outer.host_directory("outside");
        let program = format!("{dir}/prog");
        fs::hard_link(outer.rootfs("guest"), &program)
            .unwrap_or_else(|_| copy_program(outer.rootfs("guest"), &program));
        fs::write(format!("{dir}/passwd"), "root:x:0:0::/of-the-host:/\n").expect("a passwd file");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("chmod");
        let before = shape(&dir);
        Self { _outer: outer, dir, before }
    }

    /// The paths that lead from a directory open as `fd` to this one, if `fd` is a directory of the host.
    fn leads_from(&self, fd: &str) -> Vec<String> {
        // One path goes up to the host's root. The other one is for descriptors whose file system has no path above
        // its root.
        let mut leads =
            vec![format!("{fd}/{UP}{}", self.dir), format!("{fd}/{UP}{}", below_mount(&self.dir))];
        leads.dedup();
        // The descriptor may be the host's /proc.
        leads.push(format!("{fd}/{}/root{}", std::process::id(), self.dir));
        leads
    }
}

/// Type, mode, owner, size and time of the files in a directory; reads none of them.
fn shape(dir: &str) -> Vec<String> {
    let names = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry").path());
    let tell = |path: &Path| {
        let meta = fs::symlink_metadata(path).expect("it is there");
        format!("{path:?} {:o} {} {} {:?}", meta.mode(), meta.uid(), meta.len(), meta.modified())
    };
    let mut all: Vec<_> = names.map(|path| tell(&path)).collect();
    all.sort();
    all
}

/// The path, relative to the mount point below which it is.
fn below_mount(path: &str) -> &str {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| *point != "/");
    let points = points.filter(|point| path.strip_prefix(point).is_some_and(|rest| rest.starts_with('/')));
    points.max_by_key(|point| point.len()).map_or(path, |point| &path[point.len()..])
}

/// What the configuration asks of the runtime in this attempt.
struct Asked {
    args: Vec<String>,
    cwd: String,
    path: String,
    hook: Option<String>,
}

/// Prepares the image for an attack by these paths. Only the attack through PATH takes more than one.
fn prepare(way: Way, image: &Path, leads: &[String], id: &str) -> Asked {
    let link = |name: &str, target: &str| {
        let link = image.join(name);
        fs::create_dir_all(link.parent().expect("a parent")).expect("a directory");
        let _ = fs::remove_file(&link); // It is left from the attack before.
        symlink(target, link).expect("a symlink");
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let lead = leads[0].as_str();
    let asked =
        Asked { args: words(&["/guest", "pid"]), cwd: "/".to_owned(), path: "/bin".to_owned(), hook: None };
    match way {
        Way::Program => Asked { args: words(&[&format!("{lead}/prog"), "args", "ran"]), ..asked },
        Way::Path => {
            for (index, lead) in leads.iter().enumerate() {
                link(&format!("path/{index}"), lead);
            }
            let path: Vec<_> = (0..leads.len()).map(|index| format!("/path/{index}")).collect();
            Asked { args: words(&["prog", "args", "ran"]), path: path.join(":"), ..asked }
        }
        Way::Script => {
            let script = image.join("script");
            fs::write(&script, format!("#!{lead}/prog args\n")).expect("a script");
            fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("chmod");
            Asked { args: words(&["/script", "ran"]), ..asked }
        }
        Way::Directory => {
            link("work", lead);
            Asked { args: words(&["/guest", "ls", "."]), cwd: "/work".to_owned(), ..asked }
        }
        Way::MissingDirectory => Asked { cwd: format!("{lead}/{id}.made/deep"), ..asked },
        Way::Passwd => {
            link("etc/passwd", &format!("{lead}/passwd"));
            Asked { args: words(&["/guest", "env", "HOME"]), ..asked }
        }
        Way::Hook => {
            link("hook", &format!("{lead}/prog"));
            Asked { hook: Some("/hook".to_owned()), ..asked }
        }
    }
}

/// The result of an attempt.
struct Outcome {
    started: bool,
    said: String,
}

/// Where the attempts are made: with `exec` in one container, or in a new container each.
enum Place {
    Fresh(Verb, Option<Bundle>),
    Inside(Container),
}

impl Place {
    fn new(verb: Verb, bundle: Bundle) -> Self {
        let bundle = bundle.directory("proc");
        match verb {
            Verb::Exec => Self::Inside(bundle.started()),
            verb => Self::Fresh(verb, Some(bundle)),
        }
    }

    fn bundle(&self) -> &Bundle {
        match self {
            Self::Fresh(_, bundle) => bundle.as_ref().expect("it is there between attempts"),
            Self::Inside(container) => &container.bundle,
        }
    }

    /// Makes one attempt. Its container is gone afterwards, unless it is the one for `exec`.
    fn attempt(&mut self, asked: Asked) -> Outcome {
        match self {
            Self::Inside(container) => {
                let env = format!("PATH={}", asked.path);
                let mut words = vec!["exec", "--cwd", &asked.cwd, "--env", &env, container.id()];
                words.extend(asked.args.iter().map(String::as_str));
                let output = container.bundle.call(&words);
                Outcome { started: output.code == 0, said: format!("{}{}", output.out, output.err) }
            }
            Self::Fresh(verb, slot) => {
                let hook = asked
                    .hook
                    .iter()
                    .map(|path| json!({"path": path, "args": ["prog", "write", "/ran", "x"]}));
                let bundle = slot.take().expect("it is there between attempts");
                let bundle = bundle
                    .set("/process/args", json!(asked.args))
                    .set("/process/cwd", json!(asked.cwd))
                    .set("/process/env", json!([format!("PATH={}", asked.path)]))
                    .set("/hooks/startContainer", hook.collect::<Value>());
                let outcome = fresh(*verb, &bundle);
                *slot = Some(bundle);
                outcome
            }
        }
    }
}

fn fresh(verb: Verb, bundle: &Bundle) -> Outcome {
    bundle.write_config();
    let words: &[&str] = match verb {
        Verb::Run => &["run", &bundle.id],
        Verb::RunDetached => &["run", "--detach", &bundle.id],
        Verb::CreateAndStart | Verb::Exec => &["create", &bundle.id],
    };
    let (output, file) = begin(bundle.command(words), &bundle.dir).finish_but_keep();
    let mut started = output.code == 0;
    let mut said = output.out + &output.err;
    if started && verb == Verb::CreateAndStart {
        let output = bundle.call(&["start", &bundle.id]);
        started = output.code == 0;
        said += &output.err;
    }
    if started && verb != Verb::Run {
        // The process may also have ended before it became the program.
        let printed = || fs::read_to_string(&file).unwrap_or_default();
        let stopped = || bundle.call(&["state", &bundle.id]).out.contains("stopped");
        eventually("the process has printed, or ended", || !printed().is_empty() || stopped());
        started = !printed().is_empty();
        said += &printed();
    }
    if verb != Verb::Run && !crate::support::names(&bundle.dir.join("state")).is_empty() {
        bundle.call(&["delete", "--force", &bundle.id]);
    }
    Outcome { started, said }
}

/// True if the attempt reached the host.
fn reached(way: Way, host: &Host, bundle: &Bundle, outcome: &Outcome) -> bool {
    let made = shape(&host.dir) != host.before;
    if made {
        let _ = fs::remove_dir_all(format!("{}/{}.made", host.dir, bundle.id)); // The next attempt must not find it.
    }
    let hook_ran = fs::remove_file(bundle.rootfs("ran")).is_ok();
    let by_the_way = match way {
        // If the process started, its program or its working directory is the host's.
        Way::Program | Way::Path | Way::Script | Way::Directory => outcome.started,
        Way::Passwd => outcome.said.contains("/of-the-host"),
        Way::MissingDirectory | Way::Hook => false,
    };
    made || hook_ran || by_the_way || outcome.said.contains("of-the-host")
}

/// Removes the directories that a failing runtime made in the host's cgroups on the way to the tests' own processes.
fn forget_what_was_made() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let trees = mounts.lines().filter(|line| line.contains(" - cgroup"));
    for point in trees.filter_map(|line| line.split(' ').nth(4)) {
        // Deepest first. Only empty directories go, and only those below a name that is this process's id.
        let place = format!("{point}/{}", std::process::id());
        let _ = Command::new("find").args([&place, "-depth", "-type", "d", "-delete"]).output();
    }
}

/// Makes the attempts, and returns the paths that reached the host.
fn attack(way: Way, host: &Host, place: &mut Place, leads: &[String]) -> Vec<String> {
    let image = place.bundle().rootfs("");
    let id = place.bundle().id.clone();
    let together = if way == Way::Path { leads.len() } else { 1 };
    let mut hits = Vec::new();
    for leads in leads.chunks(together) {
        let outcome = place.attempt(prepare(way, &image, leads, &id));
        if reached(way, host, place.bundle(), &outcome) {
            hits.push(leads.first().expect("a lead").clone());
        }
    }
    if way == Way::MissingDirectory {
        forget_what_was_made();
    }
    hits
}

/// Makes the attack on a program that changes its root while it has a directory of the host open.
fn works_on_a_naive_runtime(way: Way, host: &Host) {
    let bundle = Bundle::new().directory("proc");
    let leads = host.leads_from("/proc/self/fd/9");
    let mut asked = prepare(way, &bundle.rootfs(""), &leads[..1], &bundle.id);
    let guest = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match way {
        Way::Directory => asked.args = guest(&["/guest", "ls", "/work"]),
        Way::MissingDirectory => {
            asked.args = guest(&["/guest", "mkdir", asked.cwd.strip_suffix("/deep").expect("it ends so")]);
        }
        Way::Passwd => asked.args = guest(&["/guest", "read", "/etc/passwd"]),
        Way::Hook => asked.args = guest(&["/hook", "write", "/ran", "x"]),
        Way::Program | Way::Path | Way::Script => {}
    }
    let script = "mount -t proc proc rootfs/proc && exec 9<state && PATH=$1:$PATH && shift && exec chroot rootfs \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script, "_", &asked.path]).args(asked.args);
    command.current_dir(&bundle.dir);
    let output = begin(command, &bundle.dir).finish();
    let outcome = Outcome { started: output.code == 0, said: format!("{}{}", output.out, output.err) };
    assert!(reached(way, host, &bundle, &outcome), "{way:?}: the attack does not work: {output}");
}

/// Attacks as each user, with each verb, through these descriptors.
fn sweep(way: Way, of_root: RangeInclusive<u32>, of_others: &[u32]) {
    crate::skip_unless!(is_root() && !under_runc(), "becoming another user needs root");
    let host = Host::new();
    works_on_a_naive_runtime(way, &host);
    let mut hits = Vec::new();
    for (who, make) in everyone() {
        for verb in Verb::ALL {
            if verb == Verb::Exec && way == Way::Hook {
                continue; // `exec` runs no startContainer hook.
            }
            let numbers: Vec<_> = if who == "root" && verb == Verb::Run {
                of_root.clone().collect()
            } else {
                of_others.to_vec()
            };
            let leads = numbers.iter().flat_map(|number| host.leads_from(&format!("/proc/self/fd/{number}")));
            let mut leads: Vec<_> = leads.collect();
            if way == Way::MissingDirectory {
                // Directories of the runtime itself. The tests look there for what was made.
                leads.extend(numbers.iter().map(|number| format!("/proc/self/fd/{number}")));
            }
            let mut place = Place::new(verb, make());
            let found = attack(way, &host, &mut place, &leads);
            hits.extend(found.into_iter().map(|lead| format!("{who}, {verb:?}: {lead}")));
            if let Place::Fresh(_, Some(bundle)) = &place {
                let left = crate::support::left_by(bundle);
                hits.extend(left.into_iter().map(|what| format!("{who}, {verb:?}: made {what}")));
            }
        }
    }
    assert!(hits.is_empty(), "{way:?}: {} attempts reached the host:\n{}", hits.len(), hits.join("\n"));
}

/// Descriptors that led to the host's directories when the attack was found. The short sweep of the other users and
/// verbs tries these.
const FEW: &[u32] = &[4, 8];

#[test]
fn process_args_do_not_lead_to_the_host() {
    sweep(Way::Program, 3..=20, FEW);
}

#[test]
fn a_symlink_in_path_does_not_lead_to_the_host() {
    // One PATH holds all of them.
    let numbers: Vec<_> = (3..=64).collect();
    sweep(Way::Path, 3..=64, &numbers);
}

#[test]
fn the_interpreter_of_a_script_is_not_the_hosts() {
    sweep(Way::Script, 3..=20, FEW);
}

#[test]
fn a_working_directory_behind_a_symlink_is_not_the_hosts() {
    sweep(Way::Directory, 3..=20, FEW);
}

#[test]
fn a_missing_working_directory_is_not_made_on_the_host() {
    sweep(Way::MissingDirectory, 3..=20, FEW);
}

#[test]
fn the_home_directory_is_not_read_from_the_host() {
    sweep(Way::Passwd, 3..=20, FEW);
}

#[test]
fn a_start_container_hook_is_not_a_program_of_the_host() {
    sweep(Way::Hook, 3..=20, FEW);
}

#[test]
#[ignore = "minutes: `make security` runs it"]
fn no_descriptor_leads_to_the_host_by_any_way() {
    let numbers: Vec<_> = (3..=64).collect();
    std::thread::scope(|scope| {
        for way in Way::ALL {
            let numbers = &numbers;
            scope.spawn(move || sweep(way, 3..=64, numbers));
        }
    });
}

#[test]
fn other_names_of_a_descriptor_do_not_lead_to_the_host() {
    crate::skip_unless!(is_root() && !under_runc(), "a mount of the host's /proc needs root");
    let host = Host::new();
    let mut leads = Vec::new();
    for directory in
        ["/dev/fd", "/proc/thread-self/fd", "/proc/1/fd", "/proc/self/task/1/fd", "/proc/1/task/1/fd"]
    {
        leads.extend(FEW.iter().flat_map(|number| host.leads_from(&format!("{directory}/{number}"))));
    }
    for link in ["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd", "/proc/1/root", "/proc/thread-self/root"]
    {
        leads.extend(host.leads_from(link));
    }
    let mut hits = Vec::new();
    for way in [Way::Program, Way::Path, Way::MissingDirectory] {
        for verb in [Verb::Run, Verb::Exec] {
            let mut place = Place::new(verb, Bundle::new());
            let found = attack(way, &host, &mut place, &leads);
            hits.extend(found.into_iter().map(|lead| format!("{way:?}, {verb:?}: {lead}")));
        }
    }
    assert!(hits.is_empty(), "{} attempts reached the host:\n{}", hits.len(), hits.join("\n"));
}

#[test]
fn processes_of_the_host_do_not_lead_to_the_host() {
    // The container sees these processes in the host's pid namespace, or in a bind mount of the host's /proc.
    crate::skip_unless!(is_root() && !under_runc(), "looking into processes of the host needs root");
    let host = Host::new();
    let open = fs::File::open(&host.dir).expect("the directory");
    let (own, fd) = (std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&open));
    let mut leads = vec![format!("/proc/{own}/root{}", host.dir), format!("/proc/{own}/fd/{fd}")];
    leads.extend(host.leads_from(&format!("/proc/{own}/cwd")));
    leads.push(format!("/proc/1/root{}", host.dir));
    for number in FEW {
        leads.extend(host.leads_from(&format!("/proc/self/fd/{number}")));
    }
    let mut hits = Vec::new();
    let cases: [(&str, Make); 2] = [
        ("the host's pid namespace", || Bundle::new().without_namespace("pid")),
        ("the host's /proc", || {
            let mut proc = bind("/proc", &["rbind"]);
            proc["destination"] = json!("/proc");
            Bundle::new().set("/mounts/0", proc)
        }),
    ];
    for (case, make) in cases {
        for way in [Way::Program, Way::Script, Way::Directory, Way::MissingDirectory, Way::Passwd, Way::Hook]
        {
            let mut place = Place::new(Verb::Run, make());
            let found = attack(way, &host, &mut place, &leads);
            hits.extend(found.into_iter().map(|lead| format!("{case}, {way:?}: {lead}")));
        }
    }
    assert!(hits.is_empty(), "{} attempts reached the host:\n{}", hits.len(), hits.join("\n"));
}

#[test]
fn the_runtime_is_not_a_program_of_the_container() {
    // CVE-2019-5736 begins so. The kernel does execute the runtime as a script's interpreter, from a mount that no
    // process can write to: `security::nothing_of_the_runtime_in_a_container_is_of_a_writable_mount`.
    crate::skip_unless!(!under_runc(), "runc executes a sealed copy of itself");
    let mut hits = Vec::new();
    for verb in [Verb::Run, Verb::CreateAndStart, Verb::Exec] {
        let mut place = Place::new(verb, Bundle::new().symlink("path/self", "/proc/self/exe"));
        for name in ["/proc/self/exe", "/proc/thread-self/exe", "/proc/1/exe", "/path/self", "self"] {
            let args = [name, "--version"].map(str::to_owned).to_vec();
            let asked = Asked { args, cwd: "/".to_owned(), path: "/path".to_owned(), hook: None };
            let outcome = place.attempt(asked);
            // For `exec`, process 1 is the guest.
            if outcome.said.contains("runc version") {
                hits.push(format!("{verb:?}: {name}"));
            }
        }
    }
    assert!(hits.is_empty(), "the runtime is executed:\n{}", hits.join("\n"));
}

#[test]
fn errors_do_not_tell_what_is_on_the_host() {
    // The error must not say whether the host has the file, or which type it has.
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    let host = Host::new();
    let mut told = Vec::new();
    for number in 3..=10 {
        let lead = &host.leads_from(&format!("/proc/self/fd/{number}"))[0];
        let mut place = Place::new(Verb::Run, Bundle::new());
        let mut error = |name: &str| {
            let path = format!("{lead}/{name}");
            let args = vec![path.clone()];
            let outcome =
                place.attempt(Asked { args, cwd: "/".to_owned(), path: "/bin".to_owned(), hook: None });
            let said =
                outcome.said.split_once("msg=").map(|(_, said)| said.to_owned()).unwrap_or(outcome.said);
            said.replace(&path, "PATH")
        };
        let nothing = error("nothing");
        for name in ["file", "."] {
            let said = error(name);
            if said != nothing {
                told.push(format!("fd {number}, {name}: {said}"));
            }
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_program_of_the_host_is_not_overwritten_by_a_linker_of_the_image() {
    // A dynamic program takes its linker from the image. The linker opens /proc/self/exe, which is the host's file.
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    let host = Host::new();
    let victim = format!("{}/victim", host.dir);
    let dynamic = fs::read("/bin/true").expect("a program of the host");
    let linker = b"/lib64/ld-linux-x86-64.so.2";
    let takes_it = dynamic.windows(linker.len()).any(|bytes| bytes == linker);
    crate::skip_unless!(takes_it, "/bin/true of this host is not a dynamic program");
    let image = || {
        let bundle = Bundle::new().directory("lib64");
        let linker = bundle.rootfs("lib64/ld-linux-x86-64.so.2");
        fs::write(&linker, crate::programs::hostile_linker()).expect("the linker");
        fs::set_permissions(linker, fs::Permissions::from_mode(0o755)).expect("chmod");
        // The least that a container can have.
        bundle.set("/process/capabilities", json!({}))
    };
    let overwritten = || {
        let text = fs::read(&victim).expect("the victim");
        copy_program("/bin/true", &victim);
        text != dynamic
    };
    copy_program("/bin/true", &victim);
    // The attack works on a program of the host that the container gets by a bind mount.
    let given = image().mount("/given", bind(&host.dir, &[])).args(["/given/victim"]);
    given.start("run").finish();
    assert!(overwritten(), "the attack does not work");
    let mut hits = Vec::new();
    for number in 3..=20 {
        let lead = &host.leads_from(&format!("/proc/self/fd/{number}"))[0];
        let bundle = image()
            .set("/process/args", json!([format!("{lead}/victim")]))
            .set("/root/readonly", json!(true));
        drop(bundle.start("run").finish());
        if overwritten() {
            hits.push(number);
        }
    }
    assert!(hits.is_empty(), "overwritten by way of the descriptors {hits:?}");
}
