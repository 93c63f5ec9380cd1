//! `org.systemd.property.NAME` annotations: properties of the scope that config.json sets. Pure.
//!
//! Values are GVariant text, as far as the properties below need it. Only the properties of this list may be set.
//! Others could give the container what its configuration denies (devices, other cgroups), or break the scope.

use super::properties::{Property, Value};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::borrow::Cow;
use std::collections::BTreeMap;

const PREFIX: &str = "org.systemd.property.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int32,
    Uint32,
    Uint64,
    Text,
    Texts,
    Bytes,
}

#[rustfmt::skip]
const TABLE: &[(&str, Kind)] = &[
    // Start and end.
    ("CollectMode", Kind::Text), ("DefaultDependencies", Kind::Bool), ("Description", Kind::Text),
    ("FinalKillSignal", Kind::Int32), ("KillMode", Kind::Text), ("KillSignal", Kind::Int32), ("OOMPolicy", Kind::Text),
    ("RuntimeMaxUSec", Kind::Uint64), ("SendSIGHUP", Kind::Bool), ("SendSIGKILL", Kind::Bool),
    ("TimeoutStopUSec", Kind::Uint64),
    // Relations to other units.
    ("After", Kind::Texts), ("Before", Kind::Texts), ("BindsTo", Kind::Texts), ("Conflicts", Kind::Texts),
    ("Documentation", Kind::Texts), ("PartOf", Kind::Texts), ("Requires", Kind::Texts), ("Requisite", Kind::Texts),
    ("Upholds", Kind::Texts), ("Wants", Kind::Texts),
    // Limits.
    ("AllowedCPUs", Kind::Bytes), ("AllowedMemoryNodes", Kind::Bytes), ("CPUAccounting", Kind::Bool),
    ("CPUQuotaPerSecUSec", Kind::Uint64), ("CPUQuotaPeriodUSec", Kind::Uint64), ("CPUWeight", Kind::Uint64),
    ("DefaultMemoryLow", Kind::Uint64), ("DefaultMemoryMin", Kind::Uint64), ("IOAccounting", Kind::Bool),
    ("IOWeight", Kind::Uint64), ("IPAccounting", Kind::Bool), ("ManagedOOMMemoryPressure", Kind::Text),
    ("ManagedOOMMemoryPressureLimit", Kind::Uint32), ("ManagedOOMPreference", Kind::Text),
    ("ManagedOOMSwap", Kind::Text), ("MemoryAccounting", Kind::Bool), ("MemoryHigh", Kind::Uint64),
    ("MemoryLow", Kind::Uint64), ("MemoryMax", Kind::Uint64), ("MemoryMin", Kind::Uint64),
    ("MemorySwapMax", Kind::Uint64), ("MemoryZSwapMax", Kind::Uint64), ("StartupCPUWeight", Kind::Uint64),
    ("StartupIOWeight", Kind::Uint64), ("TasksAccounting", Kind::Bool), ("TasksMax", Kind::Uint64),
];

/// Reads the properties among the annotations.
///
/// # Errors
/// A property is not in the list, or its value has another type. The error names the annotation.
pub fn plan(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let said = annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)));
    said.map(|(key, name, text)| property(name, text).with_context(|| format!("annotations.{key}"))).collect()
}

fn property(name: &str, text: &str) -> Result<Property> {
    // systemd's files have TimeoutStopSec=, in seconds; on the bus it is TimeoutStopUSec.
    let seconds = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U'));
    let name = seconds.map_or_else(|| name.to_owned(), |stem| format!("{stem}USec"));
    let Some((name, kind)) = TABLE.iter().find(|(known, _)| *known == name) else {
        bail!("not a property that a container's scope may be given");
    };
    let mut reader = Reader { rest: text, in_list: false };
    let (said, literal) = reader.value()?;
    ensure!(reader.rest.trim().is_empty(), "{:?} is left over in {text:?}", reader.rest.trim());
    if seconds.is_some() {
        ensure!(said.is_none_or(|said| said != "string"), "{text:?} is not a number of seconds");
        return Ok((Cow::Borrowed(name), Value::Uint64(microseconds(&literal)?)));
    }
    let wants = word(*kind);
    ensure!(
        said.as_ref().is_none_or(|said| said == wants),
        "{} is given where {wants} is expected",
        said.unwrap_or_default()
    );
    let value = literal.to(*kind).with_context(|| format!("{text:?} is not of type {wants}"))?;
    Ok((Cow::Borrowed(name), value))
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "boolean",
        Kind::Int32 => "int32",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Text => "string",
        Kind::Texts => "as",
        Kind::Bytes => "ay",
    }
}

