//! The help pages, and the clap definition of the command line that they are made from.
//!
//! `assets.rs` makes the man pages and the shell completions from the same definition. Not for: reading argv.

use super::argument::{Argument, Arguments, Takes};
use super::{GlobalArgs, PLAN, VERBS, Verb};
use clap::{Arg, ArgAction, Command, ValueHint};

const PAGE: &str = "USAGE:\n   {usage}\n\nOPTIONS:\n{options}\n";
const OVERVIEW: &str = "USAGE:\n   {usage}\n\nCOMMANDS:\n{subcommands}\n\nGLOBAL OPTIONS:\n{options}\n";

/// The definition of the whole command line.
pub fn command() -> Command {
    define("orlop", &mut GlobalArgs::default())
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .subcommands(VERBS.iter().filter(|verb| verb.name != PLAN).map(of_verb))
}

/// The page of `help VERB`.
pub fn page(program: &str, verb: &Verb) -> String {
    let definition = of_verb(verb).bin_name(format!("{program} {}", verb.name));
    let about = definition.get_about().map(ToString::to_string).unwrap_or_default();
    let help = definition.help_template(PAGE).render_help();
    format!("NAME:\n   {program} {} - {about}\n\n{help}", verb.name)
}

/// The page of `help`.
pub fn overview(program: &str) -> String {
    let definition = command().bin_name(program.to_owned()).help_template(OVERVIEW);
    let about = definition.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = format!("{program} [global options] command [command options] [arguments...]");
    let help = definition.override_usage(usage).render_help();
    format!("NAME:\n   {program} - {about}\n\n{help}")
}

fn of_verb(verb: &Verb) -> Command {
    define(verb.name, (verb.blank)().arguments())
}

fn define(name: &'static str, args: &mut dyn Arguments) -> Command {
    let about = args.about();
    Command::new(name).about(about).args(args.arguments().iter().map(argument))
}

fn argument(argument: &Argument<'_>) -> Arg {
    let takes = argument.field.takes();
    let arg = Arg::new(argument.field_name).help(argument.help).hide(argument.is_hidden);
    let arg = arg.action(match takes {
        Takes::None => ArgAction::SetTrue,
        Takes::One | Takes::Always => ArgAction::Set,
        Takes::Many => ArgAction::Append,
    });
    let arg = match argument.value {
        "" => arg,
        name => arg.value_name(name).value_hint(hint(name)),
    };
    let arg = match argument.default {
        "" => arg,
        text => arg.default_value(text),
    };
    if !argument.is_positional {
        return arg.long(argument.name()).short(argument.short);
    }
    match takes {
        Takes::Many => arg.num_args(0..).trailing_var_arg(true),
        _ => arg.required(takes == Takes::Always),
    }
}

/// The kind of words that a shell offers to complete a value.
fn hint(name: &str) -> ValueHint {
    match name {
        "DIR" => ValueHint::DirPath,
        "FILE" | "PATH" | "SOCKET" => ValueHint::AnyPath,
        _ => ValueHint::Unknown,
    }
}
