//! How an argv is read: by the rules of Go's `flag` and of runc.
//!
//! Engines rely on them: containerd passes `-no-subreaper` with one dash, `--rootless=true`, `delete ID --force`.

use super::argument::{Argument, Arguments, Takes};
use super::{Command, GlobalArgs, Verb, pages};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What the command line asks for.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there is only one value
pub enum Asked {
    /// To run a verb.
    Do(Command),
    /// To print this text and exit.
    Show(String),
}

/// A command line that is refused.
#[derive(Debug)]
pub struct Misuse {
    /// The help page, for stdout.
    pub page: String,
    /// The error, for stderr and the log.
    pub message: String,
    /// The exit code.
    pub code: i32,
}

/// A command line of which the options before the verb are read.
#[derive(Debug)]
pub struct Line {
    /// The options before the verb.
    pub global: GlobalArgs,
    program: String,
    words: Vec<OsString>,
    help: bool,
}

impl Line {
    /// Reads the options before the verb; `argv` begins with the program's name.
    ///
    /// # Errors
    /// An option is unknown, or its value is invalid.
    pub fn read(argv: impl IntoIterator<Item = OsString>) -> Result<Self, Misuse> {
        let mut argv = argv.into_iter();
        let program = program_name(argv.next());
        let mut global = GlobalArgs::default();
        match read_options(&mut global.arguments(), argv, Rest::Verbatim) {
            Ok(rest) => Ok(Self { global, program, words: rest.positional, help: rest.help }),
            Err(message) => Err(Misuse::incorrect(message, pages::overview(&program))),
        }
    }

    /// Reads the verb, its options and its arguments.
    ///
    /// # Errors
    /// The verb or an option is unknown, a value is invalid, or the number of arguments is wrong.
    pub fn asked(self) -> Result<Asked, Misuse> {
        let mut words = self.words.into_iter();
        let Some(name) = words.next().filter(|_| !self.help && !self.global.version) else {
            let version = self.global.version;
            return Ok(Asked::Show(if version { version_page() } else { pages::overview(&self.program) }));
        };
        let wants_help = name == "help" || name == "h";
        let name = if wants_help { words.next() } else { Some(name) };
        let Some(name) = name else { return Ok(Asked::Show(pages::overview(&self.program))) };
        let Some(verb) = name.to_str().and_then(Verb::find) else {
            let message = format!("No help topic for '{}'", name.to_string_lossy());
            return Err(Misuse { page: String::new(), message, code: 3 });
        };
        if wants_help {
            return Ok(Asked::Show(pages::page(&self.program, verb)));
        }
        verb_asked(&self.program, verb, words)
    }

    /// The file name of argv[0]: `orlop`, or `runc` if orlop is installed under that name.
    pub fn program(&self) -> &str {
        &self.program
    }
}

impl Misuse {
    fn incorrect(message: String, help: String) -> Self {
        Self { page: format!("Incorrect Usage: {message}\n\n{help}"), message, code: 1 }
    }
}

fn verb_asked(program: &str, verb: &Verb, words: impl Iterator<Item = OsString>) -> Result<Asked, Misuse> {
    let mut command = (verb.blank)();
    let mut arguments = command.arguments().arguments();
    let incorrect = |message| Misuse::incorrect(message, pages::page(program, verb));
    let is_list = |argument: &Argument<'_>| argument.is_positional && argument.field.takes() == Takes::Many;
    let rest = if arguments.iter().any(is_list) { Rest::Verbatim } else { Rest::Options };
    let given = read_options(&mut arguments, words, rest).map_err(&incorrect)?;
    if given.help {
        return Ok(Asked::Show(pages::page(program, verb)));
    }
    if let Some(wants) = wrong_count(&arguments, given.positional.len()) {
        let page = format!("Incorrect Usage.\n\n{}", pages::page(program, verb));
        let message = format!("{program}: {:?} requires {wants} argument(s)", verb.name);
        return Err(Misuse { page, message, code: 1 });
    }
    read_positional(&mut arguments, given.positional).map_err(incorrect)?;
    drop(arguments);
    Ok(Asked::Do(command))
}

/// The number of positional arguments that the verb requires, in runc's words; `None` if `count` is such a number.
fn wrong_count(arguments: &[Argument<'_>], count: usize) -> Option<String> {
    let all = || arguments.iter().filter(|argument| argument.is_positional);
    let least = all().filter(|argument| argument.field.takes() == Takes::Always).count();
    let most =
        if all().any(|argument| argument.field.takes() == Takes::Many) { usize::MAX } else { all().count() };
    match () {
        () if (least..=most).contains(&count) => None,
        () if least == most => Some(format!("exactly {least}")),
        () if count < least => Some(format!("a minimum of {least}")),
        () => Some(format!("a maximum of {most}")),
    }
}

/// How arguments after the first positional one are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Options may follow: `delete ID --force`.
    Options,
    /// No options follow: the words belong to another program (`exec ID ls --all`), or to a verb.
    Verbatim,
}

