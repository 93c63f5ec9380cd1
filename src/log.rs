//! The log: `--log`, `--log-format`, `--debug`. One line per entry, one write(2) per line.
//!
//! Engines read the log. podman parses the whole file as one JSON object. So without `--debug` a file gets at most one
//! entry, the error that orlop ends with, and no warnings. containerd takes the last entry with level "error".
//!
//! A message may contain names that an image has chosen. So every line is written without control characters, which
//! could move the cursor of a terminal or begin another line.
//!
//! Not for: the text of errors. A function either logs a problem or returns it; only `main` calls [`error`].

use crate::sys::Called;
use crate::timestamp::rfc3339;
use anyhow::Result;
use rustix::fs::{Mode, OFlags};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// One object per line.
    Json,
}

struct Log {
    /// The file of `--log`. With `--debug` alone it is a copy of stderr, because descriptor 2 becomes the container's.
    /// `None` means stderr itself.
    fd: Option<OwnedFd>,
    is_file: bool,
    format: Format,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Takes a level and a message.
type Sink = Box<dyn Fn(Level, &str) + Send + Sync>;

/// In init, which has no log of its own: see [`through`].
static SINK: OnceLock<Sink> = OnceLock::new();

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A step.
    Debug,
    /// Something went wrong and does not matter.
    Warning,
    /// What we end with.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// From now on this process gives its lines to `sink`, and does not use its own descriptor. A container may look into it:
/// with CAP_SYS_PTRACE one could open the host's log file through it, and change the file's mode and content.
pub fn through(sink: impl Fn(Level, &str) + Send + Sync + 'static) {
    // A second call is a mistake of ours that changes nothing.
    let _ = SINK.set(Box::new(sink));
}

/// Writes a line that a process of ours has given to us.
pub fn relay(level: Level, message: &str) {
    match level {
        Level::Debug => debug(|| message.to_owned()),
        Level::Warning | Level::Error => warn(message),
    }
}

/// Sets where and how to log. It is called once, before the first message.
///
/// # Errors
/// The file cannot be opened.
pub fn init(file: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let fd = match file {
        Some(path) => {
            // NONBLOCK: a fifo without a reader must not stop us, neither at open(2) nor when it is full.
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644));
            Some(opened.called("open", || format!("{path:?} (--log)"))?)
        }
        None if debug => rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3).ok(),
        None => None,
    };
    // The result is dropped: a second call would be a mistake in our code, and changes nothing.
    let _ = LOG.set(Log { fd, is_file: file.is_some(), format, debug });
    Ok(())
}

/// Logs a step if `--debug` is given. Otherwise `message` is not called.
pub fn debug(message: impl FnOnce() -> String) {
    if let Some(log) = LOG.get().filter(|log| log.debug) {
        log.write(Level::Debug, &message());
    }
}

/// Returns true if steps are logged. Callers ask before they compute something only for the log.
pub fn debugging() -> bool {
    LOG.get().is_some_and(|log| log.debug)
}

/// Logs a problem that does not stop the verb: "…, ignoring". It goes to stderr. A log file gets it only with
/// `--debug`, because podman reads the file only if the error is its one entry.
pub fn warn(message: impl AsRef<str>) {
    match LOG.get() {
        Some(log) if log.debug => log.write(Level::Warning, message.as_ref()),
        Some(log) if log.is_file => {}
        _ => to_stderr(&entry(Format::Text, "warning", message.as_ref(), SystemTime::now())),
    }
}

/// Logs the error that orlop ends with. If there is a log file, stderr gets the message alone as well.
pub fn error(message: &str) {
    let message = &one_line(message);
    match LOG.get() {
        Some(log) => {
            log.write(Level::Error, message);
            if log.is_file {
                to_stderr(&format!("{message}\n"));
            }
        }
        None => to_stderr(&entry(Format::Text, "error", message, SystemTime::now())),
    }
}

