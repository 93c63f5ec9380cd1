//! A JSON text as a tree that keeps keys given twice, so that `lenient` can correct it.
//!
//! Not for: texts without deviations. They are read directly into the types, without a tree.

use super::reader::Step;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;
use std::fmt;

/// A value of JSON. An object keeps the order of its entries, and keys that are given twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// An object.
    Object(Entries),
}

/// The entries of an object.
pub type Entries = Vec<(String, Node)>;

impl Node {
    /// The value at the end of `steps`.
    pub fn at(&self, steps: &[Step]) -> Option<&Node> {
        steps.iter().try_fold(self, |node, step| match (node, step) {
            (Node::Object(entries), Step::Property(name) | Step::Key(name)) => {
                entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            (Node::List(elements), Step::Element(index)) => elements.get(*index),
            _ => None,
        })
    }

    /// Calls `change` with the entries of each object at the end of `steps`.
    pub fn entries(&mut self, steps: &[Step], change: &mut dyn FnMut(&mut Entries)) {
        match (self, steps) {
            (Node::Object(entries), []) => change(entries),
            (Node::Object(entries), [Step::Property(name) | Step::Key(name), rest @ ..]) => {
                let named = entries.iter_mut().filter(|(key, _)| key == name);
                named.for_each(|(_, value)| value.entries(rest, change));
            }
            (Node::List(elements), [Step::Element(index), rest @ ..]) => {
                if let Some(element) = elements.get_mut(*index) {
                    element.entries(rest, change);
                }
            }
            _ => {}
        }
    }

    /// Removes the entries `name` with the value `value` from each object at the end of `steps`. The steps through
    /// lists stand for all elements.
    pub fn leave_out(&mut self, steps: &[Step], name: &str, value: &Node) {
        match (self, steps) {
            (Node::Object(entries), []) => entries.retain(|(key, entry)| key != name || entry != value),
            (Node::Object(entries), [Step::Property(step) | Step::Key(step), rest @ ..]) => {
                let named = entries.iter_mut().filter(|(key, _)| key == step);
                named.for_each(|(_, entry)| entry.leave_out(rest, name, value));
            }
            (Node::List(elements), [Step::Element(_), rest @ ..]) => {
                elements.iter_mut().for_each(|element| element.leave_out(rest, name, value));
            }
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Number::from_f64(value).map_or(Node::Null, Node::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Node, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = from.next_element()? {
            elements.push(element);
        }
        Ok(Node::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = from.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Null => to.serialize_unit(),
            Node::Bool(value) => to.serialize_bool(*value),
            Node::Number(value) => value.serialize(to),
            Node::String(value) => to.serialize_str(value),
            Node::List(elements) => to.collect_seq(elements),
            Node::Object(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
