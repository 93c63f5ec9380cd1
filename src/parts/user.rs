//! `process.user`: the user and group ids of the process, its groups, its umask and its HOME (config.md, "User").
//!
//! All ids are numbers from config.json. Only the home directory is looked up, in the container's /etc/passwd.
//! Not for: the id maps of the user namespace (`idmap`) and the capability sets (`capabilities`).

use crate::log;
use crate::sys::path::Root;
use crate::sys::{self, Called, prctl};
use anyhow::{Context, Result, ensure};
use oci_spec::runtime;
use rustix::fs::OFlags;
use serde::Serialize;
use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// A user or group id. It is never `u32::MAX`, which means "leave unchanged" to setresuid(2): with it the process would
/// keep the runtime's own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Id(u32);

impl Id {
    /// Makes an id of a number.
    ///
    /// # Errors
    /// `value` is 4294967295.
    pub fn new(value: u32) -> Result<Self> {
        ensure!(value != u32::MAX, "{value} is not an id: the kernel takes it for \"leave unchanged\"");
        Ok(Self(value))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The supplementary groups of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Groups {
    /// Exactly these groups.
    Set(Vec<Id>),
    /// The groups of the runtime (podman's `--group-add keep-groups`).
    Keep,
}

/// Whether the process keeps the supplementary groups of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalGroups {
    /// It drops them. This is the default.
    Drop,
    /// It keeps them: annotation `run.oci.keep_original_groups`.
    Keep,
}

/// The ids, groups and umask of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Real, effective and saved user id, inside the user namespace.
    pub uid: Id,
    /// Real, effective and saved group id, inside the user namespace.
    pub gid: Id,
    /// The supplementary groups.
    pub groups: Groups,
    /// The file mode creation mask.
    pub umask: u32,
}

const DEFAULT_UMASK: u32 = 0o022;

/// CAP_SETGID, as a bit of a capability set.
const SETGID: u64 = 1 << 6;

/// Decides ids, groups and umask from `process.user`.
///
/// # Errors
/// An id is 4294967295, or the umask is more than 0777.
pub fn plan(user: &runtime::User, original: OriginalGroups) -> Result<User> {
    let uid = Id::new(user.uid()).context("process.user.uid")?;
    let gid = Id::new(user.gid()).context("process.user.gid")?;
    let mut gids = Vec::new();
    for (index, &gid) in user.additional_gids().iter().flatten().enumerate() {
        gids.push(Id::new(gid).with_context(|| format!("process.user.additionalGids[{index}]"))?);
    }
    let groups = match original {
        OriginalGroups::Drop => Groups::Set(gids),
        OriginalGroups::Keep => {
            if !gids.is_empty() {
                // As in crun. Docker always sets additionalGids, but a user sets the annotation on purpose.
                log::debug(|| {
                    format!(
                        "process.user.additionalGids {gids:?}: the groups of the caller are kept, ignoring"
                    )
                });
            }
            Groups::Keep
        }
    };
    let umask = user.umask().unwrap_or(DEFAULT_UMASK);
    ensure!(umask <= 0o777, "process.user.umask: {umask:#o} is more than 0777");
    Ok(User { uid, gid, groups, umask })
}