fn microseconds(literal: &Literal) -> Result<u64> {
    let Literal::Number(number) = literal else { bail!("not a number of seconds") };
    let parsed: f64 = number.parse().map_err(|_| anyhow!("{number:?} is not a number of seconds"))?;
    ensure!((0.0..1e12).contains(&parsed), "{number:?} is not a number of seconds");
    Ok((parsed * 1e6) as u64)
}

#[derive(Debug)]
enum Literal {
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Literal>),
}

impl Literal {
    fn to(&self, kind: Kind) -> Option<Value> {
        Some(match (kind, self) {
            (Kind::Bool, Literal::Bool(value)) => Value::Bool(*value),
            (Kind::Int32, number) => Value::Int32(i32::try_from(number.integer()?).ok()?),
            (Kind::Uint32, number) => Value::Uint32(u32::try_from(number.integer()?).ok()?),
            (Kind::Uint64, number) => Value::Uint64(u64::try_from(number.integer()?).ok()?),
            (Kind::Text, Literal::Text(text)) => Value::Text(text.clone()),
            (Kind::Texts, Literal::List(list)) => {
                let text =
                    |item: &Literal| if let Literal::Text(text) = item { Some(text.clone()) } else { None };
                Value::Texts(list.iter().map(text).collect::<Option<_>>()?)
            }
            (Kind::Bytes, Literal::List(list)) => Value::Bytes(
                list.iter().map(|item| u8::try_from(item.integer()?).ok()).collect::<Option<_>>()?,
            ),
            _ => return None,
        })
    }

    fn integer(&self) -> Option<i128> {
        let Literal::Number(text) = self else { return None };
        let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |digits| (-1, digits));
        let number = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        number.ok().and_then(|number: i128| number.checked_mul(sign))
    }
}

/// Reads GVariant text from left to right.
struct Reader<'a> {
    rest: &'a str,
    in_list: bool,
}

