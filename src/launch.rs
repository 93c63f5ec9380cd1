//! The parent's spine: hold → reserve → cgroup → spawn → map ids → hooks → limits → ready → record.
//!
//! [`create`] makes a container for `create` and `run`, [`exec`] a process in one; both are served by the same
//! conversation with init (`wire.rs`). Not for: what happens in the child (`init.rs`).

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::destroy;
use crate::host::Host;
use crate::init::{self, Held};
use crate::log;
use crate::notify::{self, Notify};
use crate::oci_state::{self, OciState};
use crate::parts::hooks::Kind as HookKind;
use crate::parts::mounts::{self, CgroupSource, Source};
use crate::parts::namespaces::{Entry, Joins, Kind};
use crate::parts::{console, seccomp};
use crate::plan::Plan;
use crate::state::{self, Config, Container, ContainerDir, NamespaceEntry, Own, Phase, Record, Root};
use crate::sys::spawn::{self, Child, Parentage};
use crate::sys::{self, Called, fd, mount, pidfd, proc::Proc};
use crate::wire::{self, Event, Failure, InitEnd, Order, ParentEnd};
use anyhow::{Context, Result, anyhow};
use nix::sys::signal::SigSet;
use rustix::process::Pid;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How the caller wants to be told of the process, and by whom it is started.
#[derive(Debug, Default)]
pub struct Handover<'a> {
    /// `--pid-file`, absolute.
    pub pid_file: Option<PathBuf>,
    /// `--console-socket`
    pub console_socket: Option<&'a Path>,
    /// `--pidfd-socket`
    pub pidfd_socket: Option<&'a Path>,
    /// The signal mask that orlop was called with.
    pub mask: Option<SigSet>,
    /// The host's notify socket, if we start the process ourselves.
    pub notify: Option<OsString>,
}

/// Who lets the process of a new container run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedBy {
    /// A later `start`: init waits at the fifo.
    Start,
    /// We: `run`.
    Us,
}

/// A process that runs, or waits to be started.
#[derive(Debug)]
pub struct Launched {
    /// Our child, though it may have been made by another process of ours.
    pub child: Child,
    /// The terminal, when it is for us to serve.
    pub terminal: Option<OwnedFd>,
    /// The container's notify socket, when it is for us to serve.
    pub notify: Option<Notify>,
}

/// Makes the container of `plan`.
///
/// # Errors
/// Whatever went wrong, with its place; nothing is left of the container then.
pub fn create(
    plan: &mut Plan,
    bundle: &Bundle,
    host: &Host,
    root: &Path,
    by: StartedBy,
    handover: &Handover<'_>,
) -> Result<(Container, Launched)> {
    let root = Root::create(root)?;
    let cgroup = match &plan.cgroup {
        // A cgroup in use may be that of the container which has the id: that is the better reason then.
        Some(asked) => Cgroup::locate(asked, host).map_err(|error| root.taken(&plan.id).unwrap_or(error))?,
        None => Cgroup::none(),
    };
    let mut record = intent(plan, bundle, host, cgroup)?;
    let dir = root.reserve(&record)?;
    let (notify, mut held) = match ready(plan, &dir, handover) {
        Ok(ready) => ready,
        Err(error) => {
            // Nothing but the directory is there.
            root.remove(&plan.id)?;
            return Err(error);
        }
    };
    let made = make(plan, host, by, &mut held, &dir, &mut record)
        .and_then(|()| converse(plan, held, handover, Subject::Container { dir: &dir, record: &mut record }));
    match made {
        Ok(launched) => Ok((Container { dir, record }, Launched { notify, ..launched })),
        Err(error) => {
            // The same code as `delete --force`, over the same record.
            if let Err(left) = destroy::container(&root, &record) {
                log::warn(format!("undo of create {}: {left:#}", plan.id));
            }
            Err(error)
        }
    }
}