/// The words that are left when the options of a command line are read.
#[derive(Default)]
struct Given {
    positional: Vec<OsString>,
    help: bool,
}

fn read_options(
    arguments: &mut [Argument<'_>],
    mut words: impl Iterator<Item = OsString>,
    rest: Rest,
) -> Result<Given, String> {
    for argument in arguments.iter_mut().filter(|argument| !argument.default.is_empty()) {
        argument.field.take(OsStr::new(argument.default))?;
    }
    let mut given = Given::default();
    while let Some(word) = words.next() {
        let Some((name, value)) = option(&word) else {
            if word != "--" {
                given.positional.push(word);
            }
            if given.positional.is_empty() || rest == Rest::Verbatim {
                given.positional.extend(words);
                break;
            }
            continue;
        };
        match arguments.iter_mut().find(|argument| argument.is_called(name)) {
            Some(found) if found.field.takes() == Takes::None => {
                let text = value.unwrap_or(OsStr::new("true"));
                found.field.take(text).map_err(|why| {
                    format!("invalid boolean value {:?} for -{name}: {why}", text.to_string_lossy())
                })?;
            }
            Some(found) => match value {
                Some(value) => valued(found, name, value)?,
                None => {
                    let value = words.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                    valued(found, name, &value)?;
                }
            },
            None if matches!(name, "help" | "h") => given.help = true,
            // `kill ID -9`: behind an argument, a word that is no option of the verb is an argument too.
            None if !given.positional.is_empty() => given.positional.push(word),
            None => return Err(format!("flag provided but not defined: -{name}")),
        }
    }
    Ok(given)
}

fn valued(found: &mut Argument<'_>, name: &str, value: &OsStr) -> Result<(), String> {
    let value = match (value.is_empty(), found.field.takes()) {
        // As in runc, an empty --root is the working directory. No other option has such a rule.
        (true, _) if found.field_name == "root" => OsStr::new("."),
        (true, Takes::Always) => OsStr::new(found.default),
        _ => value,
    };
    let invalid = |why| format!("invalid value {:?} for flag -{name}: {why}", value.to_string_lossy());
    found.field.take(value).map_err(invalid)
}

/// Reads the positional arguments. The caller has checked their number.
fn read_positional(arguments: &mut [Argument<'_>], words: Vec<OsString>) -> Result<(), String> {
    let mut words = words.into_iter();
    for argument in arguments.iter_mut().filter(|argument| argument.is_positional) {
        let count = if argument.field.takes() == Takes::Many { usize::MAX } else { 1 };
        for word in words.by_ref().take(count) {
            let invalid =
                |why| format!("invalid value {:?} for {}: {why}", word.to_string_lossy(), argument.value);
            argument.field.take(&word).map_err(invalid)?;
        }
    }
    Ok(())
}

/// The name and the value of `-name`, `--name` or `--name=value`; `None` for `-`, `--` and everything else.
fn option(word: &OsStr) -> Option<(&str, Option<&OsStr>)> {
    let bytes = word.as_bytes().strip_prefix(b"-")?;
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let end = bytes.iter().position(|byte| *byte == b'=');
    let (name, value) = match end {
        Some(end) => (bytes.get(..end)?, bytes.get(end + 1..).map(OsStr::from_bytes)),
        None => (bytes, None),
    };
    if bytes.is_empty() { None } else { Some((std::str::from_utf8(name).ok()?, value)) }
}

fn program_name(argv0: Option<OsString>) -> String {
    let path = argv0.unwrap_or_default();
    Path::new(&path).file_name().map_or("orlop".into(), |name| name.to_string_lossy().into_owned())
}

/// The text of `--version`.
///
/// go-runc, nerdctl and runc's own tests want "runc version N" in the first line. moby takes the last line that
/// contains the word "version". "+orlop" behind the number says that this is not runc.
fn version_page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("runc version {VERSION}\ncommit: {COMMIT}\nspec: 1.3.0\norlop: {version}\n")
}

/// The version that is printed in the place of runc's.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+orlop");

/// The commit that this program was built from.
pub const COMMIT: &str = match option_env!("ORLOP_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

#[cfg(test)]
mod tests;
