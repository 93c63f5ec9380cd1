//! The command line: words that are separated by NUL. This target reads sizes, durations and users a second time, with
//! other arithmetic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use orlop::cli::argument::boolean;
use orlop::cli::argv::{Asked, Line};
use orlop::cli::values::{MemorySize, duration, memory_size, user_group};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Reads digits with at most one point as billionths, exactly; nothing if that is not possible.
fn fixed(number: &str) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if number.len() > 25 || whole.len() + part.len() == 0 || part.len() > 9 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    Some(digits(whole)? * 1_000_000_000 + digits(&format!("{part:0<9}"))?)
}

/// True if the two differ by no more than the rounding of a float.
fn about(is: u128, meant: u128) -> bool {
    is.abs_diff(meant) <= 2 + (meant >> 48)
}

fn check_size(text: &str) {
    let Ok(size) = memory_size(text) else { return };
    let MemorySize::Bytes(bytes) = size else { return assert_eq!(text, "-1") };
    assert!(i64::try_from(bytes).is_ok(), "{text:?} is {bytes}, and config.json has no room for it");
    let end = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = "kmgtp".find(unit.trim_start().to_ascii_lowercase().chars().next().unwrap_or('b'));
    let unit = 1u128 << (10 * power.map_or(0, |at| at + 1));
    let Some(number) = fixed(number) else { return };
    let meant = number * unit / 1_000_000_000;
    assert!(about(bytes.into(), meant), "{text:?}: {bytes}, and not {meant}");
}

fn check_duration(text: &str) {
    let Ok(read) = duration(text) else { return };
    assert!(i64::try_from(read.as_nanos()).is_ok(), "{text:?}");
    let (mut rest, mut meant) = (text.trim_start_matches(['+', '-']), 0u128);
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).expect("a unit");
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let nanos = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => panic!("{text:?}: unit {other:?}"),
        };
        let Some(number) = fixed(number) else { return };
        (rest, meant) = (tail, meant + number * nanos / 1_000_000_000);
    }
    let meant = if text.starts_with('-') { 0 } else { meant };
    assert!(about(read.as_nanos(), meant), "{text:?}: {read:?}, and not {meant} ns");
}

fn check_user(text: &str) {
    let Ok(user) = user_group(text) else { return };
    let said: Vec<Option<u64>> = text.split(':').map(|number| number.parse().ok()).collect();
    let mut read = vec![Some(u64::from(user.uid))];
    read.extend(user.gid.map(|gid| Some(gid.into())));
    assert_eq!(said, read, "{text:?}");
}

fuzz_target!(|bytes: &[u8]| {
    let words: Vec<_> =
        bytes.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect();
    for word in words.iter().filter_map(|word| word.to_str()) {
        check_size(word);
        check_duration(word);
        check_user(word);
        let _ = boolean(word);
    }
    let argv = std::iter::once("orlop".into()).chain(words.into_iter().take(64));
    match Line::read(argv).and_then(Line::asked) {
        Ok(Asked::Do(_)) => {}
        Ok(Asked::Show(page)) => assert!(!page.is_empty()),
        Err(misuse) => assert!(!misuse.message.is_empty() && misuse.code != 0),
    }
});
