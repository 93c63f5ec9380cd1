//! JSON into types: objects are objects, and it is known where in the text we are.
//!
//! serde's derived types take `[…]` for their fields in the order of declaration, which no specification knows of:
//! `"cpu": []` would be a `cpu` with nothing in it. Here a structure is asked for as a map, which serde_json takes
//! from an object only, at every depth.
//!
//! A second look at a text, with a [`Trace`], tells the place of an error and the properties that no type asked for.
//! It goes through the same code as the first: a wrapper for each purpose would be compiled anew for each type of
//! config.json, and was, for a twelfth of the program.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::fmt;

/// Where a [`Reader`] is in a text, and what it has passed by.
#[derive(Debug, Default)]
pub struct Trace {
    path: RefCell<Vec<Step>>,
    /// The last text that was read: the key, when a value is next.
    last: RefCell<String>,
    unknown: RefCell<Vec<String>>,
}

#[derive(Debug)]
enum Step {
    Property(String),
    Element(usize),
}

impl Trace {
    /// The place that was reached, where an error is: `linux.namespaces[0].type`; empty for the whole text.
    pub fn place(&self) -> String {
        self.path(|index| format!("[{index}]"))
    }

    /// The properties that no type asked for: `linux.namespaces.0.typo`.
    pub fn unknown(self) -> Vec<String> {
        self.unknown.into_inner()
    }

    fn path(&self, element: impl Fn(usize) -> String) -> String {
        let mut path = String::new();
        for step in self.path.borrow().iter() {
            match step {
                Step::Property(name) if path.is_empty() => path.push_str(name),
                Step::Property(name) => path.extend([".", name]),
                Step::Element(index) => path.push_str(&element(*index)),
            }
        }
        path
    }
}

/// A deserializer, or a visitor, seed or access to a map that hands on such a one.
pub struct Reader<'a, T> {
    inner: T,
    trace: Option<&'a Trace>,
}

impl<'a, T> Reader<'a, T> {
    /// Reads from `inner`.
    pub fn new(inner: T, trace: Option<&'a Trace>) -> Self {
        Self { inner, trace }
    }

    fn seen(&self, text: &str) {
        if let Some(trace) = self.trace {
            text.clone_into(&mut trace.last.borrow_mut());
        }
    }
}

/// Behind an error the path stays what it is.
fn within<T, E>(
    trace: Option<&Trace>,
    step: impl FnOnce(&Trace) -> Step,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if let Some(trace) = trace {
        let step = step(trace);
        trace.path.borrow_mut().push(step);
    }
    let read = read();
    if let (Some(trace), Ok(_)) = (trace, &read) {
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
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Reader::new(visitor, self.trace))
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
        if let Some(trace) = self.trace {
            let path = trace.path(|index| format!(".{index}"));
            trace.unknown.borrow_mut().push(path);
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
        self.inner.visit_map(Reader::new(entries, self.trace))
    }
}

struct Elements<'a, A> {
    inner: A,
    trace: Option<&'a Trace>,
    next: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let Self { inner, trace, next } = self;
        let index = *next;
        *next += 1;
        within(*trace, |_| Step::Element(index), || inner.next_element_seed(Reader::new(seed, *trace)))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Reader<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(Reader::new(seed, self.trace))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let Self { inner, trace } = self;
        let key = |trace: &Trace| Step::Property(trace.last.take());
        within(*trace, key, || inner.next_value_seed(Reader::new(seed, *trace)))
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
