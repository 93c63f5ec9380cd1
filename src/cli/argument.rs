//! What the words of a command line are read into: a verb's struct, each field of which is an option or an argument.
//!
//! A field is defined once, for the reader ([`super::argv`]) and for the pages that clap writes ([`super::pages`]).
//! clap could read the words as well, as it did: but by Go's rules they are read here anyway, and it puts its whole
//! definition together before it looks at one of them, which was 45 of the 370 microseconds of `state`.

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
    /// What its value is called in the help.
    pub value: &'static str,
    /// The value where none, or an empty one, is given.
    pub default: &'static str,
    /// Not an option, but what stands between or behind them.
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

    /// Called by this letter as well.
    pub fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    /// Takes a value, called so in the help.
    pub fn value(self, name: &'static str) -> Self {
        Self { value: name, ..self }
    }

    /// Is `text` where it is not given.
    pub fn default(self, text: &'static str) -> Self {
        Self { default: text, ..self }
    }

    /// Is not an option, and is called so in the help.
    pub fn positional(self, name: &'static str) -> Self {
        Self { value: name, is_positional: true, ..self }
    }

    /// Is not in the help.
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

/// What a verb, or the program, is told on the command line.
pub trait Arguments {
    /// One line that says what it does.
    fn about(&self) -> &'static str;
    /// Its options and arguments, in the order of the help.
    fn arguments(&mut self) -> Vec<Argument<'_>>;
}

/// How many values a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It is a switch: whether it is there is all there is to know.
    None,
    /// One, or none.
    One,
    /// One: a positional argument that must be there, or an option with a default.
    Always,
    /// As many as are given.
    Many,
}

/// A field of a verb's struct.
pub trait Field {
    /// How many values it takes.
    fn takes(&self) -> Takes;
    /// Takes one; the last one given counts, or all of them.
    ///
    /// # Errors
    /// What is wrong with it.
    fn take(&mut self, text: &OsStr) -> Result<(), String>;
}

/// A type that is written as one word.
pub trait Value: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
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

    /// An empty string is Go's "not given".
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

/// `text` as UTF-8, which everything but a path is.
///
/// # Errors
/// It is not.
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

/// Defines structs whose fields are told on the command line: the line above a field is its help, and `arg` holds what its
/// [`Argument`] is made with.
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
