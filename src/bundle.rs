//! The bundle, and the only reader of config.json (runtime-spec, bundle.md and config.md).
//!
//! A text that is no OCI configuration is refused here; the error names the place.
//!
//! Not for: values of the right type that make no sense. The part that a property belongs to refuses these, in its `plan`.

mod lenient;
mod reader;
mod tree;

use self::lenient::Say;
use self::reader::Trace;
use crate::log;
use crate::spec::Spec;
use crate::sys::{self, Called, fd::open_file, path::real_path};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The usual name of the configuration.
pub const CONFIG: &str = "config.json";

/// The largest configuration. A larger file is an attack or a mistake.
const SIZE_LIMIT: u64 = 16 << 20;

/// A bundle on disk.
#[derive(Debug)]
pub struct Bundle {
    /// The absolute path, without links, at the time of reading.
    pub path: PathBuf,
    /// The name of its configuration, below `path`.
    pub file: String,
    /// config.json as written. It is large, and boxed to save stack: each function that passes a bundle on would touch
    /// one more page.
    pub spec: Box<Spec>,
}

/// Reads the bundle in the directory `path`, whose configuration is in `file` (usually `config.json`).
///
/// # Errors
/// The file is missing, too large, no JSON, or no configuration. The text names the first wrong property.
pub fn load(path: &Path, file: &str) -> Result<Bundle> {
    load_saying(real_path(path).context("--bundle")?, file, log::warn)
}

/// Reads a bundle once more, in a later verb. `path` is that of the [`Bundle`]: absolute, and without links. The
/// warnings of [`load`] are only debug lines here.
///
/// # Errors
/// As for [`load`].
pub fn load_again(path: PathBuf, file: &str) -> Result<Bundle> {
    load_saying(path, file, |text| log::debug(|| text))
}

fn load_saying(path: PathBuf, file: &str, say: Say) -> Result<Bundle> {
    let text = match read_at_once(&path.join(file)) {
        Err(error) if sys::errno_of(&error) == Some(libc::ENOENT) => {
            bail!("JSON specification file {file} not found")
        }
        other => other?,
    };
    let spec: Box<Spec> = parse_saying(&text, say).context(file.to_owned())?;
    check_version(&spec.oci_version)?;
    Ok(Bundle { path, file: file.to_owned(), spec })
}

