//! The parent's spine: hold → reserve → cgroup → spawn → map ids → hooks → limits → ready → record.
//!
//! [`create`] makes a container for `create` and `run`, [`exec`] a process in one; both are served by the same
//! conversation with init (`wire.rs`). Not for: what happens in the child (`init.rs`).

mod conversation;
mod intent;
mod pid_file;
mod script;
mod verify;

use self::conversation::{Subject, converse};
use self::intent::intent;
use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::destroy;
use crate::host::{CgroupMode, Host};
use crate::init::Held;
use crate::log;
use crate::notify::{self, Notify};
use crate::oci_state::OciState;
use crate::parts::console;
use crate::parts::mounts::{self, CgroupSource, Source};
use crate::parts::namespaces::{Joins, Kind};
use crate::plan::Plan;
use crate::state::{Container, ContainerDir, Record, Root};
use crate::sys::spawn::Child;
use crate::sys::{self, Called, mount, proc::Proc, signal};
use anyhow::{Context, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// How orlop reports the process to its caller.
#[derive(Debug, Default)]
pub struct Handover<'a> {
    /// `--pid-file`, absolute.
    pub pid_file: Option<PathBuf>,
    /// `--console-socket`
    pub console_socket: Option<&'a Path>,
    /// `--pidfd-socket`
    pub pidfd_socket: Option<&'a Path>,
    /// Where signals are collected, in the foreground.
    pub signals: Option<BorrowedFd<'a>>,
    /// The host's notify socket, if we start the process ourselves.
    pub notify: Option<UnixDatagram>,
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
    /// The process. It is our child, also when the hop has made it.
    pub child: Child,
    /// The master side of the terminal, if the foreground serves it.
    pub terminal: Option<OwnedFd>,
    /// The container's notify socket, if the foreground serves it.
    pub notify: Option<Notify>,
}

/// Makes the container of `plan`.
///
/// # Errors
/// A step failed; the error names its place in config.json. Nothing is left of the container.
pub fn create(
    plan: &mut Plan,
    bundle: &Bundle,
    host: &Host,
    root: &Path,
    by: StartedBy,
    handover: &Handover<'_>,
) -> Result<(Container, Launched)> {
    // The parent keeps this umask until init is made; init keeps it until it sets the umask of its process.
    sys::umask::ours();
    let root = Root::create(root)?;
    let cgroup = match &plan.cgroup {
        // The cgroup may be in use because a container has this id already. Then that is the better error.
        Some(asked) => Cgroup::locate(asked, host).map_err(|error| root.taken(&plan.id).unwrap_or(error))?,
        None => Cgroup::none(),
    };
    let mut record = intent(plan, bundle, host, cgroup)?;
    let dir = root.reserve(&record)?;
    let (notify, mut held) = match ready(plan, &dir, handover) {
        Ok(ready) => ready,
        Err(error) => {
            // Only the container's directory exists so far.
            root.remove(&plan.id)?;
            return Err(error);
        }
    };
    let made = make(plan, host, by, &mut held, &dir, &mut record).and_then(|()| {
        let subject = Subject::Container { dir: &dir, record: &mut record };
        converse(plan, held, handover, subject)
    });
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

/// Opens all that may be missing on the host. Nothing is made before, except the container's directory.
fn ready(plan: &Plan, dir: &ContainerDir, handover: &Handover<'_>) -> Result<(Option<Notify>, Held)> {
    // The socket's directory is the source of a mount.
    let notify = listen(plan, dir, handover)?;
    let mut held = hold(plan, handover)?;
    if let Some(root) = &plan.root {
        // The same words as init's: init opens the sources where the parent may not.
        let sources = match handover.signals {
            // A volume may keep us waiting (FUSE). Only the container's directory is there, which `delete` removes.
            Some(_) => signal::letting_end(|| root.mounts.hold())?,
            None => root.mounts.hold(),
        }
        .context("error during container init");
        held.mounts = sources.context("unable to start container process")?;
        if plan.namespaces.private(Kind::User) {
            held.devices = root.devices.hold(plan.maps.as_ref(), root.mounts.label.as_deref())?;
            held.masks = root.paths.hold()?;
        }
    }
    Ok((notify, held))
}

/// Makes the directory of the notify socket. The socket itself is made here only for `run`, which serves it.
fn listen(plan: &Plan, dir: &ContainerDir, handover: &Handover<'_>) -> Result<Option<Notify>> {
    if plan.notify.is_none() {
        return Ok(None);
    }
    let directory = dir.make_directory(notify::DIRECTORY)?;
    let Some(host) = &handover.notify else { return Ok(None) };
    let host = host.try_clone().called("fcntl", || "(F_DUPFD_CLOEXEC)".into())?;
    Notify::listen(directory.as_fd(), host).map(Some)
}

/// Makes what must exist before init. The record names each thing before it is made.
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
        let cgroup = &record.orlop.cgroup;
        let untracked = || cgroup.paths().is_empty() && !cgroup.waits_for_process();
        if !plan.namespaces.private(Kind::Pid) && untracked() {
            log::warn(
                "a rootless container without a cgroup and without a pid namespace of its own: not all of its \
                 processes can be killed. Such configuration is strongly discouraged",
            );
        }
    }
    log::debug(|| format!("create {}: cgroups {:?}", plan.id, record.orlop.cgroup.paths()));
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
        held.cgroup_mount =
            cgroup_mount(cgroup, plan.namespaces.private(Kind::Cgroup), host.cgroup_mode, from_init)?;
    }
    held.hook_state = record.oci_state("creating", 0);
    Ok(())
}

