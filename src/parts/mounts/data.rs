//! The options that a file system reads itself: one by one for fsconfig(2), or all in one string for mount(2).
//!
//! Not for: options of the mount (see `mount_options`).

use super::c_string;
use anyhow::{Result, bail, ensure};
use std::ffi::{CStr, CString};

/// Longer values are EINVAL to fsconfig(2).
const LONGEST_VALUE: usize = 255;

/// Options of the security modules: only their values may stand in double quotes.
const QUOTED: [&[u8]; 5] = [b"context", b"fscontext", b"defcontext", b"rootcontext", b"seclabel"];

/// What cgroup2 has of options of its own (Linux, cgroup-v2.rst). They are the whole host's: a container's mount changes
/// none of them, and the kernel takes them from it all the same.
const CGROUP2: [&str; 7] = [
    "favordynmods",
    "memory_hugetlb_accounting",
    "memory_localevents",
    "memory_recursiveprot",
    "nofavordynmods",
    "nsdelegate",
    "pids_localevents",
];

/// An option: its name, and its value if it has one.
pub(super) type Pair = (CString, Option<CString>);

/// mount(2) takes one string, `key=value,key`; fsconfig(2) takes the options one by one. A comma belongs to the value
/// behind a backslash (overlay), and inside of the double quotes of a security context, where the quotes do not.
pub(super) fn split(options: &[String]) -> Result<Vec<Pair>> {
    let joined = options.join(",");
    let mut data = Vec::new();
    for word in words(joined.as_bytes()) {
        let Some(at) = word.iter().position(|byte| *byte == b'=') else {
            data.push((c_string("options", word)?, None));
            continue;
        };
        let (key, value) = (word.get(..at).unwrap_or_default(), word.get(at + 1..).unwrap_or_default());
        let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        let value = inner.filter(|_| QUOTED.contains(&key)).unwrap_or(value);
        data.push((c_string("options", key)?, Some(c_string("options", value)?)));
    }
    Ok(data)
}

fn words(joined: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped, mut begin) = (false, false, 0);
    let mut ends = Vec::new();
    for (at, byte) in joined.iter().enumerate() {
        let word = joined.get(begin..at).unwrap_or_default();
        let key = word.strip_suffix(b"=").unwrap_or_default();
        match byte {
            b'"' if quoted || QUOTED.contains(&key) => quoted = !quoted,
            b',' if !quoted && !escaped => {
                ends.push(begin..at);
                begin = at + 1;
            }
            _ => {}
        }
        escaped = *byte == b'\\' && !escaped;
    }
    ends.push(begin..joined.len());
    ends.into_iter().filter_map(|range| joined.get(range)).filter(|word| !word.is_empty())
}

/// The options as they were written, if the file system must read them as one string: a value is too long for
/// fsconfig(2), or has letters that file systems read each in their own way.
pub(super) fn one_string(options: &[String], data: &[Pair]) -> Result<Option<CString>> {
    let peculiar = |(key, value): &Pair| {
        let bytes = value.as_ref().map(|value| value.as_bytes()).unwrap_or_default();
        let odd = |bytes: &[u8]| bytes.iter().any(|byte| matches!(byte, b'\\' | b'"'));
        bytes.len() > LONGEST_VALUE || odd(key.as_bytes()) || odd(bytes)
    };
    let joined = options.join(",");
    // cifs reads two commas as one that belongs to the value.
    if !data.iter().any(peculiar) && !joined.contains(",,") {
        return Ok(None);
    }
    c_string("options", joined).map(Some)
}

/// Layers of an overlay are absolute: it is not said what a relative path would be relative to, and one of the answers
/// is a directory of the image.
pub(super) fn check_layers(data: &[Pair]) -> Result<()> {
    for (key, value) in data {
        let (name, Some(value)) = (key.to_string_lossy(), value) else { continue };
        if !matches!(&*name, "lowerdir" | "lowerdir+" | "datadir+" | "upperdir" | "workdir") {
            continue;
        }
        let relative = pieces(key, value.as_bytes()).into_iter().find(|piece| {
            // A backslash may stand before any letter.
            let first = piece.iter().find(|byte| **byte != b'\\');
            first.is_some_and(|byte| *byte != b'/')
        });
        if let Some(relative) = relative {
            bail!(
                "{name}: {:?} is a relative path; write an absolute one",
                String::from_utf8_lossy(relative)
            );
        }
    }
    Ok(())
}

