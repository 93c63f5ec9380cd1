//! Options and arguments of a verb: each is a field of the verb's struct, and the words of argv are read into it.
//!
//! A field is defined once, for the reader ([`super::argv`]) and for the pages that clap writes ([`super::pages`]).
//! clap does not read argv: it knows nothing of Go's rules. It also builds the definition of all verbs before it reads
//! a word, which took 45 of the 370 microseconds of `state`.

use std::ffi::OsStr;
use std::path::PathBuf;

/// An option or a positional argument, and the field that its value goes to.
pub struct Argument<'a> {
    /// The field's name: the option's, with `_` for `-`.
    pub field_name: &'static str,
    /// One line that says what it is for.
    pub help: &'static str,
    /// The letter it is called by as well.
    pub short: Option<char>,
    /// The name of its value in the help; empty for a switch.
    pub value: &'static str,
    /// The value if none is given, or an empty one.
    pub default: &'static str,
    /// It is no option: its place among the words says which argument it is.
    pub is_positional: bool,
    /// Not in the help.
    pub is_hidden: bool,
    /// Where the value goes.
    pub field: &'a mut dyn Field,
}

impl<'a> Argument<'a> {
    /// A switch or an option.
    pub fn new(field_name: &'static str, help: &'static str, field: &'a mut dyn Field) -> Self {
        let help = help.trim_start();
        let (short, value, default) = (None, "", "");
        Self { field_name, help, short, value, default, is_positional: false, is_hidden: false, field }
    }

    /// Gives it a one-letter name too.
    pub fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    /// Lets it take a value, which the help calls `name`.
    pub fn value(self, name: &'static str) -> Self {
        Self { value: name, ..self }
    }

    /// Sets the value to use if none is given.
    pub fn default(self, text: &'static str) -> Self {
        Self { default: text, ..self }
    }

    /// Makes it a positional argument, which the help calls `name`.
    pub fn positional(self, name: &'static str) -> Self {
        Self { value: name, is_positional: true, ..self }
    }

    /// Hides it from the help.
    pub fn hidden(self) -> Self {
        Self { is_hidden: true, ..self }
    }

    /// The option's name, without dashes in front.
    pub fn name(&self) -> String {
        self.field_name.replace('_', "-")
    }

    /// Whether `-word` or `--word` means this option.
    pub fn is_called(&self, word: &str) -> bool {
        let letters = self.field_name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
        let is_short = || self.short.is_some_and(|short| word.chars().eq([short]));
        !self.is_positional && (letters.eq(word.bytes()) || is_short())
    }
}

/// A set of options and arguments: those of a verb, or the global ones.
pub trait Arguments {
    /// One line that says what the verb does.
    fn about(&self) -> &'static str;
    /// Its options and arguments, in the order of the help.
    fn arguments(&mut self) -> Vec<Argument<'_>>;
}

/// How many values a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// None: it is a switch.
    None,
    /// One value, or none.
    One,
    /// Always one: a positional argument that must be given, or an option with a default.
    Always,
    /// Any number of values.
    Many,
}

/// A field of a verb's struct.
pub trait Field {
    /// How many values it takes.
    fn takes(&self) -> Takes;
    /// Takes one value. A later value replaces an earlier one; a list keeps all of them.
    ///
    /// # Errors
    /// The text says why the value is invalid; the caller adds the option's name.
    fn take(&mut self, text: &OsStr) -> Result<(), String>;
}

/// A type whose values are one word of argv.
pub trait Value: Sized {
    /// Reads the word.
    ///
    /// # Errors
    /// The text says why the word is no such value.
    fn read(text: &OsStr) -> Result<Self, String>;
}

impl Field for bool {
    fn takes(&self) -> Takes {
        Takes::None
    }

    fn take(&mut self, text: &OsStr) -> Result<(), String> {
        *self = boolean(utf8(text)?)?;
        Ok(())
    }
}

impl<T: Value> Field for T {
    fn takes(&self) -> Takes {
        Takes::Always
    }

    fn take(&mut self, text: &OsStr) -> Result<(), String> {
        *self = T::read(text)?;
        Ok(())
    }
}

impl<T: Value> Field for Option<T> {
    fn takes(&self) -> Takes {
        Takes::One
    }

    /// Go's `flag` cannot tell an empty string from an option that is not given.
    fn take(&mut self, text: &OsStr) -> Result<(), String> {
        *self = if text.is_empty() { None } else { Some(T::read(text)?) };
        Ok(())
    }
}

impl<T: Value> Field for Vec<T> {
    fn takes(&self) -> Takes {
        Takes::Many
    }

    fn take(&mut self, text: &OsStr) -> Result<(), String> {
        self.push(T::read(text)?);
        Ok(())
    }
}

/// `text` as UTF-8. Only a path may be something else.
///
/// # Errors
/// It is not UTF-8.
pub fn utf8(text: &OsStr) -> Result<&str, String> {
    text.to_str().ok_or_else(|| "not UTF-8".into())
}

/// Reads a truth value as Go's `strconv.ParseBool` does.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("not a boolean".into()),
    }
}

impl Value for PathBuf {
    fn read(text: &OsStr) -> Result<Self, String> {
        Ok(text.into())
    }
}

impl Value for String {
    fn read(text: &OsStr) -> Result<Self, String> {
        utf8(text).map(Into::into)
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Value for $number {
            fn read(text: &OsStr) -> Result<Self, String> {
                utf8(text)?.parse().map_err(|error: std::num::ParseIntError| error.to_string())
            }
        }
    )*};
}

numbers!(u16 u32 u64 i32 i64);

/// Defines structs whose fields are options and arguments. The doc comment of a field is its help, and `arg` lists the
/// methods of [`Argument`] to call.
macro_rules! arguments {
    ($(
        #[doc = $about:literal]
        pub struct $name:ident {
            $(#[flatten] #[doc = $common:literal] pub $base:ident: $Base:ty,)?
            $(#[doc = $help:literal] $(#[arg($($what:ident($($how:expr)?)),+)])? pub $field:ident: $type:ty,)*
        }
    )*) => {$(
        #[doc = $about]
        #[derive(Clone, Debug, Default)]
        pub struct $name {
            $(#[doc = $common] pub $base: $Base,)?
            $(#[doc = $help] pub $field: $type,)*
        }

        impl $crate::cli::argument::Arguments for $name {
            fn about(&self) -> &'static str {
                $about.trim_start()
            }

            fn arguments(&mut self) -> Vec<$crate::cli::argument::Argument<'_>> {
                let all: Vec<$crate::cli::argument::Argument<'_>> = vec![$(
                    $crate::cli::argument::Argument::new(stringify!($field), $help, &mut self.$field)
                        $($(.$what($($how)?))+)?
                ),*];
                $(let all = self.$base.arguments().into_iter().chain(all).collect();)?
                all
            }
        }
    )*};
}

pub(super) use arguments;
