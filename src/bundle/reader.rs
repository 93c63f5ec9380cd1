//! Reads JSON into types, and keeps track of the place in the text.
//!
//! serde's derived types accept a list of their fields, in the order of declaration: `"cpu": []` would be a `cpu`
//! without properties. No specification allows this. So the reader asks serde_json for a map in place of a structure,
//! at every depth, and serde_json makes a map only from an object.
//!
//! A second look at a text uses a detailed [`Trace`]. It finds the place of an error, properties unknown to the type,
//! and properties in another case or given twice. Both looks use the same code: a wrapper for each purpose would be
//! compiled for each type of config.json, and once took a twelfth of the program.

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::fmt;

/// Reads a whole text as a `T`. `trace` gets the place of an error, and the oddities of the text.
///
/// # Errors
/// The text is not JSON, does not fit `T`, or goes on after its first value.
pub fn read<T: DeserializeOwned>(text: &str, trace: &Trace) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Reader::new(&mut deserializer, trace))?;
    deserializer.end().map(|()| value)
}

/// The place of a [`Reader`] in a text, and the oddities that it has seen.
#[derive(Debug, Default)]
pub struct Trace {
    /// Places are kept. This costs an allocation for each name.
    detailed: bool,
    /// The text has an oddity. Only a detailed look can tell which one.
    odd: Cell<bool>,
    /// The next string is the key of a map.
    expects_key: Cell<bool>,
    /// The hash of that key.
    key: Cell<u64>,
    path: RefCell<Vec<Step>>,
    /// The last string that was read. Before a value, it is the key.
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
    /// Returns true if it leads to the entry `key` of an object.
    pub fn is(&self, key: &str) -> bool {
        matches!(self, Step::Property(name) | Step::Key(name) if name == key)
    }
}

/// A part of a text that other JSON readers may understand in another way.
#[derive(Debug, PartialEq, Eq)]
pub enum Oddity {
    /// Except for the case of its letters, the last step of the path is this property.
    Case(Vec<Step>, &'static str),
    /// The last step of the path is given twice.
    Twice(Vec<Step>),
}

impl Trace {
    /// A trace that keeps places.
    pub fn detailed() -> Self {
        Self { detailed: true, ..Self::default() }
    }

    /// Returns true if the text has an oddity, for which a detailed look is needed.
    pub fn is_odd(&self) -> bool {
        self.odd.get()
    }

    /// The steps to the place that was reached. After an error, this is its place; it is empty for the whole text.
    pub fn steps(&self) -> Vec<Step> {
        self.path.borrow().clone()
    }

    /// The oddities up to that place.
    pub fn oddities(&self) -> Vec<Oddity> {
        self.oddities.take()
    }

    /// The properties that no type knows, as `linux.namespaces.0.typo`.
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

/// The path as people write it: `linux.namespaces[0].type`.
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

/// Wraps a deserializer, a visitor or a seed, so that everything below it is wrapped too.
pub struct Reader<'a, T> {
    inner: T,
    trace: &'a Trace,
    /// The properties of the structure, if a structure is read next as a map.
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

/// Reads the value behind `step`. After an error the path stays, so that it names the place.
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

/// Methods for values without structures and names: the visitor needs no wrapper.
macro_rules! leaves {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

/// Methods for values that may hold structures or names: the visitor is wrapped.
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

    /// The enums of the specification are words, with no values below them.
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

/// Passes values on as they are.
macro_rules! values {
    ($($method:ident: $type:ty)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

/// Passes strings on, and remembers them: a string may be the key of the next value.
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
    /// The properties of the structure; `None` for a map, which has any keys.
    properties: Option<&'static [&'static str]>,
    /// Hashes of the keys so far, to find a key that is given twice. In a quick look only maps need this: a derived
    /// type refuses the second value by itself, and a map takes it.
    keys: Vec<u64>,
}

impl<A> Entries<'_, A> {
    fn step(&self, name: &str) -> Step {
        match self.properties {
            Some(_) => Step::Property(name.to_owned()),
            None => Step::Key(name.to_owned()),
        }
    }

    /// Notes a key that is given twice, or written in another case.
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
