//! The command line: one `Args` struct per verb, as clap sees it, and the table of verbs.
//!
//! Every flag of runc 1.5 is here, the obsolete ones too, for engines still pass them.
//! Not for: how an argv is read (Go's `flag` rules, [`argv`]), what values look like ([`values`]), and what a verb does.

pub mod argv;
pub mod global;
pub mod values;

use clap::{ArgMatches, Args, FromArgMatches};
use std::path::PathBuf;
use std::time::Duration;
use values::{Driver, ListFormat, LogFormat, MemorySize, RootlessMode};

/// One line that says what this program is.
pub const ABOUT: &str = "Open Container Initiative runtime";

/// The options before the verb, as given.
#[derive(Args, Clone, Debug)]
pub struct GlobalArgs {
    /// Log what is done, step by step
    #[arg(long)]
    pub debug: bool,
    /// Append the log to FILE; default is stderr
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Format of the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = values::log_format)]
    pub log_format: LogFormat,
    /// Directory for the state of containers (should be on a tmpfs)
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Let systemd make the cgroups; cgroupsPath is then "slice:prefix:name"
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// The same as --systemd-cgroup in crun's words: cgroupfs, systemd or disabled
    #[arg(long, value_name = "DRIVER", value_parser = values::driver, hide = true)]
    pub cgroup_manager: Option<Driver>,
    /// Whether to go on without permission to write to cgroups: true, false or auto
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = values::rootless)]
    pub rootless: RootlessMode,
    /// Obsolete: criu is found through PATH
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
}

/// Creates a container; its process waits for `start`
#[derive(Args, Clone, Debug)]
pub struct Create {
    /// Directory of the bundle; default is the working directory
    #[arg(long, short, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Read FILE instead of the bundle's config.json
    #[arg(long, value_name = "FILE", hide = true)]
    pub config: Option<PathBuf>,
    /// AF_UNIX socket that is sent the master end of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// AF_UNIX socket that is sent a pidfd of the container's process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Move the root mount and chroot instead of pivot_root (for a rootfs on the initial ramdisk)
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass N more file descriptors: 3 up to 3 + LISTEN_FDS + N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Do not become the reaper of the container's orphans
    #[arg(long)]
    pub no_subreaper: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Creates and starts a container
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// What `run` has in common with `create`.
    #[command(flatten)]
    pub create: Create,
    /// Return as soon as the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Do not delete the container after its process has ended
    #[arg(long)]
    pub keep: bool,
}