/// Reads a file with a part of a configuration (`exec --process`, `update --resources`); `-` is standard input.
///
/// # Errors
/// As for [`load`]; the text begins with `option`.
pub fn load_part<T: DeserializeOwned>(option: &str, path: &Path) -> Result<T> {
    let text = match path.as_os_str() == "-" {
        true => read_from(std::io::stdin().lock(), path),
        false => read(path),
    };
    let text = text.with_context(|| option.to_owned())?;
    ensure!(!text.trim_ascii().is_empty(), "{option} {path:?}: EOF");
    parse(&text).with_context(|| format!("{option} {path:?}"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    read_from(open_file(path, OFlags::empty()).called("open", || format!("{path:?}"))?, path)
}

/// Reads a file without waiting: a fifo in its place counts as empty.
fn read_at_once(path: &Path) -> Result<Vec<u8>> {
    read_from(open_file(path, OFlags::NONBLOCK).called("open", || format!("{path:?}"))?, path)
}

fn read_from(file: impl Read, path: &Path) -> Result<Vec<u8>> {
    let shown = || format!("{path:?}");
    // Reserve room: otherwise the first reads are of 32 bytes.
    let mut text = Vec::with_capacity(8 << 10);
    file.take(SIZE_LIMIT + 1).read_to_end(&mut text).called("read", shown)?;
    ensure!(text.len() as u64 <= SIZE_LIMIT, "{path:?}: over {} MiB", SIZE_LIMIT >> 20);
    Ok(text)
}

/// Reads the text of a configuration, or of a part of one, directly into `T`. A second, slower look is taken only at a
/// text that does not fit, or that has a property unknown to `T`.
///
/// # Errors
/// The text is no JSON, or does not fit `T`. The error names the first wrong property.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    parse_saying(text, log::warn)
}

fn parse_saying<T: DeserializeOwned>(text: &[u8], say: Say) -> Result<T> {
    let (text, trace) = (std::str::from_utf8(text)?, Trace::default());
    match reader::read(text, &trace) {
        Ok(value) if !trace.is_odd() => Ok(value),
        _ => lenient::read(text, say),
    }
}

/// The properties of a text that `T` does not know, up to the first error.
#[cfg(test)]
pub(crate) fn unknown_properties<T: DeserializeOwned>(text: &str) -> Vec<String> {
    let trace = Trace::detailed();
    let _ = reader::read::<T>(text, &trace);
    trace.unknown()
}

/// Checks `ociVersion`. orlop implements 1.3; every 1.x is compatible by the rules of semantic versioning. runc does
/// not check the version, so an empty one, "1" and "1.0" are in use; they are taken as 1.x.
///
/// # Errors
/// The major version is not 1, or the text is no version.
pub fn check_version(version: &str) -> Result<()> {
    let (core, _) = version.split_once(['-', '+']).unwrap_or((version, ""));
    let numbers: Option<Vec<u32>> = core.split('.').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some([1, _, _]) => {}
        _ if version.is_empty() => log::debug(|| "ociVersion: none, taken as 1.x".into()),
        Some([1] | [1, _]) => log::debug(|| format!("ociVersion: {version:?}, taken as 1.x")),
        Some([_] | [_, _] | [_, _, _]) => bail!("ociVersion: {version:?} is not supported (1.x is)"),
        _ => bail!("ociVersion: {version:?} is not a version (write \"1.3.0\")"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<Spec> {
        parse(text.as_bytes())
    }

    fn text(result: Result<Spec>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn a_wrong_type_is_named_by_its_pointer() {
        let error = text(spec(r#"{"ociVersion":"1.2.0","linux":{"resources":{"pids":{"limit":"many"}}}}"#));
        assert!(error.starts_with("linux.resources.pids.limit: invalid type: string \"many\""), "{error}");
    }

    #[test]
    fn a_list_in_the_place_of_an_object_is_refused_at_every_depth() {
        for (place, text_of_it) in [
            ("", "[\"1.3.0\"]"),
            ("linux", r#"{"linux":[[{"type":"pid"}]]}"#),
            ("linux.resources", r#"{"linux":{"resources":[]}}"#),
            ("linux.resources.cpu", r#"{"linux":{"resources":{"cpu":[]}}}"#),
            ("linux.resources.rdma.mlx5_1", r#"{"linux":{"resources":{"rdma":{"mlx5_1":[1,2]}}}}"#),
            ("linux.namespaces[0]", r#"{"linux":{"namespaces":[["pid",null]]}}"#),
            (
                "linux.seccomp.syscalls[0].args[0]",
                r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW",
                "syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[[0,1,0,"SCMP_CMP_EQ"]]}]}}}"#,
            ),
            ("process.scheduler", r#"{"process":{"scheduler":["SCHED_OTHER"]}}"#),
            ("hooks", r#"{"hooks":[]}"#),
        ] {
            let error = text(spec(text_of_it));
            let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
            assert!(error.starts_with(&format!("{place}invalid type: sequence, expected ")), "{error}");
        }
    }

    #[test]
    fn no_json_is_named_by_line_and_column() {
        assert!(text(spec("{\n  \"a\": }")).contains("line 2"));
    }

    #[test]
    fn a_version_of_another_major_is_refused() {
        for good in ["1.0.0", "1.3.0", "1.0.2-dev", "1.99.0", "", "1", "1.0"] {
            check_version(good).unwrap();
        }
        for bad in ["2.0.0", "2", "0.9.0", "x.y.z", "1.0.0.0", "1.", "v1.0.0"] {
            check_version(bad).unwrap_err();
        }
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        spec(&deep).unwrap_err();
    }
}
