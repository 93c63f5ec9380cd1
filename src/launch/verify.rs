//! Looks at init from outside, before anybody is told of it: what the kernel says of its rights, against the plan.
//!
//! Init does not look at itself. Behind the container's seccomp filter it could not believe the answers: a filter may say
//! that setgroups(2) was done, and that capget(2) found nothing.

use crate::parts::capabilities::Set;
use crate::parts::namespaces::{Joins, Kind, Request};
use crate::parts::user::Groups;
use crate::plan::{FilterTime, Plan, Process};
use crate::sys::proc::Proc;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Pid;

/// What /proc/PID/status says of a process's rights, in the ids of the reader's user namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    uids: Vec<u32>,
    gids: Vec<u32>,
    groups: Vec<u32>,
    inheritable: u64,
    permitted: u64,
    effective: u64,
    bounding: u64,
    ambient: u64,
    no_new_privs: bool,
    filters: u64,
}

impl Status {
    fn of(proc: &Proc, process: &str) -> Result<Self> {
        let text = proc.read(&format!("{process}/status"))?;
        Self::parse(&text).with_context(|| format!("/proc/{process}/status"))
    }

    /// The process's name, which stands first, is escaped by the kernel: it has no line of its own making.
    fn parse(text: &[u8]) -> Result<Self> {
        let mut status = Self::default();
        let mut found = 0;
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some((name, value)) = line.split_once(":\t") else { continue };
            let ids = || value.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>();
            let set = || u64::from_str_radix(value, 16);
            match name {
                "Uid" => status.uids = ids()?,
                "Gid" => status.gids = ids()?,
                "Groups" => status.groups = ids()?,
                "CapInh" => status.inheritable = set()?,
                "CapPrm" => status.permitted = set()?,
                "CapEff" => status.effective = set()?,
                "CapBnd" => status.bounding = set()?,
                "CapAmb" => status.ambient = set()?,
                "NoNewPrivs" => status.no_new_privs = value == "1",
                "Seccomp_filters" => status.filters = value.parse()?,
                _ => continue,
            }
            found += 1;
        }
        ensure!(found >= 9, "not as proc_pid_status(5) has it");
        Ok(status)
    }
}

/// Which namespaces init must be in.
pub enum Expected<'a> {
    /// A new container: new ones, or those that were to be joined.
    New(&'a Joins),
    /// `exec`: those of this process.
    Of(Pid),
}

/// Compares init, process `pid`, with `plan`.
///
/// # Errors
/// It has a right that the plan does not give, is somebody else, or is in another namespace: it must not run.
pub fn process(plan: &Plan, proc: &Proc, pid: Pid, expected: &Expected<'_>) -> Result<()> {
    rights(plan, proc, pid).and_then(|()| namespaces(plan, proc, pid, expected)).context(
        "the process is not what the configuration says (does linux.seccomp answer a system call in place of the kernel?)",
    )
}

fn rights(plan: &Plan, proc: &Proc, pid: Pid) -> Result<()> {
    let process = &plan.process;
    let name = pid.as_raw_nonzero().to_string();
    let is = Status::of(proc, &name)?;
    ids(plan, proc, &name, &is)?;
    let capabilities = &process.capabilities;
    for (set, is, planned) in [
        ("bounding", is.bounding, capabilities.bounding),
        ("effective", is.effective, capabilities.effective),
        ("inheritable", is.inheritable, capabilities.inheritable),
        ("permitted", is.permitted, capabilities.permitted),
        ("ambient", is.ambient, capabilities.ambient),
    ] {
        // What the host cannot give is missing, with a warning.
        ensure!(
            is & !planned.bits() == 0,
            "process.capabilities.{set}: {planned:?} is planned, {:?} is there",
            Set::of_bits(is)
        );
    }
    ensure!(is.no_new_privs || !process.no_new_privileges, "process.noNewPrivileges: not in force");
    if matches!(plan.filter_time(), FilterTime::InHop | FilterTime::BeforeReady) {
        let ours = Status::of(proc, "self")?.filters;
        ensure!(is.filters > ours, "linux.seccomp: no filter is in force");
    }
    if plan.filter_time() == FilterTime::InHop
        && let Some(wanted) = process.rlimits.processes()
    {
        // It was set behind the filter.
        let is = limit_of_processes(&proc.read(&format!("{name}/limits"))?);
        ensure!(is == Some(wanted), "process.rlimits: RLIMIT_NPROC is {is:?}, not {wanted:?}");
    }
    Ok(())
}

/// The row of /proc/PID/limits: `Max processes  SOFT  HARD  processes`.
fn limit_of_processes(text: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut values = text.lines().find_map(|line| line.strip_prefix("Max processes"))?.split_whitespace();
    let mut value = || match values.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some((value()?, value()?))
}

