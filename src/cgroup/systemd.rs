//! systemd as the keeper of the container's cgroup: it makes a transient scope around the container's process.
//!
//! systemd makes a scope only around a process, so the parent clones the process first and lets it wait. This order
//! also makes D-Bus safe here: after a conversation with the bus the runtime clones nothing more. `properties`
//! decides what systemd is told, `annotations` what annotations may add, and `bus` does the talking. Only for pure
//! version 2 hosts: on others systemd keeps only some of the hierarchies.
//! Not for: the files in the scope's directory. systemd delegates it, so the runtime writes them as in any other
//! (`hierarchy`, `v2`).

mod annotations;
mod bus;
mod properties;

pub use properties::for_files;

use super::devices::Policy;
use super::{Resources, below};
use anyhow::{Context, Result, bail, ensure};
use properties::Property;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The bus on which systemd is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bus {
    /// The host's system bus.
    System,
    /// The bus of a user's own manager, at this D-Bus address.
    User(String),
}

/// A transient scope, before systemd makes it and afterwards. It is part of state.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Its name.
    pub unit: String,
    /// The slice that holds the scope.
    slice: String,
    /// The bus of the manager that keeps it.
    bus: Bus,
    /// The container's id, for the description.
    id: String,
    /// Properties that annotations ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extra: Vec<Property>,
    /// The cgroup below the scope's that holds the container, if it is not the scope's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subgroup: Option<PathBuf>,
    /// Its description, which shows that the scope is ours. Once ours is gone, another scope may have the same name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    mark: String,
    /// False if systemd cannot have made the scope. A scope that was read from the record may have been made.
    #[serde(skip, default = "perhaps")]
    asked: bool,
}

fn perhaps() -> bool {
    true
}

/// What `--systemd-cgroup` adds to config.json.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The bus to use.
    pub bus: Bus,
    /// The container's annotations.
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

/// Reads `linux.cgroupsPath`, which is `slice:prefix:name` here, and the annotations for systemd.
///
/// # Errors
/// The path has another form; a name is not valid for a slice or a scope; or containers may not have a property.
pub fn plan(path: &str, id: &str, asked: Asked<'_>) -> Result<Scope> {
    // The default prefix is not runc's: runc may use the same id on the same host.
    let parts: Vec<&str> = if path.is_empty() { vec!["", "orlop", id] } else { path.split(':').collect() };
    let &[slice, prefix, name] = parts.as_slice() else {
        bail!(
            "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
             got {path:?} instead"
        );
    };
    let slice = match (slice, &asked.bus) {
        ("", Bus::System) => "system.slice",
        ("", Bus::User(_)) => "user.slice",
        (named, _) => named,
    };
    check_slice(slice).context("linux.cgroupsPath")?;
    let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    let unit = format!("{}.scope", escape(&name));
    ensure!(!name.is_empty() && unit.len() < 256, "linux.cgroupsPath: {unit:?} is not a name for a scope");
    Ok(Scope {
        unit,
        slice: slice.to_owned(),
        bus: asked.bus,
        id: id.to_owned(),
        extra: asked.annotations.map(annotations::plan).transpose()?.unwrap_or_default(),
        subgroup: below::path(asked.annotations, below::SUBGROUP)?,
        mark: String::new(),
        asked: false,
    })
}

/// Checks a slice's name by systemd.slice(5): `a-b.slice` is in `a.slice`, so dashes separate names; `-.slice` is the
/// root.
fn check_slice(slice: &str) -> Result<()> {
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    let names = stem == "-"
        || (stem.split('-').all(|name| !name.is_empty())
            && stem.bytes().all(|byte| valid(byte) || byte == b'\\'));
    ensure!(names && slice.len() < 256, "{slice:?} is not a name for a slice");
    Ok(())
}

fn valid(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-_.@".contains(&byte)
}

/// Escapes bytes that an id may have and a unit may not (`+`), as systemd-escape(1) does.
fn escape(name: &str) -> String {
    let escaped = |byte: u8| {
        if valid(byte) || byte == b'\\' { (byte as char).to_string() } else { format!("\\x{byte:02x}") }
    };
    name.bytes().map(escaped).collect()
}

impl Scope {
    /// Gives the scope its mark, so that no other scope has the same description.
    pub fn mark(&mut self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let pid = rustix::process::getpid();
        self.mark = format!("orlop container {} ({pid} at {}.{:09})", self.id, now.tv_sec, now.tv_nsec);
    }

    /// Has systemd make the scope around process `pid`, with these limits.
    ///
    /// # Errors
    /// The bus is not there, systemd refuses, or it does not answer in time.
    pub fn start(&mut self, pid: i32, resources: &Resources, devices: &Policy) -> Result<()> {
        let mut all = properties::of_scope(&self.slice, &self.mark, pid)?;
        if self.bus == Bus::System {
            // A user's manager may not load the device program.
            all.extend(properties::of_devices(devices));
        }
        all.extend(properties::of_resources(resources)?);
        all.extend(self.extra.iter().cloned());
        let all = properties::last_wins(all);
        self.asked = false;
        bus::start(&self.bus, &self.unit, &all, &mut self.asked).with_context(|| self.place())
    }

