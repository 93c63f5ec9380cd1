//! Deviations from the specification that Go's JSON reader accepts, and so runc. The harmless ones are corrected in the
//! text, which is then read again.
//!
//! Not for: texts that fit the types at once. They never come here.
//!
//! | in the text | here |
//! |---|---|
//! | a property is `null` | taken as absent, as Go does |
//! | the type of a device rule is `""` | taken as absent |
//! | a property, or a key of a map, is given twice | taken once if the values are equal; else an error (below) |
//! | a property is written in another case | taken as the property; an error if that is given too |
//! | text follows the object | ignored |
//!
//! If two values differ, Go merges them or takes the last one, so the text has two meanings. `null` is an error as an
//! element of a list, and as a value of a map like `annotations` or `sysctl`: Go reads an empty string there.

use super::reader::{self, Oddity, Step, Trace, place};
use super::tree::Node;
use crate::log;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::borrow::Cow;

/// The most rounds of correction for one text. A round corrects all oddities that were seen, or one kind of `null`.
const MOST_ROUNDS: usize = 32;

/// Prints the message about a property in another case: `create` warns of it, later verbs only log it.
pub type Say = fn(String);

/// Reads a text that did not fit at the first look, or has something odd.
///
/// # Errors
/// The text is no JSON, does not fit `T`, or has two meanings. The error names the first wrong property.
pub fn read<T: DeserializeOwned>(text: &str, say: Say) -> Result<T> {
    let mut text = Cow::Borrowed(first_value(text)?);
    for _ in 0..MOST_ROUNDS {
        let trace = Trace::detailed();
        let read = reader::read::<T>(&text, &trace);
        let oddities = trace.oddities();
        let mended = match read {
            _ if !oddities.is_empty() => {
                let mut tree = serde_json::from_str(&text)?;
                oddities.into_iter().try_for_each(|oddity| put_right(&mut tree, oddity, say))?;
                tree
            }
            Ok(value) => {
                report_unknown(trace);
                return Ok(value);
            }
            Err(error) => {
                let mut tree = serde_json::from_str(&text)?;
                let steps = trace.steps();
                if !leave_out(&mut tree, &steps) {
                    return Err(misfit(&error, &steps, &tree, matches!(text, Cow::Owned(_))));
                }
                tree
            }
        };
        text = Cow::Owned(serde_json::to_string(&mended)?);
    }
    bail!("more than {MOST_ROUNDS} properties of different kinds are null: leave them out")
}

/// Cuts the text behind its first value, where Go's decoder stops.
fn first_value(text: &str) -> Result<&str> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next().context("EOF")?.map_err(|error| anyhow!(error))?;
    let (value, rest) = text.split_at(values.byte_offset());
    ensure!(value.trim() != "null", "config cannot be null");
    if !rest.trim().is_empty() {
        log::debug(|| format!("{} bytes behind the configuration, ignored", rest.trim().len()));
    }
    Ok(value)
}

fn put_right(tree: &mut Node, oddity: Oddity, say: Say) -> Result<()> {
    let mut result = Ok(());
    match oddity {
        Oddity::Case(steps, property) => {
            let (Some((last, object)), said) = (steps.split_last(), place(&steps)) else { return Ok(()) };
            let right = place(&[object, &[Step::Property(property.to_owned())]].concat());
            tree.entries(object, &mut |entries| {
                if entries.iter().any(|(key, _)| key == property) {
                    result = Err(anyhow!("{said}: {right} is given as well; write it once"));
                }
                for (key, _) in entries.iter_mut().filter(|(key, _)| last.is(key)) {
                    property.clone_into(key);
                }
            });
            if result.is_ok() {
                say(format!("{said}: read as {right} (the case of letters counts)"));
            }
        }
        Oddity::Twice(steps) => {
            let (Some((last, object)), said) = (steps.split_last(), place(&steps)) else { return Ok(()) };
            tree.entries(object, &mut |entries| {
                let mut first = None;
                entries.retain(|(key, value)| match &first {
                    _ if !last.is(key) => true,
                    None => {
                        first = Some(value.clone());
                        true
                    }
                    Some(first) if first == value => false,
                    Some(_) => {
                        result = Err(anyhow!("{said}: given twice, with different values; write it once"));
                        false
                    }
                });
            });
            log::debug(|| format!("{said}: given twice, with one value"));
        }
    }
    result
}

