//! `linux.namespaces`: which are made, which are joined, and the process shape that this needs (namespaces(7)).
//!
//! Not for: id maps (`idmap.rs`) and what is set up inside a namespace (its own part).

use crate::sys::{
    self, Called,
    ns::{self, Flags},
};
use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, LinuxTimeOffset};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A kind of namespace, in the order in which they are joined: what is owned by a user namespace comes
/// after it, and the mount namespace last, since paths mean something else behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Users and groups.
    User,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Network devices, addresses, ports.
    Network,
    /// The cgroup root directory.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
    /// Process ids.
    Pid,
    /// Mount points.
    Mount,
}

/// kind · flag · name in config.json · file in /proc/PID/ns · key in runc's state.json
pub const TABLE: [(Kind, Flags, &str, &str, &str); 8] = [
    (Kind::User, Flags::USER, "user", "user", "NEWUSER"),
    (Kind::Ipc, Flags::IPC, "ipc", "ipc", "NEWIPC"),
    (Kind::Uts, Flags::UTS, "uts", "uts", "NEWUTS"),
    (Kind::Network, Flags::NETWORK, "network", "net", "NEWNET"),
    (Kind::Cgroup, Flags::CGROUP, "cgroup", "cgroup", "NEWCGROUP"),
    (Kind::Time, Flags::TIME, "time", "time", "NEWTIME"),
    (Kind::Pid, Flags::PID, "pid", "pid", "NEWPID"),
    (Kind::Mount, Flags::MOUNT, "mount", "mnt", "NEWNS"),
];

impl Kind {
    #[allow(clippy::indexing_slicing, reason = "the table has a row for each kind, which a test walks")]
    fn row(self) -> &'static (Kind, Flags, &'static str, &'static str, &'static str) {
        // TABLE stands in the order of the enum; a test walks it.
        &TABLE[self as usize]
    }

    /// The CLONE_NEW* flag.
    pub fn flag(self) -> Flags {
        self.row().1
    }

    /// The name in config.json.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The file's name in /proc/PID/ns.
    pub fn proc_name(self) -> &'static str {
        self.row().3
    }

    /// The key that runc's state.json has for it.
    pub fn state_key(self) -> &'static str {
        self.row().4
    }

    fn of(kind: LinuxNamespaceType) -> Self {
        match kind {
            LinuxNamespaceType::User => Kind::User,
            LinuxNamespaceType::Ipc => Kind::Ipc,
            LinuxNamespaceType::Uts => Kind::Uts,
            LinuxNamespaceType::Network => Kind::Network,
            LinuxNamespaceType::Cgroup => Kind::Cgroup,
            LinuxNamespaceType::Time => Kind::Time,
            LinuxNamespaceType::Pid => Kind::Pid,
            LinuxNamespaceType::Mount => Kind::Mount,
        }
    }
}

/// What config.json asks for one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A new namespace.
    New,
    /// The one at this path.
    Join(PathBuf),
}

/// The namespaces of the container; a kind that is absent is shared with the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces(pub BTreeMap<Kind, Request>);

/// The offsets of a new time namespace, as `/proc/PID/timens_offsets` takes them; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TimeOffsets(pub String);

/// Which processes it takes to make init (clone3(2), setns(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// The parent clones init into all new namespaces at once; init itself joins the others.
    Direct {
        /// CLONE_NEW* flags of the one clone.
        clone: Flags,
        /// CLONE_NEW* flags of what the parent makes while init mounts, and init joins then: the network namespace
        /// takes the kernel longer than all others together, and the others are what mounting needs.
        later: Flags,
        /// Joined by init, in this order.
        join: Vec<Kind>,
    },
    /// Something must be joined or unshared before the last clone: a process between does that and makes
    /// init with CLONE_PARENT, so that init is the parent's child all the same.
    Hop {
        /// Joined by the hop, in this order.
        join: Vec<Kind>,
        /// Unshared by the hop: a time namespace that gets offsets takes only children. A new user namespace comes
        /// with it, for an ordinary user may make the one only in the other.
        unshare: Flags,
        /// CLONE_NEW* flags of the second clone.
        clone: Flags,
        /// The hop enters the cgroup, not init: once in the user namespace it has no right to, and behind a cgroup
        /// namespace (where the tree is mounted with `nsdelegate`, as systemd does) it may not cross its root.
        hop_joins_cgroup: bool,
    },
}