/// Writes a line to stderr for the caller, with or without a log: what a list leaves out.
pub fn say(message: &str) {
    to_stderr(&format!("{}\n", one_line(message)));
}

impl Log {
    fn write(&self, level: Level, message: &str) {
        if let Some(sink) = SINK.get() {
            return sink(level, message);
        }
        let line = entry(self.format, level.name(), message, SystemTime::now());
        match &self.fd {
            Some(fd) => write_all(fd.as_fd(), &line),
            None => to_stderr(&line),
        }
    }
}

fn to_stderr(line: &str) {
    write_all(std::io::stderr().as_fd(), line);
}

/// Writes one line with one write(2), so that entries of several processes do not mix. An error is dropped: a log that
/// cannot be written must not stop a container. All output of this file goes through here.
fn write_all(fd: BorrowedFd<'_>, line: &str) {
    let _ = rustix::io::write(fd, printable(line).as_bytes());
}

/// Escapes the characters of a line that a terminal would obey, or that change the order in which it shows others. The
/// form, `\u001b`, is also valid in JSON, whose writer has escaped most of them already.
pub(crate) fn printable(line: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        let reorders =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (c.is_control() && c != '\t') || reorders
    };
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    if !text.contains(obeyed) {
        return line.into();
    }
    let mut shown = String::with_capacity(line.len() + 16);
    for c in text.chars() {
        match obeyed(c) {
            true => drop(write!(shown, "\\u{:04x}", u32::from(c))), // a String takes everything
            false => shown.push(c),
        }
    }
    (shown + end).into()
}

/// Joins the lines of a message: engines search line by line, and would not find the text after a line feed.
fn one_line(message: &str) -> String {
    message.trim_end().replace('\n', "; ")
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

fn entry(format: Format, level: &str, message: &str, now: SystemTime) -> String {
    let time = &rfc3339(now);
    let mut line = match format {
        // A struct of three strings always becomes JSON.
        Format::Json => serde_json::to_string(&Entry { level, msg: message, time }).unwrap_or_default(),
        Format::Text if is_bare(message) => format!("time=\"{time}\" level={level} msg={message}"),
        Format::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
    };
    line.push('\n');
    line
}

/// Returns true if the text format writes the message without quotes, as logrus does.
fn is_bare(message: &str) -> bool {
    !message.is_empty() && message.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_json_entry_is_one_object_on_one_line_with_the_keys_that_containerd_decodes() {
        let line = entry(Format::Json, "error", "a \"b\"\nc", UNIX_EPOCH);
        assert_eq!(
            line,
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
    }

    #[test]
    fn a_text_entry_reads_as_logrus_writes_it() {
        let line = |message| entry(Format::Text, "error", message, UNIX_EPOCH);
        assert_eq!(
            line("no such thing"),
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"no such thing\"\n"
        );
        assert_eq!(line("one-word"), "time=\"1970-01-01T00:00:00Z\" level=error msg=one-word\n");
        assert_eq!(line("a\n\"b\""), "time=\"1970-01-01T00:00:00Z\" level=error msg=\"a\\n\\\"b\\\"\"\n");
    }

    #[test]
    fn no_line_has_a_character_that_a_terminal_obeys() {
        assert_eq!(printable("a\tb \u{e9}\n"), "a\tb \u{e9}\n");
        let hostile = "\u{1b}]0;x\u{7}\r\u{7f}\u{9b}2J\u{202e}\n\n";
        assert_eq!(printable(hostile), "\\u001b]0;x\\u0007\\u000d\\u007f\\u009b2J\\u202e\\u000a\n");
        let json = entry(Format::Json, "error", hostile, UNIX_EPOCH);
        let read: serde_json::Value = serde_json::from_str(&printable(&json)).unwrap();
        assert_eq!(read["msg"], hostile, "what is escaped twice would be another message");
    }

    #[test]
    fn the_error_is_one_line() {
        assert_eq!(one_line("a\nb\n"), "a; b");
    }
}