/// What must be there, and can be missing, before anything is made of the container but its directory.
fn ready(plan: &Plan, dir: &ContainerDir, handover: &Handover<'_>) -> Result<(Option<Notify>, Held)> {
    // The socket's directory is the source of a mount.
    let notify = listen(plan, dir, handover)?;
    let mut held = hold(plan, handover)?;
    if let Some(root) = &plan.root {
        // In the words of init, who opens them where we may not.
        let sources = root.mounts.hold().context("error during container init");
        held.mounts = sources.context("unable to start container process")?;
    }
    Ok((notify, held))
}

/// Makes the directory of the notify socket, and the socket if we are there when it is used.
fn listen(plan: &Plan, dir: &ContainerDir, handover: &Handover<'_>) -> Result<Option<Notify>> {
    if plan.notify.is_none() {
        return Ok(None);
    }
    let directory = dir.make_directory(notify::DIRECTORY)?;
    handover.notify.as_ref().map(|host| Notify::listen(directory.as_fd(), host)).transpose()
}

/// What is there before init is: each step is on record before it is taken.
fn make(
    plan: &Plan,
    host: &Host,
    by: StartedBy,
    held: &mut Held,
    dir: &ContainerDir,
    record: &mut Record,
) -> Result<()> {
    if let Some(asked) = &plan.cgroup {
        record.orlop.cgroup.create(asked)?;
        record.orlop.cgroup.set(asked)?;
        if let Some(owner) = plan.cgroup_owner.filter(|_| !record.orlop.cgroup.waits_for_process()) {
            record.orlop.cgroup.give_to(owner)?;
        }
        // What could not be had was dropped, and need not be removed.
        record.cgroup_paths = record.orlop.cgroup.paths();
    }
    log::debug(|| format!("create {}: cgroups {:?}", plan.id, record.cgroup_paths));
    if let Some(rdt) = &plan.intel_rdt {
        record.orlop.resctrl = Some(rdt.create()?);
        dir.commit(record)?;
    }
    if by == StartedBy::Start {
        held.gate = Some(dir.make_gate()?);
    }
    let cgroup = &record.orlop.cgroup;
    held.cgroup_tasks = cgroup.tasks()?;
    held.asks_for_cgroup = cgroup.waits_for_process();
    if plan.root.as_ref().is_some_and(|root| root.mounts.show_cgroup()) {
        let from_init = host.rootless() || plan.namespaces.private(Kind::User);
        held.cgroup_mount = cgroup_mount(cgroup, plan.namespaces.private(Kind::Cgroup), from_init)?;
    }
    held.hook_state = hook_state(record, "creating", 0);
    Ok(())
}

/// Starts the process of `plan` in a container that runs, in the cgroup `cgroup`.
///
/// # Errors
/// Whatever went wrong, with its place.
pub fn exec(
    plan: &mut Plan,
    container: &Container,
    cgroup: &Cgroup,
    handover: &Handover<'_>,
) -> Result<Launched> {
    let mut held = hold(plan, handover)?;
    let record = &container.record;
    let init = record.init().open()?.context("cannot exec in a stopped container")?;
    held.joins = Joins::of_process(init, plan.namespaces.0.keys().copied().collect());
    held.cgroup_tasks = cgroup.tasks()?;
    held.asks_for_cgroup = cgroup.needs_attach();
    held.hook_state = hook_state(record, "running", record.init_process_pid);
    converse(plan, held, handover, Subject::Process { record, cgroup })
}

/// What the conversation is about.
enum Subject<'a> {
    /// A new container.
    Container { dir: &'a ContainerDir, record: &'a mut Record },
    /// A process in one that runs.
    Process { record: &'a Record, cgroup: &'a Cgroup },
}

/// One conversation with init.
struct Launch<'a> {
    plan: &'a mut Plan,
    held: Held,
    handover: &'a Handover<'a>,
    subject: Subject<'a>,
}

