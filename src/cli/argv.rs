//! How an argv is read: by the rules of Go's `flag` and of runc, in front of clap.
//!
//! Engines rely on them: containerd passes `-no-subreaper` with one dash, `--rootless=true`, `delete ID --force`.
//! The words are turned into `--name=value` here; clap then checks and converts the values.
//! Only the verb at hand is defined for clap: that of all verbs costs more than everything else at start-up.

use super::values::boolean;
use super::{ABOUT, Arity, Command, GlobalArgs, Rest, Verb, command, global_command};
use clap::FromArgMatches;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What the command line asks for.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one value lives, once
pub enum Asked {
    /// To do something.
    Do(Command),
    /// To print this and be done.
    Show(String),
}

/// A command line that cannot be followed.
#[derive(Debug)]
pub struct Misuse {
    /// Help, for stdout.
    pub page: String,
    /// What is wrong, for stderr and the log.
    pub message: String,
    /// The exit code.
    pub code: i32,
}

/// The command line with the options before the verb read.
#[derive(Debug)]
pub struct Line {
    /// The options before the verb.
    pub global: GlobalArgs,
    program: String,
    words: Vec<OsString>,
    help: bool,
    version: bool,
}

impl Line {
    /// Reads the options before the verb; `argv` begins with the program's name.
    ///
    /// # Errors
    /// There is no such option, or its value is not one.
    pub fn read(argv: impl IntoIterator<Item = OsString>) -> Result<Self, Misuse> {
        let mut argv = argv.into_iter();
        let program = program_name(argv.next());
        let mut definition = global_command().no_binary_name(true);
        let incorrect = |message| Misuse::incorrect(message, overview(&program));
        let given = Given::read(&definition, argv.collect(), Rest::Verbatim).map_err(&incorrect)?;
        let matches = definition.try_get_matches_from_mut(given.options).map_err(one_line);
        let global = matches.and_then(|matches| GlobalArgs::from_arg_matches(&matches).map_err(one_line));
        let global = global.map_err(incorrect)?;
        Ok(Self { global, program, words: given.positional, help: given.help, version: given.version })
    }

    /// Reads the verb and what follows it.
    ///
    /// # Errors
    /// There is no such verb or option, a value is not one, or there are too few or too many arguments.
    pub fn asked(self) -> Result<Asked, Misuse> {
        let mut words = self.words.into_iter();
        let Some(name) = words.next().filter(|_| !self.help && !self.version) else {
            return Ok(Asked::Show(if self.version { version() } else { overview(&self.program) }));
        };
        let wants_help = name == "help" || name == "h";
        let name = if wants_help { words.next() } else { Some(name) };
        let Some(name) = name else { return Ok(Asked::Show(overview(&self.program))) };
        let Some(verb) = name.to_str().and_then(Verb::find) else {
            let message = format!("No help topic for '{}'", name.to_string_lossy());
            return Err(Misuse { page: String::new(), message, code: 3 });
        };
        if wants_help {
            return Ok(Asked::Show(page(&self.program, verb)));
        }
        verb_asked(&self.program, verb, words.collect())
    }

    /// The name we were called by: `orlop`, or `runc` where we stand in for it.
    pub fn program(&self) -> &str {
        &self.program
    }
}

impl Misuse {
    fn incorrect(message: String, help: String) -> Self {
        Self { page: format!("Incorrect Usage: {message}\n\n{help}"), message, code: 1 }
    }
}

fn verb_asked(program: &str, verb: &Verb, words: Vec<OsString>) -> Result<Asked, Misuse> {
    let mut definition = verb.command().no_binary_name(true);
    let incorrect = |message| Misuse::incorrect(message, page(program, verb));
    let given = Given::read(&definition, words, verb.rest).map_err(&incorrect)?;
    if given.help {
        return Ok(Asked::Show(page(program, verb)));
    }
    if let Some(wants) = wrong_count(verb.arity, given.positional.len()) {
        let page = format!("Incorrect Usage.\n\n{}", page(program, verb));
        let message = format!("{program}: {:?} requires {wants} argument(s)", verb.name);
        return Err(Misuse { page, message, code: 1 });
    }
    let line = given.options.into_iter().chain(["--".into()]).chain(given.positional);
    let matches = definition.try_get_matches_from_mut(line).map_err(one_line).map_err(&incorrect)?;
    (verb.read)(&matches).map(Asked::Do).map_err(one_line).map_err(incorrect)
}