impl User {
    /// Becomes this user. Must come after the bounding set is reduced, which needs CAP_SETPCAP. The permitted set
    /// stays, so that the other capability sets can be set afterwards. Returns a warning if the groups cannot be set.
    ///
    /// # Errors
    /// An id is not mapped in the user namespace. `EPERM`: we lack CAP_SETUID or CAP_SETGID.
    pub fn apply(&self) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        sys::umask::set(self.umask);
        self.own_stdio().context("process.user.uid")?;
        if self.uid.get() != 0 {
            // Not for uid 0: a change to it clears no capability.
            prctl::set_keepcaps()?;
        }
        warnings.extend(self.set_groups().context("process.user.additionalGids")?);
        prctl::setresgid(self.gid.get())
            .map_err(|error| unmapped(error, format!("cannot setgid to unmapped gid {}", self.gid)))
            .context("process.user.gid")?;
        prctl::setresuid(self.uid.get())
            .map_err(|error| unmapped(error, format!("cannot setuid to unmapped uid {}", self.uid)))
            .context("process.user.uid")?;
        Ok(warnings)
    }

    fn set_groups(&self) -> Result<Option<String>> {
        let Groups::Set(groups) = &self.groups else { return Ok(None) };
        let gids: Vec<u32> = groups.iter().map(|gid| gid.get()).collect();
        match prctl::setgroups(&gids) {
            Ok(()) => Ok(None),
            // We have CAP_SETGID, so it is the user namespace that denies setgroups(2) (user_namespaces(7),
            // /proc/PID/setgroups). A rootless user namespace denies it to every process, so we go on without groups.
            Err(error) if error.errno() == libc::EPERM && prctl::capget()?.effective & SETGID != 0 => {
                let text =
                    "process.user.additionalGids: setgroups(2) is denied in the user namespace, ignoring";
                Ok((!gids.is_empty()).then(|| text.to_owned()))
            }
            Err(error) => Err(unmapped(error, format!("cannot setgroups to unmapped gids {gids:?}"))),
        }
    }

    /// Gives those standard streams to the user that are pipes, FIFOs or sockets. The caller of the runtime made them:
    /// without this, a process that is not root cannot reopen /dev/stdout.
    ///
    /// All other files keep their owner, because they are the host's. The user could otherwise change the mode of the
    /// caller's log file, or add files to the caller's directory. Devices are the host's too; the container's own
    /// terminal already belongs to the user.
    fn own_stdio(&self) -> Result<()> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
            let args = || format!("{fd:?}");
            let stat = match rustix::fs::fstat(fd) {
                Err(rustix::io::Errno::BADF) => continue,
                stat => stat.called("fstat", args)?,
            };
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            if stat.st_uid == self.uid.get() || !(kind.is_fifo() || kind.is_socket()) {
                continue;
            }
            match rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(self.uid.get())), None) {
                // The owner is not mapped in our user namespace, or the file system is read-only: the owner stays.
                Err(rustix::io::Errno::PERM | rustix::io::Errno::ROFS) => {}
                // The new uid is not mapped: setresuid(2) fails next, with a better message.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::OVERFLOW) => {}
                result => result.called("fchown", args)?,
            }
        }
        Ok(())
    }
}

fn unmapped(error: sys::Error, text: String) -> anyhow::Error {
    if error.errno() == libc::EINVAL { anyhow::anyhow!("{text} in user namespace") } else { error.into() }
}

/// How much of /etc/passwd is read, in bytes. The image may contain an endless file.
const LONGEST_PASSWD: u64 = 1 << 20;

/// Looks up the home directory of `uid` in the container's /etc/passwd, for a process without HOME. The image supplies
/// this file, so the caller must have given up all rights that the container's process lacks.
///
/// # Errors
/// /etc/passwd exists and cannot be opened or read.
pub fn home_dir(root: &Root, uid: Id) -> Result<Option<String>> {
    let passwd = Path::new("etc/passwd");
    let is_file = |fd: BorrowedFd<'_>| -> Result<bool, sys::Error> {
        let stat = rustix::fs::fstat(fd).called("fstat", || "\"/etc/passwd\"".into())?;
        Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
    };
    let open = |flags| match root.open(passwd, flags) {
        // ELOOP: a link of the kernel's (/proc/self/fd/0), or links in a circle.
        Err(error)
            if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) =>
        {
            Ok(None)
        }
        found => {
            let found = found?;
            is_file(found.as_fd()).map(|is_file| is_file.then_some(found))
        }
    };
    // Opening a device for reading can have an effect, so we first check that it is a regular file.
    if open(OFlags::PATH)?.is_none() {
        return Ok(None);
    }
    // NONBLOCK: the file may have become a fifo, at which open(2) would wait for a writer.
    let Some(file) = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)? else { return Ok(None) };
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(LONGEST_PASSWD)
        .read_to_end(&mut content)
        .called("read", || "\"/etc/passwd\"".into())?;
    Ok(home_in(&content, uid))
}

