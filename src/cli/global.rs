//! The global options with their defaults filled in: the directory of all containers, and the way to make cgroups.
//!
//! Only this file reads XDG_RUNTIME_DIR and USER. It makes nothing.

use super::GlobalArgs;
use super::values::{Driver, RootlessMode};
use crate::sys::{Called, ns, path::clean};
use anyhow::{Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A systemd that makes cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Systemd {
    /// The system's.
    System,
    /// The user's own. The value is the address of its D-Bus.
    User(String),
}

/// Where the path of the directory of all containers comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootFrom {
    /// `--root`: the verb `list` fails if the directory is missing.
    Option,
    /// $XDG_RUNTIME_DIR: every verb makes the directory if it is missing.
    RuntimeDir,
    /// Neither is given: /run/orlop.
    Default,
}

/// The global options as every verb sees them.
#[derive(Clone, Debug)]
pub struct Global {
    /// Directory with one directory per container: absolute, and not "/".
    pub root: PathBuf,
    /// Where that path comes from.
    pub root_from: RootFrom,
    /// The systemd that makes the cgroups, if one does.
    pub systemd_cgroup: Option<Systemd>,
    /// Whether containers get no cgroup at all.
    pub no_cgroup: bool,
    /// Whether missing permission for cgroups is an error.
    pub rootless: RootlessMode,
}

impl Global {
    /// Resolves the options as given.
    ///
    /// # Errors
    /// The root is "/".
    pub fn resolve(args: &GlobalArgs) -> Result<Self> {
        let (root, root_from) = match &args.root {
            Some(path) => (given_root(path)?, RootFrom::Option),
            None => default_root(),
        };
        Ok(Self {
            root,
            root_from,
            systemd_cgroup: (args.systemd_cgroup || args.cgroup_manager == Some(Driver::Systemd))
                .then(systemd),
            no_cgroup: args.cgroup_manager == Some(Driver::Disabled),
            rootless: args.rootless,
        })
    }
}

fn given_root(path: &Path) -> Result<PathBuf> {
    let root = if path.is_absolute() {
        clean(path)
    } else {
        clean(&std::env::current_dir().called("getcwd", String::new)?.join(path))
    };
    if root == Path::new("/") {
        bail!("Option --root argument should not be set to /");
    }
    Ok(root)
}

fn default_root() -> (PathBuf, RootFrom) {
    match runtime_dir() {
        Some(dir) => (Path::new(&dir).join("orlop"), RootFrom::RuntimeDir),
        None => ("/run/orlop".into(), RootFrom::Default),
    }
}

/// The systemd to ask. An ordinary user may ask only its own, whose address a login session knows.
fn systemd() -> Systemd {
    if !is_user() {
        return Systemd::System;
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let uid = rustix::process::geteuid().as_raw();
    let usual = || variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}"));
    Systemd::User(
        variable("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| format!("unix:path={}/bus", usual())),
    )
}

/// XDG_RUNTIME_DIR if an ordinary user calls. Real root uses /run, as runc does.
fn runtime_dir() -> Option<OsString> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())?;
    is_user().then_some(dir)
}

/// Whether the caller is an ordinary user. Root of a user namespace is one, unless USER is "root" there.
fn is_user() -> bool {
    let is_mapped_root =
        || !ns::is_initial_user() && std::env::var_os("USER").is_none_or(|user| user != "root");
    !rustix::process::geteuid().is_root() || is_mapped_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_made_absolute_and_is_never_the_root_directory() {
        assert_eq!(given_root(Path::new("/run/x/../y/.")).unwrap(), Path::new("/run/y"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(given_root(Path::new("state")).unwrap(), here.join("state"));
        for refused in ["/", "/..", "/run/..", "../../../../../../../../../../../.."] {
            let error = given_root(Path::new(refused)).unwrap_err();
            assert_eq!(error.to_string(), "Option --root argument should not be set to /", "{refused}");
        }
    }
}