impl Entry {
    /// Whether the parent makes the network namespace, with its loopback device up, and init joins it.
    pub fn network_comes_later(&self) -> bool {
        matches!(self, Entry::Direct { later, .. } if later.contains(Kind::Network.flag()))
    }
}

/// Reads `linux.namespaces`.
///
/// # Errors
/// A kind given twice, a relative path, a NUL byte in a path.
pub fn plan(namespaces: &[LinuxNamespace]) -> Result<Namespaces> {
    let mut found: BTreeMap<Kind, (usize, Request)> = BTreeMap::new();
    for (index, namespace) in namespaces.iter().enumerate() {
        let kind = Kind::of(namespace.typ());
        let request = match namespace.path() {
            Some(path) if !path.as_os_str().is_empty() => {
                ensure!(path.is_absolute(), "linux.namespaces[{index}]: {path:?} is not an absolute path");
                Request::Join(path.clone())
            }
            _ => Request::New,
        };
        if let Some((first, _)) = found.insert(kind, (index, request)) {
            bail!("linux.namespaces[{first},{index}]: duplicate namespace {:?}", kind.name());
        }
    }
    Ok(Namespaces(found.into_iter().map(|(kind, (_, request))| (kind, request)).collect()))
}

/// Reads `linux.timeOffsets` (time_namespaces(7)).
///
/// # Errors
/// Offsets without a new time namespace, an unknown clock, nanoseconds of a second or more.
pub fn plan_time(
    offsets: Option<&BTreeMap<String, LinuxTimeOffset>>,
    namespaces: &Namespaces,
) -> Result<TimeOffsets> {
    let Some(offsets) = offsets.filter(|offsets| !offsets.is_empty()) else {
        return Ok(TimeOffsets::default());
    };
    ensure!(
        namespaces.private(Kind::Time),
        "linux.timeOffsets: time namespace offsets are specified, but time namespace isn't enabled"
    );
    ensure!(
        namespaces.made(Kind::Time),
        "linux.timeOffsets: time namespace offsets are specified, but an existing time namespace is joined"
    );
    let mut text = String::new();
    for (clock, offset) in offsets {
        ensure!(
            matches!(clock.as_str(), "monotonic" | "boottime"),
            "linux.timeOffsets: unknown clock {clock:?}"
        );
        let nanosecs = offset.nanosecs().unwrap_or(0);
        ensure!(
            nanosecs < 1_000_000_000,
            "linux.timeOffsets.{clock}.nanosecs: {nanosecs} is a second or more"
        );
        text += &format!("{clock} {} {nanosecs}\n", offset.secs().unwrap_or(0));
    }
    Ok(TimeOffsets(text))
}

impl Namespaces {
    /// Whether the container has a namespace of this kind that is not the runtime's own.
    pub fn private(&self, kind: Kind) -> bool {
        self.0.contains_key(&kind)
    }

    /// Whether a namespace of this kind is made for the container.
    pub fn made(&self, kind: Kind) -> bool {
        self.0.get(&kind) == Some(&Request::New)
    }

    /// Whether a namespace of this kind is joined.
    pub fn joined(&self, kind: Kind) -> bool {
        matches!(self.0.get(&kind), Some(Request::Join(_)))
    }

    /// Whether all that are not the host's are new.
    pub fn joins_none(&self) -> bool {
        self.0.values().all(|request| *request == Request::New)
    }

