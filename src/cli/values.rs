//! Types of option values: sizes, durations and words, read as Go's `flag` and runc read them.

use super::argument::{Value, boolean, utf8};
use crate::log::Format;
use std::ffi::OsStr;
use std::time::Duration;

/// `--rootless`: whether missing permission for cgroups is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootlessMode {
    /// Permission errors are ignored.
    True,
    /// Permission errors are errors.
    False,
    /// Permission errors are ignored, unless the caller is root of the initial user namespace.
    #[default]
    Auto,
}

/// `--cgroup-manager`: how cgroups are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// orlop makes them.
    Cgroupfs,
    /// systemd makes them.
    Systemd,
    /// There are none.
    Disabled,
}

/// `--format` of list and ps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// A size of memory in `update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySize {
    /// The literal `-1`.
    Unlimited,
    /// A number of bytes.
    Bytes(u64),
}

impl MemorySize {
    /// The number in config.json: -1 is unlimited.
    pub fn as_spec(self) -> i64 {
        match self {
            Self::Unlimited => -1,
            Self::Bytes(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }
}

/// `--user UID[:GID]` of exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserGroup {
    /// The user.
    pub uid: u32,
    /// The group. Without it, `exec` keeps the group of config.json.
    pub gid: Option<u32>,
}

macro_rules! words {
    ($($value:ty: $read:path),* $(,)?) => {$(
        impl Value for $value {
            fn read(text: &OsStr) -> Result<Self, String> {
                $read(utf8(text)?)
            }
        }
    )*};
}

words! {
    Format: log_format,
    ListFormat: list_format,
    RootlessMode: rootless,
    Driver: driver,
    MemorySize: memory_size,
    Duration: duration,
}

/// Reads `--log-format`.
pub fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        other => Err(format!("invalid log-format: {other}")),
    }
}

/// Reads `--format`.
pub fn list_format(text: &str) -> Result<ListFormat, String> {
    match text {
        "table" => Ok(ListFormat::Table),
        "json" => Ok(ListFormat::Json),
        _ => Err("invalid format option".into()),
    }
}

/// Reads `--rootless`.
pub fn rootless(text: &str) -> Result<RootlessMode, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(RootlessMode::Auto);
    }
    Ok(if boolean(text)? { RootlessMode::True } else { RootlessMode::False })
}

/// Reads `--cgroup-manager`.
pub fn driver(text: &str) -> Result<Driver, String> {
    match text {
        "cgroupfs" => Ok(Driver::Cgroupfs),
        "systemd" => Ok(Driver::Systemd),
        "disabled" => Ok(Driver::Disabled),
        other => Err(format!("invalid cgroup manager: {other}")),
    }
}

/// Reads `UID` or `UID:GID`.
pub fn user_group(text: &str) -> Result<UserGroup, String> {
    let number = |what: &str, text: &str| {
        text.parse::<u32>().map_err(|error| format!("parsing {text} as int for {what} failed: {error}"))
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    Ok(UserGroup { uid: number("uid", uid)?, gid: gid.map(|gid| number("gid", gid)).transpose()? })
}

/// Reads a size: digits, perhaps a fraction, and a unit of 1024 (`512m`, `1.5g`, `64KiB`); `-1` is unlimited.
pub fn memory_size(text: &str) -> Result<MemorySize, String> {
    if text == "-1" {
        return Ok(MemorySize::Unlimited);
    }
    let invalid = || format!("invalid size: {text:?}");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let prefix = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match (prefix, unit.as_str()) {
        ("", "ib") => return Err(invalid()),
        ("", _) => 0,
        ("k", _) => 10,
        ("m", _) => 20,
        ("g", _) => 30,
        ("t", _) => 40,
        ("p", _) => 50,
        _ => return Err(invalid()),
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(1 << shift),
        // A float is exact enough: a person writes a fraction to round.
        Err(_) => number.parse::<f64>().ok().map(|part| (part * (1u64 << shift) as f64) as u64),
    };
    bytes.filter(|bytes| i64::try_from(*bytes).is_ok()).map(MemorySize::Bytes).ok_or_else(invalid)
}

//   unit    nanoseconds
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000), // Go takes both signs for micro
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration as Go writes it: `5s`, `1m30s`, `1.5h`, `100ms`. A negative duration is read as 0, which `events`
/// refuses.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration {text:?}");
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let (mut rest, mut total) = (unsigned, 0f64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        total += number.parse::<f64>().map_err(|_| invalid())? * *scale as f64;
        rest = tail;
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if text.starts_with('-') { Duration::ZERO } else { Duration::from_nanos(total as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let millis = |text| duration(text).map(|value| value.as_millis());
        for (text, meant) in [
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("100ms", 100),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("2h45m0.5s", 9_900_500),
            ("-5s", 0),
        ] {
            assert_eq!(millis(text), Ok(meant), "{text}");
        }
        for text in ["", "5", "s", "5x", "1m30", "-", "1..5s", "99999999999h"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_count_in_steps_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512m", 512 << 20),
            ("1G", 1 << 30),
            ("64KiB", 64 << 10),
            ("32kb", 32 << 10),
            ("1.5g", 3 << 29),
            ("12b", 12),
        ] {
            assert_eq!(memory_size(text), Ok(MemorySize::Bytes(bytes)), "{text}");
        }
        assert_eq!(memory_size("-1"), Ok(MemorySize::Unlimited));
        for text in ["", "-2", "m", "5x", "9999999p", "1ib"] {
            assert!(memory_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_user_is_numeric_with_an_optional_group() {
        assert_eq!(user_group("1000"), Ok(UserGroup { uid: 1000, gid: None }));
        assert_eq!(user_group("1:2"), Ok(UserGroup { uid: 1, gid: Some(2) }));
        for text in ["root", "1:", ":1", "-1", "1:2:3", "4294967296"] {
            assert!(user_group(text).is_err(), "{text:?}");
        }
    }
}