/// Starts the process of `plan` in a container that runs, in the cgroup `cgroup`. `init` is the container's first process.
///
/// # Errors
/// A step failed; the error names its place.
pub fn exec(
    plan: &mut Plan,
    container: &Container,
    init: &OwnedFd,
    cgroup: &Cgroup,
    handover: &Handover<'_>,
) -> Result<Launched> {
    let mut held = hold(plan, handover)?;
    let record = &container.record;
    let init =
        rustix::io::fcntl_dupfd_cloexec(init, 3).called("fcntl", || "pidfd (F_DUPFD_CLOEXEC)".into())?;
    held.joins = Joins::of_process(init, plan.namespaces.0.keys().copied().collect());
    held.cgroup_tasks = cgroup.tasks()?;
    held.asks_for_cgroup = cgroup.needs_attach();
    held.hook_state = record.oci_state("running", record.init_process_pid);
    converse(plan, held, handover, Subject::Process { record, cgroup })
}

/// Opens what init needs of the host.
fn hold(plan: &Plan, handover: &Handover<'_>) -> Result<Held> {
    let joins = plan.namespaces.hold()?;
    plan.namespaces.check_user(&joins, plan.maps.is_some())?;
    Ok(Held {
        joins,
        proc: Proc::open_host()?,
        cgroup_tasks: Vec::new(),
        asks_for_cgroup: false,
        cgroup_mount: None,
        network: None,
        mounts: mounts::Held::default(),
        devices: None,
        masks: None,
        console_socket: match (&plan.process.console, handover.console_socket) {
            (Some(_), Some(path)) => Some(console::connect(path).context("--console-socket")?),
            _ => None,
        },
        gate: None,
        hook_state: OciState::default(),
        hook_output: plan.hooks.open_output()?,
    })
}

/// What a mount of type `cgroup` shows. In a user namespace init opens the directories itself: the kernel then locks the
/// mounts, so that the container cannot change their flags.
fn cgroup_mount(
    cgroup: &Cgroup,
    own_namespace: bool,
    mode: CgroupMode,
    from_init: bool,
) -> Result<Option<CgroupSource>> {
    let source = |from: crate::cgroup::MountSource| -> Result<(String, Source)> {
        let source = if from_init {
            Source::Path(sys::path::c_path(&from.path)?)
        } else {
            Source::Held(mount::clone_private(from.dir.as_fd(), c"", mount::Depth::One, 0)?)
        };
        Ok((from.name, source))
    };
    let mut sources: Vec<_> =
        cgroup.mount_sources(own_namespace, mode)?.into_iter().map(source).collect::<Result<_>>()?;
    Ok(match sources.as_slice() {
        [] => None,
        [(name, _)] if name.is_empty() => sources.pop().map(|(_, only)| CgroupSource::V2(only)),
        _ => Some(CgroupSource::V1(sources)),
    })
}