    /// The process shape for these requests. One clone where the kernel allows it:
    /// a pid namespace takes only children of who joined it, a user namespace must be joined before what it
    /// owns is made, and a new user namespace leaves no right to join what the host owns.
    ///
    /// Only root of the host is sure to come back from a network namespace that it has made: who is root of a user
    /// namespace may be in a network that it does not own.
    pub fn entry(&self, offsets: &TimeOffsets, rootless: bool) -> Entry {
        // The root of a new cgroup namespace is the cgroup of the process that asks for it, in clone3 the
        // parent's: init unshares it itself, once it is in its cgroup.
        let clone = self.flags(|request| *request == Request::New) & !Flags::CGROUP;
        let join: Vec<Kind> = self.0.keys().copied().filter(|kind| self.joined(*kind)).collect();
        let offset_time = self.made(Kind::Time) && !offsets.0.is_empty();
        let needs_hop = [Kind::User, Kind::Pid, Kind::Time].iter().any(|kind| self.joined(*kind))
            || (self.made(Kind::User) && !join.is_empty())
            || offset_time;
        if !needs_hop {
            let apart = if rootless || self.private(Kind::User) { Flags::NONE } else { Flags::NETWORK };
            return Entry::Direct { clone: clone & !apart, later: clone & apart, join };
        }
        let unshare = if offset_time { clone & (Flags::TIME | Flags::USER) } else { Flags::NONE };
        let hop_leaves_user = self.joined(Kind::User) || unshare.contains(Flags::USER);
        Entry::Hop {
            join,
            unshare,
            clone: clone & !unshare,
            hop_joins_cgroup: hop_leaves_user || self.joined(Kind::Cgroup),
        }
    }

    fn flags(&self, wanted: impl Fn(&Request) -> bool) -> Flags {
        self.0
            .iter()
            .filter(|(_, request)| wanted(request))
            .fold(Flags::NONE, |flags, (kind, _)| flags | kind.flag())
    }

    /// Opens the namespaces that are to be joined, in the order of joining.
    ///
    /// # Errors
    /// A path that is not there, or is not a namespace of its kind.
    pub fn hold(&self) -> Result<Joins> {
        let mut joins = Vec::new();
        for (kind, request) in &self.0 {
            if let Request::Join(path) = request {
                let fd = ns::open(path, kind.flag())
                    .with_context(|| format!("linux.namespaces {:?}", kind.name()))?;
                joins.push((*kind, fd));
            }
        }
        Ok(Joins { namespaces: joins, process: None })
    }

    /// Refuses id maps for a user namespace that is the runtime's own: it has maps already.
    ///
    /// # Errors
    /// See above.
    pub fn check_user(&self, joins: &Joins, maps_given: bool) -> Result<()> {
        let Some(fd) = joins.get(Kind::User) else { return Ok(()) };
        let own = ns::own(Flags::USER)?;
        ensure!(
            !(maps_given && ns::same(fd, own.as_fd())?),
            "linux.uidMappings: id maps for the user namespace that the runtime itself is in"
        );
        Ok(())
    }
}

/// Namespaces to be joined, opened while we see the host.
#[derive(Debug, Default)]
pub struct Joins {
    namespaces: Vec<(Kind, OwnedFd)>,
    /// `exec`: the container's init, and the kinds in which it differs from us.
    process: Option<(OwnedFd, Vec<Kind>)>,
}

impl Joins {
    /// All of `kinds` of the process behind `pidfd` (`exec`).
    pub fn of_process(pidfd: OwnedFd, kinds: Vec<Kind>) -> Self {
        Self { namespaces: Vec::new(), process: Some((pidfd, kinds)) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.process.is_none()
    }

    /// Whether one of this kind is joined.
    pub fn has(&self, kind: Kind) -> bool {
        let of_process = self.process.as_ref().is_some_and(|(_, kinds)| kinds.contains(&kind));
        of_process || self.get(kind).is_some()
    }

    fn get(&self, kind: Kind) -> Option<BorrowedFd<'_>> {
        self.namespaces.iter().find(|(k, _)| *k == kind).map(|(_, fd)| fd.as_fd())
    }