/// The paths in the value of an option. `lowerdir` is a list; there, a colon behind a backslash belongs to the path.
pub(super) fn pieces<'a>(key: &CStr, value: &'a [u8]) -> Vec<&'a [u8]> {
    if key != c"lowerdir" {
        return vec![value];
    }
    let (mut escaped, mut begin, mut pieces) = (false, 0, Vec::new());
    for (at, byte) in value.iter().enumerate() {
        if *byte == b':' && !escaped {
            pieces.push(value.get(begin..at).unwrap_or_default());
            begin = at + 1;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    pieces.push(value.get(begin..).unwrap_or_default());
    pieces
}

/// The string of options with other values: those of `data`, which has the same options in the same order.
pub(super) fn rewrite(string: &CStr, old: &[Pair], new: &[Pair]) -> Result<CString> {
    let words =
        words(string.to_bytes()).zip(old.iter().zip(new)).map(|(word, (old, new))| match (old, new) {
            (old, (key, Some(value))) if *old != *new => [key.as_bytes(), b"=", value.as_bytes()].concat(),
            _ => word.to_vec(),
        });
    c_string("options", words.collect::<Vec<_>>().join(&b','))
}

/// As in a mount(2) of cgroup2, which is made as a bind mount here: an option that it does not have is refused.
pub(super) fn check_cgroup2(options: &[String]) -> Result<()> {
    for (key, value) in split(options)? {
        let name = key.to_string_lossy();
        ensure!(CGROUP2.contains(&&*name), "cgroup2 has no option {name:?}: invalid argument");
        if let Some(value) = value {
            bail!("cgroup2 has no value for {name:?}, and {value:?} is given: invalid argument");
        }
    }
    Ok(())
}

/// Adds one more option to a string of them.
pub(super) fn append(string: &CStr, key: &CStr, value: &CStr) -> Result<CString> {
    let separator: &[u8] = if string.is_empty() { b"" } else { b"," };
    let parts = [string.to_bytes(), separator, key.to_bytes(), b"=", value.to_bytes()];
    c_string("options", parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> (String, Option<CString>) {
        let options: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let data = split(&options).unwrap();
        let text = |(key, value): &Pair| match value {
            Some(value) => format!("{}={}", key.to_str().unwrap(), value.to_str().unwrap()),
            None => key.to_str().unwrap().to_owned(),
        };
        (data.iter().map(text).collect::<Vec<_>>().join(" | "), one_string(&options, &data).unwrap())
    }

    #[test]
    fn commas_in_quotes_and_behind_a_backslash_belong_to_the_value() {
        for (words, split) in [
            (&["size=1k,mode=755", "huge"][..], "size=1k | mode=755 | huge"),
            (&["context=\"a:b:c1,c2\",size=1k"], "context=a:b:c1,c2 | size=1k"),
            (&["lowerdir=/a\\,b:/c,ro"], "lowerdir=/a\\,b:/c | ro"),
            (&["lowerdir=/a\\\\,ro"], "lowerdir=/a\\\\ | ro"),
            (&["lowerdir=/a\"b,upperdir=/c\"d"], "lowerdir=/a\"b | upperdir=/c\"d"),
            (&["", ",", "a,,b"], "a | b"),
        ] {
            assert_eq!(given(words).0, split, "{words:?}");
        }
    }

    #[test]
    fn what_file_systems_read_in_their_own_way_is_left_to_them() {
        let long = format!("lowerdir={}", "x".repeat(300));
        for words in [&["lowerdir=/a\\,b", "ro"][..], &["lowerdir=/a\"b"], &["pass=a,,b"], &[&long]] {
            assert_eq!(given(words).1.unwrap().to_str().unwrap(), words.join(","));
        }
        for words in [&["size=1k,mode=755"][..], &["context=\"a:b:c1,c2\""], &["a", "b"]] {
            assert_eq!(given(words).1, None, "{words:?}");
        }
    }
}