impl Reader<'_> {
    /// A value, and the type that the text gives for it.
    fn value(&mut self) -> Result<(Option<String>, Literal)> {
        const WORDS: [&str; 13] = [
            "boolean",
            "byte",
            "int16",
            "uint16",
            "int32",
            "uint32",
            "handle",
            "int64",
            "uint64",
            "double",
            "string",
            "objectpath",
            "signature",
        ];
        self.rest = self.rest.trim_start();
        if let Some(rest) = self.rest.strip_prefix('@') {
            let (kind, rest) = rest.split_once(' ').context("a type without a value")?;
            self.rest = rest;
            let long = match kind {
                "b" => "boolean",
                "i" => "int32",
                "u" => "uint32",
                "t" => "uint64",
                "s" => "string",
                other => other,
            };
            return Ok((Some(long.to_owned()), self.literal()?));
        }
        let end = self.rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let first = self.rest.get(..end).unwrap_or_default();
        if WORDS.contains(&first) {
            let first = first.to_owned();
            self.rest = self.rest.get(end..).unwrap_or_default();
            return Ok((Some(first), self.literal()?));
        }
        Ok((None, self.literal()?))
    }

    fn literal(&mut self) -> Result<Literal> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => self.text(quote).map(Literal::Text),
            // No property is a list of lists. A limit is needed, because this function calls itself for each level.
            Some('[') if self.in_list => bail!("a list in a list"),
            Some('[') => self.list().map(Literal::List),
            _ => {
                let end = self.rest.find([',', ']', ' ', '\t']).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                match word {
                    "true" => Ok(Literal::Bool(true)),
                    "false" => Ok(Literal::Bool(false)),
                    _ if word.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) => {
                        Ok(Literal::Number(word.trim_start_matches('+').to_owned()))
                    }
                    _ => bail!("{word:?} is not a value (a text needs quotes)"),
                }
            }
        }
    }

    fn text(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => text.push(letters.next().context("a text without an end")?.1),
                end if end == quote => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    ensure!(!text.contains('\0'), "a text with a NUL byte");
                    return Ok(text);
                }
                other => text.push(other),
            }
        }
        bail!("a text without an end")
    }

    fn list(&mut self) -> Result<Vec<Literal>> {
        let mut list = vec![];
        self.in_list = true;
        self.rest = self.rest.get(1..).unwrap_or_default().trim_start();
        while !self.rest.starts_with(']') {
            list.push(self.value()?.1);
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest.trim_start(),
                None => ensure!(self.rest.starts_with(']'), "a list without an end"),
            }
        }
        self.rest = self.rest.get(1..).unwrap_or_default();
        self.in_list = false;
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> Result<(String, Value)> {
        let annotations =
            BTreeMap::from([(format!("{PREFIX}{name}"), text.to_owned()), ("other".into(), "x".into())]);
        let mut all = plan(&annotations)?;
        assert_eq!(all.len(), 1);
        all.pop().map(|(name, value)| (name.into_owned(), value)).context("none")
    }

    #[test]
    fn lists_do_not_nest_however_deep() {
        for open in ["[", "@as [", "byte ["] {
            let error = format!("{:#}", one("After", &open.repeat(200_000)).unwrap_err());
            assert!(error.contains("a list in a list"), "{}", &error[error.len() - 100..]);
        }
    }

    #[test]
    fn a_number_that_is_too_low_to_be_turned_is_none() {
        for text in [
            "int64 --170141183460469231731687303715884105728",
            "int64 -170141183460469231731687303715884105728",
        ] {
            one("KillSignal", text).unwrap_err();
        }
    }

    #[test]
    fn values_are_gvariant_text() {
        let texts = |list: &[&str]| Value::Texts(list.iter().map(|text| (*text).to_owned()).collect());
        for (name, text, on_the_bus, value) in [
            ("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec", Value::Uint64(123_456_789)),
            ("TimeoutStopSec", "1", "TimeoutStopUSec", Value::Uint64(1_000_000)),
            ("RuntimeMaxSec", "2.5", "RuntimeMaxUSec", Value::Uint64(2_500_000)),
            ("CollectMode", "'inactive-or-failed'", "CollectMode", Value::Text("inactive-or-failed".into())),
            ("CollectMode", r#""a \"b\"""#, "CollectMode", Value::Text("a \"b\"".into())),
            ("DefaultDependencies", "true", "DefaultDependencies", Value::Bool(true)),
            ("KillSignal", "int32 -3", "KillSignal", Value::Int32(-3)),
            ("After", "['a.service', \"b.service\"]", "After", texts(&["a.service", "b.service"])),
            ("After", "@as []", "After", texts(&[])),
            ("AllowedCPUs", "[byte 0x03, 1]", "AllowedCPUs", Value::Bytes(vec![3, 1])),
        ] {
            assert_eq!(one(name, text).unwrap(), (on_the_bus.to_owned(), value), "{name} {text}");
        }
    }

    #[test]
    fn what_is_not_in_the_list_or_of_another_type_is_refused_by_name() {
        for (name, text, error) in [
            (
                "Delegate",
                "false",
                "annotations.org.systemd.property.Delegate: not a property that a container's scope may be given",
            ),
            ("DeviceAllow", "[]", "not a property"),
            ("PIDs", "[uint32 1]", "not a property"),
            ("", "1", "not a property"),
            ("TimeoutStopUSec", "'1'", "\"'1'\" is not of type uint64"),
            ("TimeoutStopUSec", "int32 1", "int32 is given where uint64 is expected"),
            ("TimeoutStopUSec", "-1", "is not of type uint64"),
            ("TimeoutStopSec", "soon", "\"soon\" is not a value (a text needs quotes)"),
            ("TimeoutStopSec", "1 2", "\"2\" is left over"),
            ("CollectMode", "'x", "a text without an end"),
            ("After", "['x'", "a list without an end"),
            ("After", "['x', 1]", "is not of type as"),
            ("DefaultDependencies", "yes", "\"yes\" is not a value"),
        ] {
            let found = format!("{:#}", one(name, text).unwrap_err());
            assert!(found.contains(error), "{name} {text}: {found}");
        }
    }
}
