//! `create`: makes a container whose process waits for `start`. `run` uses the same functions.
//!
//! Not for: the order of the steps, which is in `launch`.

use crate::bundle::{self, Bundle};
use crate::cgroup::systemd::Bus;
use crate::cli::global::{Global, Systemd};
use crate::cli::{self, values::RootlessMode};
use crate::foreground::Signals;
use crate::host::{CgroupMode, Host};
use crate::launch::{self, Handover, Launched, StartedBy};
use crate::notify;
use crate::plan::{Inherited, Plan, Request, absolute};
use crate::state::{self, Container};
use crate::sys::fd;
use anyhow::{Context, Result, bail, ensure};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Runs the verb.
///
/// # Errors
/// The container could not be made. Nothing of it is left.
pub fn run(args: &cli::Create, global: &Global) -> Result<i32> {
    let prepared = prepare(args, global)?;
    let terminal = prepared.plan.process.console.is_some();
    ensure!(
        !terminal || args.console_socket.is_some(),
        "cannot allocate tty if runc will detach without setting console socket"
    );
    container(args, global, prepared, StartedBy::Start, None).map(|_| 0)
}

/// A plan, and the bundle and host that it was made from.
pub struct Prepared {
    plan: Box<Plan>,
    /// The host's notify socket.
    notify: Option<UnixDatagram>,
    bundle: Bundle,
    host: Host,
}

impl Prepared {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// Reads the bundle and plans the container.
///
/// # Errors
/// The configuration or an argument is invalid. Nothing has been changed yet.
pub fn prepare(args: &cli::Create, global: &Global) -> Result<Prepared> {
    let inherited = inherited(listen_fds(), args.preserve_fds)?;
    state::check_id(&args.id)?;
    let directory = args.bundle.as_deref().unwrap_or(Path::new("."));
    let file = args.config.as_deref().unwrap_or(Path::new(bundle::CONFIG));
    let bundle = bundle::load(directory, &file.to_string_lossy())?;
    let host = Host::probe()?;
    let notify = notify::asked_for();
    let request = Request {
        id: &args.id,
        cgroup: !global.no_cgroup,
        systemd: global.systemd_cgroup.as_ref().map(|systemd| match systemd {
            Systemd::System => Bus::System,
            Systemd::User(address) => Bus::User(address.clone()),
        }),
        rootless: match global.rootless {
            RootlessMode::True => true,
            RootlessMode::False => false,
            RootlessMode::Auto => host.rootless(),
        },
        no_pivot: args.no_pivot,
        new_keyring: !args.no_new_keyring,
        inherited,
        notify: notify.as_ref().map(|_| global.root.join(&args.id).join(notify::DIRECTORY)),
    };
    let plan = Box::new(Plan::create(&bundle, &host, &request)?);
    Ok(Prepared { plan, notify, bundle, host })
}

/// Makes the prepared container.
///
/// # Errors
/// The container could not be made. Nothing of it is left.
pub fn container(
    args: &cli::Create,
    global: &Global,
    mut prepared: Prepared,
    by: StartedBy,
    signals: Option<&Signals>,
) -> Result<(Container, Launched)> {
    if args.console_socket.is_some() && prepared.plan.process.console.is_none() {
        bail!("cannot use console socket if runc will not detach or allocate tty");
    }
    if let Some(cgroup) = &prepared.plan.cgroup {
        cgroup.resources.memory.warn_of_ignored(prepared.host.cgroup_mode == CgroupMode::Unified);
    }
    let handover = Handover {
        pid_file: args.pid_file.as_deref().map(absolute).transpose()?,
        console_socket: args.console_socket.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        signals: signals.map(Signals::fd),
        notify: prepared.notify.filter(|_| by == StartedBy::Us),
    };
    launch::create(&mut prepared.plan, &prepared.bundle, &prepared.host, &global.root, by, &handover)
}

/// The number of sockets that systemd passes for socket activation (sd_listen_fds(3)); 0 if LISTEN_PID names another
/// process.
fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    let own_pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    match number("LISTEN_PID") {
        Some(pid) if pid == own_pid => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

/// The descriptors from 3 on that the caller passes to the container's process: `listen` sockets of socket activation,
/// then those of the next `preserve` numbers that are open.
///
/// Call it before anything is opened. It occupies the free numbers in this range, so that no file of orlop gets one of
/// them and is passed on.
///
/// # Errors
/// A socket of socket activation is not open.
pub fn inherited(listen: u32, preserve: u32) -> Result<Inherited> {
    let asked = Inherited { listen, preserve };
    if asked.count() == 0 {
        return Ok(asked);
    }
    let given = fd::given(3 + asked.count())?;
    let announced = 3..3 + Inherited { listen, preserve: 0 }.count();
    if let Some(missing) = announced.clone().find(|fd| !given.contains(fd)) {
        bail!("LISTEN_FDS={listen}: descriptor {missing} is not open");
    }
    let end = given.last().map_or(announced.end, |last| (last + 1).max(announced.end));
    fd::occupy_up_to(end).context("--preserve-fds")?;
    Ok(Inherited { listen, preserve: (end - announced.end).unsigned_abs() })
}