fn converse(plan: &mut Plan, held: Held, handover: &Handover<'_>, subject: Subject<'_>) -> Result<Launched> {
    let mut launch = Launch { plan, held, handover, subject };
    let (wire, init_end) = wire::pair()?;
    let mut wire = Some(wire);
    let child = launch.spawn(&mut wire, init_end).context("unable to start container process")?;
    let wire = wire.context("the wire is init's")?;
    let mut launched = Launched { child, terminal: None, notify: None };
    log::debug(|| format!("{}: init is process {}", launch.plan.id, launched.child.pid));
    let served = launch.serve(&wire, &mut launched);
    if served.is_err() {
        // Whatever state it is in: nobody but us knows of it.
        let _ = pidfd::send_signal(launched.child.pidfd.as_fd(), libc::SIGKILL);
        let _ = pidfd::wait(launched.child.pidfd.as_fd());
    }
    served.context("unable to start container process")?;
    Ok(launched)
}

impl Launch<'_> {
    fn cgroup(&self) -> &Cgroup {
        match &self.subject {
            Subject::Container { record, .. } => &record.orlop.cgroup,
            Subject::Process { cgroup, .. } => cgroup,
        }
    }

    /// The child drops its copy of `wire`: as long as anybody has one, init would not see that we are dead.
    fn spawn(&mut self, wire: &mut Option<ParentEnd>, init_end: InitEnd) -> Result<Child> {
        let score = self.plan.process.oom_score_adj;
        let lent = score.map(|value| OwnScore::lend(&self.held.proc, value)).transpose()?;
        let cpus = self.plan.process.affinity.lend()?;
        let Self { plan, held, subject, .. } = self;
        let cgroup = match subject {
            Subject::Container { record, .. } => &record.orlop.cgroup,
            Subject::Process { cgroup, .. } => *cgroup,
        };
        let directory = if held.asks_for_cgroup { None } else { cgroup.dir()? };
        let child = match plan.entry {
            Entry::Direct { clone, .. } => spawn::spawn(clone as u64, Parentage::Child, directory, || {
                drop(wire.take());
                init::main(plan, held, &init_end)
            }),
            Entry::Hop { hop_joins_cgroup, .. } => {
                let (first, second) = if hop_joins_cgroup { (directory, None) } else { (None, directory) };
                spawn::spawn(0, Parentage::Child, first, || {
                    drop(wire.take());
                    init::hop(plan, held, &init_end, second)
                })
            }
        };
        if let Some(cpus) = cpus {
            cpus.take_back()?;
        }
        if let Some(lent) = lent {
            lent.take_back(&self.held.proc)?;
        }
        Ok(child?)
    }

    /// Answers init until the container is created (`create`) or runs (`run`, `exec`).
    fn serve(&mut self, wire: &ParentEnd, launched: &mut Launched) -> Result<()> {
        let mut ready = false;
        let mut inbox = wire.inbox(matches!(self.plan.entry, Entry::Hop { .. }));
        while let Some((event, fd)) = inbox.event()? {
            let child = &launched.child;
            log::debug(|| format!("init {}: {event:?}", child.pid));
            match event {
                Event::Born { pid } => {
                    let born = Child { pid, pidfd: pidfd::open(pid)? };
                    let hop = std::mem::replace(&mut launched.child, born);
                    pidfd::wait(hop.pidfd.as_fd())?;
                    continue;
                }
                Event::JoinCgroup => {
                    let cgroup = self.join_cgroup(child.pid)?;
                    wire.order(&Order::Joined { cgroup })?;
                    continue;
                }
                Event::MapIds => self.map_ids(child.pid)?,
                Event::MapMount { mount } => self.map_mount(mount, fd)?,
                Event::RunHooks => self.run_hooks(child)?,
                Event::Console => {
                    launched.terminal = fd;
                    continue;
                }
                Event::SetLimits => self.plan.process.rlimits.apply(Pid::from_raw(child.pid))?,
                Event::SeccompFd { fd } => self.announce_filter(child, fd)?,
                Event::Ready => {
                    self.announce(child)?;
                    ready = true;
                    if self.held.gate.is_some() {
                        return wire.proceed();
                    }
                }
                Event::Failed(failure) => return Err(self.failed(failure)),
            }
            wire.proceed()?;
        }
        // EOF: execve has closed the wire, or init is dead.
        if ready { Ok(()) } else { Err(self.death(&launched.child)) }
    }

    fn failed(&self, failure: Failure) -> anyhow::Error {
        match self.subject {
            Subject::Container { .. } => failure.into_error().context("error during container init"),
            Subject::Process { .. } => failure.into_error(),
        }
    }

    /// Puts init (or the hop) into the container's cgroup, and says what a mount of type `cgroup` shows.
    fn join_cgroup(&mut self, pid: i32) -> Result<PathBuf> {
        match &mut self.subject {
            Subject::Container { dir, record } => {
                let asked = self.plan.cgroup.as_ref().context("linux.cgroupsPath: none")?;
                record.orlop.cgroup.adopt(pid, asked)?;
                if let Some(owner) = self.plan.cgroup_owner {
                    record.orlop.cgroup.give_to(owner)?;
                }
                record.cgroup_paths = record.orlop.cgroup.paths();
                dir.commit(record)?;
                let private = self.plan.namespaces.private(Kind::Cgroup);
                let sources = record.orlop.cgroup.mount_sources(private)?;
                Ok(sources.into_iter().next().map(|source| source.path).unwrap_or_default())
            }
            Subject::Process { cgroup, .. } => cgroup.attach(pid).map(|()| PathBuf::new()),
        }
    }

    fn map_ids(&self, pid: i32) -> Result<()> {
        self.plan.maps.as_ref().context("linux.uidMappings: none")?.write(&self.held.proc, pid)
    }

    fn map_mount(&self, index: usize, fd: Option<OwnedFd>) -> Result<()> {
        let root = self.plan.root.as_ref().context("mounts: none")?;
        root.mounts.map_ids(index, fd.context("message from init: no descriptor")?.as_fd())
    }

    fn run_hooks(&mut self, child: &Child) -> Result<()> {
        if let Subject::Container { dir, record } = &mut self.subject {
            // From here on hooks may have made things that only poststop hooks can undo.
            record.orlop.hooks_ran = true;
            dir.commit(record)?;
        }
        let pid = Pid::from_raw(child.pid).context("process id 0")?;
        self.plan.net_devices.apply_from_parent(pid, child.pidfd.as_fd())?;
        let state = OciState { pid: child.pid, ..self.held.hook_state.clone() }.json()?;
        let output = &self.held.hook_output;
        self.plan.hooks.run(HookKind::Prestart, &state, &[], output)?;
        self.plan.hooks.run(HookKind::CreateRuntime, &state, &[], output)
    }

    fn announce_filter(&self, child: &Child, fd: i32) -> Result<()> {
        let filter = self.plan.process.seccomp.as_ref();
        let listener = filter.and_then(seccomp::Filter::listener).context("linux.seccomp: no listener")?;
        let fd = pidfd::get_fd(child.pidfd.as_fd(), fd).context("linux.seccomp.listenerPath")?;
        let pid = match &self.subject {
            Subject::Container { .. } => child.pid,
            Subject::Process { record, .. } => record.init_process_pid,
        };
        let state = OciState { pid, ..self.held.hook_state.clone() };
        seccomp::send_to_listener(listener, fd.as_fd(), oci_state::VERSION, child.pid, &state)
    }

    /// Init is complete: writes it down, and tells who asked to be told.
    fn announce(&mut self, child: &Child) -> Result<()> {
        let pid = Pid::from_raw(child.pid).context("process id 0")?;
        let name: &[u8] = match &mut self.subject {
            Subject::Container { dir, record } => {
                if let (Some(rdt), Some(group)) = (&self.plan.intel_rdt, &record.orlop.resctrl) {
                    rdt.apply_from_parent(group, pid)?;
                }
                record.born(state::Process::of(child.pid)?);
                if let Some(filter) = &self.plan.process.seccomp {
                    dir.store_filter(filter)?;
                }
                dir.commit(record)?;
                b"standard"
            }
            Subject::Process { record, .. } => {
                if let Some(group) = &record.orlop.resctrl {
                    group.join(pid)?;
                }
                b"setns"
            }
        };
        if let Some(socket) = self.handover.pidfd_socket {
            let socket = console::connect(socket).context("--pidfd-socket")?;
            fd::send(socket.as_fd(), name, Some(child.pidfd.as_fd())).context("--pidfd-socket")?;
        }
        match &self.handover.pid_file {
            Some(path) => write_pid_file(path, child.pid).context("--pid-file"),
            None => Ok(()),
        }
    }

    /// The wire has ended without a word: what can be seen from here.
    fn death(&self, child: &Child) -> anyhow::Error {
        let ended = pidfd::wait(child.pidfd.as_fd());
        if self.cgroup().oom_kills() > 0 {
            return anyhow!("container init was OOM-killed (memory limit too low?)");
        }
        match ended {
            Ok(ended) => anyhow!("container init ended before it was ready: {ended}"),
            Err(error) => anyhow!(error).context("container init ended before it was ready"),
        }
    }
}