/// Lets the process of a created container run
#[derive(Args, Clone, Debug)]
pub struct Start {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Prints the state of a container as JSON
#[derive(Args, Clone, Debug)]
pub struct State {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Freezes all processes of a container
#[derive(Args, Clone, Debug)]
pub struct Pause {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Thaws all processes of a container
#[derive(Args, Clone, Debug)]
pub struct Resume {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Sends a signal to the first process of a container
#[derive(Args, Clone, Debug)]
pub struct Kill {
    /// Obsolete, but engines pass it: a container that is not running is no error
    #[arg(long, short, hide = true)]
    pub all: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Signal by number or name; default is SIGTERM
    #[arg(value_name = "SIGNAL")]
    pub signal: Option<String>,
}

/// Removes what a container holds
#[derive(Args, Clone, Debug)]
pub struct Delete {
    /// Kill the container first if it still runs; none of that name is no error
    #[arg(long, short)]
    pub force: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Executes a process in a running container
#[derive(Args, Clone, Debug)]
pub struct Exec {
    /// AF_UNIX socket that is sent the master end of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// AF_UNIX socket that is sent a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set an environment variable; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Give the process a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Numeric user, and group if given
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Additional group; may be repeated
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with the process as in config.json's "process"
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Return as soon as the process runs
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Set the no_new_privs bit
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability; may be repeated
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Pass N more file descriptors: 3 up to 3 + LISTEN_FDS + N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Put the process into an existing sub-cgroup; may be repeated
    #[arg(long, value_name = "[CONTROLLERS:]PATH")]
    pub cgroup: Vec<String>,
    /// Also in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// The command and its arguments, unless --process is given
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// Lists the containers
#[derive(Args, Clone, Debug)]
pub struct List {
    /// table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = values::list_format)]
    pub format: ListFormat,
    /// Only the names
    #[arg(long, short)]
    pub quiet: bool,
}

/// Shows the processes of a container
#[derive(Args, Clone, Debug)]
pub struct Ps {
    /// table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = values::list_format)]
    pub format: ListFormat,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Options for ps(1); default is -ef
    #[arg(value_name = "PS_OPTIONS", trailing_var_arg = true)]
    pub ps_options: Vec<String>,
}

/// Prints statistics and out-of-memory events
#[derive(Args, Clone, Debug)]
pub struct Events {
    /// Time between two statistics
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub interval: Duration,
    /// Print the statistics once
    #[arg(long)]
    pub stats: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Changes the limits of a container
#[derive(Args, Clone, Debug)]
pub struct Update {
    /// File with the limits as in config.json's "linux.resources", or - for stdin; all other options are ignored
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// CFS period in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_period: Option<u64>,
    /// CPU time in one period, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_quota: Option<i64>,
    /// CPU time that may be saved up for a burst, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_burst: Option<u64>,
    /// Relative CPU weight, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// Realtime period in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime CPU time in one period, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Obsolete
    #[arg(long, value_name = "SIZE", value_parser = values::memory_size, hide = true)]
    pub kernel_memory: Option<MemorySize>,
    /// Obsolete
    #[arg(long, value_name = "SIZE", value_parser = values::memory_size, hide = true)]
    pub kernel_memory_tcp: Option<MemorySize>,
    /// Limit of memory: bytes, or 512m, 1g; -1 for none
    #[arg(long, value_name = "SIZE", value_parser = values::memory_size)]
    pub memory: Option<MemorySize>,
    /// 1: run only when nobody else wants the CPU
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Soft limit of memory
    #[arg(long, value_name = "SIZE", value_parser = values::memory_size)]
    pub memory_reservation: Option<MemorySize>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "SIZE", value_parser = values::memory_size)]
    pub memory_swap: Option<MemorySize>,
    /// Limit of processes and threads; -1 for none
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,
    /// Intel RDT: schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT: schema of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Saves a running container to files with CRIU
#[derive(Args, Clone, Debug)]
pub struct Checkpoint {
    /// Directory for the images; default is ./checkpoint
    #[arg(long, value_name = "DIR")]
    pub image_path: Option<PathBuf>,
    /// Directory for working files and logs
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Images of an earlier pre-dump, relative to --image-path
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Leave the container running
    #[arg(long)]
    pub leave_running: bool,
    /// Allow open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Skip TCP connections that are not yet established
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Allow unlinked files to be linked back
    #[arg(long)]
    pub link_remap: bool,
    /// Allow external unix sockets
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow shell jobs
    #[arg(long)]
    pub shell_job: bool,
    /// Restore memory pages on demand
    #[arg(long)]
    pub lazy_pages: bool,
    /// File descriptor that is written to when the lazy pages are ready
    #[arg(long, value_name = "FD", default_value_t = -1)]
    pub status_fd: i32,
    /// Page server to send memory to
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Allow file locks
    #[arg(long)]
    pub file_locks: bool,
    /// Save the memory only, and leave the container running
    #[arg(long)]
    pub pre_dump: bool,
    /// soft, full, strict or ignore; default is soft
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<String>,
    /// Create this namespace, but do not restore what is in it; may be repeated
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<String>,
    /// Drop duplicates from parent images
    #[arg(long)]
    pub auto_dedup: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Creates a container from the files of a checkpoint
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// AF_UNIX socket that is sent the master end of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Directory of the images; default is ./checkpoint
    #[arg(long, value_name = "DIR")]
    pub image_path: Option<PathBuf>,
    /// Directory for working files and logs
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Close TCP connections
    #[arg(long, hide = true)]
    pub tcp_close: bool,
    /// Allow external unix sockets
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow shell jobs
    #[arg(long)]
    pub shell_job: bool,
    /// Allow file locks
    #[arg(long)]
    pub file_locks: bool,
    /// soft, full, strict or ignore; default is soft
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<String>,
    /// Directory of the bundle; default is the working directory
    #[arg(long, short, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Return as soon as the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not become the reaper of the container's orphans
    #[arg(long)]
    pub no_subreaper: bool,
    /// Move the root mount and chroot instead of pivot_root
    #[arg(long)]
    pub no_pivot: bool,
    /// Create this namespace, but do not restore what is in it; may be repeated
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<String>,
    /// Drop duplicates from parent images
    #[arg(long)]
    pub auto_dedup: bool,
    /// Restore memory pages on demand
    #[arg(long)]
    pub lazy_pages: bool,
    /// Security label to restore with
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// SELinux context for mounts
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Writes an example config.json
#[derive(Args, Clone, Debug)]
pub struct Spec {
    /// Directory of the bundle; default is the working directory
    #[arg(long, short, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// For a container that an ordinary user starts
    #[arg(long)]
    pub rootless: bool,
}

/// Prints what this runtime supports as JSON
#[derive(Args, Clone, Debug)]
pub struct Features {}

/// The verb and its arguments.
#[derive(Clone, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)] // the Args say it; one value lives, once
pub enum Command {
    Checkpoint(Checkpoint),
    Create(Create),
    Delete(Delete),
    Events(Events),
    Exec(Exec),
    Features(Features),
    Kill(Kill),
    List(List),
    Pause(Pause),
    Plan(Create),
    Ps(Ps),
    Restore(Restore),
    Resume(Resume),
    Run(Run),
    Spec(Spec),
    Start(Start),
    State(State),
    Update(Update),
}

/// A row of the table of verbs: how a verb is called, and how its Args are defined and read.
#[derive(Debug)]
pub struct Verb {
    /// The word on the command line.
    pub name: &'static str,
    /// How many positional arguments it takes.
    pub arity: Arity,
    /// What follows the first positional argument.
    pub rest: Rest,
    define: fn(clap::Command) -> clap::Command,
    read: fn(&ArgMatches) -> Result<Command, clap::Error>,
}

/// How many positional arguments a verb takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// So many.
    Exactly(usize),
    /// From the first to the second number.
    Between(usize, usize),
    /// So many or more.
    AtLeast(usize),
}

/// How arguments after the first positional one are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Options may follow: `delete ID --force`.
    Options,
    /// They belong to another program: `exec ID ls --all`.
    Verbatim,
}

macro_rules! verb {
    ($name:expr, $args:ident, $variant:ident, $arity:expr, $rest:ident) => {
        Verb {
            name: $name,
            arity: $arity,
            rest: Rest::$rest,
            define: <$args as Args>::augment_args,
            read: |matches| $args::from_arg_matches(matches).map(Command::$variant),
        }
    };
}

/// The verb that is for developers.
const PLAN: &str = "plan";

/// Every verb, in the order of the help. [`PLAN`], the last, is not shown: it prints what `create` would do.
pub const VERBS: &[Verb] = {
    use Arity::{AtLeast, Between, Exactly};
    &[
        verb!("checkpoint", Checkpoint, Checkpoint, Exactly(1), Options),
        verb!("create", Create, Create, Exactly(1), Options),
        verb!("delete", Delete, Delete, Exactly(1), Options),
        verb!("events", Events, Events, Exactly(1), Options),
        verb!("exec", Exec, Exec, AtLeast(1), Verbatim),
        verb!("features", Features, Features, Exactly(0), Options),
        verb!("kill", Kill, Kill, Between(1, 2), Options),
        verb!("list", List, List, Exactly(0), Options),
        verb!("pause", Pause, Pause, Exactly(1), Options),
        verb!("ps", Ps, Ps, AtLeast(1), Verbatim),
        verb!("restore", Restore, Restore, Exactly(1), Options),
        verb!("resume", Resume, Resume, Exactly(1), Options),
        verb!("run", Run, Run, Exactly(1), Options),
        verb!("spec", Spec, Spec, Exactly(0), Options),
        verb!("start", Start, Start, Exactly(1), Options),
        verb!("state", State, State, Exactly(1), Options),
        verb!("update", Update, Update, Exactly(1), Options),
        verb!(PLAN, Create, Plan, Exactly(1), Options),
    ]
};

impl Verb {
    /// The verb called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        VERBS.iter().find(|verb| verb.name == name)
    }

    /// The definition of this verb alone: parsing one verb must not cost the definition of all.
    pub fn command(&self) -> clap::Command {
        (self.define)(clap::Command::new(self.name)).args_override_self(true)
    }
}

/// The definition of the whole command line, for help, the man page and shell completions.
pub fn command() -> clap::Command {
    let version = clap::Arg::new("version").short('v').long("version").action(clap::ArgAction::Version);
    GlobalArgs::augment_args(clap::Command::new("orlop"))
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .arg(version.help("Print the version"))
        .subcommands(VERBS.iter().filter(|verb| verb.name != PLAN).map(Verb::command))
}

/// The definition of the options before the verb.
fn global_command() -> clap::Command {
    GlobalArgs::augment_args(clap::Command::new("orlop")).args_override_self(true)
}