/// Removes the property at `steps` if its value means nothing (`null`, or `""` as the type of a device rule). Lists
/// often have many such elements, so it is removed from all elements at once. Returns false if the value means
/// something.
fn leave_out(tree: &mut Node, steps: &[Step]) -> bool {
    let Some((Step::Property(name), object)) = steps.split_last() else { return false };
    let value = match tree.at(steps) {
        Some(value @ Node::Null) => value.clone(),
        Some(value) if *value == Node::String(String::new()) && is_device_rule(object) && name == "type" => {
            value.clone()
        }
        _ => return false,
    };
    tree.leave_out(object, name, &value);
    log::debug(|| format!("{}: says nothing, taken as absent", place(steps)));
    true
}

/// Returns true for an element of `linux.resources.devices`, also in a file that has only resources; but not for one of
/// `linux.devices`.
fn is_device_rule(object: &[Step]) -> bool {
    let devices = Step::Property("devices".into());
    match object {
        [above @ .., list, Step::Element(_)] if *list == devices => {
            above.last() != Some(&Step::Property("linux".into()))
        }
        _ => false,
    }
}

fn misfit(error: &serde_json::Error, steps: &[Step], tree: &Node, mended: bool) -> anyhow::Error {
    let mut text = error.to_string();
    if mended && let Some(at) = text.rfind(" at line ") {
        // The line and column are those of the corrected text, which the user has never seen.
        text.truncate(at);
    }
    if steps.is_empty() {
        return anyhow!(text);
    }
    let hint =
        if tree.at(steps) == Some(&Node::Null) { " (leave it out, or write an empty value)" } else { "" };
    let place = place(steps);
    anyhow!("{place}: {}{hint}", explained(&place, &text))
}

/// The reason of an error, with runc's wording in front where programs match it. The reason itself names the wrong
/// value and the valid ones.
fn explained(pointer: &str, reason: &str) -> String {
    match pointer.starts_with("linux.personality.domain") {
        true => format!("invalid personality domain: {reason}"),
        false => reason.to_owned(),
    }
}