    /// Tells systemd new limits, so that it does not undo them when it next writes the files.
    pub fn set(&self, resources: &Resources) -> Result<()> {
        let all = properties::last_wins(properties::of_resources(resources)?);
        if all.is_empty() {
            return Ok(());
        }
        bus::set(&self.bus, &self.unit, &all).with_context(|| self.place())
    }

    /// Has systemd move a process of ours into the scope's cgroup, or into one `below` it. For users without the
    /// right to move it themselves.
    pub fn attach(&self, pid: i32, below: &Path) -> Result<()> {
        let whole = below.as_os_str().is_empty();
        let below = if whole { String::new() } else { format!("/{}", below.display()) };
        bus::attach(&self.bus, &self.unit, &below, pid).with_context(|| self.place())
    }

    /// Kills the scope's processes and waits until the scope is gone. A scope that was never made is fine. A scope of
    /// the same name that is not ours is left alone.
    pub fn stop(&self) -> Result<()> {
        if !self.asked {
            return Ok(());
        }
        bus::stop(&self.bus, &self.unit, &self.mark).with_context(|| self.place())
    }

    /// Where its cgroup will be. Slices are nested by their names; a user's slices are below the user's service.
    pub fn usual_path(&self) -> PathBuf {
        let mut path = match self.bus {
            Bus::System => PathBuf::new(),
            Bus::User(_) => {
                let uid = bus::outer_uid().unwrap_or_default();
                format!("user.slice/user-{uid}.slice/user@{uid}.service").into()
            }
        };
        let stem = self.slice.strip_suffix(".slice").unwrap_or_default();
        let ends = stem.match_indices('-').map(|(at, _)| at).filter(|at| *at > 0).chain([stem.len()]);
        path.extend(
            ends.filter_map(|end| Some(format!("{}.slice", stem.get(..end).filter(|name| *name != "-")?))),
        );
        path.join(&self.unit)
    }

    /// Whether a user's own manager keeps the scope.
    pub fn of_user(&self) -> bool {
        matches!(self.bus, Bus::User(_))
    }

    fn place(&self) -> String {
        format!("linux.cgroupsPath: systemd: {}", self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(path: &str, id: &str, bus: Bus) -> Result<(String, String)> {
        let scope = plan(path, id, Asked { bus, annotations: None })?;
        Ok((scope.slice, scope.unit))
    }

    #[test]
    fn a_path_names_slice_and_scope() {
        let user = || Bus::User("unix:path=/run/user/1000/bus".into());
        for (path, bus, slice, unit) in [
            ("", Bus::System, "system.slice", "orlop-web+1.scope"),
            ("", user(), "user.slice", "orlop-web+1.scope"),
            ("machine.slice:libpod:ab12", Bus::System, "machine.slice", "libpod-ab12.scope"),
            (":docker:x", Bus::System, "system.slice", "docker-x.scope"),
            ("-.slice::x", user(), "-.slice", "x.scope"),
            (
                "kubepods-burstable-pod1_2.slice:crio:x",
                Bus::System,
                "kubepods-burstable-pod1_2.slice",
                "crio-x.scope",
            ),
        ] {
            let unit = unit.replace('+', "\\x2b");
            assert_eq!(plan_of(path, "web+1", bus).unwrap(), (slice.to_owned(), unit), "{path}");
        }
    }

    #[test]
    fn slices_are_nested_by_their_names() {
        for (path, wanted) in [
            ("", "system.slice/orlop-web.scope"),
            ("-.slice:a:b", "a-b.scope"),
            ("machine.slice:a:b", "machine.slice/a-b.scope"),
            ("k-pod-x1.slice:a:b", "k.slice/k-pod.slice/k-pod-x1.slice/a-b.scope"),
        ] {
            let scope = plan(path, "web", Asked { bus: Bus::System, annotations: None }).unwrap();
            assert_eq!(scope.usual_path(), Path::new(wanted), "{path}");
        }
    }

    #[test]
    fn what_is_no_slice_and_no_path_for_systemd_is_refused_by_its_text() {
        for (path, text) in [
            (
                "/a/b",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\"",
            ),
            ("a:b", "got \"a:b\" instead"),
            ("a.slice:b:c:d", "instead"),
            ("machine:a:b", "\"machine\" is not a name for a slice"),
            ("a--b.slice:a:b", "\"a--b.slice\" is not a name for a slice"),
            ("-a.slice:a:b", "\"-a.slice\" is not a name for a slice"),
            (".slice:a:b", "\".slice\" is not a name for a slice"),
            ("a/b.slice:a:b", "\"a/b.slice\" is not a name for a slice"),
            ("a.slice::", "\".scope\" is not a name for a scope"),
        ] {
            let error = format!("{:#}", plan_of(path, "web", Bus::System).unwrap_err());
            assert!(error.starts_with("linux.cgroupsPath: ") && error.contains(text), "{path}: {error}");
        }
    }

    #[test]
    fn a_scope_that_was_never_asked_for_needs_no_bus_to_be_gone() {
        let mut scope =
            plan("", "web", Asked { bus: Bus::User("unix:path=/does/not/exist".into()), annotations: None })
                .unwrap();
        let error = scope.start(1, &Resources::default(), &Policy::default()).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("orlop-web.scope: nobody listens at unix:path=/does/not/exist"), "{text}");
        scope.stop().unwrap();
    }
}