fn wrong_count(arity: Arity, count: usize) -> Option<String> {
    match arity {
        Arity::Exactly(n) if count != n => Some(format!("exactly {n}")),
        Arity::AtLeast(n) | Arity::Between(n, _) if count < n => Some(format!("a minimum of {n}")),
        Arity::Between(_, n) if count > n => Some(format!("a maximum of {n}")),
        Arity::Exactly(_) | Arity::AtLeast(_) | Arity::Between(..) => None,
    }
}

/// The words of a command line, sorted.
#[derive(Default)]
struct Given {
    /// `--name` and `--name=value`, under the long names.
    options: Vec<OsString>,
    positional: Vec<OsString>,
    help: bool,
    version: bool,
}

impl Given {
    fn read(definition: &clap::Command, words: Vec<OsString>, rest: Rest) -> Result<Self, String> {
        let mut given = Self::default();
        let mut words = words.into_iter();
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
            match name {
                "help" | "h" => given.help = true,
                "version" | "v" if rest == Rest::Verbatim && definition.get_name() == "orlop" => {
                    given.version = true;
                }
                _ => match find(definition, name) {
                    Some(found) if found.get_action().takes_values() => {
                        let next = || words.next().ok_or_else(|| format!("flag needs an argument: -{name}"));
                        let value = value.map_or_else(next, |value| Ok(value.to_owned()))?;
                        given.valued(found, &value);
                    }
                    Some(found) => given.switch(found, name, value)?,
                    // `kill ID -9`: what follows an argument and is no option of ours is an argument too.
                    None if !given.positional.is_empty() => given.positional.push(word),
                    None => return Err(format!("flag provided but not defined: -{name}")),
                },
            }
        }
        Ok(given)
    }

    fn switch(&mut self, found: &clap::Arg, name: &str, value: Option<&OsStr>) -> Result<(), String> {
        let text = value.map_or("true".into(), |value| value.to_string_lossy());
        let is_on =
            boolean(&text).map_err(|why| format!("invalid boolean value {text:?} for -{name}: {why}"))?;
        let option = long(found);
        self.options.retain(|given| *given != option);
        if is_on {
            self.options.push(option);
        }
        Ok(())
    }

    fn valued(&mut self, found: &clap::Arg, value: &OsStr) {
        let mut option = long(found);
        option.push("=");
        // An empty string is Go's "not given", and the last one wins. But an empty --root is the working directory.
        if value.is_empty() && !matches!(found.get_action(), clap::ArgAction::Append) {
            self.options.retain(|given| !given.as_bytes().starts_with(option.as_bytes()));
            if found.get_id() != "root" {
                return;
            }
            option.push(".");
        }
        option.push(value);
        self.options.push(option);
    }
}

fn find<'a>(definition: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
    let is_short = |arg: &clap::Arg| arg.get_short().is_some_and(|short| name.chars().eq([short]));
    definition.get_arguments().find(|arg| arg.get_long() == Some(name) || is_short(arg))
}

fn long(arg: &clap::Arg) -> OsString {
    let mut option = OsString::from("--");
    option.push(arg.get_long().unwrap_or_default());
    option
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

/// The first line of what clap has to say: the page with the help is ours.
fn one_line(error: clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

const PAGE: &str = "USAGE:\n   {usage}\n\nOPTIONS:\n{options}\n";
const OVERVIEW: &str = "USAGE:\n   {usage}\n\nCOMMANDS:\n{subcommands}\n\nGLOBAL OPTIONS:\n{options}\n";

fn page(program: &str, verb: &Verb) -> String {
    let definition = verb.command().bin_name(format!("{program} {}", verb.name));
    let about = definition.get_about().map(ToString::to_string).unwrap_or_default();
    let help = definition.help_template(PAGE).render_help();
    format!("NAME:\n   {program} {} - {about}\n\n{help}", verb.name)
}

fn overview(program: &str) -> String {
    let definition = command().bin_name(program.to_owned()).help_template(OVERVIEW);
    let usage = format!("{program} [global options] command [command options] [arguments...]");
    let help = definition.override_usage(usage).render_help();
    format!("NAME:\n   {program} - {ABOUT}\n\n{help}")
}

/// The first line is what engines look for: go-runc, nerdctl and runc's own tests want "runc version N",
/// and moby takes the last line that has the word "version" in it. What follows the number says who we are.
fn version() -> String {
    let commit = option_env!("ORLOP_COMMIT").unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    format!("runc version {version}+orlop\ncommit: {commit}\nspec: 1.3.0\norlop: {version}\n")
}

#[cfg(test)]
mod tests;
