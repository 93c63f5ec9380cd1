//! `process.user`: the ids that the process runs with, its groups and its umask (config.md, "User").
//!
//! Ids are numbers from config.json: nothing here looks a name up. Not for: the id maps of the user
//! namespace (`idmap`), nor the capabilities that the change of ids would take (`capabilities`).

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

/// A user or group id that set*id(2) takes as one: `u32::MAX` means "leave unchanged" there, and a config
/// that holds it would keep the runtime's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Id(u32);

impl Id {
    /// The id, unless it is the one that stands for none.
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

/// Which supplementary groups the process has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Groups {
    /// Exactly these.
    Set(Vec<Id>),
    /// Those of the runtime (podman's `--group-add keep-groups`).
    Keep,
}

/// What to do with the supplementary groups of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalGroups {
    /// The container does not have them: the rule.
    Drop,
    /// The container has them: annotation `run.oci.keep_original_groups`.
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

/// CAP_SETGID
const SETGID: u64 = 1 << 6;

/// Decides ids, groups and umask from `process.user`.
///
/// # Errors
/// An id is 4294967295, or the umask has other bits than permissions.
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
                // Docker always gives some; the annotation is the user's own word. As in crun.
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
    /// Becomes this user. Before: the bounding set is cut. After: the capabilities are set, which this
    /// keeps permitted. Returns what could not be had, for the log.
    ///
    /// # Errors
    /// An id is not mapped in the user namespace, or CAP_SETUID or CAP_SETGID is missing.
    pub fn apply(&self) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        sys::umask::set(self.umask);
        self.own_stdio().context("process.user.uid")?;
        if self.uid.get() != 0 {
            // For uid 0 the kernel clears nothing, so nothing has to be kept.
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
            // A rootless user namespace: nobody can set groups there, and nothing is to be done about it. Whoever has
            // CAP_SETGID and is refused is refused by the namespace (user_namespaces(7), /proc/PID/setgroups).
            Err(error) if error.errno() == libc::EPERM && prctl::capget()?.effective & SETGID != 0 => {
                let text =
                    "process.user.additionalGids: setgroups(2) is denied in the user namespace, ignoring";
                Ok((!gids.is_empty()).then(|| text.to_owned()))
            }
            Err(error) => Err(unmapped(error, format!("cannot setgroups to unmapped gids {gids:?}"))),
        }
    }

    // The pipes and terminals of stdio were made outside: without this a process that is not root cannot
    // reopen /dev/stdout. The null device is nobody's to own.
    fn own_stdio(&self) -> Result<()> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
            let args = || format!("{fd:?}");
            let stat = match rustix::fs::fstat(fd) {
                Err(rustix::io::Errno::BADF) => continue,
                stat => stat.called("fstat", args)?,
            };
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            // Not what others use too: a device is the host's, be it the null device, a disk or a terminal. The
            // container's own terminal has its owner already; another one is that of whoever runs us.
            if stat.st_uid == self.uid.get() || kind.is_char_device() || kind.is_block_device() {
                continue;
            }
            match rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(self.uid.get())), None) {
                // The owner is not mapped in our user namespace, or /dev is read-only: it stays as it is.
                Err(rustix::io::Errno::PERM | rustix::io::Errno::ROFS) => {}
                // An unmapped uid: setresuid(2) below says so better.
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

/// Where /etc/passwd may end: a bigger one is not read further.
const LONGEST_PASSWD: u64 = 1 << 20;

/// The home directory of `uid` in the container's /etc/passwd, for a process without HOME. With the rights of the
/// container's process: the image supplies this file.
///
/// # Errors
/// The file is there and cannot be read.
pub fn home_dir(root: &Root, uid: Id) -> Result<Option<String>> {
    let passwd = Path::new("etc/passwd");
    let is_file = |fd: BorrowedFd<'_>| -> Result<bool, sys::Error> {
        let stat = rustix::fs::fstat(fd).called("fstat", || "\"/etc/passwd\"".into())?;
        Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
    };
    match root.open(passwd, OFlags::PATH) {
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR) => return Ok(None),
        // Not opened to be read before it is known to be a file: to open a device can do something.
        found => {
            if !is_file(found?.as_fd())? {
                return Ok(None);
            }
        }
    }
    // Should it have become a fifo meanwhile, this does not wait for a writer.
    let file = root.open(passwd, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    if !is_file(file.as_fd())? {
        return Ok(None);
    }
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(LONGEST_PASSWD)
        .read_to_end(&mut content)
        .called("read", || "\"/etc/passwd\"".into())?;
    Ok(home_in(&content, uid))
}

/// The sixth field of the first line of passwd(5) whose third is `uid`; none where it is empty.
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
            // Longer than is read: the line behind is not found, and nothing grows without end.
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