/// What must be opened while we see the host.
fn hold(plan: &Plan, handover: &Handover<'_>) -> Result<Held> {
    let joins = plan.namespaces.hold()?;
    plan.namespaces.check_user(&joins, plan.maps.is_some())?;
    Ok(Held {
        joins,
        proc: Proc::open_host()?,
        cgroup_tasks: Vec::new(),
        asks_for_cgroup: false,
        cgroup_mount: None,
        mounts: mounts::Held::default(),
        console_socket: match (&plan.process.console, handover.console_socket) {
            (Some(_), Some(path)) => Some(console::connect(path).context("--console-socket")?),
            _ => None,
        },
        gate: None,
        hook_state: OciState::default(),
        hook_output: plan.hooks.open_output()?,
        mask: handover.mask.unwrap_or_else(SigSet::empty),
    })
}

/// In a user namespace init opens them itself: a mount of its own is one that the kernel locks for it.
fn cgroup_mount(cgroup: &Cgroup, own_namespace: bool, from_init: bool) -> Result<Option<CgroupSource>> {
    let source = |from: crate::cgroup::MountSource| -> Result<(String, Source)> {
        let source = if from_init {
            Source::Path(sys::path::c_path(&from.path)?)
        } else {
            Source::Held(mount::clone_at(from.dir.as_fd(), c"", mount::Depth::One)?)
        };
        Ok((from.name, source))
    };
    let mut sources: Vec<_> =
        cgroup.mount_sources(own_namespace)?.into_iter().map(source).collect::<Result<_>>()?;
    Ok(match sources.as_slice() {
        [] => None,
        [(name, _)] if name.is_empty() => sources.pop().map(|(_, only)| CgroupSource::V2(only)),
        _ => Some(CgroupSource::V1(sources)),
    })
}

