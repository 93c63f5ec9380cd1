//! JSON into types: objects are objects, and it is known where in the text we are.
//!
//! serde's derived types take `[…]` for their fields in the order of declaration, which no specification knows of:
//! `"cpu": []` would be a `cpu` with nothing in it. Here a structure is asked for as a map, which serde_json takes
//! from an object only, at every depth.
//!
//! A second look at a text, with a detailed [`Trace`], tells the place of an error, the properties that no type asked
//! for, and those that are spelt in another case or given twice. It goes through the same code as the first: a wrapper
//! for each purpose would be compiled anew for each type of config.json, and was, for a twelfth of the program.

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::fmt;

/// Reads a whole text as a `T`; `trace` gets the place of an error, and what else was seen.
///
/// # Errors
/// The text is not JSON, does not fit `T`, or goes on after its first value.
pub fn read<T: DeserializeOwned>(text: &str, trace: &Trace) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Reader::new(&mut deserializer, trace))?;
    deserializer.end().map(|()| value)
}

/// Where a [`Reader`] is in a text, and what it has passed by.
#[derive(Debug, Default)]
pub struct Trace {
    /// Whether places are kept; they cost an allocation for each name.
    detailed: bool,
    /// There is something that only a detailed look can tell.
    odd: Cell<bool>,
    /// The next text is the key of a map.
    expects_key: Cell<bool>,
    /// The hash of that key.
    key: Cell<u64>,
    path: RefCell<Vec<Step>>,
    /// The last text that was read: the key, when a value is next.
    last: RefCell<String>,
    unknown: RefCell<Vec<String>>,
    oddities: RefCell<Vec<Oddity>>,
}

/// A step from a value to one that is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A property that the specification names.
    Property(String),
    /// A key that the user has chosen: annotations, sysctl.
    Key(String),
    /// An element of a list.
    Element(usize),
}

impl Step {
    /// Whether it leads to the entry `key` of an object.
    pub fn is(&self, key: &str) -> bool {
        matches!(self, Step::Property(name) | Step::Key(name) if name == key)
    }
}

/// What a reader of another make may understand in another way.
#[derive(Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The last step of the path is a property, but for the case of its letters.
    Case(Vec<Step>, &'static str),
    /// The last step of the path is there twice.
    Twice(Vec<Step>),
}

impl Trace {
    /// One that keeps places.
    pub fn detailed() -> Self {
        Self { detailed: true, ..Self::default() }
    }

    /// Whether a detailed look would tell more.
    pub fn is_odd(&self) -> bool {
        self.odd.get()
    }

    /// The steps to the place that was reached, where an error is; none for the whole text.
    pub fn steps(&self) -> Vec<Step> {
        self.path.borrow().clone()
    }

    /// What was odd up to there.
    pub fn oddities(&self) -> Vec<Oddity> {
        self.oddities.take()
    }

    /// The properties that no type asked for: `linux.namespaces.0.typo`.
    pub fn unknown(self) -> Vec<String> {
        self.unknown.into_inner()
    }

    fn note(&self, step: Step, oddity: impl FnOnce(Vec<Step>) -> Oddity) {
        self.odd.set(true);
        if self.detailed {
            let mut steps = self.steps();
            steps.push(step);
            self.oddities.borrow_mut().push(oddity(steps));
        }
    }
}

/// As a person writes it: `linux.namespaces[0].type`.
pub fn place(steps: &[Step]) -> String {
    path(steps, |index| format!("[{index}]"))
}

fn path(steps: &[Step], element: impl Fn(usize) -> String) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Property(name) | Step::Key(name) if path.is_empty() => path.push_str(name),
            Step::Property(name) | Step::Key(name) => path.extend([".", name]),
            Step::Element(index) => path.push_str(&element(*index)),
        }
    }
    path
}

/// A deserializer, or a visitor, seed or access to a map that hands on such a one.
pub struct Reader<'a, T> {
    inner: T,
    trace: &'a Trace,
    /// What a structure names, if a map that is read next is one.
    properties: Option<&'static [&'static str]>,
}

impl<'a, T> Reader<'a, T> {
    /// Reads from `inner`.
    pub fn new(inner: T, trace: &'a Trace) -> Self {
        Self { inner, trace, properties: None }
    }