/// Logs unknown properties. The specification wants them ignored, but a typing error should be seen.
fn report_unknown(trace: Trace) {
    if !log::debugging() {
        return;
    }
    for path in trace.unknown() {
        log::debug(|| match crate::parts::nearest_known(&path) {
            Some(known) => format!("{path}: unknown property, ignored (nearest known: {known})"),
            None => format!("{path}: unknown property, ignored"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::spec::Spec;
    use std::cell::RefCell;

    thread_local! {
        static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// The configuration, and what was said of it.
    fn spec(text: &str) -> Result<(Spec, Vec<String>)> {
        SAID.take();
        let spec =
            super::super::parse_saying(text.as_bytes(), |text| SAID.with_borrow_mut(|said| said.push(text)));
        spec.map(|spec| (spec, SAID.take()))
    }

    fn error(text: &str) -> String {
        format!("{:#}", spec(text).unwrap_err())
    }

    #[test]
    fn a_property_that_is_null_is_absent() {
        let (read, said) = spec(
            r#"{"ociVersion":null,"process":{"user":{"uid":null,"gid":null},"cwd":null,"terminal":null},
            "linux":{"resources":{"devices":[{"allow":null,"major":null},{"allow":true},{"allow":null,"type":""}],
            "pids":{"limit":null}}},"mounts":[{"destination":"/a","type":null}]}"#,
        )
        .unwrap();
        assert!(said.is_empty(), "{said:?}");
        let user = read.process.unwrap().user;
        assert_eq!((user.uid(), user.gid()), (0, 0));
        let devices = read.linux.unwrap().resources.unwrap().devices;
        let rules: Vec<_> = devices.iter().map(|rule| (rule.allow(), rule.major(), rule.typ())).collect();
        assert_eq!(rules, [(false, None, None), (true, None, None), (false, None, None)]);
        let (read, _) = spec(r#"{"process":{"user":null}}"#).unwrap();
        assert_eq!(read.process.unwrap().user.uid(), 0);
    }

    #[test]
    fn null_where_go_reads_an_empty_text_says_what_to_write() {
        for (text, place) in [
            (r#"{"annotations":{"a":null}}"#, "annotations.a"),
            (r#"{"linux":{"sysctl":{"kernel.sem":null}}}"#, "linux.sysctl.kernel.sem"),
            (r#"{"process":{"args":["a",null]}}"#, "process.args[1]"),
        ] {
            let said = error(text);
            assert!(said.starts_with(&format!("{place}: invalid type: null, expected")), "{said}");
            assert!(said.ends_with("(leave it out, or write an empty value)"), "{said}");
        }
        let missing = error(r#"{"process":{"rlimits":[{"type":null,"soft":1,"hard":null}]}}"#);
        assert_eq!(missing, "process.rlimits[0]: missing field `type`");
    }

    #[test]
    fn the_empty_type_is_any_type_for_a_device_rule_only() {
        for (text, place) in [
            (
                r#"{"linux":{"devices":[{"path":"/dev/a","type":""}]}}"#,
                "linux.devices[0].type: unknown variant",
            ),
            (r#"{"linux":{"namespaces":[{"type":""}]}}"#, "linux.namespaces[0].type: unknown variant"),
        ] {
            assert!(error(text).starts_with(place), "{}", error(text));
        }
        parse::<crate::cgroup::Resources>(br#"{"devices":[{"allow":false,"type":""}]}"#).unwrap();
    }

    #[test]
    fn what_is_given_twice_must_be_one_and_the_same() {
        let once = spec(
            r#"{"hostname":"a","hostname":"a","annotations":{"k":"1","k":"1","k":"1"},
            "linux":{"resources":{"pids":{"limit":7,"limit":7},"pids":{"limit":7,"limit":7}}}}"#,
        );
        let (once, said) = once.unwrap();
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(once.annotations.unwrap().len(), 1);
        assert_eq!(once.linux.unwrap().resources.unwrap().pids.limit, Some(7));
        for (text, place) in [
            (r#"{"hostname":"a","hostname":"b"}"#, "hostname"),
            (r#"{"process":{"noNewPrivileges":true,"noNewPrivileges":false}}"#, "process.noNewPrivileges"),
            (r#"{"linux":{"sysctl":{"net.a":"1","net.a":"2"}}}"#, "linux.sysctl.net.a"),
            (r#"{"annotations":{"a":"1","b":"1","a":""}}"#, "annotations.a"),
            (
                r#"{"mounts":[{"destination":"/"},{"destination":"/a","source":"1","source":"2"}]}"#,
                "mounts[1].source",
            ),
            (r#"{"linux":{"namespaces":[]},"linux":{"namespaces":[{"type":"pid"}]}}"#, "linux"),
        ] {
            assert_eq!(error(text), format!("{place}: given twice, with different values; write it once"));
        }
        // No type reads this property.
        spec(r#"{"x":{"a":1,"a":2},"x":1}"#).unwrap();
    }

    #[test]
    fn a_property_in_another_case_is_honoured_with_a_warning() {
        let (read, said) = spec(
            r#"{"OCIVersion":"1.2.0","Linux":{"RESOURCES":{"CPU":{"Shares":5},"memory":{"LIMIT":null}},
            "Namespaces":[{"Type":"pid"},{"Type":"ipc"}],"sysctl":{"Net.A":"1"}},"Annotations":{"A":"1","a":"2"}}"#,
        )
        .unwrap();
        let linux = read.linux.unwrap();
        assert_eq!(linux.resources.unwrap().cpu.shares, Some(5));
        assert_eq!(linux.namespaces.unwrap().len(), 2);
        assert_eq!(linux.sysctl.unwrap()["Net.A"], "1");
        assert_eq!(read.annotations.unwrap().len(), 2, "the user's own names may differ by their case");
        assert_eq!(read.oci_version, "1.2.0");
        assert!(said.contains(
            &"linux.resources.CPU: read as linux.resources.cpu (the case of letters counts)".to_owned()
        ));
        assert_eq!(said.len(), 10, "one line for each: {said:#?}");
    }

    #[test]
    fn a_property_in_two_cases_is_an_error() {
        let both = error(r#"{"linux":{"resources":{"pids":{"limit":1},"Pids":{"limit":1}}}}"#);
        assert_eq!(both, "linux.resources.Pids: linux.resources.pids is given as well; write it once");
        let neither = error(r#"{"PROCESS":{"cwd":"/"},"Process":{"cwd":"/"}}"#);
        assert_eq!(neither, "Process: process is given as well; write it once");
    }

    #[test]
    fn text_behind_the_object_is_ignored() {
        for rest in ["x", "}", "{\"process\":1}", "\0\0", "null"] {
            let (read, _) = spec(&format!("{{\"hostname\":\"a\"}}\n {rest}")).unwrap();
            assert_eq!(read.hostname.as_deref(), Some("a"));
        }
    }

    #[test]
    fn the_column_of_a_text_that_nobody_wrote_is_not_told() {
        let asked = error(r#"{"process":{"user":{"uid":null,"gid":"x"}}}"#);
        assert_eq!(asked, "process.user.gid: invalid type: string \"x\", expected u32");
    }

    #[test]
    fn many_rules_without_a_number_cost_one_round() {
        let rules = vec![r#"{"allow":null,"type":""}"#; 10_000].join(",");
        let (read, _) = spec(&format!(r#"{{"linux":{{"resources":{{"devices":[{rules}]}}}}}}"#)).unwrap();
        assert_eq!(read.linux.unwrap().resources.unwrap().devices.len(), 10_000);
    }
}