    /// The identity of the namespace of this kind that is joined: device and inode of its file in nsfs.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn identity(&self, kind: Kind) -> Result<Option<(u64, u64)>> {
        let Some(fd) = self.get(kind) else { return Ok(None) };
        let found = rustix::fs::fstat(fd).called("fstat", || "namespace".into())?;
        Ok(Some((found.st_dev, found.st_ino)))
    }

    /// Joins them all.
    ///
    /// A user namespace may own the others, or the host may: what the host owns must be joined first, what
    /// the user namespace owns can only be joined after it. So the others are tried before it, and those
    /// that were refused again behind it.
    ///
    /// # Errors
    /// setns(2)'s, naming the kind.
    pub fn enter(&self) -> Result<()> {
        if let Some((pidfd, kinds)) = &self.process {
            return enter_process(pidfd.as_fd(), kinds);
        }
        let joins_user = self.get(Kind::User).is_some();
        let mut later = Vec::new();
        for (kind, fd) in self.namespaces.iter().filter(|(kind, _)| *kind != Kind::User) {
            match ns::join(fd.as_fd(), kind.flag()) {
                Err(error) if joins_user && error.errno() == libc::EPERM => later.push((kind, fd)),
                other => other.with_context(|| place(*kind))?,
            }
        }
        if let Some(user) = self.get(Kind::User) {
            ns::join(user, Flags::USER).with_context(|| place(Kind::User))?;
        }
        for (kind, fd) in later {
            ns::join(fd.as_fd(), kind.flag()).with_context(|| place(*kind))?;
        }
        Ok(())
    }
}

fn place(kind: Kind) -> String {
    format!("linux.namespaces {:?}", kind.name())
}

/// All at once: the kernel checks the rights against the user namespace that is joined in the same call.
/// A kind that is already ours is left out by the caller: joining one's own user namespace is `EINVAL`.
fn enter_process(pidfd: BorrowedFd<'_>, kinds: &[Kind]) -> Result<()> {
    let flags = kinds.iter().fold(Flags::NONE, |flags, kind| flags | kind.flag());
    if !flags.is_empty() {
        ns::join(pidfd, flags).context("namespaces of the container's init")?;
    }
    Ok(())
}