    fn seen(&self, text: &str) {
        let trace = self.trace;
        if trace.detailed {
            text.clone_into(&mut trace.last.borrow_mut());
        }
        if trace.expects_key.take() {
            let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            trace.key.set(text.bytes().fold(0xcbf2_9ce4_8422_2325, step));
        }
    }
}

/// Behind an error the path stays what it is.
fn within<T, E>(
    trace: &Trace,
    step: impl FnOnce(&Trace) -> Step,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if trace.detailed {
        let step = step(trace);
        trace.path.borrow_mut().push(step);
    }
    let read = read();
    if trace.detailed && read.is_ok() {
        trace.path.borrow_mut().pop();
    }
    read
}

/// These hold no structures and no names: the visitor is the inner deserializer's.
macro_rules! leaves {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

/// These may hold some.
macro_rules! branches {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* Reader::new(visitor, self.trace))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Reader<'_, D> {
    type Error = D::Error;

    leaves! {
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char
        deserialize_bytes deserialize_byte_buf deserialize_unit
    }

    branches! {
        deserialize_str() deserialize_string() deserialize_identifier()
        deserialize_any()
        deserialize_option()
        deserialize_seq()
        deserialize_map()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        properties: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Reader { inner: visitor, trace: self.trace, properties: Some(properties) };
        self.inner.deserialize_map(visitor)
    }

    /// The specification's are words, with nothing below them.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.trace.odd.set(true);
        if self.trace.detailed {
            let path = path(&self.trace.path.borrow(), |index| format!(".{index}"));
            self.trace.unknown.borrow_mut().push(path);
        }
        self.inner.deserialize_ignored_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// What an `any` may turn out to be, as it is.
macro_rules! values {
    ($($method:ident: $type:ty)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

/// Texts are remembered: one of them is the key of what comes next.
macro_rules! texts {
    ($($method:ident: $type:ty)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.seen(&value);
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Reader<'_, V> {
    type Value = V::Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(to)
    }

    values! { visit_bool: bool visit_i64: i64 visit_u64: u64 visit_f64: f64 }

    texts! { visit_str: &str visit_borrowed_str: &'de str visit_string: String }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Reader::new(inner, self.trace))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Reader::new(inner, self.trace))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Elements { inner: elements, trace: self.trace, next: 0 })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        let Self { inner, trace, properties } = self;
        inner.visit_map(Entries { inner: entries, trace, properties, keys: Vec::new() })
    }
}

struct Elements<'a, A> {
    inner: A,
    trace: &'a Trace,
    next: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let Self { inner, trace, next } = self;
        let index = *next;
        *next += 1;
        within(trace, |_| Step::Element(index), || inner.next_element_seed(Reader::new(seed, trace)))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Entries<'a, A> {
    inner: A,
    trace: &'a Trace,
    /// What the structure names; a map takes any key.
    properties: Option<&'static [&'static str]>,
    /// The hashes of the keys so far. A derived type refuses a property that is given twice, a map takes the last value:
    /// a quick look keeps those of maps only.
    keys: Vec<u64>,
}

impl<A> Entries<'_, A> {
    fn step(&self, name: &str) -> Step {
        match self.properties {
            Some(_) => Step::Property(name.to_owned()),
            None => Step::Key(name.to_owned()),
        }
    }

    /// Looks at the key that was read.
    fn look(&mut self) {
        let key = self.trace.key.get();
        let again = self.keys.contains(&key);
        self.keys.push(key);
        let name = self.trace.last.borrow();
        if let Some(properties) = self.properties
            && !properties.contains(&name.as_str())
        {
            if let Some(property) = properties.iter().find(|property| property.eq_ignore_ascii_case(&name)) {
                self.trace.note(self.step(&name), |steps| Oddity::Case(steps, property));
            }
        } else if again {
            self.trace.note(self.step(&name), Oddity::Twice);
        }
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let looks = self.trace.detailed || self.properties.is_none();
        self.trace.expects_key.set(looks);
        let key = self.inner.next_key_seed(Reader::new(seed, self.trace))?;
        if looks && key.is_some() {
            self.look();
        }
        Ok(key)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let trace = self.trace;
        let step = self.properties.map_or(Step::Key as fn(String) -> Step, |_| Step::Property);
        let inner = &mut self.inner;
        within(trace, |trace| step(trace.last.take()), || inner.next_value_seed(Reader::new(seed, trace)))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Reader<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        self.inner.deserialize(Reader::new(inner, self.trace))
    }
}
