//! The parent's side of the conversation with init (`wire.rs`): one answer for each thing that init asks for.

use super::script::{Script, Speaker};
use super::verify::{self, Expected};
use super::{Handover, Launched, pid_file};
use crate::cgroup::Cgroup;
use crate::host::CgroupMode;
use crate::init::{self, Held};
use crate::log;
use crate::oci_state::{self, OciState};
use crate::parts::hooks::Kind as HookKind;
use crate::parts::namespaces::{self, Entry, Kind};
use crate::parts::{console, mounts, seccomp};
use crate::plan::Plan;
use crate::state::{self, ContainerDir, Record};
use crate::sys::spawn::{self, Child, Parentage};
use crate::sys::{
    self, Called, fd,
    ns::Flags,
    pidfd,
    proc::Proc,
    signal::{self, EndHeldBack},
    tty,
};
use crate::wire::{self, Event, Failure, Heard, InitEnd, NetworkSource, Next, Order, ParentEnd, Watch};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long we wait for a killed process to end, in milliseconds.
const DEATH_PATIENCE: i32 = 10_000;
/// How long init may say nothing while a seccomp agent answers its system calls.
const AGENT_PATIENCE: Duration = Duration::from_secs(60);

/// What the conversation is about.
pub enum Subject<'a> {
    /// A new container.
    Container { dir: &'a ContainerDir, record: &'a mut Record },
    /// A process in a container that runs.
    Process { record: &'a Record, cgroup: &'a Cgroup },
}

/// One conversation with init.
struct Launch<'a> {
    plan: &'a mut Plan,
    held: Held,
    handover: &'a Handover<'a>,
    subject: Subject<'a>,
    /// Init, once we have looked at it.
    seen: Option<state::Process>,
    /// Where init waits for its network namespace, if we make it.
    network: Option<NetworkSource>,
    /// The pid file has been written.
    announced: bool,
    /// Signals that came during the conversation. The container's process gets them when it runs.
    early: Vec<i32>,
}

/// Makes init, answers it until the container is created (`create`) or runs (`run`, `exec`), and kills it if anything
/// goes wrong in between.
///
/// # Errors
/// Init's own reason, or ours.
pub fn converse(
    plan: &mut Plan,
    held: Held,
    handover: &Handover<'_>,
    subject: Subject<'_>,
) -> Result<Launched> {
    let mut launch = Launch {
        plan,
        held,
        handover,
        subject,
        seen: None,
        network: None,
        announced: false,
        early: Vec::new(),
    };
    // A container may keep init from answering. SIGTERM must end us all the same, and init with us.
    let _held_back = handover.signals.is_none().then(EndHeldBack::begin).transpose()?;
    let (wire, init_end) = wire::pair()?;
    let mut wire = Some(wire);
    let child = launch.spawn(&mut wire, init_end).context("unable to start container process")?;
    let wire = wire.context("internal error: the parent's end of the wire was dropped")?;
    let mut launched = Launched { child, terminal: None, notify: None };
    log::debug(|| format!("{}: init is process {}", launch.plan.id, launched.child.pid));
    let served = launch.serve(&wire, &mut launched);
    for signal in std::mem::take(&mut launch.early) {
        signal::raise(signal)?;
    }
    if served.is_err() {
        // No other process knows of init, so we kill it. If it does not die, the removal of its cgroup reports that.
        let _ = pidfd::end(launched.child.pidfd.as_fd(), DEATH_PATIENCE);
        launch.take_back_pid_file();
    }
    served.context("unable to start container process")?;
    Ok(launched)
}

impl<'a> Launch<'a> {
    fn cgroup(&self) -> &Cgroup {
        match &self.subject {
            Subject::Container { record, .. } => &record.orlop.cgroup,
            Subject::Process { cgroup, .. } => cgroup,
        }
    }

    /// Makes init or the hop. The child drops its copy of `wire`: otherwise init would never see the end of the wire when
    /// the parent dies.
    fn spawn(&mut self, wire: &mut Option<ParentEnd>, init_end: InitEnd) -> Result<Child> {
        let score = self.plan.process.oom_score_adj;
        let lent = score.map(|value| OwnScore::lend(&self.held.proc, value)).transpose()?;
        let cpus = self.plan.process.affinity.lend()?;
        if self.plan.entry.network_comes_later() {
            let (source, target) = wire::network()?;
            (self.network, self.held.network) = (Some(source), Some(target));
        }
        let Self { plan, held, subject, network, .. } = self;
        let cgroup = match subject {
            Subject::Container { record, .. } => &record.orlop.cgroup,
            Subject::Process { cgroup, .. } => *cgroup,
        };
        let directory = if held.asks_for_cgroup { None } else { cgroup.dir()? };
        let refused = |error| cgroup.refusal(error);
        let child = match plan.entry {
            Entry::Direct { clone, .. } => spawn::spawn(clone, Parentage::Child, directory, || {
                drop((wire.take(), network.take()));
                init::main(plan, held, &init_end)
            })
            .map_err(refused),
            Entry::Hop { hop_joins_cgroup, .. } => {
                let (first, second) = if hop_joins_cgroup { (directory, None) } else { (None, directory) };
                spawn::spawn(Flags::NONE, Parentage::Child, first, || {
                    drop(wire.take());
                    init::hop(plan, held, &init_end, second)
                })
                .map_err(refused)
            }
        };
        // Init has copies of these. Ours have no use, and keep our limit of descriptors raised for hooks.
        self.held.mounts = mounts::Held::default();
        self.held.network = None;
        sys::umask::callers();
        if let Some(cpus) = cpus {
            cpus.take_back()?;
        }
        if let Some(lent) = lent {
            lent.take_back(&self.held.proc)?;
        }
        child
    }