/// The record as it is written before the first side effect.
fn intent(plan: &Plan, bundle: &Bundle, host: &Host, cgroup: Cgroup) -> Result<Record> {
    let spec = &bundle.spec;
    let annotations = spec.annotations.clone().unwrap_or_default();
    let linux = spec.linux.as_ref();
    let namespace = |(kind, request): (&Kind, &crate::parts::namespaces::Request)| NamespaceEntry {
        kind: kind.state_key().into(),
        path: match request {
            crate::parts::namespaces::Request::New => PathBuf::new(),
            crate::parts::namespaces::Request::Join(path) => path.clone(),
        },
    };
    let labels = annotations.iter().map(|(key, value)| format!("{key}={value}"));
    Ok(Record {
        id: plan.id.clone(),
        init_process_pid: 0,
        init_process_start: 0,
        created: log::rfc3339_nanos(SystemTime::now()),
        config: Config {
            rootfs: plan
                .root
                .as_ref()
                .map(|root| sys::path::as_path(&root.rootfs.path).into())
                .unwrap_or_default(),
            readonlyfs: spec.root.as_ref().is_some_and(|root| root.readonly().unwrap_or(false)),
            namespaces: plan.namespaces.0.iter().map(namespace).collect(),
            labels: labels.chain([format!("bundle={}", bundle.path.display())]).collect(),
            uid_mappings: linux.and_then(|linux| linux.uid_mappings.clone()).unwrap_or_default(),
            gid_mappings: linux.and_then(|linux| linux.gid_mappings.clone()).unwrap_or_default(),
            rootless_euid: host.rootless(),
        },
        rootless: host.rootless(),
        cgroup_paths: cgroup.paths(),
        namespace_paths: Default::default(),
        external_descriptors: external_descriptors(),
        intel_rdt_path: plan
            .intel_rdt
            .as_ref()
            .map(|rdt| rdt.dir().to_string_lossy().into())
            .unwrap_or_default(),
        orlop: Own {
            phase: Phase::Creating,
            owner: state::Process::own()?,
            boot_id: state::boot_id()?,
            cgroup,
            resctrl: None,
            bundle: bundle.path.clone(),
            annotations,
            hooks: plan.hooks.clone(),
            hooks_ran: false,
            has_filter: plan.process.seccomp.is_some(),
            memory_policy: linux.and_then(|linux| linux.memory_policy.clone()),
            personality: linux.and_then(|linux| linux.personality.clone()),
            intel_rdt: linux.and_then(|linux| linux.intel_rdt.clone()),
            keyring: plan.process.keyring.is_some(),
            exec_cpu_affinity: spec.process.as_ref().and_then(|process| process.exec_cpu_affinity.clone()),
        },
    })
}