/// Which namespaces of process `pid` are not our own: links in /proc/PID/ns compared with those of
/// /proc/self/ns.
///
/// # Errors
/// The process is gone, or may not be looked at.
pub fn foreign(pid: i32) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for (kind, _, _, file, _) in TABLE {
        let link = |who: &str| {
            let path = format!("/proc/{who}/ns/{file}");
            match rustix::fs::stat(&path) {
                Ok(found) => Ok(Some((found.st_dev, found.st_ino))),
                // A kind that this kernel does not have.
                Err(rustix::io::Errno::NOENT) if who == "self" => Ok(None),
                Err(errno) => Err(errno).called("stat", || path),
            }
        };
        if let Some(own) = link("self")?
            && link(&pid.to_string())? != Some(own)
        {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Makes a network namespace, has `give` give it to init, sets its loopback device up, and leaves us in our own.
///
/// # Errors
/// Those of unshare(2), open(2) and setns(2), and `give`'s.
pub fn make_network(give: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
    let make = || -> Result<()> {
        let own = ns::own(Kind::Network.flag())?;
        ns::unshare(Kind::Network.flag())?;
        let made = || -> Result<()> {
            // At once: init may be waiting.
            give(ns::own(Kind::Network.flag())?.as_fd())?;
            Ok(sys::netlink::loopback_up()?)
        };
        let made = made();
        // Whatever came of it: hooks that undo a failed create belong into our own network.
        ns::join(own.as_fd(), Kind::Network.flag())?;
        made
    };
    make().with_context(|| place(Kind::Network))
}

/// Joins the network namespace `fd` that the parent has made.
///
/// # Errors
/// setns(2)'s.
pub fn join_network(fd: BorrowedFd<'_>) -> Result<()> {
    ns::join(fd, Kind::Network.flag()).with_context(|| place(Kind::Network))
}

/// Gives init a cgroup namespace whose root is the cgroup that it is in now.
///
/// # Errors
/// unshare(2)'s.
pub fn unshare_cgroup() -> Result<(), sys::Error> {
    ns::unshare(Flags::CGROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(rows: &[(Kind, Request)]) -> Namespaces {
        Namespaces(rows.iter().cloned().collect())
    }

    fn join() -> Request {
        Request::Join("/proc/1/ns/x".into())
    }

    #[test]
    fn the_table_stands_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
        }
    }

    #[test]
    fn a_kind_given_twice_names_both_places() {
        let twice: Vec<LinuxNamespace> =
            serde_json::from_str(r#"[{"type":"network"},{"type":"pid"},{"type":"network","path":"/x"}]"#)
                .unwrap();
        let error = plan(&twice).unwrap_err();
        assert_eq!(error.to_string(), "linux.namespaces[0,2]: duplicate namespace \"network\"");
    }

    #[test]
    fn the_shape_follows_from_what_is_made_and_what_is_joined() {
        use Kind::{Network, Pid, Time, Uts};
        let none = TimeOffsets::default();
        let offset = TimeOffsets("monotonic 1 0\n".into());
        let (new, no) = (Request::New, Flags::NONE);
        let (user, pid, uts, net) = (Flags::USER, Flags::PID, Flags::UTS, Flags::NETWORK);
        let hop = |join: &[Kind], unshare, clone, hop_joins_cgroup| Entry::Hop {
            join: join.to_vec(),
            unshare,
            clone,
            hop_joins_cgroup,
        };
        let direct = |clone, later, join: &[Kind]| Entry::Direct { clone, later, join: join.to_vec() };
        type Case<'a> = (Vec<(Kind, Request)>, &'a TimeOffsets, Entry);
        let cases: Vec<Case<'_>> = vec![
            (vec![(Pid, new.clone()), (Uts, new.clone())], &none, direct(pid | uts, no, &[])),
            (vec![(Pid, new.clone()), (Network, join())], &none, direct(pid, no, &[Network])),
            (vec![(Pid, new.clone()), (Network, new.clone())], &none, direct(pid, net, &[])),
            (vec![(Kind::User, new.clone()), (Network, new.clone())], &none, direct(user | net, no, &[])),
            (vec![(Kind::User, new.clone()), (Network, join())], &none, hop(&[Network], no, user, false)),
            (vec![(Kind::User, join()), (Pid, new.clone())], &none, hop(&[Kind::User], no, pid, true)),
            (vec![(Pid, join())], &none, hop(&[Pid], no, no, false)),
            (vec![(Time, join())], &none, hop(&[Time], no, no, false)),
            (vec![(Time, new.clone())], &none, direct(Flags::TIME, no, &[])),
            (vec![(Time, new.clone()), (Pid, new.clone())], &offset, hop(&[], Flags::TIME, pid, false)),
            (
                vec![(Kind::User, new.clone()), (Time, new.clone()), (Pid, new.clone())],
                &offset,
                hop(&[], Flags::TIME | user, pid, true),
            ),
            (vec![(Kind::Cgroup, new)], &none, direct(no, no, &[])),
        ];
        for (requests, offsets, entry) in cases {
            assert_eq!(namespaces(&requests).entry(offsets, false), entry, "{requests:?}");
        }
        let network = namespaces(&[(Pid, Request::New), (Network, Request::New)]);
        assert_eq!(network.entry(&none, true), direct(pid | net, no, &[]), "whose root could not come back");
    }

    #[test]
    fn a_network_is_made_for_another_and_we_stay_in_ours() {
        use crate::sys::prctl::testing::{in_child, privileged};
        if !privileged("a_network_is_made_for_another_and_we_stay_in_ours") {
            return;
        }
        in_child(|| {
            let own = || ns::open("/proc/self/ns/net".as_ref(), Flags::NETWORK);
            let before = own()?;
            let mut made = None;
            make_network(|fd| {
                made = Some(fd.try_clone_to_owned()?);
                Ok(())
            })?;
            let made = made.context("none was given")?;
            ensure!(ns::same(before.as_fd(), own()?.as_fd())?, "we are somewhere else");
            ensure!(!ns::same(before.as_fd(), made.as_fd())?, "it is ours");
            join_network(made.as_fd())?;
            ensure!(std::fs::read_to_string("/proc/self/net/fib_trie")?.contains("127.0.0.1"), "lo is down");
            ensure!(ns::same(made.as_fd(), own()?.as_fd())?);
            Ok(())
        });
    }

    #[test]
    fn time_offsets_need_a_new_time_namespace() {
        let offsets = serde_json::from_str(r#"{"monotonic":{"secs":7}}"#).unwrap();
        plan_time(Some(&offsets), &namespaces(&[])).unwrap_err();
        plan_time(Some(&offsets), &namespaces(&[(Kind::Time, join())])).unwrap_err();
        let planned = plan_time(Some(&offsets), &namespaces(&[(Kind::Time, Request::New)])).unwrap();
        assert_eq!(planned.0, "monotonic 7 0\n");
    }
}
