//! `process.capabilities`: the five capability sets of the process (capabilities(7); config.md, "Linux Process").
//!
//! A configuration without the field gives the process no capability. Not for: noNewPrivileges, file capabilities.

use crate::sys::prctl::{self, CapSets};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A set of capabilities. Bit `n` stands for capability number `n`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    fn with(self, number: u8) -> Self {
        Self(self.0 | 1 << number)
    }

    fn has(self, number: u8) -> bool {
        self.0 >> number & 1 == 1
    }

    /// The set as the kernel's bit mask.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Makes a set of the kernel's bit mask.
    pub fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn numbers(self) -> impl Iterator<Item = u8> {
        NUMBERS.filter(move |&number| self.has(number))
    }
}

/// The numbers that a set can hold. The kernel's CAP_LAST_CAP is lower.
const NUMBERS: std::ops::Range<u8> = 0..64;

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.numbers().map(name_of)).finish()
    }
}

impl Serialize for Set {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.numbers().map(name_of))
    }
}

/// The name of capability `number` as config.json writes it.
pub fn name_of(number: u8) -> String {
    let known = caps::all().into_iter().find(|capability| capability.index() == number);
    known.map_or_else(|| format!("CAP_{number}"), |capability| capability.to_string())
}

fn number_of(name: &str) -> Option<u8> {
    name.parse::<caps::Capability>().ok().map(|capability| capability.index())
}

/// The names that orlop knows, in the order of their numbers. `features` prints them.
pub fn known() -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(|capability| capability.index());
    all.iter().map(ToString::to_string).collect()
}

/// The five sets of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// The limit for capabilities that an execve(2) can give.
    pub bounding: Set,
    /// The capabilities that the kernel checks.
    pub effective: Set,
    /// The capabilities that a program with matching file capabilities keeps over execve(2).
    pub inheritable: Set,
    /// The capabilities that the process may make effective.
    pub permitted: Set,
    /// The capabilities that a program without file capabilities keeps over execve(2).
    pub ambient: Set,
    /// The names that orlop does not know. It warns about them and ignores them.
    pub unknown: Vec<String>,
}

/// `process.capabilities` as the configuration writes it. Neither orlop nor `oci_spec` may know every name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Said {
    /// The bounding set.
    pub bounding: Option<Vec<String>>,
    /// The effective set.
    pub effective: Option<Vec<String>>,
    /// The inheritable set.
    pub inheritable: Option<Vec<String>>,
    /// The permitted set.
    pub permitted: Option<Vec<String>>,
    /// The ambient set.
    pub ambient: Option<Vec<String>>,
}

/// Decides the five sets. `added` holds the names of `exec --cap`.
///
/// Added capabilities become bounding, effective and permitted. They become ambient only if the configuration has an
/// inheritable set: the kernel refuses an ambient capability that is not inheritable.
pub fn plan(said: Option<&Said>, added: &[String]) -> Capabilities {
    let mut plan = Capabilities::default();
    let nothing = Said::default();
    let said = said.unwrap_or(&nothing);
    let ambient_added = if said.inheritable.is_some() { added } else { &[] };
    plan.bounding = plan.set_of(said.bounding.iter().flatten().chain(added));
    plan.effective = plan.set_of(said.effective.iter().flatten().chain(added));
    plan.inheritable = plan.set_of(said.inheritable.iter().flatten());
    plan.permitted = plan.set_of(said.permitted.iter().flatten().chain(added));
    plan.ambient = plan.set_of(said.ambient.iter().flatten().chain(ambient_added));
    plan.unknown.sort();
    plan.unknown.dedup();
    plan
}