/// What 0, 1 and 2 are, as runc records it for a later checkpoint.
fn external_descriptors() -> Vec<String> {
    let link = |number: i32| rustix::fs::readlink(format!("/proc/self/fd/{number}"), Vec::new());
    (0..3)
        .map(|number| link(number).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
        .collect()
}

/// Decimal, without a newline, complete from the first moment on: the file gets its name when it is written.
fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
    let name = path.file_name().with_context(|| format!("{path:?}: no file name"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = || format!("{path:?}");
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = openat(CWD, parent, flags, Mode::empty()).called("open", || format!("{parent:?}"))?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match openat(&dir, ".", flags, Mode::from_raw_mode(0o666)) {
        // A file system without nameless files.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            return write_pid_file_beside(path, pid);
        }
        other => other.called("open", shown)?,
    };
    rustix::io::write(&file, pid.to_string().as_bytes()).called("write", shown)?;
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(CWD, &*own, &dir, name, AtFlags::SYMLINK_FOLLOW);
    match link() {
        // Of an earlier container. A symbolic link is not followed, but removed.
        Err(rustix::io::Errno::EXIST) => {
            rustix::fs::unlinkat(&dir, name, AtFlags::empty()).called("unlink", shown)?;
            link()
        }
        other => other,
    }
    .called("linkat", shown)?;
    Ok(())
}

/// The same by way of a second name.
fn write_pid_file_beside(path: &Path, pid: i32) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    let shown = || format!("{temporary:?}");
    // O_EXCL: a link that somebody has put there is not followed.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o666).custom_flags(libc::O_CLOEXEC);
    let file = match options.open(&temporary) {
        // Left by a runtime that died here.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            std::fs::remove_file(&temporary).called("unlink", shown)?;
            options.open(&temporary)
        }
        other => other,
    };
    file.called("open", shown)?.write_all(pid.to_string().as_bytes()).called("write", shown)?;
    Ok(std::fs::rename(&temporary, path).called("rename", || format!("{path:?}"))?)
}

/// Our own oom_score_adj, changed for the moment of the clone: a child has its parent's, and need not have the
/// right, nor the procfs, to write its own.
struct OwnScore(Vec<u8>);

impl OwnScore {
    fn lend(proc: &Proc, value: i32) -> Result<Self> {
        let before = proc.read("self/oom_score_adj").context("process.oomScoreAdj")?;
        proc.write("self/oom_score_adj", value.to_string().as_bytes()).context("process.oomScoreAdj")?;
        Ok(Self(before))
    }

    fn take_back(self, proc: &Proc) -> Result<()> {
        proc.write("self/oom_score_adj", &self.0).context("process.oomScoreAdj")
    }
}

/// The state for hooks.
fn hook_state(record: &Record, status: &'static str, pid: i32) -> OciState {
    OciState {
        id: record.id.clone(),
        status,
        pid,
        bundle: record.orlop.bundle.clone(),
        annotations: record.orlop.annotations.clone(),
    }
}