fn ids(plan: &Plan, proc: &Proc, name: &str, is: &Status) -> Result<()> {
    let Process { user, .. } = &plan.process;
    let (uids, gids) = match plan.namespaces.private(Kind::User) {
        true => (Map::of(proc, name, "uid_map")?, Map::of(proc, name, "gid_map")?),
        false => (Map::default(), Map::default()),
    };
    let all = |ids: &[u32], wanted| ids.len() == 4 && ids.iter().all(|id| Some(*id) == wanted);
    ensure!(all(&is.uids, uids.outside(user.uid.get())), "process.user.uid: is {:?} on the host", is.uids);
    ensure!(all(&is.gids, gids.outside(user.gid.get())), "process.user.gid: is {:?} on the host", is.gids);
    let Groups::Set(wanted) = &user.groups else { return Ok(()) };
    let mut wanted: Vec<_> = wanted.iter().filter_map(|gid| gids.outside(gid.get())).collect();
    wanted.sort_unstable();
    let mut groups = is.groups.clone();
    groups.sort_unstable();
    if groups == wanted {
        return Ok(());
    }
    // Nobody can change them in a user namespace that an ordinary user has made.
    let setgroups = proc.read(&format!("{name}/setgroups"))?;
    ensure!(setgroups == b"deny\n", "process.user.additionalGids: is {groups:?} on the host");
    Ok(())
}

fn namespaces(plan: &Plan, proc: &Proc, pid: Pid, expected: &Expected<'_>) -> Result<()> {
    for (kind, request) in &plan.namespaces.0 {
        let name = kind.proc_name();
        let is = match proc.namespace(pid, name) {
            // An ordinary user may not look into a process that is not dumpable. No filter was in force when the
            // namespaces were joined, so what setns(2) said was the kernel's word.
            Err(error) if error.errno() == libc::EACCES && !rustix::process::geteuid().is_root() => continue,
            is => is?,
        };
        let right = match (expected, request) {
            (Expected::Of(other), _) => proc.namespace(*other, name)? == is,
            (Expected::New(_), Request::New) => proc.namespace(rustix::process::getpid(), name)? != is,
            (Expected::New(joins), Request::Join(_)) => joins.identity(*kind)? == Some(is),
        };
        if !right {
            bail!("linux.namespaces {:?}: the process is in another one", kind.name());
        }
    }
    Ok(())
}

/// The id map of a user namespace as the kernel shows it to us: which ids of ours stand behind those inside.
#[derive(Debug, Default)]
struct Map(Option<Vec<(u32, u32, u32)>>);

impl Map {
    fn of(proc: &Proc, process: &str, file: &str) -> Result<Self> {
        let path = format!("{process}/{file}");
        let text = String::from_utf8(proc.read(&path)?)?;
        let row = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let row = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
            Some(row)
        };
        let rows: Option<Vec<_>> = text.lines().map(row).collect();
        rows.map(|rows| Self(Some(rows)))
            .with_context(|| format!("/proc/{path}: not as user_namespaces(7) has it"))
    }

    /// The id of ours behind `inside`; without a map they are the same.
    fn outside(&self, inside: u32) -> Option<u32> {
        let Some(rows) = &self.0 else { return Some(inside) };
        rows.iter().find_map(|(first, outside, length)| {
            let offset = inside.checked_sub(*first).filter(|offset| offset < length)?;
            outside.checked_add(offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"Name:\tuid:\\nCapEff:\t0\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n\
        CapInh:\t0000000000000001\nCapPrm:\t0000000000000002\nCapEff:\t0000000000000003\n\
        CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000004\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn the_kernels_lines_are_read_and_the_name_is_none_of_them() {
        let status = Status::parse(TEXT).unwrap();
        let wanted = Status {
            uids: vec![1, 2, 3, 4],
            gids: vec![5, 6, 7, 8],
            groups: vec![9, 10],
            inheritable: 1,
            permitted: 2,
            effective: 3,
            bounding: 0x1ff_ffff_ffff,
            ambient: 4,
            no_new_privs: true,
            filters: 3,
        };
        assert_eq!(status, wanted);
        assert!(Status::parse(b"Name:\tx\nUid:\t0\t0\t0\t0\n").is_err());
    }

    #[test]
    fn the_limit_of_processes_is_read() {
        let text = b"Limit  Soft Limit  Hard Limit  Units\nMax processes             7      unlimited      processes\n";
        assert_eq!(limit_of_processes(text), Some((7, u64::MAX)));
        assert_eq!(limit_of_processes(b""), None);
    }

    #[test]
    fn an_id_is_looked_for_in_each_row_of_the_map() {
        let map = Map(Some(vec![(0, 1000, 1), (1, 100_000, 10)]));
        assert_eq!(
            [0, 1, 10, 11].map(|id| map.outside(id)),
            [Some(1000), Some(100_000), Some(100_009), None]
        );
        assert_eq!(Map::default().outside(7), Some(7));
    }
}