impl Capabilities {
    fn set_of<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) -> Set {
        names.into_iter().fold(Set::default(), |set, name| match number_of(name) {
            Some(number) => set.with(number),
            None => {
                self.unknown.push(name.clone());
                set
            }
        })
    }

    /// Reduces the bounding set. Must come before the change of the user, which takes CAP_SETPCAP away.
    ///
    /// # Errors
    /// `EPERM`: we lack CAP_SETPCAP.
    pub fn bound(&self) -> Result<()> {
        for number in NUMBERS.filter(|&number| !self.bounding.has(number)) {
            // The kernel's numbers have no gap, so it knows none above the first that it does not know.
            if !prctl::bounding_drop(number).context("process.capabilities.bounding")? {
                break;
            }
        }
        Ok(())
    }

    /// Returns a warning about names that orlop does not know, and about capabilities outside of `available`, our own
    /// permitted set. The specification asks for a warning here, not for an error.
    pub fn warnings(&self, available: u64) -> Vec<String> {
        let all = self.effective.0 | self.permitted.0 | self.inheritable.0 | self.ambient.0;
        let missing = Set(all & !available).numbers().map(name_of);
        let names: Vec<_> = self.unknown.iter().cloned().chain(missing).collect();
        match names.as_slice() {
            [] => Vec::new(),
            names => vec![format!("ignoring unknown or unavailable capabilities: {}", names.join(", "))],
        }
    }

    /// Sets the other four sets, without capabilities that are not `available`. Those of `kept` stay permitted and
    /// effective until [`Self::confine`]. Must come after the change of the user. Returns a warning for each ambient
    /// capability that the kernel refuses: engines do not expect an error there.
    ///
    /// # Errors
    /// `EPERM`: a set would hold more than the present sets allow.
    pub fn apply(&self, available: u64, kept: u64) -> Result<Vec<String>> {
        let mut sets = self.within(available);
        sets.effective |= kept & available;
        sets.permitted |= kept & available;
        prctl::capset(&sets).context("process.capabilities")?;
        // The kernel keeps the ambient set within the inheritable set: if that is empty, there is nothing to clear.
        if self.inheritable != Set::default() {
            prctl::ambient_clear().context("process.capabilities.ambient")?;
        }
        let mut warnings = Vec::new();
        for number in Set(self.ambient.0 & available).numbers() {
            if let Err(error) = prctl::ambient_raise(number) {
                warnings.push(format!("can't raise ambient capability {}: {error}", name_of(number)));
            }
        }
        Ok(warnings)
    }

    /// Gives up the capabilities that [`Self::apply`] has `kept`. The container's seccomp filter is already loaded and
    /// may fake success, so the parent checks the sets from outside.
    ///
    /// # Errors
    /// The seccomp filter refuses capset(2).
    pub fn confine(&self, available: u64, kept: u64) -> Result<()> {
        if kept & available & !(self.effective.0 & self.permitted.0) == 0 {
            return Ok(());
        }
        prctl::capset(&self.within(available)).context("process.capabilities: behind the seccomp filter")
    }

    fn within(&self, available: u64) -> CapSets {
        CapSets {
            effective: self.effective.0 & available,
            permitted: self.permitted.0 & available,
            inheritable: self.inheritable.0 & available,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::user::{self, OriginalGroups};
    use crate::sys::prctl::testing::{in_child, privileged};
    use anyhow::ensure;

    fn planned(json: &str, added: &[&str]) -> Capabilities {
        let said: Said = serde_json::from_str(json).unwrap();
        plan(Some(&said), &added.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_capability_of_the_spec_has_its_number() {
        for name in known() {
            let json = format!(r#"{{"bounding":["{name}"]}}"#);
            let plan = planned(&json, &[]);
            assert_eq!(plan.unknown, [""; 0], "{name}");
            assert_eq!(plan.bounding.numbers().map(name_of).collect::<Vec<_>>(), [name]);
        }
        assert_eq!(number_of("CAP_CHOWN"), Some(0));
        assert_eq!(number_of("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(number_of("CAP_CHECKPOINT_RESTORE"), Some(40));
    }

    #[test]
    fn no_capabilities_means_none() {
        assert_eq!(plan(None, &[]), Capabilities::default());
    }

    #[test]
    fn exec_cap_adds_ambient_only_where_the_config_has_inheritable() {
        let plain = planned("{}", &["CAP_KILL", "CAP_AUDIT_WRITE"]);
        assert_eq!(
            (plain.bounding.0, plain.effective.0, plain.permitted.0),
            (0x2000_0020, 0x2000_0020, 0x2000_0020)
        );
        assert_eq!((plain.inheritable.0, plain.ambient.0), (0, 0));
        let inheriting =
            planned(r#"{"inheritable":["CAP_CHOWN","CAP_SYSLOG"],"ambient":["CAP_CHOWN"]}"#, &["CAP_SYSLOG"]);
        assert_eq!((inheriting.inheritable.0, inheriting.ambient.0), (0x4_0000_0001, 0x4_0000_0001));
    }

    #[test]
    fn an_unknown_name_is_remembered_once_for_the_warning() {
        assert_eq!(planned("{}", &["CAP_NEW"]).unknown, ["CAP_NEW"]);
        let unknown = planned(r#"{"bounding":["CAP_UNKNOWN","UNKNOWN_CAP","CAP_KILL"]}"#, &[]);
        assert_eq!(unknown.unknown, ["CAP_UNKNOWN", "UNKNOWN_CAP"]);
        assert_eq!(unknown.bounding.0, 0x20);
        assert_eq!(planned("{}", &["CAP_NEW"]).bounding, Set::default());
    }

    #[test]
    fn the_sets_hold_after_the_user_is_changed() {
        if !privileged("the_sets_hold_after_the_user_is_changed") {
            return;
        }
        for uid in [0, 1000] {
            in_child(|| {
                let caps = planned(
                    r#"{"bounding":["CAP_KILL","CAP_CHOWN"],"effective":["CAP_KILL"],
                        "permitted":["CAP_KILL","CAP_CHOWN"]}"#,
                    &[],
                );
                let user = serde_json::from_str(&format!(r#"{{"uid":{uid},"gid":{uid}}}"#))?;
                let user = user::plan(&user, OriginalGroups::Drop)?;
                caps.bound()?;
                user.apply()?;
                // CAP_SYS_ADMIN, which loading a filter needs, is there until `confine`.
                let (available, admin) = (prctl::capget()?.permitted, 1 << 21);
                ensure!(caps.apply(available, admin)?.is_empty());
                let is = prctl::capget()?;
                ensure!(is.effective == 0x20 | admin && is.permitted == 0x21 | admin, "{is:?}");
                caps.confine(available, admin)?;
                let is = prctl::capget()?;
                ensure!(is == CapSets { effective: 0x20, permitted: 0x21, inheritable: 0 }, "{is:?}");
                ensure!(prctl::bounding_has(0)? == Some(true) && prctl::bounding_has(1)? == Some(false));
                Ok(())
            });
        }
    }

    #[test]
    fn an_ambient_capability_that_is_not_inheritable_is_a_warning() {
        if !privileged("an_ambient_capability_that_is_not_inheritable_is_a_warning") {
            return;
        }
        in_child(|| {
            let all = r#""CAP_KILL","CAP_CHOWN""#;
            let caps = planned(
                &format!(
                    r#"{{"bounding":[{all}],"permitted":[{all}],"effective":[{all}],"inheritable":["CAP_KILL"],"ambient":[{all}]}}"#
                ),
                &[],
            );
            caps.bound()?;
            let warnings = caps.apply(prctl::capget()?.permitted, 0)?;
            ensure!(
                matches!(warnings.as_slice(), [one] if one.starts_with("can't raise ambient capability CAP_CHOWN: ")),
                "{warnings:?}"
            );
            ensure!(prctl::ambient_has(5) && !prctl::ambient_has(0));
            Ok(())
        });
    }

    #[test]
    fn what_the_host_cannot_give_is_a_warning() {
        if !privileged("what_the_host_cannot_give_is_a_warning") {
            return;
        }
        in_child(|| {
            let both = r#"["CAP_KILL","CAP_CHOWN"]"#;
            let caps = planned(
                &format!(
                    r#"{{"permitted":{both},"effective":{both},"inheritable":{both},"ambient":{both}}}"#
                ),
                &["CAP_NEW"],
            );
            prctl::capset(&CapSets { effective: 1 << 5, permitted: 1 << 5, inheritable: 0 })?;
            let available = prctl::capget()?.permitted;
            let said = caps.warnings(available);
            ensure!(said == ["ignoring unknown or unavailable capabilities: CAP_NEW, CAP_CHOWN"], "{said:?}");
            ensure!(caps.apply(available, 0)?.is_empty());
            let is = prctl::capget()?;
            ensure!(is == CapSets { effective: 1 << 5, permitted: 1 << 5, inheritable: 1 << 5 }, "{is:?}");
            ensure!(prctl::ambient_has(5) && !prctl::ambient_has(0));
            Ok(())
        });
    }
}