    /// Answers init until the container is created (`create`) or runs (`run`, `exec`).
    fn serve(&mut self, wire: &ParentEnd, launched: &mut Launched) -> Result<()> {
        self.meanwhile(&launched.child)?;
        let mut ready = false;
        let mut talk = Talk::new(Script::of(self.plan, &self.held));
        while let Some((event, fd)) = self.hear(wire, &mut talk, &mut launched.child)? {
            let child = &launched.child;
            if !matches!(event, Event::Log { .. }) {
                log::debug(|| format!("init {}: {event:?}", child.pid));
            }
            match event {
                // `hear` has replaced the hop by init.
                Event::Born { .. } => continue,
                Event::Log { level, message } => {
                    log::relay(level, &message);
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
                    let master = console::master(fd)?;
                    // Init waits for our answer, so the size is set before the process runs.
                    tty::begin_with_size(master.as_fd(), self.plan.process.console.and_then(|it| it.size));
                    launched.terminal = Some(master);
                }
                Event::SetLimits => self.plan.process.rlimits.apply(Pid::from_raw(child.pid))?,
                Event::SeccompFd { fd } => {
                    self.announce_filter(child, fd)?;
                    talk.patience = Some(AGENT_PATIENCE);
                }
                Event::Ready => {
                    // A zombie counts against the container's limit of processes.
                    talk.reap_hop()?;
                    self.verify(child)?;
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
        if ready && state::Run::of_child(launched.child.pid)? == state::Run::Executed {
            Ok(())
        } else {
            Err(self.death(&launched.child))
        }
    }

    /// Waits for the next event; `None` if there will be none. When the hop names init, `child` becomes init.
    fn hear(
        &mut self,
        wire: &ParentEnd,
        talk: &mut Talk,
        child: &mut Child,
    ) -> Result<Option<(Event, Option<OwnedFd>)>> {
        loop {
            let hop_speaks = talk.script.hop_speaks();
            let waiting = if hop_speaks { None } else { talk.early.pop_front() };
            let heard = match waiting {
                Some(heard) => heard,
                None => match wire.next(self.watch(child, talk)).map_err(|error| self.silence(error))? {
                    Next::Said(heard) => heard,
                    Next::Ended => return Ok(None),
                    Next::Signal => {
                        self.signalled(child)?;
                        continue;
                    }
                },
            };
            let speaker = match (heard.sender == child.pid, hop_speaks) {
                (true, true) => Speaker::Hop,
                (true, false) => Speaker::Init,
                // Init may speak before the hop has named it.
                (false, true) if talk.early.len() < MOST_EARLY => {
                    talk.early.push_back(heard);
                    continue;
                }
                (false, _) => bail!("message from process {}, which is not init", heard.sender),
            };
            talk.script.accept(speaker, &heard.event)?;
            if let Event::Log { .. } = heard.event {
                talk.lines += 1;
                ensure!(
                    talk.lines <= MOST_LINES,
                    "message from init: more than {MOST_LINES} lines for the log"
                );
            }
            if let Event::Born { pid } = heard.event {
                let init = Child::made_for_us(pid, child.pid)?;
                talk.hop = Some(std::mem::replace(child, init));
            }
            return Ok(Some((heard.event, heard.fd)));
        }
    }

    fn watch<'w>(&'w self, child: &'w Child, talk: &Talk) -> Watch<'w> {
        Watch { child: child.pidfd.as_fd(), signals: Self::signals(self.handover), patience: talk.patience }
    }

    /// The signalfd to watch: of all signals in the foreground, otherwise of the signals that ask us to end.
    fn signals(handover: &'a Handover<'a>) -> Option<BorrowedFd<'a>> {
        if handover.signals.is_some() { handover.signals } else { signal::end_is_asked() }
    }

    /// Reads the signals that came. A signal that asks us to end, and a child that was stopped (perhaps by the container),
    /// end the conversation: nothing else would.
    fn signalled(&mut self, child: &Child) -> Result<()> {
        let Some(signals) = Self::signals(self.handover) else { return Ok(()) };
        while let Some(signal) = signal::next(signals) {
            match signal.number {
                number if signal::asks_to_end(number) => {
                    bail!("ended by {} before the process was executed", signal::name(number))
                }
                libc::SIGCHLD if pidfd::is_stopped(child.pidfd.as_fd()) => {
                    bail!("the process was stopped (SIGSTOP) before it was executed")
                }
                libc::SIGCHLD => {}
                other => self.early.push(other),
            }
        }
        Ok(())
    }

    /// Sets what only the parent may set, and then verifies init from outside.
    fn verify(&self, child: &Child) -> Result<()> {
        let pid = Pid::from_raw(child.pid).context("process id 0")?;
        if let Some(scheduler) = &self.plan.process.scheduler {
            scheduler.apply(pid)?;
        }
        let expected = match &self.subject {
            Subject::Container { .. } => Expected::New(&self.held.joins),
            Subject::Process { record, .. } => {
                Expected::Of(Pid::from_raw(record.init().living_thread()?).context("process id 0")?)
            }
        };
        verify::process(self.plan, &self.held.proc, pid, &expected)
    }

    /// Does what can be done while init is at work.
    fn meanwhile(&mut self, child: &Child) -> Result<()> {
        if let Some(network) = self.network.take() {
            namespaces::make_network(|namespace| network.send(namespace))?;
        }
        let Subject::Container { dir, .. } = &mut self.subject else { return Ok(()) };
        if let Entry::Direct { .. } = self.plan.entry {
            self.seen = Some(state::Process::of(child.pid)?);
        }
        if let Some(filter) = &self.plan.process.seccomp {
            dir.store_filter(filter)?;
        }
        Ok(())
    }

    /// Turns ETIMEDOUT into an error that names the seccomp agent: only an agent has a time limit.
    fn silence(&self, error: anyhow::Error) -> anyhow::Error {
        if sys::errno_of(&error) != Some(libc::ETIMEDOUT) {
            return error;
        }
        let listener = self.plan.process.seccomp.as_ref().and_then(seccomp::Filter::listener);
        let path = listener.map(|listener| listener.path.display().to_string()).unwrap_or_default();
        let seconds = AGENT_PATIENCE.as_secs();
        anyhow!("the seccomp agent at {path:?} has kept the process waiting for {seconds} s")
            .context("linux.seccomp.listenerPath")
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
            Subject::Container { dir, record, .. } => {
                let asked = self.plan.cgroup.as_ref().context("linux.cgroupsPath: none")?;
                sys::umask::ours();
                record.orlop.cgroup.adopt(pid, asked)?;
                sys::umask::callers();
                if let Some(owner) = self.plan.cgroup_owner {
                    record.orlop.cgroup.give_to(owner)?;
                }
                dir.commit(record)?;
                let private = self.plan.namespaces.private(Kind::Cgroup);
                let sources = record.orlop.cgroup.mount_sources(private, CgroupMode::Unified)?;
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
        if let Subject::Container { dir, record, .. } = &mut self.subject {
            // From here on hooks may have made things that only poststop hooks can undo.
            record.orlop.hooks_ran = true;
            dir.commit(record)?;
        }
        let pid = Pid::from_raw(child.pid).context("process id 0")?;
        self.plan.net_devices.apply_from_parent(pid, child.pidfd.as_fd())?;
        // Hooks are told "created": step 2 of the specification's lifecycle is done. `state` and seccomp agents are told
        // "creating" until the command has ended.
        let state = OciState { pid: child.pid, status: "created", ..self.held.hook_state.clone() }.json()?;
        let run = |kind| self.plan.hooks.run(kind, &state, &[], &self.held.hook_output);
        in_directory(&self.held.hook_state.bundle, || {
            run(HookKind::Prestart)?;
            run(HookKind::CreateRuntime)
        })
    }

    fn announce_filter(&self, child: &Child, fd: i32) -> Result<()> {
        let filter = self.plan.process.seccomp.as_ref();
        let listener = filter.and_then(seccomp::Filter::listener).context("linux.seccomp: no listener")?;
        let fd = pidfd::get_fd(child.pidfd.as_fd(), fd).context("linux.seccomp.listenerPath")?;
        ensure_is_listener(&self.held.proc, fd.as_fd())?;
        let pid = match &self.subject {
            Subject::Container { .. } => child.pid,
            Subject::Process { record, .. } => record.init_process_pid,
        };
        let state = OciState { pid, ..self.held.hook_state.clone() };
        seccomp::send_to_listener(listener, fd.as_fd(), oci_state::VERSION, child.pid, &state)
    }

    /// Records that init is ready, and reports it by --pid-file and --pidfd-socket.
    fn announce(&mut self, child: &Child) -> Result<()> {
        let pid = Pid::from_raw(child.pid).context("process id 0")?;
        let name: &[u8] = match &mut self.subject {
            Subject::Container { dir, record, .. } => {
                if let (Some(rdt), Some(group)) = (&self.plan.intel_rdt, &record.orlop.resctrl) {
                    rdt.apply_from_parent(group, pid)?;
                }
                if let Some(asked) = &self.plan.cgroup {
                    record.orlop.cgroup.set_pids(asked)?;
                }
                if let Some(asked) = self.plan.cgroup.as_ref().and_then(|cgroup| cgroup.delegated.as_ref()) {
                    record.orlop.cgroup.delegate(asked, child.pid)?;
                }
                record.born(self.seen.take().map_or_else(|| state::Process::of(child.pid), Ok)?);
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
        if let Some(path) = &self.handover.pid_file {
            pid_file::write(path, child.pid).context("--pid-file")?;
            self.announced = true;
        }
        Ok(())
    }

    fn take_back_pid_file(&self) {
        if let Some(path) = self.handover.pid_file.as_ref().filter(|_| self.announced) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The error for a wire that ended without a message: what the parent can see of init.
    fn death(&self, child: &Child) -> anyhow::Error {
        match pidfd::poll_ended(child.pidfd.as_fd(), DEATH_PATIENCE) {
            Ok(true) => {}
            Ok(false) => {
                return anyhow!(
                    "container init closed its connection before it was ready, but is still running"
                );
            }
            Err(error) => return error.into(),
        }
        let ended = pidfd::wait(child.pidfd.as_fd());
        let killed = self.cgroup().oom_kills() > 0;
        let (who, perhaps) = match self.subject {
            Subject::Container { .. } if killed => {
                return anyhow!("container init was OOM-killed (memory limit too low?)");
            }
            Subject::Container { .. } => ("container init", ""),
            // The kernel may have killed another process of the container.
            Subject::Process { .. } => ("process", if killed { " (possibly OOM-killed)" } else { "" }),
        };
        let perhaps = match ended {
            Ok(pidfd::Ended::Killed(spawn::FAULT)) if self.plan.process.seccomp.is_some() => {
                " (linux.seccomp: does the profile allow write and exit_group?)"
            }
            _ => perhaps,
        };
        match ended {
            Ok(ended) => anyhow!("{who} ended before it was ready: {ended}{perhaps}"),
            Err(error) => anyhow!(error).context(format!("{who} ended before it was ready{perhaps}")),
        }
    }
}

/// Refuses a descriptor of init's that is no listener: the agent would use it as one.
fn ensure_is_listener(proc: &Proc, fd: BorrowedFd<'_>) -> Result<()> {
    let link = proc.own_fd_link(fd).context("linux.seccomp.listenerPath")?;
    ensure!(link == b"anon_inode:seccomp notify", "linux.seccomp.listenerPath: init has no listener there");
    Ok(())
}

/// The most lines for the log in one conversation. A container that gets hold of its process could say more.
const MOST_LINES: usize = 1000;

/// The state of a conversation.
struct Talk {
    script: Script,
    /// So many lines for the log have come.
    lines: usize,
    /// What init has said before the hop has named it.
    early: VecDeque<Heard>,
    /// The hop, once it has named init. It ends by itself; the parent reaps it when init is ready.
    hop: Option<Child>,
    /// How long init may be silent.
    patience: Option<Duration>,
}

/// The most messages that the parent keeps of an init whose name it does not know yet. Init waits for an answer to nearly
/// all that it says; the others are lines for the log.
const MOST_EARLY: usize = 64;

impl Talk {
    fn new(script: Script) -> Self {
        Self { script, lines: 0, early: VecDeque::new(), hop: None, patience: None }
    }

    /// Reaps the hop. It has nothing left to do once it has named init.
    fn reap_hop(&mut self) -> Result<()> {
        let Some(hop) = self.hop.take() else { return Ok(()) };
        pidfd::end(hop.pidfd.as_fd(), DEATH_PATIENCE)?;
        Ok(())
    }
}

/// Runs `run` in the directory `path`, and comes back. Hooks begin in the bundle, as with runc and crun; the paths of the
/// command line are relative to our own directory.
fn in_directory(path: &Path, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let shown = || format!("{path:?}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let before = rustix::fs::open(".", flags, Mode::empty()).called("open", || "\".\"".into())?;
    rustix::process::chdir(path).called("chdir", shown)?;
    let done = run();
    rustix::process::fchdir(before).called("fchdir", String::new)?;
    done
}

/// Our own oom_score_adj, changed for the moment of the clone. A child inherits its parent's value, and may lack the right
/// to write its own.
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