/// The home directory (sixth field of passwd(5)) in the first line for `uid` (third field) that has one.
fn home_in(passwd: &[u8], uid: Id) -> Option<String> {
    let wanted = uid.to_string();
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split(':').collect();
        let [_, _, id, _, _, home, ..] = fields.as_slice() else { return None };
        (*id == wanted && !home.is_empty() && !home.contains('\0')).then(|| (*home).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::prctl::testing::{in_child, privileged, unshare};
    use crate::sys::proc::Proc;
    use nix::sched::CloneFlags;

    fn spec(json: &str) -> runtime::User {
        serde_json::from_str(json).unwrap()
    }

    fn planned(json: &str) -> Result<User> {
        plan(&spec(json), OriginalGroups::Drop)
    }

    #[test]
    fn umask_defaults_to_0022() {
        assert_eq!(planned("{}").unwrap().umask, 0o022);
        assert_eq!(planned(r#"{"umask":63}"#).unwrap().umask, 0o077);
    }

    #[test]
    fn the_id_that_changes_nothing_is_refused_everywhere() {
        for (json, place) in [
            (r#"{"uid":4294967295}"#, "process.user.uid: 4294967295"),
            (r#"{"gid":4294967295}"#, "process.user.gid: 4294967295"),
            (r#"{"additionalGids":[1,4294967295]}"#, "process.user.additionalGids[1]: 4294967295"),
            (r#"{"umask":512}"#, "process.user.umask: 0o1000 is more than 0777"),
        ] {
            let error = format!("{:#}", planned(json).unwrap_err());
            assert!(error.starts_with(place), "{error}");
        }
    }

    #[test]
    fn groups_that_are_kept_win_over_groups_that_are_given() {
        let user = spec(r#"{"additionalGids":[5]}"#);
        assert_eq!(plan(&user, OriginalGroups::Keep).unwrap().groups, Groups::Keep);
        assert_eq!(plan(&spec("{}"), OriginalGroups::Keep).unwrap().groups, Groups::Keep);
    }

    #[test]
    fn the_home_directory_is_that_of_the_first_line_with_the_uid() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n# a comment\nshort:x:7\n\xff\xfe:x:7:7::/bad:\n\
            a:x:7:7:::/bin/sh\nb:x:7:7::/home/b:/bin/sh\nc:x:7:7::/home/c:/bin/sh";
        assert_eq!(home_in(passwd, Id(0)).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, Id(7)).as_deref(), Some("/home/b"));
        assert_eq!(home_in(passwd, Id(8)), None);
    }

    #[test]
    fn the_passwd_file_of_the_image_is_not_trusted() {
        if !privileged("the_passwd_file_of_the_image_is_not_trusted") {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        in_child(|| {
            std::os::unix::fs::chroot(root.path())?;
            std::env::set_current_dir("/")?;
            let container = Root::open_host(Path::new("/"))?;
            let home = || home_dir(&container, Id(7));
            ensure!(home()?.is_none(), "no /etc");
            std::fs::create_dir("/etc")?;
            ensure!(home()?.is_none(), "no file");
            nix::unistd::mkfifo("/etc/passwd", nix::sys::stat::Mode::S_IRUSR)?;
            ensure!(home()?.is_none(), "a fifo");
            std::fs::remove_file("/etc/passwd")?;
            std::fs::create_dir("/etc/passwd")?;
            ensure!(home()?.is_none(), "a directory");
            std::fs::remove_dir("/etc/passwd")?;
            for target in ["/etc/passwd", "/etc/none", &"x".repeat(300)] {
                std::os::unix::fs::symlink(target, "/etc/passwd")?;
                ensure!(home()?.is_none(), "a link to {target}");
                std::fs::remove_file("/etc/passwd")?;
            }
            // The line stands behind the part that is read.
            let late = format!("{}\nu:x:7:7::/home/u:/bin/sh\n", "#".repeat(1 << 20));
            std::fs::write("/etc/passwd", late)?;
            ensure!(home()?.is_none(), "an endless file");
            std::fs::write("/etc/passwd", "u:x:7:7::/home/u:/bin/sh\n")?;
            ensure!(home()?.as_deref() == Some("/home/u"));
            Ok(())
        });
    }

    #[test]
    fn all_ids_and_groups_are_changed() {
        if !privileged("all_ids_and_groups_are_changed") {
            return;
        }
        in_child(|| {
            let user = planned(r#"{"uid":1000,"gid":1001,"additionalGids":[5,6],"umask":23}"#)?;
            ensure!(user.apply()?.is_empty());
            let (uids, gids) = prctl::ids()?;
            ensure!((uids, gids) == ([1000; 3], [1001; 3]), "{uids:?} {gids:?}");
            let groups = rustix::process::getgroups()?;
            ensure!(groups.iter().map(|gid| gid.as_raw()).eq([5, 6]), "{groups:?}");
            ensure!(rustix::process::umask(rustix::fs::Mode::empty()).as_raw_mode() == 0o027);
            ensure!(prctl::capget()?.permitted != 0, "the permitted set was lost");
            Ok(())
        });
    }

    #[test]
    fn groups_that_the_user_namespace_denies_are_left_with_a_warning() {
        if !privileged("groups_that_the_user_namespace_denies_are_left_with_a_warning") {
            return;
        }
        in_child(|| {
            let proc = Proc::open_host()?;
            unshare(CloneFlags::CLONE_NEWUSER)?;
            let me = rustix::process::getpid();
            proc.deny_setgroups(me)?;
            proc.write_gid_map(me, "0 0 1\n")?;
            proc.write_uid_map(me, "0 0 1\n")?;
            ensure!(planned("{}")?.apply()?.is_empty());
            let warnings = planned(r#"{"additionalGids":[5]}"#)?.apply()?;
            ensure!(warnings.len() == 1, "{warnings:?}");
            let error = format!("{:#}", planned(r#"{"uid":9}"#)?.apply().unwrap_err());
            ensure!(
                error == "process.user.uid: cannot setuid to unmapped uid 9 in user namespace",
                "{error}"
            );
            Ok(())
        });
    }
}
