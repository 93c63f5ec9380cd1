//! The log: `--log`, `--log-format`, `--debug`. One line per entry, one write(2) per line.
//!
//! Engines read it. podman takes the whole file as one JSON object, so that at the default level there is at
//! most one entry, the error we end with; containerd takes the last entry with level "error". Hence warnings
//! are entries of `--debug`, and an entry is one line whatever the message.
//! What is said may contain names that an image has chosen. No line that leaves here has a control character, by which
//! it could move the cursor of a terminal or begin a line of its own.
//! Not for: deciding what an error says. A function logs or returns; only `main` calls [`error`].

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
    /// The file, or with `--debug` alone a copy of stderr: our own 2 becomes the container's. Absent: stderr itself.
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

/// Where and how to log; called once, before anything is logged.
///
/// # Errors
/// The file cannot be opened.
pub fn init(file: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let fd = match file {
        Some(path) => {
            // NONBLOCK: a fifo that nobody reads must not stop us, neither now nor when it is full.
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644));
            Some(opened.called("open", || format!("{path:?} (--log)"))?)
        }
        None if debug => rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3).ok(),
        None => None,
    };
    // A second call is a mistake of ours that changes nothing.
    let _ = LOG.set(Log { fd, is_file: file.is_some(), format, debug });
    Ok(())
}

/// Logs a step if `--debug` is given; otherwise the message is not even made.
pub fn debug(message: impl FnOnce() -> String) {
    if let Some(log) = LOG.get().filter(|log| log.debug) {
        log.write(Level::Debug, &message());
    }
}

/// Whether steps are logged, for what would cost something to find out.
pub fn debugging() -> bool {
    LOG.get().is_some_and(|log| log.debug)
}

/// Logs what went wrong and does not matter: "…, ignoring". On stderr; in a log file only with `--debug`, since
/// podman reads a file only if it holds nothing but the error.
pub fn warn(message: impl AsRef<str>) {
    match LOG.get() {
        Some(log) if log.debug => log.write(Level::Warning, message.as_ref()),
        Some(log) if log.is_file => {}
        _ => to_stderr(&entry(Format::Text, "warning", message.as_ref(), SystemTime::now())),
    }
}

/// Logs the error we end with: in the file, if there is one, and then bare on stderr.
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

/// One write(2), so that entries of several processes do not mix. A log that cannot be written stops nothing.
/// Whatever we say goes through here.
fn write_all(fd: BorrowedFd<'_>, line: &str) {
    let _ = rustix::io::write(fd, printable(line).as_bytes());
}

/// One line without characters that a terminal would obey, or show in another order than they stand. In JSON, which
/// escapes most of them itself, the form is the right one, too.
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

/// Engines search line by line: a line feed inside a message would hide what follows it.
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

/// Whether the text format leaves the quotes away, as logrus does.
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
