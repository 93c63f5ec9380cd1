//! The command line: one struct per verb, whose fields are its options and arguments, and the table of verbs.
//!
//! It has every flag of runc 1.5. Obsolete flags are among them, because engines still pass them.
//! Not for: how an argv is read (Go's `flag` rules, [`argv`]), how values are written ([`values`]), how the help looks
//! ([`pages`]), and what a verb does.

pub mod argument;
pub mod argv;
pub mod global;
pub mod pages;
pub mod values;

use crate::log;
use argument::{Arguments, arguments};
use std::path::PathBuf;
use std::time::Duration;
use values::{Driver, ListFormat, MemorySize, RootlessMode};

arguments! {
    /// Open Container Initiative runtime
    pub struct GlobalArgs {
        /// Log each step
        pub debug: bool,
        /// Append the log to FILE; default is stderr
        #[arg(value("FILE"))]
        pub log: Option<PathBuf>,
        /// Format of the log: text or json
        #[arg(value("FORMAT"), default("text"))]
        pub log_format: log::Format,
        /// Directory for the state of containers (should be on a tmpfs)
        #[arg(value("DIR"))]
        pub root: Option<PathBuf>,
        /// Let systemd make the cgroups; cgroupsPath is then "slice:prefix:name"
        pub systemd_cgroup: bool,
        /// crun's name for the choice of --systemd-cgroup: cgroupfs, systemd or disabled
        #[arg(value("DRIVER"), hidden())]
        pub cgroup_manager: Option<Driver>,
        /// Go on if cgroups may not be written to: true, false or auto
        #[arg(value("WHEN"), default("auto"))]
        pub rootless: RootlessMode,
        /// Obsolete: criu is found through PATH
        #[arg(value("PATH"), hidden())]
        pub criu: Option<PathBuf>,
        /// Print the version
        #[arg(short('v'))]
        pub version: bool,
    }

    /// Creates a container; its process waits for `start`
    pub struct Create {
        /// Directory of the bundle; default is the working directory
        #[arg(short('b'), value("DIR"))]
        pub bundle: Option<PathBuf>,
        /// Read FILE instead of the bundle's config.json
        #[arg(value("FILE"), hidden())]
        pub config: Option<PathBuf>,
        /// AF_UNIX socket that is sent the master end of the container's terminal
        #[arg(value("SOCKET"))]
        pub console_socket: Option<PathBuf>,
        /// AF_UNIX socket that is sent a pidfd of the container's process
        #[arg(value("SOCKET"))]
        pub pidfd_socket: Option<PathBuf>,
        /// File to write the process id to
        #[arg(value("FILE"))]
        pub pid_file: Option<PathBuf>,
        /// Move the root mount and chroot instead of pivot_root (for a rootfs on the initial ramdisk)
        pub no_pivot: bool,
        /// Keep the caller's session keyring
        pub no_new_keyring: bool,
        /// Pass N more file descriptors: 3 up to 3 + LISTEN_FDS + N
        #[arg(value("N"), default("0"))]
        pub preserve_fds: u32,
        /// Do not become the subreaper of the container's processes
        pub no_subreaper: bool,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Creates and starts a container
    pub struct Run {
        #[flatten]
        /// The options that `run` shares with `create`.
        pub create: Create,
        /// Return as soon as the container runs
        #[arg(short('d'))]
        pub detach: bool,
        /// Do not delete the container after its process has ended
        pub keep: bool,
    }

    /// Lets the process of a created container run
    pub struct Start {
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Prints the state of a container as JSON
    pub struct State {
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Freezes all processes of a container
    pub struct Pause {
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Thaws all processes of a container
    pub struct Resume {
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Sends a signal to the first process of a container
    pub struct Kill {
        /// Obsolete, but engines pass it: succeed if the container is not running
        #[arg(short('a'), hidden())]
        pub all: bool,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
        /// Signal by number or name; default is SIGTERM
        #[arg(positional("SIGNAL"))]
        pub signal: Option<String>,
    }

    /// Removes a container
    pub struct Delete {
        /// Kill the container if it still runs; succeed if it does not exist
        #[arg(short('f'))]
        pub force: bool,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Executes a process in a running container
    pub struct Exec {
        /// AF_UNIX socket that is sent the master end of the process's terminal
        #[arg(value("SOCKET"))]
        pub console_socket: Option<PathBuf>,
        /// AF_UNIX socket that is sent a pidfd of the process
        #[arg(value("SOCKET"))]
        pub pidfd_socket: Option<PathBuf>,
        /// Working directory in the container
        #[arg(value("DIR"))]
        pub cwd: Option<String>,
        /// Set an environment variable; may be repeated
        #[arg(short('e'), value("NAME=VALUE"))]
        pub env: Vec<String>,
        /// Give the process a terminal
        #[arg(short('t'))]
        pub tty: bool,
        /// Numeric user, and group if given
        #[arg(short('u'), value("UID[:GID]"))]
        pub user: Option<String>,
        /// Additional group; may be repeated
        #[arg(short('g'), value("GID"))]
        pub additional_gids: Vec<u32>,
        /// File with the process as in config.json's "process"
        #[arg(short('p'), value("FILE"))]
        pub process: Option<PathBuf>,
        /// Return as soon as the process runs
        #[arg(short('d'))]
        pub detach: bool,
        /// File to write the process id to
        #[arg(value("FILE"))]
        pub pid_file: Option<PathBuf>,
        /// SELinux label of the process
        #[arg(value("LABEL"))]
        pub process_label: Option<String>,
        /// AppArmor profile of the process
        #[arg(value("PROFILE"))]
        pub apparmor: Option<String>,
        /// Set the no_new_privs bit
        pub no_new_privs: bool,
        /// Add a capability; may be repeated
        #[arg(short('c'), value("CAP"))]
        pub cap: Vec<String>,
        /// Pass N more file descriptors: 3 up to 3 + LISTEN_FDS + N
        #[arg(value("N"), default("0"))]
        pub preserve_fds: u32,
        /// Put the process into an existing sub-cgroup; may be repeated
        #[arg(value("[CONTROLLERS:]PATH"))]
        pub cgroup: Vec<String>,
        /// Execute even if the container is paused
        pub ignore_paused: bool,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
        /// The command and its arguments, unless --process is given
        #[arg(positional("COMMAND"))]
        pub command: Vec<String>,
    }

    /// Lists the containers
    pub struct List {
        /// table or json
        #[arg(short('f'), value("FORMAT"), default("table"))]
        pub format: ListFormat,
        /// Only the names
        #[arg(short('q'))]
        pub quiet: bool,
    }

    /// Shows the processes of a container
    pub struct Ps {
        /// table or json
        #[arg(short('f'), value("FORMAT"), default("table"))]
        pub format: ListFormat,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
        /// Options for ps(1); default is -ef
        #[arg(positional("PS_OPTIONS"))]
        pub ps_options: Vec<String>,
    }

    /// Prints statistics and out-of-memory events
    pub struct Events {
        /// Time between two statistics
        #[arg(value("DURATION"), default("5s"))]
        pub interval: Duration,
        /// Print the statistics once
        pub stats: bool,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Changes the limits of a container
    pub struct Update {
        /// File with the limits as in config.json's "linux.resources", or - for stdin; all other options are ignored
        #[arg(short('r'), value("FILE"))]
        pub resources: Option<PathBuf>,
        /// Weight of block I/O, 10 to 1000
        #[arg(value("WEIGHT"))]
        pub blkio_weight: Option<u16>,
        /// CFS period in microseconds
        #[arg(value("USEC"))]
        pub cpu_period: Option<u64>,
        /// CPU time in one period, in microseconds
        #[arg(value("USEC"))]
        pub cpu_quota: Option<i64>,
        /// CPU time that may be saved up for a burst, in microseconds
        #[arg(value("USEC"))]
        pub cpu_burst: Option<u64>,
        /// Relative CPU weight, 2 to 262144
        #[arg(value("SHARES"))]
        pub cpu_share: Option<u64>,
        /// Realtime period in microseconds
        #[arg(value("USEC"))]
        pub cpu_rt_period: Option<u64>,
        /// Realtime CPU time in one period, in microseconds
        #[arg(value("USEC"))]
        pub cpu_rt_runtime: Option<i64>,
        /// CPUs to use
        #[arg(value("LIST"))]
        pub cpuset_cpus: Option<String>,
        /// Memory nodes to use
        #[arg(value("LIST"))]
        pub cpuset_mems: Option<String>,
        /// Obsolete
        #[arg(value("SIZE"), hidden())]
        pub kernel_memory: Option<MemorySize>,
        /// Obsolete
        #[arg(value("SIZE"), hidden())]
        pub kernel_memory_tcp: Option<MemorySize>,
        /// Limit of memory: bytes, or 512m, 1g; -1 for none
        #[arg(value("SIZE"))]
        pub memory: Option<MemorySize>,
        /// 1: run only when no other cgroup wants the CPU
        #[arg(value("0|1"))]
        pub cpu_idle: Option<i64>,
        /// Soft limit of memory
        #[arg(value("SIZE"))]
        pub memory_reservation: Option<MemorySize>,
        /// Limit of memory and swap together; -1 for none
        #[arg(value("SIZE"))]
        pub memory_swap: Option<MemorySize>,
        /// Limit of processes and threads; -1 for none
        #[arg(value("N"))]
        pub pids_limit: Option<i64>,
        /// Intel RDT: schema of the L3 cache
        #[arg(value("SCHEMA"))]
        pub l3_cache_schema: Option<String>,
        /// Intel RDT: schema of the memory bandwidth
        #[arg(value("SCHEMA"))]
        pub mem_bw_schema: Option<String>,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Saves a running container to files with CRIU
    pub struct Checkpoint {
        /// Directory for the images; default is ./checkpoint
        #[arg(value("DIR"))]
        pub image_path: Option<PathBuf>,
        /// Directory for working files and logs
        #[arg(value("DIR"))]
        pub work_path: Option<PathBuf>,
        /// Images of an earlier pre-dump, relative to --image-path
        #[arg(value("DIR"))]
        pub parent_path: Option<PathBuf>,
        /// Leave the container running
        pub leave_running: bool,
        /// Allow open TCP connections
        pub tcp_established: bool,
        /// Skip TCP connections that are not yet established
        pub tcp_skip_in_flight: bool,
        /// Allow unlinked files to be linked back
        pub link_remap: bool,
        /// Allow external unix sockets
        pub ext_unix_sk: bool,
        /// Allow shell jobs
        pub shell_job: bool,
        /// Restore memory pages on demand
        pub lazy_pages: bool,
        /// File descriptor that is written to when the lazy pages are ready
        #[arg(value("FD"), default("-1"))]
        pub status_fd: i32,
        /// Page server to send memory to
        #[arg(value("ADDRESS:PORT"))]
        pub page_server: Option<String>,
        /// Allow file locks
        pub file_locks: bool,
        /// Save the memory only, and leave the container running
        pub pre_dump: bool,
        /// soft, full, strict or ignore; default is soft
        #[arg(value("MODE"))]
        pub manage_cgroups_mode: Option<String>,
        /// Create this namespace, but do not restore its content; may be repeated
        #[arg(value("NAMESPACE"))]
        pub empty_ns: Vec<String>,
        /// Drop duplicates from parent images
        pub auto_dedup: bool,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Creates a container from the files of a checkpoint
    pub struct Restore {
        /// AF_UNIX socket that is sent the master end of the container's terminal
        #[arg(value("SOCKET"))]
        pub console_socket: Option<PathBuf>,
        /// Directory of the images; default is ./checkpoint
        #[arg(value("DIR"))]
        pub image_path: Option<PathBuf>,
        /// Directory for working files and logs
        #[arg(value("DIR"))]
        pub work_path: Option<PathBuf>,
        /// Allow open TCP connections
        pub tcp_established: bool,
        /// Close TCP connections
        #[arg(hidden())]
        pub tcp_close: bool,
        /// Allow external unix sockets
        pub ext_unix_sk: bool,
        /// Allow shell jobs
        pub shell_job: bool,
        /// Allow file locks
        pub file_locks: bool,
        /// soft, full, strict or ignore; default is soft
        #[arg(value("MODE"))]
        pub manage_cgroups_mode: Option<String>,
        /// Directory of the bundle; default is the working directory
        #[arg(short('b'), value("DIR"))]
        pub bundle: Option<PathBuf>,
        /// Return as soon as the container runs
        #[arg(short('d'))]
        pub detach: bool,
        /// File to write the process id to
        #[arg(value("FILE"))]
        pub pid_file: Option<PathBuf>,
        /// Do not become the subreaper of the container's processes
        pub no_subreaper: bool,
        /// Move the root mount and chroot instead of pivot_root
        pub no_pivot: bool,
        /// Create this namespace, but do not restore its content; may be repeated
        #[arg(value("NAMESPACE"))]
        pub empty_ns: Vec<String>,
        /// Drop duplicates from parent images
        pub auto_dedup: bool,
        /// Restore memory pages on demand
        pub lazy_pages: bool,
        /// Security label to restore with
        #[arg(value("TYPE:NAME"))]
        pub lsm_profile: Option<String>,
        /// SELinux context for mounts
        #[arg(value("CONTEXT"))]
        pub lsm_mount_context: Option<String>,
        /// Name of the container
        #[arg(positional("CONTAINER"))]
        pub id: String,
    }

    /// Writes an example config.json
    pub struct Spec {
        /// Directory of the bundle; default is the working directory
        #[arg(short('b'), value("DIR"))]
        pub bundle: Option<PathBuf>,
        /// For a container that an ordinary user starts
        pub rootless: bool,
    }

    /// Prints what this runtime supports as JSON
    pub struct Features {}
}

/// Defines [`Command`] and the table of verbs from names and structs, in the order of the help.
macro_rules! verbs {
    ($($variant:ident($args:ident) = $name:expr),* $(,)?) => {
        /// The verb and its arguments.
        #[derive(Clone, Debug)]
        #[allow(missing_docs, clippy::large_enum_variant)] // the structs have the docs; there is only one value
        pub enum Command {
            $($variant($args)),*
        }

        impl Command {
            /// The options and arguments of the verb.
            pub fn arguments(&mut self) -> &mut dyn Arguments {
                match self {
                    $(Self::$variant(args) => args),*
                }
            }
        }

        /// Every verb, in the order of the help. The last one, [`PLAN`], is hidden.
        pub const VERBS: &[Verb] =
            &[$(Verb { name: $name, blank: || Command::$variant($args::default()) }),*];
    };
}

verbs! {
    Checkpoint(Checkpoint) = "checkpoint",
    Create(Create) = "create",
    Delete(Delete) = "delete",
    Events(Events) = "events",
    Exec(Exec) = "exec",
    Features(Features) = "features",
    Kill(Kill) = "kill",
    List(List) = "list",
    Pause(Pause) = "pause",
    Ps(Ps) = "ps",
    Restore(Restore) = "restore",
    Resume(Resume) = "resume",
    Run(Run) = "run",
    Spec(Spec) = "spec",
    Start(Start) = "start",
    State(State) = "state",
    Update(Update) = "update",
    Plan(Create) = PLAN,
}

/// A hidden verb for developers: it prints what `create` would do.
const PLAN: &str = "plan";

/// A row of the table of verbs.
#[derive(Debug)]
pub struct Verb {
    /// The word on the command line.
    pub name: &'static str,
    /// Makes the verb with all options and arguments empty.
    pub blank: fn() -> Command,
}

impl Verb {
    /// The verb called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        VERBS.iter().find(|verb| verb.name == name)
    }
}
